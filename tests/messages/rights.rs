//! The users that may change a message.

use serde_json::{Value, json};

use crate::fixture::{User, node, occupant, room, send};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_author_edits_and_owners_and_admins_delete() {
    let node = node(&[]).await;
    // The first account is an admin.
    let admin = User::sign_up(node.address(0), "admin").await;
    let owner = User::sign_up(node.address(0), "owner").await;
    let author = User::sign_up(node.address(0), "author").await;
    let other = User::sign_up(node.address(0), "other").await;
    let stranger = User::sign_up(node.address(0), "stranger").await;
    let chat = owner.group(&[&author, &other], "all").await;
    let room = room(&chat);
    let mut paths = Vec::new();
    for content in ["1", "2", "3"] {
        let sent = author.send(&chat, content).await;
        let id = sent["id"].as_str().unwrap();
        paths.push(format!("/api/v1/rooms/{room}/messages/{id}"));
    }
    let edit = json!({"content": "x"});
    for (user, method, body, status) in [
        (&other, "PATCH", &edit, 403),
        (&owner, "PATCH", &edit, 403),
        (&admin, "PATCH", &edit, 404),
        (&stranger, "PATCH", &edit, 404),
        (&stranger, "GET", &Value::Null, 404),
        (&stranger, "DELETE", &Value::Null, 404),
        (&other, "DELETE", &Value::Null, 403),
        (&author, "PATCH", &edit, 200),
    ] {
        let (found, answer) = user.request(method, &paths[0], body).await;
        assert_eq!(found, status, "{method}: {answer}");
    }
    for (user, path) in [&author, &owner, &admin].into_iter().zip(&paths) {
        let (status, answer) = user.request("DELETE", path, &Value::Null).await;
        assert_eq!(status, 200, "{answer}");
    }
    let nothing = format!("/api/v1/rooms/{room}/messages/nothing");
    assert_eq!(author.request("PATCH", &nothing, &edit).await.0, 404);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_open_room_the_user_id_is_the_identity() {
    let node = node(&[]).await;
    let ann = occupant(&node, "ann", "lobby").await;
    let bob = occupant(&node, "bob", "lobby").await;
    let sent = send(&ann, "lobby", "hello").await;
    let edit = json!({"room_id": "lobby", "id": sent["id"], "content": "x"});
    let refused = bob.ask("edit_message", edit.clone()).await;
    assert_eq!(refused["code"], "forbidden");
    let again = occupant(&node, "ann", "lobby").await;
    again.done("edit_message", edit.clone()).await;
    let outside = occupant(&node, "ann", "elsewhere").await;
    let refused = outside.ask("edit_message", edit).await;
    assert_eq!(refused["code"], "not_in_room");
    let unknown = "0199d5b0-0000-7000-8000-000000000000";
    for id in [unknown, "nothing"] {
        let edit = json!({"room_id": "lobby", "id": id, "content": "x"});
        let refused = ann.ask("edit_message", edit).await;
        assert_eq!(refused["code"], "not_found", "{refused}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_from_before_joining_does_not_exist_for_its_member() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let chat = ann.group(&[], "joined").await;
    let sent = ann.send(&chat, "before").await;
    let members = format!("/api/v1/chats/{chat}/members");
    ann.done("POST", &members, json!({"user_id": bob.id}), 201)
        .await;
    let id = sent["id"].as_str().unwrap();
    let path = format!("/api/v1/rooms/{}/messages/{id}", room(&chat));
    for (method, path) in [
        ("GET", path.clone()),
        ("GET", format!("{path}/versions")),
        ("GET", format!("{path}/thread")),
        ("PUT", format!("{path}/reactions/+1/me")),
        ("PUT", format!("/api/v1/rooms/{}/pins/{id}", room(&chat))),
        ("DELETE", path),
    ] {
        let (status, answer) = bob.request(method, &path, &Value::Null).await;
        assert_eq!(
            (status, &answer["code"]),
            (404, &json!("not_found")),
            "{method} {path}"
        );
    }
    node.stop().await;
}
