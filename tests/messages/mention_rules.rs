//! Mentions of all members of large chats, and of edits that race.

use hubbub::domain::{AccountName, DisplayName, EmailAddress};
use hubbub::store::sql::{DatabaseUrl, Settings, SqlStore};
use hubbub::store::{AccountStore as _, NewAccount, Once};
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::SharedStorage;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{SECRET, UNLIMITED, User, room};

/// An account that nobody logs in to.
async fn account(store: &SqlStore, name: &str) -> String {
    let account = NewAccount {
        id: Uuid::now_v7(),
        username: AccountName::parse(name).unwrap(),
        email: EmailAddress::parse(&format!("{name}@example.com")).unwrap(),
        display_name: DisplayName::parse("display_name", name).unwrap(),
        password: String::new(),
        role: None,
        rows: Vec::new(),
    };
    let id = account.id.to_string();
    let once = Once::without_key();
    store.create(account, None, once).await.unwrap();
    id
}

/// The unread mentions of a user in a room.
async fn mentions(user: &User, room: &str) -> Value {
    let answer = user
        .done("GET", "/api/v1/me/unread", Value::Null, 200)
        .await;
    let items = answer["items"].as_array().unwrap();
    let found = items.iter().find(|item| item["room_id"] == room);
    found.unwrap()["mentions"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_and_admins_mention_all_members_of_a_large_chat() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let storage = SharedStorage::new(&database.url);
    let settings = [SECRET, UNLIMITED, ("ACK_AFTER", "archive")];
    let app = storage.start_node(&settings).await;
    // The first account is an admin.
    let admin = User::sign_up(app.address(), "admin").await;
    let owner = User::sign_up(app.address(), "owner").await;
    let member = User::sign_up(app.address(), "member").await;
    let store = Settings::new(DatabaseUrl::parse(&database.url).unwrap());
    let store = SqlStore::open(&store).await.unwrap();
    let mut members = vec![admin.id.clone(), member.id.clone()];
    while members.len() < 100 {
        let name = format!("user{:03}", members.len());
        members.push(account(&store, &name).await);
    }
    let body = json!({"user_ids": members});
    let chat = owner.done("POST", "/api/v1/chats", body, 201).await;
    assert_eq!(chat["members"], 101, "more than are listed one by one");
    let chat = chat["id"].as_str().unwrap();
    for (sender, expected) in [
        (&member, Value::Null),
        (&owner, json!(["@channel"])),
        (&admin, json!(["@channel"])),
    ] {
        let sent = sender.send(chat, "hello @channel").await;
        let found = sent.get("mentions").unwrap_or(&Value::Null);
        assert_eq!(found, &expected, "{sent}");
    }
    let room = room(chat);
    // Nobody is mentioned by an own message.
    assert_eq!(mentions(&member, &room).await, 2);
    assert_eq!(mentions(&admin, &room).await, 1);
    // By an edit as well, and over a connection.
    let sent = admin.send(chat, "hello").await;
    let edit = json!({"room_id": room, "id": sent["id"], "content": "hello, @channel"});
    let client = admin.connect().await;
    client.done("join", json!({"room_id": room})).await;
    client.done("edit_message", edit).await;
    assert_eq!(mentions(&member, &room).await, 3);
    app.stop().await;
}

/// Edits of one message at two nodes, which mention different users.
async fn racing_edits_mention_the_users_of_the_last_one(kind: DatabaseKind) {
    let database = TestDatabase::new(kind);
    let storage = SharedStorage::new(&database.url);
    let settings = [SECRET, UNLIMITED, ("ACK_AFTER", "archive")];
    let nodes = [
        storage.start_node(&settings).await,
        storage.start_node(&settings).await,
    ];
    let address = |number: usize| nodes[number % 2].address();
    let ann = User::sign_up(address(0), "ann").await;
    let bob = User::sign_up(address(1), "bob").await;
    let eve = User::sign_up(address(0), "eve").await;
    let chat = ann.group(&[&bob, &eve], "all").await;
    let room = room(&chat);
    // How many messages mention the user at the end.
    let mut expected = [0, 0];
    for round in 0..10 {
        let sent = ann.send(&chat, "hello @bob").await;
        let id = sent["id"].as_str().unwrap();
        let path = format!("/api/v1/rooms/{room}/messages/{id}");
        let contents = ["for @eve", "for nobody", "for @bob", "for @bob and @eve"];
        let edits = contents.iter().enumerate().map(|(number, content)| {
            let (ann, path) = (ann.at(address(number + round)), path.clone());
            let body = json!({"content": content});
            async move { ann.done("PATCH", &path, body, 200).await }
        });
        futures_util::future::join_all(edits).await;
        let last = bob.done("GET", &path, Value::Null, 200).await;
        let content = last["content"].as_str().unwrap();
        let mut ids = Vec::new();
        for (user, (name, count)) in [&bob, &eve]
            .into_iter()
            .zip(["@bob", "@eve"].into_iter().zip(&mut expected))
        {
            if content.contains(name) {
                ids.push(user.id.as_str());
                *count += 1;
            }
        }
        ids.sort_unstable();
        let found = last.get("mentions").cloned().unwrap_or_else(|| json!([]));
        assert_eq!(found, json!(ids), "{last}");
        for (user, count) in [&bob, &eve].into_iter().zip(expected) {
            assert_eq!(mentions(user, &room).await, count, "{last}");
        }
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_edits_mention_the_users_of_the_last_one_on_postgres() {
    racing_edits_mention_the_users_of_the_last_one(DatabaseKind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_edits_mention_the_users_of_the_last_one_on_mariadb() {
    racing_edits_mention_the_users_of_the_last_one(DatabaseKind::MariaDb).await;
}
