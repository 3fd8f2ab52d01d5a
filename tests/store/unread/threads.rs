//! Positions of users in threads.

use hubbub::domain::UserId;
use hubbub::store::{
    ArchiveStore as _, ArchivedEntry, Changer, Fence, MessageRef, MessageStore as _,
    PositionStore as _,
};
use serde_json::json;
use uuid::Uuid;

use crate::fixture::{TestStore, entry, in_room, room};

crate::on_every_database!(
    a_thread_has_a_position_that_only_rises,
    threads_are_listed_by_their_newest_reply,
    threads_with_equal_last_replies_are_on_two_pages,
    a_reply_that_is_added_late_or_deleted_is_counted,
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
    let before = Some(page[0].cursor());
    assert_eq!(list("ann", before, 10).await, [(2, 6, 1), (3, 5, 1)]);
    assert_eq!((page[0].root, page[0].last_read_seq), (first.id, 0));
}

async fn threads_with_equal_last_replies_are_on_two_pages(test: &TestStore) {
    for name in ["r", "s", "t"] {
        let root = message(1, "ann", None);
        let reply = message(2, "bob", Some(root.id));
        test.commit(&in_room(name, &[root, reply])).await;
    }
    let ann = UserId::trusted("ann");
    let mut rooms = Vec::new();
    let mut before = None;
    loop {
        let page = test.store.threads(&ann, before, 1).await.unwrap();
        let Some(thread) = page.first() else { break };
        rooms.push(thread.room.as_str().to_owned());
        before = Some(thread.cursor());
    }
    rooms.sort();
    assert_eq!(rooms, ["r", "s", "t"]);
}

async fn a_reply_that_is_added_late_or_deleted_is_counted(test: &TestStore) {
    let root = message(1, "ann", None);
    let reply = |seq, user| message(seq, user, Some(root.id));
    let [late, first, last] = [reply(2, "zoe"), reply(3, "bob"), reply(5, "cyd")];
    test.commit(&in_room("r", &[root.clone(), first.clone(), last.clone()]))
        .await;
    let state = || async {
        let stored = test.store.message(&root_of(&root)).await.unwrap().unwrap();
        let thread = stored.state.thread?;
        let users: Vec<_> = thread.participants.iter().map(UserId::to_string).collect();
        Some((thread.replies, thread.last_seq, users.join(" ")))
    };
    let is = |replies, last_seq, users: &str| Some((replies, last_seq, users.to_owned()));
    assert_eq!(state().await, is(2, 5, "bob cyd"));
    let mut writer = test.store.writer(0);
    let rows = in_room("r", std::slice::from_ref(&late));
    for fence in [Fence::EpochEnds, Fence::None] {
        writer.commit_with(&rows, fence).await.unwrap();
        assert_eq!(state().await, is(3, 5, "zoe bob cyd"));
    }
    // Damaged participants are found again with the next change.
    test.execute("UPDATE hubbub_threads SET participants = 'x'")
        .await;
    assert_eq!(state().await, is(3, 5, ""));
    for (entry, expected) in [
        (&last, is(2, 3, "zoe bob")),
        (&late, is(1, 3, "bob")),
        (&first, None),
    ] {
        let by = Changer {
            user: entry.user.clone(),
            is_moderator: false,
            hidden_seq: 0,
        };
        test.store.delete(&root_of(entry), &by).await.unwrap();
        assert_eq!(state().await, expected);
        // A repeat of its commit changes nothing.
        let rows = in_room("r", std::slice::from_ref(entry));
        writer.commit_with(&rows, Fence::EpochEnds).await.unwrap();
        assert_eq!(state().await, expected);
    }
    let ann = UserId::trusted("ann");
    assert_eq!(test.store.threads(&ann, None, 9).await.unwrap(), []);
}
