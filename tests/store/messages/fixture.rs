//! Messages in a room, and the steps that many tests take.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hubbub::domain::{Emoji, Epoch, MessageChangeKind, Reaction, RoomId, Timestamp, UserId};
use hubbub::store::{
    Announced, ArchivedEntry, ChangeOutcome, ChangeRow, Changer, EditRecord, EditedRecord,
    MessageEdit, MessageRef, MessageStore, Outbox as _, OutboxRow, PublishedChange, ReactionChange,
    StoredKind,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{TestStore, in_room, room};

pub const ROOM: &str = "lobby";

/// A message of a user, with these other fields.
pub fn message(seq: u64, user: &str, fields: Value) -> ArchivedEntry {
    let id = Uuid::now_v7();
    let mut record = json!({"id": id, "room_id": ROOM, "user_id": user, "username": user});
    for (name, value) in fields.as_object().unwrap() {
        record[name] = value.clone();
    }
    ArchivedEntry {
        seq,
        epoch: Epoch::trusted("e"),
        at: Timestamp(seq * 1000),
        kind: StoredKind::MESSAGE,
        id,
        user: UserId::trusted(user),
        send_key: None,
        record: Bytes::from(record.to_string()),
    }
}

/// Commits a message with a content.
pub async fn post(test: &TestStore, seq: u64, user: &str, content: &str) -> ArchivedEntry {
    post_with(test, seq, user, json!({"content": content})).await
}

pub async fn post_with(test: &TestStore, seq: u64, user: &str, fields: Value) -> ArchivedEntry {
    let entry = message(seq, user, fields);
    commit(test, &entry).await;
    entry
}

pub async fn commit(test: &TestStore, entry: &ArchivedEntry) {
    let entries = in_room(ROOM, std::slice::from_ref(entry));
    let outcomes = test.commit(&entries).await;
    assert_eq!(outcomes, [crate::fixture::Stored]);
}

pub fn of(entry: &ArchivedEntry) -> MessageRef {
    MessageRef {
        room: room(ROOM),
        id: entry.id,
    }
}

pub fn by(user: &str) -> Changer {
    Changer {
        user: UserId::trusted(user),
        is_moderator: false,
        hidden_seq: 0,
    }
}

/// Replaces the content, by one that mentions nobody.
pub fn new_content(content: &str) -> EditRecord {
    let content = content.to_owned();
    Arc::new(move |record: &[u8]| {
        let mut record: Value = serde_json::from_slice(record).unwrap();
        record["content"] = content.clone().into();
        Ok(EditedRecord {
            record: Bytes::from(record.to_string()),
            mentions: Some(Vec::new()),
        })
    })
}

/// The same edit, after which the message mentions these users; `None`: the same users as before.
pub fn with_mentions(edit: MessageEdit, users: Option<&[&str]>) -> MessageEdit {
    let mentions: Option<Vec<UserId>> =
        users.map(|users| users.iter().map(|user| UserId::trusted(user)).collect());
    let make = edit.record;
    MessageEdit {
        record: Arc::new(move |record: &[u8]| {
            let mentions = mentions.clone();
            make(record).map(|edited| EditedRecord { mentions, ..edited })
        }),
        ..edit
    }
}

pub fn edit_of(entry: &ArchivedEntry, content: &str, version: Option<u64>) -> MessageEdit {
    MessageEdit {
        message: of(entry),
        by: Changer {
            user: entry.user.clone(),
            is_moderator: false,
            hidden_seq: 0,
        },
        version,
        record: new_content(content),
    }
}

pub fn content(record: &[u8]) -> String {
    let record: Value = serde_json::from_slice(record).unwrap();
    record["content"].as_str().unwrap().to_owned()
}

pub fn reaction(entry: &ArchivedEntry, user: &str, emoji: &str, on: bool) -> ReactionChange {
    ReactionChange {
        message: of(entry),
        by: by(user),
        emoji: Emoji::trusted(emoji),
        on,
    }
}

/// The announcement of a change that was made.
#[track_caller]
pub fn announced(outcome: ChangeOutcome) -> Announced {
    match outcome {
        ChangeOutcome::Changed(changed) => changed.announcement,
        other => panic!("{other:?}"),
    }
}

/// The revision of a change that will be announced.
#[track_caller]
pub fn revision(outcome: ChangeOutcome) -> u64 {
    match announced(outcome) {
        Announced::ByRow { revision, .. } => revision,
        Announced::At(seq) => panic!("it was announced at {seq}"),
    }
}

/// All rows of the outbox that can be claimed.
pub async fn claim(test: &TestStore) -> Vec<OutboxRow> {
    test.store
        .claim(100, Duration::from_secs(60))
        .await
        .unwrap()
}

/// Claims the rows that wait, and publishes them from this number on. Returns their kinds.
pub async fn publish(test: &TestStore, first: u64) -> Vec<MessageChangeKind> {
    let rows = claim(test).await;
    let mut published = Vec::new();
    for (row, seq) in rows.iter().zip(first..) {
        published.push(published_at(test, row, seq).await);
    }
    done(test, &published).await;
    published.iter().map(|change| change.kind).collect()
}

/// A row as it is published with this number.
pub async fn published_at(test: &TestStore, row: &OutboxRow, seq: u64) -> PublishedChange {
    let (kind, change) = ChangeRow::decode(&row.kind, &row.payload).unwrap().unwrap();
    let room: RoomId = row.room.clone().unwrap();
    let form = test.store.to_publish(&room, &change).await.unwrap();
    PublishedChange {
        claim: row.claim(),
        room,
        kind,
        row: change,
        seq,
        at: Timestamp(seq * 1000),
        reactions: form.and_then(|form| form.reactions),
    }
}

/// Emojis and counts.
pub fn counts(reactions: &[Reaction]) -> Vec<(&str, u64)> {
    let count = |reaction: &'_ Reaction| reaction.count;
    let counts = reactions.iter();
    counts
        .map(|reaction| (reaction.emoji.as_str(), count(reaction)))
        .collect()
}

/// Records that rows are published.
pub async fn done(test: &TestStore, published: &[PublishedChange]) {
    let store: &dyn MessageStore = &test.store;
    store.done(published).await.unwrap();
}
