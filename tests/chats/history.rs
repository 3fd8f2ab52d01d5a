//! With `history: "joined"`, a member sees nothing of the time before.

use serde_json::{Value, json};

use crate::fixture::{User, contents, node, room};

#[tokio::test(flavor = "multi_thread")]
async fn a_member_sees_what_came_after_joining() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    for (history, visible) in [("joined", 4..=6), ("all", 1..=6)] {
        let chat = ann.group(&[], history).await;
        let room = room(&chat);
        for number in 1..=3 {
            ann.send(&chat, &number.to_string()).await;
        }
        let path = format!("/api/v1/chats/{chat}/members");
        ann.done("POST", &path, json!({"user_id": bob.id}), 201)
            .await;
        let seen = bob.get(&format!("/api/v1/chats/{chat}")).await.1;
        assert_eq!(seen.get("last_message").is_some(), history == "all");
        for number in 4..=6 {
            ann.send(&chat, &number.to_string()).await;
        }
        let visible: Vec<String> = visible.map(|number| number.to_string()).collect();
        let last = |count: usize| visible[visible.len().saturating_sub(count)..].to_vec();
        let mut replays = vec![
            (json!({"since_seq": 0}), visible.clone(), true),
            (json!({"since_seq": 5}), last(1), true),
            (json!({"limit": 100}), visible.clone(), false),
            (json!({"limit": 2}), last(2), false),
            (json!({"limit": 5}), last(5), false),
            (json!({}), vec![], false),
            (
                json!({"since_seq": 0, "epoch": "lost"}),
                visible.clone(),
                history == "joined",
            ),
        ];
        if history == "joined" {
            let few = json!({"since_seq": 0, "replay_limit": 3});
            replays.push((few, visible.clone(), true));
        }
        for (mut wishes, expected, recovered) in replays {
            let client = bob.connect().await;
            wishes["room_id"] = json!(room);
            let joined = client.done("join", wishes.clone()).await;
            assert_eq!(joined["recovered"], recovered, "{wishes}: {joined}");
            client.await_event("room_users").await;
            let messages = Value::from(client.events("message"));
            assert_eq!(contents(&messages), expected, "{wishes}");
            assert_eq!(joined["replayed"], expected.len());
        }
        let client = bob.connect().await;
        client.done("join", json!({"room_id": room})).await;
        for (wishes, expected, has_more) in [
            (json!({}), visible.clone(), false),
            (json!({"after_seq": 0}), visible.clone(), false),
            (json!({"around_seq": 4}), visible.clone(), false),
            (json!({"around_seq": 1}), visible.clone(), false),
            (json!({"limit": 2}), last(2), true),
            (json!({"limit": 3}), last(3), history == "all"),
            (
                json!({"before_seq": 5, "limit": 1}),
                vec!["4".to_owned()],
                history == "all",
            ),
        ] {
            let mut wishes = wishes;
            wishes["room_id"] = json!(room);
            let page = client.done("history", wishes.clone()).await;
            assert_eq!(contents(&page["messages"]), expected, "{wishes}");
            assert_eq!(page["has_more"], has_more, "{wishes}");
        }
        if history == "joined" {
            let before = json!({"room_id": room, "before_seq": 4});
            let page = client.done("history", before).await;
            assert_eq!(
                (&page["messages"], &page["has_more"]),
                (&json!([]), &json!(false))
            );
        }
        let page = bob.get(&format!("/api/v1/rooms/{room}/messages")).await.1;
        assert_eq!(contents(&page["items"]), visible);
        let page = bob
            .get(&format!("/rooms/{room}/messages?after_seq=0"))
            .await
            .1;
        assert_eq!(contents(&page["messages"]), visible);
    }
    node.stop().await;
}
