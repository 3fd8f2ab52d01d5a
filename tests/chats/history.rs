//! With `history: "joined"`, a member sees nothing of the time before.

use serde_json::{Value, json};

use crate::fixture::{User, contents, node, room};

#[tokio::test(flavor = "multi_thread")]
async fn a_member_sees_what_came_after_joining() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    for (history, visible) in [("joined", 4..=6), ("all", 1..=6)] {
        // The room's entries: the owner is added, 1 to 3, bob is added, 4 to 6.
        let chat = ann.group(&[], history).await;
        let room = room(&chat);
        ann.await_entries(&chat, 1).await;
        for number in 1..=3 {
            ann.send(&chat, &number.to_string()).await;
        }
        let path = format!("/api/v1/chats/{chat}/members");
        ann.done("POST", &path, json!({"user_id": bob.id}), 201)
            .await;
        ann.await_entries(&chat, 5).await;
        let seen = bob.get(&format!("/api/v1/chats/{chat}")).await.1;
        assert_eq!(seen.get("last_message").is_some(), history == "all");
        for number in 4..=6 {
            ann.send(&chat, &number.to_string()).await;
        }
        let visible: Vec<String> = visible.map(|number| number.to_string()).collect();
        let last = |count: usize| visible[visible.len().saturating_sub(count)..].to_vec();
        let entries = if history == "joined" { 4 } else { 8 };
        let mut replays = vec![
            (json!({"since_seq": 0}), visible.clone(), entries, true),
            (json!({"since_seq": 7}), last(1), 1, true),
            (json!({"limit": 100}), visible.clone(), entries, false),
            (json!({"limit": 2}), last(2), 2, false),
            (json!({"limit": 5}), last(4), entries.min(5), false),
            (json!({}), vec![], 0, false),
        ];
        let lost = json!({"since_seq": 0, "epoch": "lost"});
        replays.push((lost, visible.clone(), entries, history == "joined"));
        if history == "joined" {
            let few = json!({"since_seq": 0, "replay_limit": 4});
            replays.push((few, visible.clone(), entries, true));
        }
        for (mut wishes, expected, replayed, recovered) in replays {
            let client = bob.connect().await;
            wishes["room_id"] = json!(room);
            let joined = client.done("join", wishes.clone()).await;
            assert_eq!(joined["recovered"], recovered, "{wishes}: {joined}");
            assert_eq!(joined["replayed"], replayed, "{wishes}");
            client.await_event("room_users").await;
            let messages = Value::from(client.events("message"));
            assert_eq!(contents(&messages), expected, "{wishes}");
        }
        let client = bob.connect().await;
        client.done("join", json!({"room_id": room})).await;
        for (mut wishes, expected, has_more) in [
            (json!({}), visible.clone(), false),
            (json!({"after_seq": 0}), visible.clone(), false),
            (json!({"around_seq": 6}), visible.clone(), false),
            (json!({"around_seq": 1}), visible.clone(), false),
            (json!({"limit": 2}), last(2), true),
            (
                json!({"before_seq": 7, "limit": 2}),
                last(3)[..1].to_vec(),
                history == "all",
            ),
        ] {
            wishes["room_id"] = json!(room);
            let page = client.done("history", wishes.clone()).await;
            assert_eq!(contents(&page["messages"]), expected, "{wishes}");
            assert_eq!(page["has_more"], has_more, "{wishes}");
        }
        if history == "joined" {
            let before = json!({"room_id": room, "before_seq": 6});
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
