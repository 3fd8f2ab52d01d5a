//! A room that goes on in an unknown numbering may have skipped a removal or the end of a session: what the
//! node has not heard is found in the database.

use hubbub::app::App;
use hubbub_test_support::client::Client;
use hubbub_test_support::database::{DatabaseKind, DatabaseServer, TestDatabase};
use hubbub_test_support::node::SharedStorage;
use serde_json::{Value, json};

use crate::fixture::{SECRET, User, room};

struct Scene {
    storage: SharedStorage,
    node: App,
    bob: User,
    room: String,
    of_ann: Client,
    of_bob: Client,
}

impl Scene {
    /// Two members of a chat, both in its room.
    async fn new(database_url: &str) -> Self {
        let storage = SharedStorage::new(database_url);
        let node = storage.start_node(&[SECRET]).await;
        let ann = User::sign_up(node.address(), "ann").await;
        let bob = User::sign_up(node.address(), "bob").await;
        let (of_ann, of_bob) = (ann.connect().await, bob.connect().await);
        let chat = ann.group(&[&bob], "all").await;
        let room = room(&chat);
        for client in [&of_ann, &of_bob] {
            client.done("join", json!({"room_id": room})).await;
            client.await_event("chat_created").await;
        }
        let scene = Self {
            storage,
            node,
            bob,
            room,
            of_ann,
            of_bob,
        };
        scene.send().await;
        scene
            .of_bob
            .eventually("a live message", |bob| bob.seqs().len() == 1)
            .await;
        scene
    }

    /// The statement that removes bob, past the node.
    fn remove_bob(&self) -> String {
        let bob = &self.bob.id;
        format!("DELETE FROM hubbub_chat_members WHERE user_id = '{bob}'")
    }

    async fn send(&self) -> Value {
        let message = json!({"room_id": self.room, "content": "x"});
        self.of_ann.done("message", message).await
    }

    /// Lets all rooms go on in a numbering that knows nothing of the one before.
    fn lose_numberings(&self) {
        let redis = &self.storage.redis;
        let numberings = redis.cli(&["KEYS", "hubbub:{c*}m:*"]);
        assert!(numberings.lines().count() >= 3, "{numberings}");
        for numbering in numberings.lines() {
            redis.cli(&["HSET", numbering, "e", "another"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_a_chat_detaches_a_member_whose_removal_was_skipped() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let scene = Scene::new(&database.url).await;
    let (of_ann, of_bob) = (&scene.of_ann, &scene.of_bob);
    database.sql(&scene.remove_bob());
    scene.send().await;
    of_bob
        .eventually("the node doesn't know", |bob| bob.seqs().len() == 2)
        .await;
    scene.lose_numberings();
    let told = of_bob.await_event("exception").await;
    assert_eq!(
        (&told["code"], &told["room_id"]),
        (&json!("forbidden"), &json!(scene.room))
    );
    // The messages that follow reach the other member only.
    scene.send().await;
    of_ann
        .eventually("the next message", |ann| ann.seqs().len() == 3)
        .await;
    of_bob.done("join", json!({"room_id": "lobby"})).await;
    assert_eq!(of_bob.seqs().len(), 2);
    assert!(!of_ann.events("room_reset").is_empty() && of_ann.events("exception").is_empty());
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_while_the_database_is_away_is_followed_by_a_check_after_its_return() {
    const DATABASE: &str = "resets";
    let mut server = DatabaseServer::start_durable(DatabaseKind::Postgres);
    let url = server.create_database(DATABASE);
    let scene = Scene::new(&url).await;
    server.sql(Some(DATABASE), &scene.remove_bob());
    server.kill();
    scene.lose_numberings();
    scene.of_bob.await_event("room_reset").await;
    assert!(scene.of_bob.events("exception").is_empty());
    server.run();
    let told = scene.of_bob.await_event("exception").await;
    assert_eq!(told["room_id"], scene.room);
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_a_personal_feed_closes_the_sockets_of_an_ended_session() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let scene = Scene::new(&database.url).await;
    let (of_ann, of_bob) = (&scene.of_ann, &scene.of_bob);
    let bob = &scene.bob.id;
    database.sql(&format!(
        "DELETE FROM hubbub_sessions WHERE user_id = '{bob}'"
    ));
    scene.lose_numberings();
    of_bob.eventually("closed", Client::is_closed).await;
    assert_eq!(of_bob.events("exception")[0]["code"], "unauthorized");
    scene.send().await;
    assert!(!of_ann.is_closed());
    scene.node.stop().await;
}
