//! `hubbub db copy` of changed messages.

use std::sync::Arc;

use hubbub::domain::{Emoji, RoomId};
use hubbub::store::sql::SqlStore;
use hubbub::store::{
    ArchiveTransfer as _, ArchivedEntry, Changer, EditedRecord, MessageEdit, MessageRef,
    MessageStore as _, ReactionChange,
};
use hubbub_test_support::database::TestDatabase;

use crate::fixture::{MariaDb, Postgres, Sqlite, contents, execute, open, seeded, summary};

fn by(entry: &ArchivedEntry) -> Changer {
    Changer {
        user: entry.user.clone(),
        is_moderator: true,
        hidden_seq: 0,
    }
}

/// Changes some messages of a room: the fourth and those after it, or others.
async fn change(store: &SqlStore, room: &RoomId, entries: &[ArchivedEntry], first: usize) {
    let of = |entry: &ArchivedEntry| MessageRef {
        room: room.clone(),
        id: entry.id,
    };
    let [edited, deleted, pinned, liked] = [0, 1, 2, 3].map(|index| &entries[first + index]);
    let mentioned = liked.user.clone();
    let edit = MessageEdit {
        message: of(edited),
        by: by(edited),
        version: None,
        record: Arc::new(move |record: &[u8]| {
            let text = std::str::from_utf8(record).unwrap();
            let text = text.replacen("\"content\":\"", "\"content\":\"edited ", 1);
            Ok(EditedRecord {
                record: text.into(),
                mentions: Some(vec![mentioned.clone()]),
            })
        }),
    };
    store.edit(&edit).await.unwrap();
    store.delete(&of(deleted), &by(deleted)).await.unwrap();
    store.pin(&of(pinned), &by(liked), true).await.unwrap();
    let reaction = ReactionChange {
        message: of(liked),
        by: by(pinned),
        emoji: Emoji::trusted("+1"),
        on: true,
    };
    store.react(&[reaction]).await.unwrap();
}

/// The rows of a room beside its entries.
async fn rows(database: &TestDatabase, room: &RoomId) -> Vec<String> {
    let store = open(database).await;
    let mut rows = Vec::new();
    for (table, name) in store.room_tables().iter().enumerate() {
        let page = store.room_page(room, table, None).await.unwrap();
        rows.extend(page.iter().map(|row| format!("{name} {row:?}")));
    }
    rows
}

#[tokio::test]
async fn changes_go_around_all_databases_and_later_ones_follow() {
    let first = seeded(Sqlite, 2, 80);
    // The rooms of the copies have other numbers.
    execute(&first, "UPDATE hubbub_rooms SET no = no + 10").await;
    for table in ["epochs", "entries"] {
        let text = format!("UPDATE hubbub_{table} SET room_no = room_no + 10");
        execute(&first, &text).await;
    }
    let store = open(&first).await;
    let room = RoomId::trusted("demo-1");
    let entries = contents(&store).await.remove(0).2;
    change(&store, &room, &entries, 4).await;
    execute(
        &first,
        "INSERT INTO hubbub_positions (user_id, room_no, read_seq, at) VALUES ('ann', 11, 7, 1); \
         INSERT INTO hubbub_thread_positions (user_id, room_no, root_seq, read_seq) \
         VALUES ('ann', 11, 2, 3); \
         INSERT INTO hubbub_replies (room_no, root_seq, seq, user_id) VALUES (11, 2, 3, 'ann'); \
         INSERT INTO hubbub_threads \
         (room_no, root_seq, replies, last_seq, last_at, root_user_id, participants) \
         VALUES (11, 2, 1, 3, 5, 'bob', '[\"ann\"]')",
    )
    .await;
    let tables = rows(&first, &room).await;
    for table in store.room_tables() {
        assert!(tables.iter().any(|row| row.starts_with(table)), "{table}");
    }
    let mut from = first;
    let mut all = Vec::new();
    for kind in [Postgres, MariaDb, Sqlite] {
        let to = TestDatabase::new(kind);
        let copied = summary(&from, &["copy", "--to", &to.url]);
        assert_eq!(copied["is_complete"], true, "{copied}");
        assert_eq!(rows(&to, &room).await, tables);
        all.push(std::mem::replace(&mut from, to));
    }
    assert_eq!(
        contents(&open(&all[0]).await).await,
        contents(&open(&from).await).await
    );
    // Messages that the copy has are changed in the original.
    change(&store, &room, &entries, 12).await;
    let copied = summary(&all[0], &["copy", "--to", &all[1].url]);
    assert_eq!(copied["is_complete"], true, "{copied}");
    assert_eq!(rows(&all[1], &room).await, rows(&all[0], &room).await);
    assert_eq!(
        contents(&open(&all[0]).await).await,
        contents(&open(&all[1]).await).await
    );
}
