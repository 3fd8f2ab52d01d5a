//! Replies and mentions: written with their messages, and what is read of them.

use hubbub::domain::UserId;
use hubbub::store::{
    ArchiveStore as _, EditedRecord, Fence, MessageEdit, MessageStore as _, ThreadState,
};
use hubbub_test_support::database::DatabaseKind;
use serde_json::json;

use super::fixture::*;
use crate::fixture::{TestStore, in_room, room};

crate::on_every_database!(
    replies_and_mentions_are_added_once_with_their_messages,
    every_way_to_commit_adds_them,
    an_edit_replaces_the_mentions,
    a_commit_during_an_edit_brings_no_mention_back,
    a_thread_is_counted_and_read,
    retention_deletes_them,
);

/// The rows of the two tables, as numbers and users: `root_seq`, `seq`, `user_id`; `seq`, `user_id`.
pub async fn rows(test: &TestStore) -> (Vec<String>, Vec<String>) {
    let replies = "SELECT CONCAT(root_seq, ' ', seq, ' ', user_id) \
        FROM hubbub_replies ORDER BY seq";
    let mentions = "SELECT CONCAT(seq, ' ', user_id, ' ', author_id) \
        FROM hubbub_mentions ORDER BY seq, user_id";
    (lines(test, replies).await, lines(test, mentions).await)
}

async fn lines(test: &TestStore, text: &str) -> Vec<String> {
    // SQLite joins texts with ||.
    let text = match test.kind() {
        DatabaseKind::Sqlite => text
            .replace("CONCAT(", "(")
            .replace(", ' ', ", " || ' ' || "),
        _ => text.to_owned(),
    };
    test.lines(&text).await
}

fn texts(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

async fn replies_and_mentions_are_added_once_with_their_messages(test: &TestStore) {
    let root = message(1, "ann", json!({"content": "root"}));
    let fields = json!({"content": "x", "thread_id": root.id, "mentions": ["eve", "@channel"]});
    let reply = message(2, "bob", fields);
    let lost = json!({"content": "x", "thread_id": uuid::Uuid::now_v7()});
    let lost = message(3, "bob", lost);
    let decoy = json!({"content": "\"mentions\":[\"eve\"]", "payload": {"mentions": ["eve"]}});
    let decoy = message(4, "bob", decoy);
    let entries = in_room(ROOM, &[root, reply, lost, decoy]);
    let expected = (
        texts(&["1 2 bob", "0 3 bob"]),
        texts(&["2 @channel bob", "2 eve bob"]),
    );
    let mut writer = test.store.writer(0);
    for fence in [Fence::Fresh, Fence::Fresh, Fence::EpochEnds, Fence::None] {
        writer.commit_with(&entries, fence).await.unwrap();
        let (replies, mentions) = rows(test).await;
        assert_eq!(replies, expected.0);
        let threads = "SELECT CONCAT(root_seq, ' ', replies, ' ', last_seq, ' ', participants) \
            FROM hubbub_threads";
        assert_eq!(
            lines(test, threads).await,
            [r#"1 1 2 ["bob"]"#],
            "{fence:?}"
        );
        assert_eq!(mentions, expected.1, "{fence:?}");
    }
    // Several writers at once.
    let writers = (0..8).map(|_| {
        let (mut writer, entries) = (test.store.writer(0), entries.clone());
        tokio::spawn(async move { writer.commit_with(&entries, Fence::KnownEpochs).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap().unwrap();
    }
    assert_eq!(rows(test).await.1, expected.1);
    assert_eq!(rows(test).await.0.len(), 2);
}

async fn every_way_to_commit_adds_them(test: &TestStore) {
    let mut writer = test.store.writer(0);
    // The room and the epoch are unknown at first, and known then.
    let fences = [
        Fence::Fresh,
        Fence::Fresh,
        Fence::EpochEnds,
        Fence::KnownEpochs,
        Fence::None,
    ];
    for (fence, seq) in fences.into_iter().zip(1..) {
        let mention = message(seq, "ann", json!({"content": "x", "mentions": ["bob"]}));
        let entries = in_room(ROOM, &[mention]);
        writer.commit_with(&entries, fence).await.unwrap();
        assert_eq!(rows(test).await.1.len() as u64, seq, "{fence:?}");
    }
}

async fn an_edit_replaces_the_mentions(test: &TestStore) {
    let fields = json!({"content": "x", "mentions": ["bob", "eve"]});
    let entry = post_with(test, 1, "ann", fields).await;
    let edit = with_mentions(edit_of(&entry, "y", None), Some(&["eve", "joe"]));
    test.store.edit(&edit).await.unwrap();
    // An edit without a new content leaves them as they are.
    let title = with_mentions(edit_of(&entry, "z", None), None);
    test.store.edit(&title).await.unwrap();
    let expected = texts(&["1 eve ann", "1 joe ann"]);
    assert_eq!(rows(test).await.1, expected);
    // A repeat of the commit doesn't bring the first ones back.
    commit(test, &entry).await;
    assert_eq!(rows(test).await.1, expected);
}

async fn a_commit_during_an_edit_brings_no_mention_back(test: &TestStore) {
    let entry = post_with(test, 1, "ann", json!({"content": "x", "mentions": ["eve"]})).await;
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (ended, has_ended) = std::sync::mpsc::channel();
    let has_ended = parking_lot::Mutex::new(has_ended);
    let replaced = new_content("y");
    let edit = MessageEdit {
        // The message is locked here. The commit waits for it, after its first statements.
        record: std::sync::Arc::new(move |record| {
            begun.send(()).unwrap();
            let _ = has_ended
                .lock()
                .recv_timeout(std::time::Duration::from_secs(1));
            replaced(record).map(|edited| EditedRecord {
                mentions: Some(vec![UserId::trusted("bob")]),
                ..edited
            })
        }),
        ..edit_of(&entry, "y", None)
    };
    let mut writer = test.store.writer(0);
    let commit = tokio::spawn(async move {
        let has_begun = tokio::task::spawn_blocking(move || has_begun.recv());
        has_begun.await.unwrap().unwrap();
        let entries = in_room(ROOM, std::slice::from_ref(&entry));
        let committed = writer.commit_with(&entries, Fence::EpochEnds).await;
        let _ = ended.send(());
        committed.unwrap();
    });
    test.store.edit(&edit).await.unwrap();
    commit.await.unwrap();
    assert_eq!(rows(test).await.1, texts(&["1 bob ann"]));
}

async fn a_thread_is_counted_and_read(test: &TestStore) {
    let root = post(test, 1, "ann", "root").await;
    let other = post(test, 2, "ann", "other").await;
    let users = ["bob", "eve", "bob", "joe", "ann", "kim", "lee", "max"];
    let mut replies = Vec::new();
    for (user, seq) in users.into_iter().zip(3..) {
        let fields = json!({"content": format!("reply {seq}"), "thread_id": root.id});
        replies.push(post_with(test, seq, user, fields).await);
    }
    test.store
        .delete(&of(&replies[7]), &by("max"))
        .await
        .unwrap();
    test.store
        .edit(&edit_of(&replies[1], "edited", None))
        .await
        .unwrap();
    let participants = ["bob", "eve", "joe", "ann", "kim"].map(UserId::trusted);
    let expected = ThreadState {
        replies: 7,
        last_seq: 9,
        participants: participants.to_vec(),
    };
    let stored = test.store.message(&of(&root)).await.unwrap().unwrap();
    assert_eq!(stored.state.thread, Some(expected.clone()));
    let mut states = test.store.states(&room(ROOM), 1..=20, true).await.unwrap();
    // A reply that is deleted or edited has a state, too.
    states.retain(|(_, state)| state.thread.is_some());
    assert_eq!(states.len(), 1);
    assert_eq!(
        (states[0].0, states[0].1.thread.clone()),
        (1, Some(expected))
    );
    let others = test.store.states(&room(ROOM), 2..=20, true).await.unwrap();
    assert!(others.iter().all(|(_, state)| state.thread.is_none()));
    let without_threads = test.store.states(&room(ROOM), 1..=1, false).await.unwrap();
    assert!(without_threads.is_empty());
    let page = test.store.replies(&of(&root), 3, 2).await.unwrap().unwrap();
    let read: Vec<(u64, String)> = page
        .iter()
        .map(|reply| (reply.form.position.seq, content(&reply.record)))
        .collect();
    let expected = [(4, "edited".to_owned()), (5, "reply 5".to_owned())];
    assert_eq!(read, expected);
    assert_eq!(
        test.store.replies(&of(&other), 0, 9).await.unwrap(),
        Some(Vec::new())
    );
    let mut unknown = of(&root);
    unknown.id = uuid::Uuid::now_v7();
    assert_eq!(test.store.replies(&unknown, 0, 9).await.unwrap(), None);
}

/// The numbers of the messages with rows in a table.
async fn seqs(test: &TestStore, table: &str) -> Vec<String> {
    let text = format!("SELECT CAST(seq AS CHAR(5)) FROM {table}");
    test.lines(&text).await
}

async fn retention_deletes_them(test: &TestStore) {
    let root = post(test, 1, "ann", "root").await;
    for seq in [2, 3] {
        let fields = json!({"content": "x", "thread_id": root.id, "mentions": ["eve"]});
        let reply = post_with(test, seq, "bob", fields).await;
        test.store.edit(&edit_of(&reply, "y", None)).await.unwrap();
        test.store
            .react(&[reaction(&reply, "eve", "+1", true)])
            .await
            .unwrap();
        test.store.pin(&of(&reply), &by("eve"), true).await.unwrap();
    }
    test.execute("INSERT INTO hubbub_thread_positions VALUES (1, 1, 3, 'eve')")
        .await;
    test.store.delete_up_to(&room(ROOM), 2, 100).await.unwrap();
    assert_eq!(
        lines(test, "SELECT user_id FROM hubbub_thread_positions")
            .await
            .len(),
        0
    );
    let threads = "SELECT root_user_id FROM hubbub_threads";
    assert_eq!(lines(test, threads).await.len(), 0);
    for table in hubbub::store::sql::MESSAGE_TABLES {
        let seqs = seqs(test, table).await;
        let is_third = |seq: &String| seq.trim() == "3";
        assert!(seqs.iter().all(is_third), "{table}: {seqs:?}");
        assert_eq!(seqs.is_empty(), *table == "hubbub_mentions", "{table}");
    }
    test.store.delete_up_to(&room(ROOM), 3, 100).await.unwrap();
    for table in hubbub::store::sql::MESSAGE_TABLES {
        assert!(seqs(test, table).await.is_empty(), "{table}");
    }
}
