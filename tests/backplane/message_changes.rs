//! The promises about changes of messages, which hold for every backplane.

use bytes::Bytes;
use hubbub::backplane::{
    Appended, Backplane, BackplaneLimits, BusEvent, BusTopic, Entry, EntryKind, NewChange, Pointer,
    RoomLog, Window, record,
};
use hubbub::domain::{
    Amendment, Emoji, FormContent, Head, MessageChangeKind, MessageForm, NewMessage, Reaction,
    Tombstone,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{Fixture, Recorder, limits, message, room, user};

pub const ROOM: &str = "lobby";

/// A message of the room, and its position.
pub struct Sent {
    pub message: NewMessage,
    pub at: Appended,
}

impl Sent {
    pub async fn append(log: &dyn RoomLog, content: &str) -> Self {
        let message = message(ROOM, "ann", content);
        let at = log.append(&message, None).await.unwrap();
        Self { message, at }
    }

    /// The form of the message with this content, and the version that the archive has recorded.
    pub fn form(&self, version: u64, content: FormContent) -> MessageForm {
        MessageForm {
            position: Head {
                epoch: self.at.epoch.clone(),
                seq: self.at.seq,
            },
            at: self.at.at,
            version,
            edited_at: None,
            content,
            reactions: None,
        }
    }

    pub fn edited(&self, content: &str) -> FormContent {
        let mut edited = message(ROOM, "ann", content);
        edited.id = self.message.id;
        FormContent::Edited(record::encode(&edited))
    }

    pub fn deleted(&self) -> FormContent {
        FormContent::Deleted(Tombstone {
            id: self.message.id,
            room: room(ROOM),
            author: user("ann"),
            deleted_by: user("bob"),
            thread: None,
        })
    }

    /// A change of the message.
    pub fn change(&self, kind: MessageChangeKind, form: MessageForm) -> NewChange {
        let id = Uuid::new_v4();
        let pointer = Pointer {
            kind,
            entry_id: id,
            room: room(ROOM),
            id: self.message.id,
            target_seq: self.at.seq,
            user: None,
        };
        NewChange {
            id,
            record: pointer.encode(),
            amendment: Some(Box::new(Amendment {
                raises_version: kind.raises_version(),
                form,
            })),
        }
    }

    pub fn edit(&self, content: &str) -> NewChange {
        let form = self.form(self.at.seq, self.edited(content));
        self.change(MessageChangeKind::Edited, form)
    }

    pub fn delete(&self) -> NewChange {
        let form = self.form(self.at.seq, self.deleted());
        self.change(MessageChangeKind::Deleted, form)
    }

    /// The announcement of one reaction to a message in this state.
    pub fn reaction(&self, version: u64, content: FormContent) -> NewChange {
        let reaction = Reaction {
            emoji: Emoji::trusted("+1"),
            count: 1,
            users: vec![user("bob")],
        };
        let form = MessageForm {
            reactions: Some(vec![reaction]),
            ..self.form(version, content)
        };
        self.change(MessageChangeKind::ReactionsChanged, form)
    }
}

pub async fn announce(node: &Backplane, change: &NewChange) -> Appended {
    let changes = std::slice::from_ref(change);
    let (mut positions, outcome) = node.log.announce_all(&room(ROOM), changes).await;
    outcome.unwrap();
    positions.pop().unwrap()
}

/// The kinds of entries, and their records as JSON.
pub fn kinds_and_json(entries: &[Entry]) -> Vec<(EntryKind, Value)> {
    let json = |record: &Bytes| serde_json::from_slice(record).unwrap();
    entries
        .iter()
        .map(|entry| (entry.kind, json(&entry.record)))
        .collect()
}

pub async fn read(node: &Backplane, window: Window) -> Vec<Entry> {
    let slice = node.log.read(&room(ROOM), window, 1000, usize::MAX).await;
    slice.unwrap().entries
}

pub async fn read_all(node: &Backplane) -> Vec<(EntryKind, Value)> {
    kinds_and_json(&read(node, Window::After(0)).await)
}

pub async fn an_edit_replaces_the_old_form_at_every_place(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let recorder = Recorder::on(&node, &[BusTopic::Room(room(ROOM))]).await;
    let sent = Sent::append(&*node.log, "old").await;
    Sent::append(&*node.log, "between").await;
    let edited = announce(&node, &sent.edit("new")).await;
    let again = announce(&node, &sent.edit("newest")).await;
    assert_eq!((edited.seq, again.seq), (3, 4));
    let events = recorder.events_until_sentinel(&node, ROOM).await;
    let published: Vec<Entry> = events
        .into_iter()
        .map(|event| match event {
            BusEvent::Message(_, entry) => entry,
            other => panic!("{other:?}"),
        })
        .collect();
    let published = kinds_and_json(&published);
    for (index, content, version, at) in [(2, "new", 3, edited.at), (3, "newest", 4, again.at)] {
        let (kind, json) = &published[index];
        assert_eq!(
            (*kind, &json["event"]),
            (EntryKind::Change, &json!("message_edited"))
        );
        assert_eq!(json["message"]["content"], content);
        assert_eq!(json["message"]["version"], version);
        assert_eq!(json["message"]["edited_at"], at.to_string());
        assert_eq!(json["message"]["seq"], 1);
        assert_eq!(json["message"]["epoch"], sent.at.epoch.as_str());
        assert_eq!(json["message"]["timestamp"], sent.at.at.to_string());
    }
    let entries = read_all(&node).await;
    assert_eq!(entries[0].0, EntryKind::Amended);
    assert_eq!(entries[0].1["content"], "newest");
    assert_eq!(entries[0].1["version"], 4);
    assert_eq!(entries[0].1["edited_at"], again.at.to_string());
    assert_eq!(
        (entries[1].0, &entries[1].1["content"]),
        (EntryKind::Message, &json!("between"))
    );
    for (kind, json) in &entries[2..4] {
        assert_eq!(*kind, EntryKind::Change);
        assert_eq!(
            (&json["message"]["content"], &json["message"]["version"]),
            (&json!("newest"), &json!(4))
        );
    }
    for window in [Window::Before(3), Window::Newest, Window::After(0)] {
        let entries = kinds_and_json(&read(&node, window).await);
        assert_eq!(entries[0].1["content"], "newest", "{window:?}");
    }
    let entries = kinds_and_json(&read(&node, Window::After(2)).await);
    assert_eq!(
        entries[0].1["message"]["content"], "newest",
        "without the message itself"
    );
}

pub async fn a_deletion_takes_the_places_of_the_message_and_its_earlier_changes(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let recorder = Recorder::on(&node, &[BusTopic::Room(room(ROOM))]).await;
    let sent = Sent::append(&*node.log, "secret").await;
    announce(&node, &sent.edit("secret too")).await;
    announce(&node, &sent.delete()).await;
    // A worker has read this form before the deletion.
    announce(&node, &sent.reaction(2, sent.edited("secret again"))).await;
    let events = recorder.events_until_sentinel(&node, ROOM).await;
    for event in &events[2..] {
        let BusEvent::Message(_, entry) = event else {
            panic!("{event:?}")
        };
        let json = &kinds_and_json(std::slice::from_ref(entry))[0].1;
        assert_eq!(json["event"], "message_deleted");
    }
    let entries = read_all(&node).await;
    assert_eq!(entries.len(), 5);
    for (kind, json) in &entries[..4] {
        assert_eq!(*kind, EntryKind::Change);
        assert_eq!(json["event"], "message_deleted");
        assert_eq!(json["id"], sent.message.id.to_string());
        assert_eq!(
            (&json["target_seq"], &json["version"]),
            (&json!(1), &json!(3))
        );
        assert_eq!(
            (&json["user_id"], &json["deleted_by"]),
            (&json!("ann"), &json!("bob"))
        );
        assert!(!json.to_string().contains("secret"), "{json}");
    }
}

pub async fn a_repeated_announcement_amends_nothing(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let sent = Sent::append(&*node.log, "old").await;
    let first = sent.edit("first");
    let position = announce(&node, &first).await;
    announce(&node, &sent.edit("second")).await;
    let mut repeat = first.clone();
    let form = sent.form(1, sent.edited("stale"));
    repeat.amendment = Some(Box::new(Amendment {
        raises_version: true,
        form,
    }));
    let again = announce(&node, &repeat).await;
    assert!(again.duplicate && !position.duplicate);
    assert_eq!(
        (again.seq, again.at, again.id),
        (position.seq, position.at, position.id)
    );
    let entries = read_all(&node).await;
    assert_eq!(entries.len(), 3);
    assert_eq!(
        (&entries[0].1["content"], &entries[0].1["version"]),
        (&json!("second"), &json!(3))
    );
}

pub async fn reactions_leave_a_message_as_it_is(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let sent = Sent::append(&*node.log, "text").await;
    announce(&node, &sent.reaction(1, FormContent::Original)).await;
    let entries = read_all(&node).await;
    assert_eq!(entries[0].0, EntryKind::Message);
    assert_eq!(entries[0].1["content"], "text");
    assert_eq!(
        entries[0].1.get("version"),
        None,
        "the record has none of its own"
    );
    let (kind, json) = &entries[1];
    assert_eq!(
        (*kind, &json["event"]),
        (EntryKind::Change, &json!("reactions_changed"))
    );
    assert_eq!(
        json["reactions"],
        json!([{"emoji": "+1", "count": 1, "user_ids": ["bob"]}])
    );
    // After an edit, whose version a late announcement doesn't know.
    announce(&node, &sent.edit("new")).await;
    announce(&node, &sent.reaction(1, FormContent::Original)).await;
    announce(&node, &sent.reaction(1, sent.edited("new"))).await;
    let entries = read_all(&node).await;
    assert_eq!(
        (&entries[0].1["content"], &entries[0].1["version"]),
        (&json!("new"), &json!(3))
    );
    assert_eq!(entries[4].1["reactions"][0]["count"], 1);
}

pub async fn forms_are_kept_as_long_as_the_log_has_an_announcement(fixture: Fixture) {
    let limits = BackplaneLimits {
        history_size: 3,
        ..limits()
    };
    let node = fixture.start(limits).await;
    let sent = Sent::append(&*node.log, "old").await;
    announce(&node, &sent.edit("new")).await;
    for n in 3..=4 {
        Sent::append(&*node.log, &n.to_string()).await;
    }
    let entries = kinds_and_json(&read(&node, Window::After(1)).await);
    assert_eq!(
        entries[0].1["message"]["content"], "new",
        "the message itself is trimmed"
    );
    announce(&node, &sent.delete()).await;
    let entries = read_all(&node).await;
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[2].1["event"], "message_deleted");
}

pub async fn a_message_older_than_the_log_can_be_changed(fixture: Fixture) {
    let limits = BackplaneLimits {
        history_size: 1,
        ..limits()
    };
    let node = fixture.start(limits).await;
    let sent = Sent::append(&*node.log, "old").await;
    Sent::append(&*node.log, "later").await;
    let edited = announce(&node, &sent.edit("new")).await;
    let entries = read_all(&node).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].1["message"]["content"], "new");
    assert_eq!(entries[0].1["message"]["version"], edited.seq);
}

pub async fn pages_of_changed_messages_are_limited_by_bytes(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let sent = Sent::append(&*node.log, "old").await;
    let large = "x".repeat(1000);
    for _ in 0..3 {
        announce(&node, &sent.edit(&large)).await;
    }
    for (window, first) in [(Window::After(0), 1), (Window::Newest, 3)] {
        let slice = node.log.read(&room(ROOM), window, 100, 3000).await.unwrap();
        assert_eq!(slice.entries.len(), 2, "{window:?}");
        assert_eq!(slice.entries[0].seq, first);
    }
    let slice = node
        .log
        .read(&room(ROOM), Window::After(0), 100, 1)
        .await
        .unwrap();
    assert_eq!(slice.entries.len(), 1);
}

pub async fn a_series_of_changes_and_messages_keeps_its_order(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let sent = Sent::append(&*node.log, "old").await;
    let other = Sent::append(&*node.log, "other").await;
    let changes = [
        sent.edit("1"),
        NewChange::complete(
            Uuid::new_v4(),
            hubbub::backplane::change_record::encode(
                &room(ROOM),
                "happened",
                Uuid::new_v4(),
                "{\"n\":1}",
            ),
        ),
        other.edit("2"),
        sent.edit("3"),
    ];
    let (positions, outcome) = node.log.announce_all(&room(ROOM), &changes).await;
    outcome.unwrap();
    let seqs: Vec<u64> = positions.iter().map(|position| position.seq).collect();
    assert_eq!(seqs, [3, 4, 5, 6]);
    let entries = read_all(&node).await;
    assert_eq!(
        (&entries[0].1["content"], &entries[0].1["version"]),
        (&json!("3"), &json!(6))
    );
    assert_eq!(
        (&entries[1].1["content"], &entries[1].1["version"]),
        (&json!("2"), &json!(5))
    );
    assert_eq!(entries[3].1["event"], "happened");
}

pub async fn unarchived_entries_are_read_as_they_are_stored(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let sent = Sent::append(&*node.log, "old").await;
    let change = sent.edit("new");
    announce(&node, &change).await;
    let entries = node
        .hot_log
        .read_unarchived(&room(ROOM), 0, 10, usize::MAX)
        .await;
    let entries = entries.unwrap().unwrap();
    assert_eq!(entries[0].kind, EntryKind::Message);
    assert_eq!(
        (entries[1].kind, &entries[1].record),
        (EntryKind::Pointer, &change.record)
    );
}

pub async fn a_slice_tells_of_changes_and_replies(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let sent = Sent::append(&*node.log, "root").await;
    let traces = async || {
        let (room, limit) = (room(ROOM), usize::MAX);
        let slice = node
            .log
            .read(&room, Window::Newest, 1, limit)
            .await
            .unwrap();
        (slice.traces.has_changes, slice.traces.last_reply)
    };
    assert_eq!(traces().await, (false, 0));
    let mut reply = message(ROOM, "bob", "reply");
    reply.thread = Some(sent.message.id);
    node.log.append(&reply, None).await.unwrap();
    assert_eq!(traces().await, (false, 2));
    node.log.expect_changes(&room(ROOM)).await.unwrap();
    assert_eq!(traces().await, (true, 2));
    announce(&node, &sent.edit("new")).await;
    let read = node.log.announced_forms(&room(ROOM), &[1, 2]).await;
    let read = read.unwrap();
    let versions: Vec<_> = read.forms.values().map(|form| form.version).collect();
    assert_eq!((versions, read.oldest), (vec![3], 1));
    let unknown = room("unknown");
    node.log.expect_changes(&unknown).await.unwrap();
    assert_eq!(node.log.heads(&[unknown]).await.unwrap(), [None]);
}
