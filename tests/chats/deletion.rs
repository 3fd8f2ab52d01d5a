//! An account that is deleted leaves its groups.

use serde_json::{Value, json};

use crate::fixture::{User, node, room};

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_owner_leaves_the_group_to_the_member_that_joined_first() {
    let node = node(&[]).await;
    // The first account is that of an admin.
    User::sign_up(node.address(0), "admin").await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let carol = User::sign_up(node.address(0), "carol").await;
    let chat = ann.group(&[&bob], "all").await;
    let members = format!("/api/v1/chats/{chat}/members");
    ann.done("POST", &members, json!({"user_id": carol.id}), 201)
        .await;
    ann.await_entries(&chat, 3).await;
    let client = carol.connect().await;
    client.done("join", json!({"room_id": room(&chat)})).await;

    let password = json!({"password": "correct horse"});
    ann.done("DELETE", "/api/v1/me", password, 200).await;
    let removed = client.await_event("member_removed").await;
    assert_eq!(
        (&removed["user_id"], &removed["username"]),
        (&json!(ann.id), &json!("deleted user"))
    );
    let updated = client.await_event("chat_updated").await;
    assert_eq!(updated["chat"]["members"], 2);
    let path = format!("/api/v1/chats/{chat}");
    let seen = bob.done("GET", &path, Value::Null, 200).await;
    assert_eq!(
        (&seen["members"], &seen["my"]["role"]),
        (&json!(2), &json!("owner"))
    );
    bob.done("PATCH", &path, json!({"name": "ours"}), 200).await;
    node.stop().await;
}
