//! How memberships begin, where the history of a chat is limited, and how they end with an account.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hubbub::domain::{ChatHistory, ChatRole, MAX_CHAT_MEMBERS, RoomId, UserId};
use hubbub::store::{
    AnnounceEnd, ChatChange, ChatRefusal, ChatStore, DeleteOutcome, DeletionStep, DeletionStore,
    NewRow, Rewrite, Rewritten, StoredKind,
};
use uuid::Uuid;

use crate::chats::{announce, announced, archive, change, group, user};
use crate::fixture::TestStore;

crate::on_every_database!(
    a_new_member_sees_nothing_that_was_archived_before_it_was_added,
    a_deleted_account_leaves_its_groups_and_each_keeps_an_owner,
    a_chat_with_the_most_members_is_deleted_in_a_few_statements,
);

async fn a_new_member_sees_nothing_that_was_archived_before_it_was_added(test: &TestStore) {
    let (ann, bob) = (user(test, "ann").await, user(test, "bob").await);
    let add = |user, head| ChatChange::Add {
        users: vec![user],
        role: ChatRole::Member,
        head: Some(head),
    };
    let chat = group(test, ann, &[], ChatHistory::Joined).await;
    // The head was read at 2. The third message came while the change waited for the chat.
    for seq in 1..=3 {
        archive(test, chat, seq, seq, StoredKind::MESSAGE).await;
    }
    change(test, chat, ann, add(bob, 2)).await.unwrap();
    let member = test.store.membership(chat, bob).await.unwrap().unwrap();
    assert_eq!(member.hidden_seq, 3);

    // Numbers that a loss of the log would assign a second time.
    let carol = user(test, "carol").await;
    let refused = change(test, chat, ann, add(carol, 5)).await;
    assert_eq!(refused, Err(ChatRefusal::NotArchived));
    assert_eq!(test.store.membership(chat, carol).await.unwrap(), None);
    for seq in 4..=5 {
        archive(test, chat, seq, seq, StoredKind::MESSAGE).await;
    }
    change(test, chat, ann, add(carol, 5)).await.unwrap();
    let member = test.store.membership(chat, carol).await.unwrap().unwrap();
    assert_eq!(member.hidden_seq, 5);

    // Without a limit nothing is hidden, and nothing is awaited.
    let open = group(test, ann, &[], ChatHistory::All).await;
    change(test, open, ann, add(bob, 9)).await.unwrap();
    let member = test.store.membership(open, bob).await.unwrap().unwrap();
    assert_eq!(member.hidden_seq, 0);
}

fn job() -> NewRow {
    NewRow {
        room: None,
        kind: "forget".to_owned(),
        payload: "{}".to_owned(),
    }
}

pub async fn delete(test: &TestStore, user: Uuid) {
    // Its end is not announced: nobody has logged in.
    let announce: AnnounceEnd = Arc::new(|user: &UserId, _| NewRow {
        room: Some(RoomId::personal(user)),
        ..job()
    });
    let deleted = test
        .store
        .delete_account(user, String::new(), job(), announce);
    let deleted = deleted.await.unwrap();
    assert_eq!(deleted, DeleteOutcome::Deleted(Vec::new()));
}

/// Leaves all groups; returns the number of calls that it took.
pub async fn leave_groups(test: &TestStore, user: Uuid) -> usize {
    let (mut calls, mut after) = (1, Uuid::nil());
    while let Some(last) = test
        .store
        .leave_groups(user, after, announce())
        .await
        .unwrap()
    {
        calls += 1;
        after = last;
    }
    calls
}

/// The announcements in rooms of chats.
async fn announced_in_chats(test: &TestStore, users: &[(&str, Uuid)]) -> Vec<String> {
    // The job is in no room.
    test.execute("DELETE FROM hubbub_outbox WHERE room_id IS NULL")
        .await;
    announced(test, users).await
}

async fn members(test: &TestStore, chat: Uuid) -> Vec<(String, ChatRole)> {
    let members = test.store.chat_members(chat, None, 10).await.unwrap();
    let member = |member: hubbub::domain::ChatMember| (member.username, member.role);
    members.into_iter().map(member).collect()
}

async fn a_deleted_account_leaves_its_groups_and_each_keeps_an_owner(test: &TestStore) {
    let mut users = Vec::new();
    for name in ["admin", "ann", "bob", "carol", "dave"] {
        users.push((name, user(test, name).await));
    }
    let [_, ann, bob, carol, dave] = [0, 1, 2, 3, 4].map(|index| users[index].1);
    let add = |user, role| ChatChange::Add {
        users: vec![user],
        role,
        head: None,
    };
    // Dave joined first, but is disabled. Carol joined before bob, whose id is less than hers.
    let handed = group(test, ann, &[dave], ChatHistory::All).await;
    for user in [carol, bob] {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let added = add(user, ChatRole::Member);
        change(test, handed, ann, added).await.unwrap();
    }
    let shared = group(test, ann, &[carol], ChatHistory::All).await;
    let added = add(bob, ChatRole::Owner);
    change(test, shared, ann, added).await.unwrap();
    let of_bob = group(test, bob, &[ann], ChatHistory::All).await;
    let unusable = group(test, ann, &[dave], ChatHistory::All).await;
    let mut own = Vec::new();
    for _ in 0..120 {
        own.push(group(test, ann, &[], ChatHistory::All).await);
    }
    let opened = test
        .store
        .open_direct(Uuid::now_v7(), ann, bob, announce())
        .await;
    let (direct, _) = opened.unwrap().unwrap();
    test.execute("UPDATE hubbub_users SET disabled_at = 1 WHERE username = 'dave'")
        .await;
    announced(test, &users).await;

    // Only of an account that is being deleted.
    assert_eq!(leave_groups(test, ann).await, 1);
    assert_eq!(members(test, of_bob).await.len(), 2);
    delete(test, ann).await;
    assert_eq!(test.store.membership(handed, ann).await.unwrap(), None);
    announced_in_chats(test, &users).await;
    assert!(leave_groups(test, ann).await > 2, "in several calls");

    let text = |name: &str, role| (name.to_owned(), role);
    let (owner, member) = (ChatRole::Owner, ChatRole::Member);
    assert_eq!(
        members(test, handed).await,
        [
            text("bob", member),
            text("carol", owner),
            text("dave", member)
        ]
    );
    assert_eq!(
        members(test, shared).await,
        [text("bob", owner), text("carol", member)]
    );
    assert_eq!(members(test, of_bob).await, [text("bob", owner)]);
    assert_eq!(members(test, unusable).await, [text("dave", owner)]);
    assert_eq!(
        members(test, direct).await,
        [text("deleted user", member), text("bob", member)]
    );
    let listed = test.store.chat(handed, carol).await.unwrap().unwrap();
    assert_eq!((listed.chat.members, listed.membership.role), (3, owner));
    let mut rows = announced_in_chats(test, &users).await;
    rows.sort();
    let removed = "chat: member_removed deleted user owner";
    let mut expected = vec![
        "carol: chat_updated - owner",
        "chat: chat_updated - -",
        "chat: chat_updated - -",
        "chat: member_removed deleted user member",
        "dave: chat_updated - owner",
    ];
    expected.extend([removed].repeat(123));
    expected.sort_unstable();
    assert_eq!(rows, expected);

    // The group is of one owner now, and a repeat finds nothing.
    let left = change(test, handed, carol, ChatChange::Remove(carol)).await;
    assert_eq!(left, Err(ChatRefusal::LastOwner));
    let rewrite: Rewrite = Arc::new(|_| Rewritten::Unchanged);
    while test
        .store
        .rewrite_next(ann, rewrite.clone(), job())
        .await
        .unwrap()
        != DeletionStep::Finished
    {}
    assert_eq!(leave_groups(test, ann).await, 1);
}

async fn a_chat_with_the_most_members_is_deleted_in_a_few_statements(test: &TestStore) {
    let ann = user(test, "ann").await;
    let chat = group(test, ann, &[], ChatHistory::All).await;
    let mut users = vec![("ann", ann)];
    for number in 1..MAX_CHAT_MEMBERS {
        users.push(("other", user(test, &format!("u{number}")).await));
    }
    for part in users[1..].chunks(100) {
        let added = ChatChange::Add {
            users: part.iter().map(|(_, user)| *user).collect(),
            role: ChatRole::Member,
            head: None,
        };
        change(test, chat, ann, added).await.unwrap();
    }
    test.execute("DELETE FROM hubbub_outbox").await;
    let begun = Instant::now();
    let removed = change(test, chat, ann, ChatChange::Delete).await.unwrap();
    let took = begun.elapsed();
    println!("{:?}: {} members in {took:?}", test.kind(), removed.len());
    assert_eq!(removed.len(), MAX_CHAT_MEMBERS);
    let rows = announced(test, &users).await;
    assert_eq!(rows.len(), 2 * MAX_CHAT_MEMBERS);
}
