//! Positions of users in threads.

use hubbub::domain::UserId;
use hubbub::store::{ArchivedEntry, MessageRef, PositionStore as _};
use serde_json::json;
use uuid::Uuid;

use crate::fixture::{TestStore, entry, in_room, room};

crate::on_every_database!(
    a_thread_has_a_position_that_only_rises,
    threads_are_listed_by_their_newest_reply,
);

fn message(seq: u64, user: &str, root: Option<Uuid>) -> ArchivedEntry {
    let record = match root {
        Some(root) => json!({"content": "x", "thread_id": root}),
        None => json!({"content": "x"}),
    };
    ArchivedEntry {
        user: UserId::trusted(user),
        record: record.to_string().into_bytes().into(),
        ..entry(seq)
    }
}

fn root_of(root: &ArchivedEntry) -> MessageRef {
    MessageRef {
        room: room("r"),
        id: root.id,
    }
}

async fn a_thread_has_a_position_that_only_rises(test: &TestStore) {
    let root = message(1, "ann", None);
    let replies = [2, 3, 4].map(|seq| message(seq, "bob", Some(root.id)));
    let own = message(5, "ann", Some(root.id));
    test.commit(&in_room(
        "r",
        &[vec![root.clone()], replies.to_vec(), vec![own]].concat(),
    ))
    .await;
    let ann = UserId::trusted("ann");
    for (seq, position, unread, has_moved) in [(2, 2, 2, true), (1, 2, 2, false), (9, 9, 0, true)] {
        let root = root_of(&root);
        let read = test.store.read_thread(&root, &ann, seq).await;
        let read = read.unwrap().unwrap();
        let found = (read.last_read_seq, read.unread.count, read.has_moved);
        assert_eq!(found, (position, unread, has_moved));
    }
    let unknown = MessageRef {
        id: Uuid::now_v7(),
        ..root_of(&root)
    };
    assert_eq!(
        test.store.read_thread(&unknown, &ann, 1).await.unwrap(),
        None
    );
    let elsewhere = MessageRef {
        room: room("s"),
        ..root_of(&root)
    };
    assert_eq!(
        test.store.read_thread(&elsewhere, &ann, 1).await.unwrap(),
        None
    );
}

async fn threads_are_listed_by_their_newest_reply(test: &TestStore) {
    let roots = [1, 2, 3].map(|seq| message(seq, "ann", None));
    let [first, second, third] = &roots;
    let replies = [
        message(4, "bob", Some(first.id)),
        message(5, "bob", Some(third.id)),
        message(6, "cyd", Some(second.id)),
        message(7, "cyd", Some(first.id)),
    ];
    test.commit(&in_room("r", &roots)).await;
    test.commit(&in_room("r", &replies)).await;
    let list = |user: &'static str, before, limit| async move {
        let user = UserId::trusted(user);
        let threads = test.store.threads(&user, before, limit).await.unwrap();
        threads
            .iter()
            .map(|thread| (thread.root_seq, thread.last_seq, thread.unread.count))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        list("ann", None, 10).await,
        [(1, 7, 2), (2, 6, 1), (3, 5, 1)]
    );
    assert_eq!(list("bob", None, 10).await, [(1, 7, 1), (3, 5, 0)]);
    assert_eq!(list("dee", None, 10).await, []);
    assert_eq!(list("ann", None, 1).await, [(1, 7, 2)]);
    let user = UserId::trusted("ann");
    let page = test.store.threads(&user, None, 1).await.unwrap();
    let before = Some((page[0].last_at, page[0].last_seq));
    assert_eq!(list("ann", before, 10).await, [(2, 6, 1), (3, 5, 1)]);
    assert_eq!((page[0].root, page[0].last_read_seq), (first.id, 0));
}
