//! The number of statements, and numbers that are part of their texts.

use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

use super::super::conn::STATEMENTS;
use super::*;
use crate::domain::{Emoji, Epoch, Timestamp};
use crate::store::sql::{DatabaseUrl, Settings};
use crate::store::{ArchiveStore as _, ArchivedEntry, StoredKind, ThreadState};

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
async fn the_states_of_a_range_take_three_statements() {
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
    let states = store.states(&room, 1..=60).await.unwrap();
    assert_eq!(states.len(), 30);
    let statements = STATEMENTS.get() - before;
    assert!((1..=3).contains(&statements), "{statements}");
}

#[test]
fn numbers_in_statements_are_those_of_the_types() {
    assert_eq!(Reaction::USERS, 20);
    assert_eq!(ThreadState::PARTICIPANTS, 5);
    let kinds = MessageChangeKind::ALL.map(stored_kind);
    assert_eq!(kinds, [EDITED, DELETED, 3, PINNED, UNPINNED]);
    assert_eq!((EDITED, DELETED), (1, 2));
}
