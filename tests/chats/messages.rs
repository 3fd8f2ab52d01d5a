//! Messages of chats, over connections and by REST.

use serde_json::{Value, json};

use crate::fixture::{User, contents, node, room};

#[tokio::test(flavor = "multi_thread")]
async fn members_talk_at_every_door() {
    for mode in ["open", "jwt"] {
        let node = node(&[("AUTH_MODE", mode)]).await;
        let ann = User::sign_up(node.address(0), "ann").await;
        let bob = User::sign_up(node.address(0), "bob").await;
        let opened = ann
            .done("POST", "/api/v1/chats", json!({"user_id": bob.id}), 201)
            .await;
        let chat = opened["id"].as_str().unwrap();
        let room = room(chat);
        // The announcements of the two members.
        ann.await_entries(chat, 2).await;
        let client = bob.connect().await;
        client.done("join", json!({"room_id": room})).await;
        let sent = ann.send(chat, "by rest").await;
        assert_eq!((&sent["room_id"], &sent["seq"]), (&json!(room), &json!(3)));
        assert_eq!(
            (&sent["user_id"], &sent["username"]),
            (&json!(ann.id), &json!("ann"))
        );
        let received = client.await_event("message").await;
        assert_eq!(received, sent);
        client
            .done("message", json!({"room_id": room, "content": "by socket"}))
            .await;
        let joined = bob.over_websocket("join", json!({"room_id": room})).await;
        assert_eq!((&joined["ok"], &joined["seq"]), (&json!(true), &json!(4)));
        // Over a connection a member has to join first.
        let early = ann.connect().await;
        let refused = early
            .ask("message", json!({"room_id": room, "content": "x"}))
            .await;
        assert_eq!(refused["code"], "not_in_room");
        let history = client.done("history", json!({"room_id": room})).await;
        assert_eq!(contents(&history["messages"]), ["by rest", "by socket"]);
        let page = ann
            .done(
                "GET",
                &format!("/api/v1/rooms/{room}/messages"),
                Value::Null,
                200,
            )
            .await;
        assert_eq!(contents(&page["items"]), ["by rest", "by socket"]);
        assert_eq!(page["as_of"]["seq"], 4);
        let kept = ann.get(&format!("/api/chats/messages/{chat}")).await.1;
        assert_eq!(kept, page);
        let (status, older) = ann.get(&format!("/rooms/{room}/messages")).await;
        assert_eq!(
            (status, contents(&older["messages"]).len()),
            (200, 2),
            "{mode}"
        );
        let (status, users) = ann.get(&format!("/rooms/{room}/users")).await;
        assert_eq!((status, &users["total"]), (200, &json!(1)));
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_a_user_opens_the_direct_chat() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let body = json!({"user_id": bob.id, "content": "hi", "client_msg_id": "m1"});
    let sent = ann
        .done("POST", "/api/chats/message", body.clone(), 201)
        .await;
    let (status, headers, again) = ann.request_with("POST", "/api/chats", &body, &[]).await;
    assert_eq!((status, &again), (201, &sent), "a repeat");
    assert_eq!(headers["idempotency-replayed"], "true");
    let chat = sent["room_id"]
        .as_str()
        .unwrap()
        .strip_prefix("chat:")
        .unwrap();
    let body = json!({"chat_id": chat, "content": "hello"});
    let answered = bob.done("POST", "/api/chats", body, 201).await;
    assert!(answered["seq"].as_u64() > sent["seq"].as_u64());
    let opened = bob
        .done("POST", "/api/chats", json!({"user_id": ann.id}), 200)
        .await;
    assert_eq!(opened["id"], chat);
    assert_eq!(opened["last_message"]["content"], "hello");
    for body in [
        json!({"content": "x"}),
        json!({"user_id": bob.id, "chat_id": chat, "content": "x"}),
    ] {
        let (status, refused) = ann.request("POST", "/api/chats/message", &body).await;
        assert_eq!(
            (status, &refused["code"]),
            (400, &json!("bad_request")),
            "{body}"
        );
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_returns_the_first_message() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let chat = ann.group(&[], "all").await;
    let path = format!("/api/v1/rooms/chat:{chat}/messages");
    let key = [("idempotency-key", "k")];
    let post = async |content: &str| {
        let body = json!({"content": content});
        ann.request_with("POST", &path, &body, &key).await
    };
    let (status, headers, first) = post("one").await;
    assert_eq!((status, headers.get("idempotency-replayed")), (201, None));
    let (status, headers, second) = post("one").await;
    assert_eq!((status, &second), (201, &first));
    assert_eq!(headers["idempotency-replayed"], "true");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_paged_by_cursor() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let chat = ann.group(&[], "all").await;
    ann.await_entries(&chat, 1).await;
    for number in 1..=5 {
        ann.send(&chat, &number.to_string()).await;
    }
    let path = format!("/api/v1/rooms/chat:{chat}/messages?limit=2");
    for (query, expected) in [
        ("", [vec!["4", "5"], vec!["2", "3"], vec!["1"]]),
        ("&after_seq=1", [vec!["1", "2"], vec!["3", "4"], vec!["5"]]),
    ] {
        let mut query = query.to_owned();
        for (number, expected) in expected.into_iter().enumerate() {
            let page = ann
                .done("GET", &format!("{path}{query}"), Value::Null, 200)
                .await;
            assert_eq!(contents(&page["items"]), expected);
            assert_eq!(page["has_more"], number < 2);
            if let Some(cursor) = page["next_cursor"].as_str() {
                query = format!("&cursor={cursor}");
            }
        }
    }
    let around = ann.get(&format!("{path}&around_seq=4")).await.1;
    assert!(contents(&around["items"]).contains(&"3"));
    for query in ["&cursor=b1&after_seq=1", "&cursor=x", "&limit=x"] {
        assert_eq!(ann.get(&format!("{path}{query}")).await.0, 400, "{query}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_open_room_an_account_has_the_rights_of_an_occupant() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let path = "/api/v1/rooms/lobby/messages";
    let body = json!({"content": "hi"});
    for (method, body) in [("GET", &Value::Null), ("POST", &body)] {
        let (status, refused) = ann.request(method, path, body).await;
        assert_eq!((status, &refused["code"]), (403, &json!("not_in_room")));
    }
    let client = ann.connect().await;
    client.done("join", json!({"room_id": "lobby"})).await;
    ann.done("POST", path, body, 201).await;
    let page = ann.done("GET", path, Value::Null, 200).await;
    assert_eq!(contents(&page["items"]), ["hi"]);
    node.stop().await;
}
