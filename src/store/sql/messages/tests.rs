//! The number and order of statements, and numbers that are part of their texts.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

use super::super::conn::{STATEMENTS, TEXTS};
use super::*;
use crate::domain::{Emoji, Epoch, Timestamp};
use crate::store::sql::{DatabaseUrl, Settings};
use crate::store::{
    ArchiveStore as _, ArchivedEntry, EditedRecord, Fence, Outbox as _, StoredKind, ThreadState,
};

fn message(seq: u64, record: &serde_json::Value) -> ArchivedEntry {
    ArchivedEntry {
        seq,
        epoch: Epoch::trusted("e"),
        at: Timestamp(seq),
        kind: StoredKind::MESSAGE,
        id: Uuid::now_v7(),
        user: UserId::trusted("ann"),
        send_key: None,
        record: Bytes::from(record.to_string()),
    }
}

#[tokio::test]
async fn the_states_of_a_range_take_four_statements() {
    let url = DatabaseUrl::parse("sqlite::memory:").unwrap();
    let store = SqlStore::open(&Settings::new(url)).await.unwrap();
    let room = RoomId::trusted("r");
    let by = Changer {
        user: UserId::trusted("ann"),
        is_moderator: false,
        hidden_seq: 0,
    };
    let mut writer = store.writer(0);
    for seq in (1..60).step_by(2) {
        let root = message(seq, &json!({"content": "x"}));
        let reply = message(seq + 1, &json!({"thread_id": root.id}));
        let message = MessageRef {
            room: room.clone(),
            id: root.id,
        };
        let rows = [(room.clone(), root), (room.clone(), reply)];
        writer.commit(&rows).await.unwrap();
        let change = ReactionChange {
            message: message.clone(),
            by: by.clone(),
            emoji: Emoji::trusted("+1"),
            on: true,
        };
        store.react(&[change]).await.unwrap();
        store.pin(&message, &by, true).await.unwrap();
    }
    let before = STATEMENTS.get();
    let states = store.states(&room, 1..=60, true).await.unwrap();
    assert_eq!(states.len(), 30);
    let statements = STATEMENTS.get() - before;
    // The room, the states, reactions that are not recorded, and threads.
    assert!((1..=4).contains(&statements), "{statements}");
}

/// The tables of [`super`] that the statements of a call name and that others may have locked, in the order
/// of their locks. New rows are left out.
fn locked_tables() -> Vec<&'static str> {
    const TABLES: [&str; 4] = [
        "hubbub_reactions",
        "hubbub_outbox",
        "hubbub_messages",
        "hubbub_message_changes",
    ];
    let texts = TEXTS.take();
    let mut tables = Vec::new();
    for text in texts.iter().filter(|text| !text.starts_with("INSERT")) {
        let names = |table: &&&str| {
            let name = format!("{table} ");
            text.starts_with(&format!("UPDATE {name}"))
                || text.starts_with(&format!("DELETE FROM {name}"))
                || text.contains(&format!(" FROM {name}WHERE"))
        };
        tables.extend(TABLES.iter().find(names));
    }
    tables.dedup();
    tables
}

/// SQLite has no locks of rows, but the statements are the same.
#[tokio::test]
async fn rows_are_locked_in_one_order() {
    let url = DatabaseUrl::parse("sqlite::memory:").unwrap();
    let store = SqlStore::open(&Settings::new(url)).await.unwrap();
    let room = RoomId::trusted("r");
    let by = Changer {
        user: UserId::trusted("ann"),
        is_moderator: false,
        hidden_seq: 0,
    };
    let entries = [1, 2, 3].map(|seq| message(seq, &json!({"content": "x"})));
    let rows = entries.clone().map(|entry| (room.clone(), entry));
    store.writer(0).commit(&rows).await.unwrap();
    let refs = entries.map(|entry| MessageRef {
        room: room.clone(),
        id: entry.id,
    });
    let reactions = |user: &str| {
        let changes = refs.iter().map(|message| ReactionChange {
            message: message.clone(),
            by: Changer {
                user: UserId::trusted(user),
                ..by.clone()
            },
            emoji: Emoji::trusted("+1"),
            on: true,
        });
        changes.collect::<Vec<_>>()
    };
    store.react(&reactions("bob")).await.unwrap();
    TEXTS.take();
    store.react(&reactions("eve")).await.unwrap();
    assert_eq!(locked_tables(), ["hubbub_reactions", "hubbub_outbox"]);

    for (message, content) in [(0, "y"), (1, "y"), (0, "z")] {
        let edit = MessageEdit {
            message: refs[message].clone(),
            by: by.clone(),
            version: None,
            record: std::sync::Arc::new(move |_| {
                Ok(EditedRecord {
                    record: json!({"content": content}).to_string().into(),
                    mentions: None,
                })
            }),
        };
        store.edit(&edit).await.unwrap();
    }
    let rows = store.claim(100, Duration::from_secs(60)).await.unwrap();
    let published: Vec<PublishedChange> = rows
        .iter()
        .zip(10..)
        .map(|(row, seq)| {
            let (kind, change) = ChangeRow::decode(&row.kind, &row.payload).unwrap().unwrap();
            PublishedChange {
                claim: row.claim(),
                room: room.clone(),
                kind,
                row: change,
                seq,
                at: Timestamp(seq),
                reactions: Some(Vec::new()),
            }
        })
        .collect();
    assert_eq!(published.len(), 6);
    TEXTS.take();
    MessageStore::done(&store, &published).await.unwrap();
    let locked = locked_tables();
    let first = ["hubbub_outbox", "hubbub_messages"];
    assert_eq!(locked[..2], first, "{locked:?}");
    assert_eq!(
        locked
            .iter()
            .filter(|table| **table == "hubbub_outbox")
            .count(),
        1
    );

    TEXTS.take();
    store.delete(&refs[0], &by).await.unwrap();
    let locked = locked_tables();
    let place = |table: &str| locked.iter().position(|locked| *locked == table).unwrap();
    assert!(place("hubbub_messages") < place("hubbub_message_changes"));
}

/// Of the messages of a batch with a change, only those that may be late lock the unread messages.
#[tokio::test]
async fn young_messages_lock_no_unread_messages() {
    let url = DatabaseUrl::parse("sqlite::memory:").unwrap();
    let store = SqlStore::open(&Settings::new(url)).await.unwrap();
    let room = RoomId::trusted("r");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let now = u64::try_from(now.as_millis()).unwrap();
    for (seq, age, locks) in [(1, 0, false), (2, 40_000, false), (3, 4_000_000, true)] {
        let entry = ArchivedEntry {
            at: Timestamp(now - age),
            ..message(seq, &json!({"content": "x"}))
        };
        let rows = [(room.clone(), entry)];
        TEXTS.take();
        let mut writer = store.writer(0);
        writer.commit_with(&rows, Fence::KnownEpochs).await.unwrap();
        let is_lock = |text: &&str| text.starts_with("INSERT INTO hubbub_unread_rooms");
        assert_eq!(TEXTS.take().iter().any(is_lock), locks, "{age}");
    }
}

#[test]
fn numbers_in_statements_are_those_of_the_types() {
    assert_eq!(Reaction::USERS, 20);
    assert_eq!(ThreadState::PARTICIPANTS, 5);
    let kinds = MessageChangeKind::ALL.map(stored_kind);
    assert_eq!(kinds, [EDITED, DELETED, 3, PINNED, UNPINNED]);
    assert_eq!((EDITED, DELETED), (1, 2));
}
