//! A removal, and the end of a session, take effect within a second also while nobody announces them: a
//! worker has claimed their rows and is gone.

use std::time::{Duration, Instant};

use hubbub::app::App;
use hubbub::store::Outbox;
use hubbub::store::sql::{DatabaseUrl, Settings, SqlStore};
use hubbub_test_support::client::Client;
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::SharedStorage;
use serde_json::{Value, json};

use crate::fixture::{SECRET, User, room};

/// No node announces anything.
const SILENT: (&str, &str) = ("WORKERS", "off");
const LONG: Duration = Duration::from_secs(600);

/// Two nodes without a worker, and a user at each.
struct Scene {
    storage: SharedStorage,
    store: SqlStore,
    one: App,
    other: App,
    ann: User,
    bob: User,
    of_ann: Client,
    of_bob: Client,
    chat: String,
    room: String,
}

impl Scene {
    async fn new(database: &TestDatabase) -> Self {
        let storage = SharedStorage::new(&database.url);
        let unlimited = ("RATE_EVENTS_PER_SEC", "0");
        let one = storage.start_node(&[SECRET, SILENT, unlimited]).await;
        let other = storage.start_node(&[SECRET, SILENT]).await;
        let ann = User::sign_up(one.address(), "ann").await;
        let bob = User::sign_up(other.address(), "bob").await;
        let (of_ann, of_bob) = (ann.connect().await, bob.connect().await);
        let chat = ann.group(&[&bob], "all").await;
        let room = room(&chat);
        for client in [&of_ann, &of_bob] {
            client.done("join", json!({"room_id": room})).await;
        }
        let settings = Settings::new(DatabaseUrl::parse(&database.url).unwrap());
        let store = SqlStore::open(&settings).await.unwrap();
        Self {
            storage,
            store,
            one,
            other,
            ann,
            bob,
            of_ann,
            of_bob,
            chat,
            room,
        }
    }

    /// A worker claims all rows, and dies.
    async fn claim_all(&self, lease: Duration) {
        assert!(!self.store.claim(500, lease).await.unwrap().is_empty());
    }

    async fn remove_bob(&self) {
        let member = format!("/api/v1/chats/{}/members/{}", self.chat, self.bob.id);
        self.ann.done("DELETE", &member, Value::Null, 200).await;
    }

    /// Sends messages until bob is out of the room. Returns the time that it took.
    async fn send_until_bob_is_out(&self, began: Instant) -> Duration {
        let message = json!({"room_id": self.room, "content": "x"});
        while self.told_bob().is_empty() {
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "still in the room"
            );
            self.of_ann.done("message", message.clone()).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    }

    /// What bob was told about the room.
    fn told_bob(&self) -> Vec<Value> {
        let mut told = self.of_bob.events("exception");
        told.retain(|told| told["room_id"] == *self.room);
        told
    }

    async fn stop(self) {
        self.store.close().await;
        self.one.stop().await;
        self.other.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_nobody_announces_takes_effect_within_a_second() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let scene = Scene::new(&database).await;
    scene.remove_bob().await;
    let began = Instant::now();
    scene.claim_all(Duration::from_secs(2)).await;
    let took = scene.send_until_bob_is_out(began).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(scene.told_bob()[0]["code"], "forbidden");
    // Nothing reaches bob any more: a message of another room comes later.
    let message = json!({"room_id": scene.room, "content": "x"});
    let last = scene.of_ann.done("message", message).await;
    scene.of_bob.done("join", json!({"room_id": "lobby"})).await;
    let end = scene.of_bob.seqs().last().copied();
    assert!(end < last["seq"].as_u64(), "{end:?} of {last}");

    // A worker that is announcing late changes nothing more.
    let third = scene.storage.start_node(&[SECRET]).await;
    scene.of_ann.await_event("member_removed").await;
    scene
        .of_bob
        .eventually("its feed", |bob| bob.count("member_removed") == 1)
        .await;
    scene.of_bob.done("join", json!({"room_id": "lobby"})).await;
    assert_eq!(scene.told_bob().len(), 1);
    third.stop().await;
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_end_nobody_announces_is_closed_within_a_second() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let scene = Scene::new(&database).await;
    let second = scene.bob.at(scene.one.address());
    let began = Instant::now();
    let closed = async {
        scene.of_bob.await_event("disconnect").await;
        began.elapsed()
    };
    let logout = async {
        let (status, ended) = second
            .request("POST", "/api/v1/auth/logout", &json!({}))
            .await;
        assert_eq!((status, &ended["sessions"]), (200, &json!(1)), "{ended}");
    };
    let claim = async {
        // As soon as the row is there.
        while !has_session_end(&scene.store).await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        scene.claim_all(LONG).await;
    };
    let (took, (), ()) = tokio::join!(closed, logout, claim);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(scene.of_bob.events("exception")[0]["code"], "unauthorized");
    scene.of_bob.eventually("closed", Client::is_closed).await;
    assert!(!scene.of_ann.is_closed());
    scene.stop().await;
}

async fn has_session_end(store: &SqlStore) -> bool {
    let rows = store.list(0, 500).await.unwrap();
    rows.iter().any(|state| state.row.kind == "session_ended")
}
