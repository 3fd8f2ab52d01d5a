//! Chats and their members: each pair has one direct chat, and changes are announced with their commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use hubbub::domain::{
    AccountName, Announcement, Change, ChatHistory, ChatKind, ChatName, ChatRole, DisplayName,
    EmailAddress, Epoch, MAX_CHAT_MEMBERS, RoomId, Timestamp,
};
use hubbub::store::{
    AccountStore, Announce, ArchivedEntry, ChatChange, ChatPosition, ChatRefusal, ChatStore, Claim,
    NewAccount, NewGroup, NewRow, Once, Outbox, StoredKind,
};
use uuid::Uuid;

use crate::fixture::{TestStore, entry};
use crate::messages::fixture as messages;

crate::on_every_database!(
    a_pair_has_one_direct_chat_however_often_it_is_opened_at_once,
    a_direct_chat_never_changes,
    a_group_is_created_with_its_members_or_not_at_all,
    a_list_of_chats_begins_with_the_newest_activity,
    a_list_of_chats_tells_that_an_edit_is_not_recorded_as_announced,
    a_member_sees_what_the_history_of_the_chat_allows,
    only_owners_change_a_group_and_one_of_them_stays,
    a_change_is_announced_to_those_concerned_and_only_if_it_changes_something,
    owners_that_leave_at_once_leave_one_behind,
    a_disabled_user_has_no_rights,
);

pub(crate) async fn user(test: &TestStore, name: &str) -> Uuid {
    let account = NewAccount {
        id: Uuid::now_v7(),
        username: AccountName::parse(name).unwrap(),
        email: EmailAddress::parse(&format!("{name}@example.com")).unwrap(),
        display_name: DisplayName::parse("display_name", "Zoë 🐎").unwrap(),
        password: String::new(),
        role: None,
        rows: Vec::new(),
    };
    let id = account.id;
    let once = Once::without_key();
    test.store.create(account, None, once).await.unwrap();
    id
}

/// Announces a change as its event and the name or role that it is about.
pub(crate) fn announce() -> Announce {
    Arc::new(|announcement: &Announcement| {
        let about = match &announcement.change {
            Change::ChatCreated { role, .. } => role.as_str().to_owned(),
            Change::ChatUpdated { chat, role } => {
                let role = role.map_or("-", ChatRole::as_str);
                format!("{} {role}", chat.name.as_deref().unwrap_or("-"))
            }
            Change::MemberAdded(member) | Change::MemberRemoved(member) => {
                format!("{} {}", member.username, member.role.as_str())
            }
            Change::SessionEnded { .. } => String::new(),
        };
        NewRow {
            room: Some(announcement.room.clone()),
            kind: announcement.change.event().to_owned(),
            payload: about,
        }
    })
}

/// Takes the rows of the outbox: their rooms, with `chat` for the room of a chat and the name of the user
/// for a feed, their events and their payloads.
pub(crate) async fn announced(test: &TestStore, users: &[(&str, Uuid)]) -> Vec<String> {
    let rows = test.store.list(0, 10_000).await.unwrap();
    let claims: Vec<Claim> = rows.iter().map(|row| row.row.claim()).collect();
    test.store.done(&claims).await.unwrap();
    let names: BTreeMap<String, &str> = users
        .iter()
        .map(|(name, id)| (format!("user:{id}"), *name))
        .collect();
    let text = |row: hubbub::store::RowState| {
        let room = row.row.room.unwrap();
        let room = match room.chat_id() {
            Some(_) => "chat",
            None => names[room.as_str()],
        };
        format!("{room}: {} {}", row.row.kind, row.row.payload)
    };
    rows.into_iter().map(text).collect()
}

pub(crate) async fn group(
    test: &TestStore,
    owner: Uuid,
    members: &[Uuid],
    history: ChatHistory,
) -> Uuid {
    let group = NewGroup {
        id: Uuid::now_v7(),
        name: None,
        history,
        owner,
        members: members.to_vec(),
    };
    let id = group.id;
    let created = test.store.create_group(group, announce()).await.unwrap();
    created.unwrap();
    id
}

pub(crate) async fn change(
    test: &TestStore,
    chat: Uuid,
    actor: Uuid,
    change: ChatChange,
) -> Result<Vec<String>, ChatRefusal> {
    let changed = test.store.change_chat(chat, actor, change, announce());
    let users = changed.await.unwrap()?;
    Ok(users.iter().map(|user| user.as_str().to_owned()).collect())
}

fn add(users: &[Uuid]) -> ChatChange {
    ChatChange::Add {
        users: users.to_vec(),
        role: ChatRole::Member,
        head: None,
    }
}

async fn a_pair_has_one_direct_chat_however_often_it_is_opened_at_once(test: &TestStore) {
    let (ann, bob) = (user(test, "ann").await, user(test, "bob").await);
    let mut calls = Vec::new();
    for number in 0..500 {
        let store = test.store.clone();
        let (opener, other) = if number % 2 == 0 {
            (ann, bob)
        } else {
            (bob, ann)
        };
        calls.push(tokio::spawn(async move {
            let opened = store.open_direct(Uuid::now_v7(), opener, other, announce());
            opened.await.unwrap().unwrap()
        }));
    }
    let mut opened = Vec::new();
    for call in calls {
        opened.push(call.await.unwrap());
    }
    assert_eq!(opened.iter().filter(|(_, is_new)| *is_new).count(), 1);
    let chat = opened[0].0;
    assert!(opened.iter().all(|(id, _)| *id == chat));
    let mut rows = announced(test, &[("ann", ann), ("bob", bob)]).await;
    rows.sort();
    assert_eq!(
        rows,
        [
            "ann: chat_created member",
            "ann: member_added ann member",
            "bob: chat_created member",
            "bob: member_added bob member",
            "chat: member_added ann member",
            "chat: member_added bob member",
        ]
    );
    for (user, peer) in [(ann, "bob"), (bob, "ann")] {
        let chats = test.store.chats(user, None, 10).await.unwrap();
        assert_eq!(chats.len(), 1);
        let listed = &chats[0];
        assert_eq!((listed.chat.id, listed.chat.members), (chat, 2));
        assert_eq!(listed.chat.kind, ChatKind::Direct);
        assert_eq!(listed.peer.as_ref().unwrap().username, peer);
    }
}

async fn a_direct_chat_never_changes(test: &TestStore) {
    let (ann, bob) = (user(test, "ann").await, user(test, "bob").await);
    let carol = user(test, "carol").await;
    let unknown = Uuid::now_v7();
    let open = |other| {
        test.store
            .open_direct(Uuid::now_v7(), ann, other, announce())
    };
    let refused = open(unknown).await.unwrap();
    assert_eq!(refused, Err(ChatRefusal::UnknownUser(unknown)));
    let (chat, is_new) = open(bob).await.unwrap().unwrap();
    assert!(is_new);
    let rename = || ChatChange::Rename(Some(ChatName::parse("x").unwrap()));
    for wish in [
        rename(),
        add(&[carol]),
        ChatChange::SetRole(ann, ChatRole::Owner),
        ChatChange::Remove(bob),
        ChatChange::Remove(ann),
        ChatChange::Delete,
    ] {
        assert_eq!(
            change(test, chat, ann, wish).await,
            Err(ChatRefusal::IsDirect)
        );
    }
    let by_outsider = change(test, chat, carol, rename()).await;
    assert_eq!(by_outsider, Err(ChatRefusal::NotMember));
    assert_eq!(open(bob).await.unwrap(), Ok((chat, false)));

    let (own, is_new) = open(ann).await.unwrap().unwrap();
    assert!(is_new && own != chat);
    let own = test.store.chat(own, ann).await.unwrap().unwrap();
    assert_eq!((own.chat.members, own.peer), (1, None));
}

async fn a_group_is_created_with_its_members_or_not_at_all(test: &TestStore) {
    let (ann, bob) = (user(test, "ann").await, user(test, "bob").await);
    let new = |members: Vec<Uuid>| NewGroup {
        id: Uuid::now_v7(),
        name: Some(ChatName::parse("Böhse 🐎").unwrap()),
        history: ChatHistory::All,
        owner: ann,
        members,
    };
    let unknown = Uuid::now_v7();
    let refused = test.store.create_group(new(vec![bob, unknown]), announce());
    assert_eq!(
        refused.await.unwrap(),
        Err(ChatRefusal::UnknownUser(unknown))
    );
    assert!(test.store.chats(bob, None, 10).await.unwrap().is_empty());
    assert!(test.store.list(0, 10).await.unwrap().is_empty());

    // The owner and doubles are members once.
    let group = new(vec![bob, ann, bob]);
    let id = group.id;
    for _ in 0..2 {
        let created = test.store.create_group(group.clone(), announce()).await;
        created.unwrap().unwrap();
    }
    let names = [("ann", ann), ("bob", bob)];
    assert_eq!(
        announced(test, &names).await,
        [
            "ann: chat_created owner",
            "bob: chat_created member",
            "chat: member_added ann owner",
            "ann: member_added ann owner",
            "chat: member_added bob member",
            "bob: member_added bob member",
        ]
    );
    let chat = test.store.chat(id, bob).await.unwrap().unwrap();
    assert_eq!(chat.chat.name.as_deref(), Some("Böhse 🐎"));
    assert_eq!((chat.chat.members, chat.peer), (2, None));
    assert_eq!(chat.membership.role, ChatRole::Member);
    assert_eq!(chat.chat.created_by.as_str(), ann.to_string());
    let members = test.store.chat_members(id, None, 10).await.unwrap();
    let names: Vec<&str> = members
        .iter()
        .map(|member| member.username.as_str())
        .collect();
    assert_eq!(names, ["ann", "bob"]);
    let rest = test.store.chat_members(id, Some(ann), 10).await.unwrap();
    assert_eq!((rest.len(), rest[0].role), (1, ChatRole::Member));
    let one = test.store.chat_member(id, bob).await.unwrap();
    assert_eq!(one.as_ref(), rest.first());
    assert_eq!(test.store.chat_member(id, unknown).await.unwrap(), None);
    assert_eq!(test.store.chat(id, unknown).await.unwrap(), None);
}

/// Archives a message of a chat.
pub(crate) async fn archive(test: &TestStore, chat: Uuid, seq: u64, at: u64, kind: StoredKind) {
    let room = RoomId::chat(chat);
    let entry = ArchivedEntry {
        at: Timestamp(at),
        kind,
        epoch: Epoch::trusted("e"),
        ..entry(seq)
    };
    test.commit(&[(room, entry)]).await;
}

async fn a_list_of_chats_begins_with_the_newest_activity(test: &TestStore) {
    let (ann, bob) = (user(test, "ann").await, user(test, "bob").await);
    let mut chats = Vec::new();
    for _ in 0..5 {
        chats.push(group(test, ann, &[bob], ChatHistory::All).await);
    }
    let other = group(test, bob, &[], ChatHistory::All).await;
    let far = 9_000_000_000_000;
    archive(test, chats[1], 1, far + 1, StoredKind::MESSAGE).await;
    archive(test, chats[1], 2, far + 5, StoredKind::MESSAGE).await;
    archive(test, chats[3], 1, far + 3, StoredKind::MESSAGE).await;
    // A change is no message.
    archive(test, chats[3], 2, far + 9, StoredKind::CHANGE).await;
    archive(test, chats[0], 1, far + 3, StoredKind::MESSAGE).await;
    archive(test, other, 1, far + 7, StoredKind::MESSAGE).await;
    let all = test.store.chats(ann, None, 10).await.unwrap();
    let ids = |chats: &[hubbub::store::ChatOfMember]| -> Vec<Uuid> {
        chats.iter().map(|listed| listed.chat.id).collect()
    };
    // Of the same time the one with the greater id, and so of the two without messages.
    let newest = [chats[1], chats[3], chats[0]];
    assert_eq!(ids(&all)[..3], newest);
    assert_eq!(all.len(), 5);
    let last = all[0].last_message.as_ref().unwrap();
    assert_eq!(
        (last.form.position.seq, &last.record[..]),
        (2, b"{\"n\":2}".as_slice())
    );
    assert_eq!(all[1].last_message.as_ref().unwrap().form.position.seq, 1);
    assert_eq!(
        (all[0].active_at.0, all[4].last_message.is_none()),
        (far + 5, true)
    );
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = test.store.chats(ann, after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(ChatPosition {
            active_at: last.active_at,
            chat: last.chat.id,
        });
        paged.extend(page);
    }
    assert_eq!(paged, all);
    let one = test.store.chat(chats[1], ann).await.unwrap();
    assert_eq!(one.as_ref(), all.first());
}

async fn a_list_of_chats_tells_that_an_edit_is_not_recorded_as_announced(test: &TestStore) {
    let ann = user(test, "ann").await;
    let chat = group(test, ann, &[], ChatHistory::All).await;
    let message = messages::message(1, &ann.to_string(), serde_json::json!({"content": "old"}));
    let room = RoomId::chat(chat);
    test.commit(&[(room.clone(), message.clone())]).await;
    let mut edit = messages::edit_of(&message, "new", None);
    edit.message.room = room;
    let store: &dyn hubbub::store::MessageStore = &test.store;
    store.edit(&edit).await.unwrap();
    let last = async || {
        let chats = test.store.chats(ann, None, 10).await.unwrap();
        chats[0].last_message.clone().unwrap()
    };
    let listed = last().await;
    assert_eq!(messages::content(&listed.record), "new");
    assert!(listed.state.unrecorded.revision);
    let mut rows = messages::claim(test).await;
    rows.retain(|row| row.kind == "message_edited");
    let published = messages::published_at(test, &rows[0], 9).await;
    messages::done(test, &[published]).await;
    let listed = last().await;
    assert_eq!(
        (listed.form.version, listed.state.unrecorded.revision),
        (9, false)
    );
}

async fn a_member_sees_what_the_history_of_the_chat_allows(test: &TestStore) {
    let (ann, bob) = (user(test, "ann").await, user(test, "bob").await);
    for (history, hidden) in [(ChatHistory::All, 0), (ChatHistory::Joined, 2)] {
        let chat = group(test, ann, &[], history).await;
        for seq in 1..=2 {
            archive(test, chat, seq, seq, StoredKind::MESSAGE).await;
        }
        let added = ChatChange::Add {
            users: vec![bob],
            role: ChatRole::Member,
            head: Some(2),
        };
        change(test, chat, ann, added).await.unwrap();
        let membership = test.store.membership(chat, bob).await.unwrap().unwrap();
        assert_eq!(membership.hidden_seq, hidden);
        let seen = test.store.chat(chat, bob).await.unwrap().unwrap();
        let last = seen.last_message.map(|last| last.form.position.seq);
        assert_eq!(last, (hidden == 0).then_some(2));
        archive(test, chat, 3, 3, StoredKind::MESSAGE).await;
        let seen = test.store.chat(chat, bob).await.unwrap().unwrap();
        assert_eq!(seen.last_message.unwrap().form.position.seq, 3);
        let owner = test.store.membership(chat, ann).await.unwrap().unwrap();
        assert_eq!((owner.hidden_seq, owner.role), (0, ChatRole::Owner));
    }
}

async fn only_owners_change_a_group_and_one_of_them_stays(test: &TestStore) {
    let (ann, bob) = (user(test, "ann").await, user(test, "bob").await);
    let carol = user(test, "carol").await;
    let chat = group(test, ann, &[bob], ChatHistory::All).await;
    let rename = || ChatChange::Rename(Some(ChatName::parse("x").unwrap()));
    for wish in [
        rename(),
        add(&[carol]),
        ChatChange::SetRole(bob, ChatRole::Owner),
        ChatChange::Remove(ann),
        ChatChange::Delete,
    ] {
        let by_member = change(test, chat, bob, wish.clone()).await;
        assert_eq!(by_member, Err(ChatRefusal::NotOwner), "{wish:?}");
        let by_outsider = change(test, chat, carol, wish.clone()).await;
        assert_eq!(by_outsider, Err(ChatRefusal::NotMember), "{wish:?}");
        let of_unknown = change(test, Uuid::now_v7(), ann, wish.clone()).await;
        assert_eq!(of_unknown, Err(ChatRefusal::NotMember), "{wish:?}");
    }
    for wish in [
        ChatChange::Remove(ann),
        ChatChange::SetRole(ann, ChatRole::Member),
    ] {
        assert_eq!(
            change(test, chat, ann, wish).await,
            Err(ChatRefusal::LastOwner)
        );
    }
    for wish in [
        ChatChange::Remove(carol),
        ChatChange::SetRole(carol, ChatRole::Owner),
    ] {
        assert_eq!(
            change(test, chat, ann, wish).await,
            Err(ChatRefusal::UnknownMember)
        );
    }
    let many: Vec<Uuid> = (0..MAX_CHAT_MEMBERS).map(|_| Uuid::now_v7()).collect();
    let unknown = many[0];
    assert_eq!(
        change(test, chat, ann, add(&many)).await,
        Err(ChatRefusal::TooManyMembers)
    );
    assert_eq!(
        change(test, chat, ann, add(&[carol, unknown])).await,
        Err(ChatRefusal::UnknownUser(unknown))
    );
    let to_owner = ChatChange::SetRole(bob, ChatRole::Owner);
    assert_eq!(
        change(test, chat, ann, to_owner).await.unwrap(),
        [bob.to_string()]
    );
    let leaving = ChatChange::Remove(ann);
    assert_eq!(
        change(test, chat, ann, leaving).await.unwrap(),
        [ann.to_string()]
    );
    assert_eq!(test.store.membership(chat, ann).await.unwrap(), None);
    change(test, chat, bob, ChatChange::Delete).await.unwrap();
    assert_eq!(test.store.chat(chat, bob).await.unwrap(), None);
    assert_eq!(test.store.membership(chat, bob).await.unwrap(), None);
}

async fn a_change_is_announced_to_those_concerned_and_only_if_it_changes_something(
    test: &TestStore,
) {
    let names = ["ann", "bob", "carol"];
    let mut users = Vec::new();
    for name in names {
        users.push((name, user(test, name).await));
    }
    let [ann, bob, carol] = [users[0].1, users[1].1, users[2].1];
    let chat = group(test, ann, &[bob], ChatHistory::All).await;
    announced(test, &users).await;
    let rename = || ChatChange::Rename(Some(ChatName::parse("x").unwrap()));
    for (wish, expected) in [
        (
            rename(),
            vec![
                "chat: chat_updated x -",
                "ann: chat_updated x owner",
                "bob: chat_updated x member",
            ],
        ),
        (rename(), vec![]),
        (
            add(&[bob, carol, carol]),
            vec![
                "chat: member_added carol member",
                "carol: member_added carol member",
            ],
        ),
        (add(&[carol]), vec![]),
        (
            ChatChange::SetRole(carol, ChatRole::Owner),
            vec!["chat: chat_updated x -", "carol: chat_updated x owner"],
        ),
        (ChatChange::SetRole(carol, ChatRole::Owner), vec![]),
        (
            ChatChange::Remove(carol),
            vec![
                "chat: member_removed carol owner",
                "carol: member_removed carol owner",
            ],
        ),
        (
            ChatChange::Delete,
            vec![
                "chat: member_removed ann owner",
                "ann: member_removed ann owner",
                "chat: member_removed bob member",
                "bob: member_removed bob member",
            ],
        ),
    ] {
        change(test, chat, ann, wish.clone()).await.unwrap();
        assert_eq!(announced(test, &users).await, expected, "{wish:?}");
    }
}

async fn owners_that_leave_at_once_leave_one_behind(test: &TestStore) {
    let mut owners = Vec::new();
    for number in 0..6 {
        owners.push(user(test, &format!("u{number}")).await);
    }
    let chat = group(test, owners[0], &[], ChatHistory::All).await;
    let added = ChatChange::Add {
        users: owners.clone(),
        role: ChatRole::Owner,
        head: Some(0),
    };
    change(test, chat, owners[0], added).await.unwrap();
    let leaving = owners.iter().map(|owner| {
        let (store, owner) = (test.store.clone(), *owner);
        tokio::spawn(async move {
            let left = store.change_chat(chat, owner, ChatChange::Remove(owner), announce());
            left.await.unwrap().is_ok()
        })
    });
    let mut left = 0;
    for leaving in leaving.collect::<Vec<_>>() {
        if leaving.await.unwrap() {
            left += 1;
        }
    }
    assert_eq!(left, 5);
    let rest = test.store.chat_members(chat, None, 10).await.unwrap();
    assert_eq!((rest.len(), rest[0].role), (1, ChatRole::Owner));
}

async fn a_disabled_user_has_no_rights(test: &TestStore) {
    let ann = user(test, "ann").await;
    let chat = group(test, ann, &[], ChatHistory::All).await;
    assert!(test.store.membership(chat, ann).await.unwrap().is_some());
    test.execute("UPDATE hubbub_users SET disabled_at = 1")
        .await;
    assert_eq!(test.store.membership(chat, ann).await.unwrap(), None);
}
