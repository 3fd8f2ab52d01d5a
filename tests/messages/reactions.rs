//! Reactions.

use serde_json::{Value, json};

use crate::fixture::{User, await_about, events_about, eventually, node, occupant, room, send};

#[tokio::test(flavor = "multi_thread")]
async fn reactions_are_announced_with_their_totals() {
    let node = node(&[]).await;
    let ann = occupant(&node, "ann", "lobby").await;
    let bob = occupant(&node, "bob", "lobby").await;
    let sent = send(&ann, "lobby", "hello").await;
    let react = |emoji: &str, on: bool| json!({"room_id": "lobby", "id": sent["id"], "emoji": emoji, "on": on});
    let set = json!({"room_id": "lobby", "id": sent["id"], "emoji": "\u{1f44d}"});
    bob.done("react", set.clone()).await;
    bob.done("react", set).await;
    let event = await_about(&ann, "reactions_changed", &sent["id"]).await;
    assert_eq!(event["target_seq"], sent["seq"]);
    let first = json!([{"emoji": "\u{1f44d}", "count": 1, "user_ids": ["bob"]}]);
    assert_eq!(event["reactions"], first);
    ann.done("react", react("\u{1f44d}", true)).await;
    bob.done("react", react(":shrug:", true)).await;
    bob.done("react", react("\u{1f44d}", false)).await;
    let is_last = |event: &Value| {
        event["reactions"].as_array().unwrap().len() == 2
            && event.to_string().contains("ann")
            && event["reactions"][0]["count"] == 1
            && event["reactions"][1]["count"] == 1
    };
    ann.eventually("the totals", |ann| {
        let events = events_about(ann, "reactions_changed", &sent["id"]);
        events.last().is_some_and(is_last)
    })
    .await;
    let last = events_about(&ann, "reactions_changed", &sent["id"])
        .pop()
        .unwrap();
    // The announcement is recorded with the message a moment after it is delivered.
    let history = eventually(
        "both emojis",
        || async { bob.done("history", json!({"room_id": "lobby"})).await },
        |history| history["messages"][0]["reactions_seq"] == last["seq"],
    )
    .await;
    let message = &history["messages"][0];
    assert_eq!(
        message["reactions"].as_array().unwrap().len(),
        2,
        "{history}"
    );
    assert!(message["reactions_seq"].as_u64() <= last["seq"].as_u64());
    for emoji in ["", "a b"] {
        let refused = bob.ask("react", react(emoji, true)).await;
        assert_eq!(refused["code"], "bad_request", "{refused}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reaction_is_set_and_removed_by_rest() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let chat = ann.group(&[], "all").await;
    let sent = ann.send(&chat, "hello").await;
    let id = sent["id"].as_str().unwrap();
    let path = format!("/api/v1/rooms/{}/messages/{id}/reactions", room(&chat));
    let thumb = format!("{path}/%F0%9F%91%8D/me");
    let set = ann.done("PUT", &thumb, Value::Null, 200).await;
    assert_eq!((&set["ok"], &set["id"]), (&json!(true), &sent["id"]));
    let listed = ann.done("GET", &path, Value::Null, 200).await;
    let expected = json!([{"emoji": "\u{1f44d}", "count": 1, "user_ids": [ann.id]}]);
    assert_eq!(
        (&listed["items"], &listed["has_more"]),
        (&expected, &json!(false))
    );
    ann.done("DELETE", &thumb, Value::Null, 200).await;
    ann.done("DELETE", &thumb, Value::Null, 200).await;
    let listed = ann.done("GET", &path, Value::Null, 200).await;
    assert_eq!(listed["items"], json!([]));
    node.stop().await;
}
