//! The room of a chat is closed to everybody but its members, at every door.

use hubbub_test_support::client::Client;
use hubbub_test_support::node::http;
use serde_json::{Value, json};

use crate::fixture::{User, node, room};

/// Requests of a user that is not a member: each is refused as if there were no such chat.
async fn is_shut_out(user: &User, chat: &str, member: &User) {
    let room = room(chat);
    let own = format!("/api/v1/chats/{chat}");
    let of_member = format!("{own}/members/{}", member.id);
    let text = json!({"content": "hi"});
    for (method, path, body) in [
        ("GET", own.clone(), Value::Null),
        ("PATCH", own.clone(), json!({"name": "x"})),
        ("DELETE", own.clone(), Value::Null),
        ("GET", format!("{own}/members"), Value::Null),
        (
            "POST",
            format!("{own}/members"),
            json!({"user_id": user.id}),
        ),
        ("PATCH", of_member.clone(), json!({"role": "owner"})),
        ("DELETE", of_member, Value::Null),
        ("GET", format!("/api/v1/rooms/{room}/messages"), Value::Null),
        (
            "POST",
            format!("/api/v1/rooms/{room}/messages"),
            text.clone(),
        ),
        ("GET", format!("/rooms/{room}/messages"), Value::Null),
        ("GET", format!("/rooms/{room}/users"), Value::Null),
        ("GET", format!("/api/chats/messages/{chat}"), Value::Null),
        (
            "POST",
            "/api/chats/message".to_owned(),
            json!({"chat_id": chat, "content": "x"}),
        ),
        (
            "POST",
            "/messages".to_owned(),
            json!({"room_id": room, "content": "x"}),
        ),
    ] {
        let (status, refused) = user.request(method, &path, &body).await;
        assert_eq!(
            (status, &refused["code"]),
            (404, &json!("not_found")),
            "{method} {path}"
        );
    }
    let chats = user.done("GET", "/api/v1/chats", Value::Null, 200).await;
    assert_eq!(chats["items"], json!([]));
}

/// Events of a connection whose user is not a member.
async fn refuses_events(client: &Client, room: &str) {
    for (event, payload) in [
        ("join", json!({"room_id": room})),
        ("join", json!({"room_id": room, "since_seq": 0})),
        ("message", json!({"room_id": room, "content": "x"})),
        ("history", json!({"room_id": room})),
        ("typing", json!({"room_id": room})),
    ] {
        let refused = client.ask(event, payload).await;
        assert_eq!(refused["code"], "forbidden", "{event}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outsiders_get_nowhere() {
    for mode in ["open", "jwt"] {
        let node = node(&[("AUTH_MODE", mode)]).await;
        let address = node.address(0);
        // The first account is an admin, which is no member either.
        let admin = User::sign_up(address, "admin").await;
        let ann = User::sign_up(address, "ann").await;
        let eve = User::sign_up(address, "eve").await;
        let chat = ann.group(&[], "all").await;
        ann.send(&chat, "secret").await;
        let room = room(&chat);
        let mut outsiders = vec![eve];
        if mode == "open" {
            outsiders.push(admin);
        } else {
            // A service by its role, in jwt mode.
            let path = format!("/rooms/{room}/messages");
            assert_eq!(admin.get(&path).await.0, 404);
            let body = json!({"room_id": room, "content": "x"});
            assert_eq!(admin.request("POST", "/messages", &body).await.0, 404);
        }
        for outsider in &outsiders {
            if mode == "open" {
                is_shut_out(outsider, &chat, &ann).await;
            }
            refuses_events(&outsider.connect().await, &room).await;
            for (event, payload) in [
                ("join", json!({"room_id": room})),
                ("message", json!({"room_id": room, "content": "x"})),
            ] {
                let refused = outsider.over_websocket(event, payload).await;
                assert_eq!(refused["code"], "forbidden", "{event}");
            }
        }
        // A room is written in one way.
        let other = room.to_uppercase().replace("CHAT", "chat");
        let refused = ann
            .connect()
            .await
            .ask("join", json!({"room_id": other}))
            .await;
        assert_eq!(refused["code"], "forbidden");
        let messages = ann.get(&format!("/api/v1/rooms/{room}/messages")).await.1;
        assert_eq!(messages["items"].as_array().unwrap().len(), 1);
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_identity_reaches_no_chat() {
    let node = node(&[("AUTH_MODE", "open")]).await;
    let address = node.address(0);
    let ann = User::sign_up(address, "ann").await;
    let chat = ann.group(&[], "all").await;
    let room = room(&chat);
    let claiming = Client::connect(address).await;
    claiming
        .done("authenticate", json!({"user_id": ann.id}))
        .await;
    refuses_events(&claiming, &room).await;
    claiming.done("join", json!({"room_id": "lobby"})).await;
    for (method, path) in [
        ("GET", format!("/rooms/{room}/messages")),
        ("GET", format!("/rooms/{room}/users")),
        ("GET", format!("/api/v1/chats/{chat}")),
        ("GET", format!("/api/v1/rooms/{room}/messages")),
        ("GET", "/api/v1/rooms/lobby/messages".to_owned()),
    ] {
        let (status, _, refused) = http(address, method, &path, &[], "").await;
        assert_eq!(
            (status, &refused["code"]),
            (401, &json!("unauthorized")),
            "{path}"
        );
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_gives_up_its_account_leaves_its_chats() {
    // The same user by a token of an outside issuer, which has the same secret.
    let node = node(&[("AUTH_MODE", "jwt")]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let chat = ann.group(&[], "all").await;
    let client = ann.connect().await;
    client.done("join", json!({"room_id": room(&chat)})).await;
    let lasting = std::time::Duration::from_secs(60);
    let token = hubbub::auth::NewToken::lasting(&ann.id, lasting);
    let token = token.sign(crate::fixture::SECRET.1).unwrap();
    client.done("authenticate", json!({"token": token})).await;
    let left = client.await_event("exception").await;
    assert_eq!(left["room_id"], room(&chat));
    refuses_events(&client, &room(&chat)).await;
    node.stop().await;
}
