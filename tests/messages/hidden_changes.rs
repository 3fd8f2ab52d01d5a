//! Changes of messages from before a member's joining, in a chat with history "joined": they reach no
//! connection of that member.

use futures_util::{SinkExt, StreamExt};
use hubbub_test_support::client::Client;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::fixture::{UNLIMITED, User, node, room};

/// A chat with a message from before bob joined it.
struct Chat {
    room: String,
    ann: User,
    bob: User,
    writer: Client,
    /// The hidden message.
    hidden: Value,
    /// The number of the last entry before bob joined.
    joined_at: u64,
}

impl Chat {
    async fn with_hidden_message(address: std::net::SocketAddr) -> Self {
        let ann = User::sign_up(address, "ann").await;
        let bob = User::sign_up(address, "bob").await;
        let id = ann.group(&[], "joined").await;
        let room = room(&id);
        let writer = ann.connect().await;
        writer.done("join", json!({"room_id": room})).await;
        let payload = json!({"room_id": room, "content": "before"});
        let hidden = writer.done("message", payload).await;
        let members = format!("/api/v1/chats/{id}/members");
        let member = json!({"user_id": bob.id});
        ann.done("POST", &members, member, 201).await;
        Self {
            joined_at: hidden["seq"].as_u64().unwrap(),
            hidden: hidden["id"].clone(),
            room,
            ann,
            bob,
            writer,
        }
    }

    async fn send(&self, content: &str) -> Value {
        let payload = json!({"room_id": self.room, "content": content});
        self.writer.done("message", payload).await
    }

    async fn change(&self, event: &str, id: &Value, more: Value) {
        let mut payload = json!({"room_id": self.room, "id": id});
        let fields = payload.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        self.writer.done(event, payload).await;
    }

    /// Edits the message, reacts to it and pins it. Waits for the announcements.
    async fn change_in_all_ways(&self, id: &Value, content: &str) {
        let reactions = self.writer.count("reactions_changed");
        self.change("edit_message", id, json!({"content": content}))
            .await;
        self.change("react", id, json!({"emoji": "+1"})).await;
        self.writer
            .eventually("the reaction", |writer| {
                writer.count("reactions_changed") > reactions
            })
            .await;
        let pin = format!("/api/v1/rooms/{}/pins/{}", self.room, id.as_str().unwrap());
        let (status, answer) = self.ann.request("PUT", &pin, &Value::Null).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// What bob receives through each door that replays the room up to the message `last`.
    async fn replays(&self, last: &str) -> Vec<(&'static str, String)> {
        let mut received = Vec::new();
        for since in [0, self.joined_at] {
            let client = self.bob.connect().await;
            let join = json!({"room_id": self.room, "since_seq": since});
            let joined = client.done("join", join).await;
            assert_eq!(joined["recovered"], true, "{joined}");
            received.push(("join", received_until(&client, last).await));
            let client = self.bob.connect().await;
            let rooms = json!({self.room.as_str(): {"since_seq": since}});
            client.done("sync", json!({"rooms": rooms})).await;
            received.push(("sync", received_until(&client, last).await));
        }
        received.push(("/ws", self.over_websocket(last).await));
        received
    }

    async fn over_websocket(&self, last: &str) -> String {
        let (address, token) = (self.bob.address, &self.bob.token);
        let url = format!("ws://{address}/ws?chat=1&token={token}");
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let join = json!({"room_id": self.room, "since_seq": self.joined_at});
        let frame = json!({"type": "join", "payload": join, "ref": 1}).to_string();
        socket.send(Message::text(frame)).await.unwrap();
        let mut received = String::new();
        while !received.contains(last) {
            let frame = socket.next().await.unwrap().unwrap();
            received.push_str(frame.to_text().unwrap_or_default());
        }
        received
    }
}

/// All events of the client as text, once the message `last` is among them.
async fn received_until(client: &Client, last: &str) -> String {
    client
        .eventually(last, |client| {
            let messages = client.events("message");
            messages.iter().any(|message| message["content"] == last)
        })
        .await;
    format!("{:?}", client.story())
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_message_from_before_joining_do_not_reach_its_member() {
    let node = node(&[UNLIMITED, ("HISTORY_SIZE", "10")]).await;
    let chat = Chat::with_hidden_message(node.address(0)).await;
    let live = chat.bob.connect().await;
    live.done("join", json!({"room_id": chat.room})).await;
    let hidden_id = chat.hidden.as_str().unwrap();

    chat.change_in_all_ways(&chat.hidden, "the hidden text")
        .await;
    let visible = chat.send("after").await;
    chat.change_in_all_ways(&visible["id"], "the visible text")
        .await;
    chat.send("the first end").await;
    let mut received = chat.replays("the first end").await;
    received.push(("live", received_until(&live, "the first end").await));

    // From here on the replays come from the archive.
    chat.change("delete_message", &chat.hidden, json!({})).await;
    for _ in 0..100 {
        chat.send("later").await;
    }
    chat.send("the second end").await;
    received.extend(chat.replays("the second end").await);
    received.push(("live", received_until(&live, "the second end").await));

    for (door, text) in &received {
        let visible_id = visible["id"].as_str().unwrap();
        for expected in ["message_edited", "reactions_changed", "message_pinned"] {
            assert!(text.contains(expected), "{door}: no {expected}: {text}");
        }
        assert!(text.contains(visible_id), "{door}: {text}");
        assert!(!text.contains(hidden_id), "{door}: {text}");
        assert!(!text.contains("the hidden text"), "{door}: {text}");
    }
    // Ann, from whom nothing is hidden, has received every change of the message.
    for name in ["message_edited", "reactions_changed", "message_pinned"] {
        assert_eq!(chat.writer.count(name), 2, "{name}");
    }
    assert_eq!(chat.writer.count("message_deleted"), 1);
    node.stop().await;
}
