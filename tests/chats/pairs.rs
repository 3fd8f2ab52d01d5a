//! Direct chats: one for each pair of users.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::SharedStorage;
use serde_json::json;

use crate::fixture::{SECRET, User, node};

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_chat_is_opened_once_and_found_from_both_sides() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let path = "/api/v1/chats";
    let opened = ann
        .done("POST", path, json!({"user_id": bob.id}), 201)
        .await;
    assert_eq!(
        opened["room_id"],
        format!("chat:{}", opened["id"].as_str().unwrap())
    );
    assert_eq!(
        (&opened["kind"], &opened["members"]),
        (&json!("direct"), &json!(2))
    );
    let my = json!({"role": "member", "unread": 0, "mentions": 0, "last_read_seq": opened["my"]["last_read_seq"]});
    assert_eq!(opened["my"], my);
    assert_eq!(opened["peer"]["username"], "bob");
    let again = bob
        .done("POST", path, json!({"user_id": ann.id}), 200)
        .await;
    assert_eq!(
        (&again["id"], &again["peer"]["username"]),
        (&opened["id"], &json!("ann"))
    );
    let chat = format!("{path}/{}", opened["id"].as_str().unwrap());
    for (method, path, body) in [
        ("PATCH", chat.clone(), json!({"name": "x"})),
        ("DELETE", chat.clone(), json!(null)),
        (
            "POST",
            format!("{chat}/members"),
            json!({"user_id": ann.id}),
        ),
        ("DELETE", format!("{chat}/members/{}", ann.id), json!(null)),
    ] {
        let (status, refused) = ann.request(method, &path, &body).await;
        assert_eq!(
            (status, &refused["code"]),
            (403, &json!("forbidden")),
            "{method}"
        );
    }
    // A chat with oneself.
    let own = ann
        .done("POST", path, json!({"user_id": ann.id}), 201)
        .await;
    assert_eq!((&own["members"], own.get("peer")), (&json!(1), None));
    for unknown in ["nobody", "0199d5b0-0000-7000-8000-000000000000"] {
        let (status, refused) = ann
            .request("POST", path, &json!({"user_id": unknown}))
            .await;
        assert_eq!((status, &refused["code"]), (404, &json!("not_found")));
    }
    node.stop().await;
}

/// 500 requests at once, from both sides, at three nodes.
async fn open_at_once(kind: DatabaseKind) {
    let database = TestDatabase::new(kind);
    let storage = SharedStorage::new(&database.url);
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(storage.start_node(&[SECRET]).await);
    }
    let ann = User::sign_up(nodes[0].address(), "ann").await;
    let bob = User::sign_up(nodes[1].address(), "bob").await;
    let mut requests = Vec::new();
    for number in 0..500 {
        let (caller, other) = if number % 2 == 0 {
            (&ann, &bob)
        } else {
            (&bob, &ann)
        };
        let caller = caller.at(nodes[number % 3].address());
        let body = json!({"user_id": other.id});
        requests.push(tokio::spawn(async move {
            caller.request("POST", "/api/v1/chats", &body).await
        }));
    }
    let mut created = 0;
    let mut ids = Vec::new();
    for request in requests {
        let (status, chat) = request.await.unwrap();
        assert!(status == 200 || status == 201, "{status}: {chat}");
        created += usize::from(status == 201);
        ids.push(chat["id"].as_str().unwrap().to_owned());
    }
    ids.dedup();
    assert_eq!((created, ids.len()), (1, 1));
    for user in [&ann, &bob] {
        let chats = user.done("GET", "/api/v1/chats", json!(null), 200).await;
        assert_eq!(chats["items"].as_array().unwrap().len(), 1);
        assert_eq!(chats["items"][0]["members"], 2);
    }
    // One announcement of each member, once nothing waits to be announced.
    let deadline = Instant::now() + Duration::from_secs(20);
    while database.sql("SELECT COUNT(*) FROM hubbub_outbox").trim() != "0" {
        let waiting = database.sql("SELECT * FROM hubbub_outbox");
        assert!(Instant::now() < deadline, "announcements wait: {waiting}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ann.await_entries(&ids[0], 2).await;
    let client = ann.connect().await;
    let from_start = json!({"room_id": format!("chat:{}", ids[0]), "since_seq": 0});
    client.done("join", from_start).await;
    client.await_event("room_users").await;
    let added = client.events("member_added");
    let users: BTreeSet<&str> = added
        .iter()
        .map(|added| added["user_id"].as_str().unwrap())
        .collect();
    assert_eq!((added.len(), users.len()), (2, 2), "{added:?}");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_opens_its_chat_at_three_nodes_has_one_on_postgres() {
    open_at_once(DatabaseKind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_opens_its_chat_at_three_nodes_has_one_on_mariadb() {
    open_at_once(DatabaseKind::MariaDb).await;
}
