//! `Idempotency-Key` on routes of chats.

use serde_json::{Value, json};

use crate::fixture::{User, node};

/// Sends a request with a key; returns the status, whether the answer is a repeated one, and the answer.
async fn send(user: &User, path: &str, key: &str, body: &Value) -> (u16, bool, Value) {
    let headers = [("idempotency-key", key)];
    let (status, headers, answer) = user.request_with("POST", path, body, &headers).await;
    (status, headers.contains_key("idempotency-replayed"), answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_created_once_for_each_key() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let group = json!({"user_ids": [bob.id], "name": "team"});
    let path = "/api/v1/chats";
    let requests = std::iter::repeat_with(|| send(&ann, path, "k1", &group)).take(6);
    let answers = futures_util::future::join_all(requests).await;
    for (status, _, answer) in &answers {
        assert_eq!((*status, answer), (201, &answers[0].2));
    }
    let (status, is_repeat, again) = send(&ann, path, "k1", &group).await;
    assert_eq!((status, is_repeat, &again), (201, true, &answers[0].2));
    let list = ann.done("GET", path, Value::Null, 200).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);

    let other = json!({"user_ids": [bob.id], "name": "other"});
    let (status, _, refused) = send(&ann, path, "k1", &other).await;
    assert_eq!(
        (status, &refused["code"]),
        (422, &json!("idempotency_mismatch"))
    );
    // The keys of users are their own.
    let by_bob = json!({"user_ids": [ann.id], "name": "team"});
    let (status, is_repeat, _) = send(&bob, path, "k1", &by_bob).await;
    assert_eq!((status, is_repeat), (201, false));

    // A repeat has the first status, although the chat exists.
    let direct = json!({"user_id": bob.id});
    let (status, is_repeat, first) = send(&ann, path, "k2", &direct).await;
    assert_eq!((status, is_repeat), (201, false));
    let (status, is_repeat, again) = send(&ann, path, "k2", &direct).await;
    assert_eq!((status, is_repeat, again), (201, true, first.clone()));
    let (status, is_repeat, again) = send(&ann, path, "k3", &direct).await;
    assert_eq!(
        (status, is_repeat, &again["id"]),
        (200, false, &first["id"])
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_sent_once_for_each_key_and_room() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let rooms = [ann.group(&[], "all").await, ann.group(&[], "all").await];
    let message = json!({"content": "one"});
    for room in &rooms {
        let path = format!("/api/v1/rooms/chat:{room}/messages");
        let requests = std::iter::repeat_with(|| send(&ann, &path, "k", &message)).take(6);
        let answers = futures_util::future::join_all(requests).await;
        for (status, _, answer) in &answers {
            assert_eq!((*status, answer), (201, &answers[0].2));
        }
        let (status, _, refused) = send(&ann, &path, "k", &json!({"content": "two"})).await;
        assert_eq!(
            (status, &refused["code"]),
            (422, &json!("idempotency_mismatch"))
        );
        let page = ann.done("GET", &path, Value::Null, 200).await;
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), 1, "{page}");
        assert_eq!(items[0]["content"], "one");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_added_once_for_each_key() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let chat = ann.group(&[], "all").await;
    let path = format!("/api/v1/chats/{chat}/members");
    let body = json!({"user_id": bob.id});
    let (status, is_repeat, first) = send(&ann, &path, "k", &body).await;
    assert_eq!((status, is_repeat), (201, false), "{first}");
    let member = format!("{path}/{}", bob.id);
    ann.done("DELETE", &member, Value::Null, 200).await;
    let again = send(&ann, &path, "k", &body).await;
    assert_eq!(again, (201, true, first));
    // The repeat has not added the member again.
    assert_eq!(bob.get(&format!("/api/v1/chats/{chat}")).await.0, 404);
    // A caller that may not know of the chat gets no stored answer either.
    assert_eq!(send(&bob, &path, "k", &body).await.0, 404);
    node.stop().await;
}
