//! A node without Redis, whose archive is a SQLite file.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hubbub_test_support::client::Client;
use hubbub_test_support::node::{self, http, http_text};
use hubbub_test_support::server::free_port;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use hubbub::app::App;

/// A directory for one test.
pub struct DataDir(std::path::PathBuf);

impl DataDir {
    pub fn new() -> Self {
        let name = format!("hubbub-archive-{}", uuid::Uuid::now_v7());
        Self(std::env::temp_dir().join(name))
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Starts a node whose database lies here.
    pub async fn start(&self, settings: &[(&str, &str)]) -> App {
        let url = format!("sqlite://{}/hubbub.db", self.path());
        std::fs::create_dir_all(&self.0).unwrap();
        let own = [("DATABASE_URL", url.as_str())];
        node::start(&[&own, settings].concat()).await
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A node in a process of its own, which is killed when the value is dropped.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// Starts a node whose database lies in this directory, and waits until it is ready.
    async fn start(data: &DataDir) -> Self {
        std::fs::create_dir_all(&data.0).unwrap();
        let port = free_port();
        let child = Command::new(env!("CARGO_BIN_EXE_hubbub"))
            .env_clear()
            .current_dir(&data.0)
            .env(
                "DATABASE_URL",
                format!("sqlite://{}/hubbub.db", data.path()),
            )
            .env("SERVER_PORT", port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut process = Self { child, address };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !process.is_ready().await {
            let exit = process.child.try_wait().unwrap();
            assert!(exit.is_none(), "the node has ended: {exit:?}");
            assert!(Instant::now() < deadline, "the node does not become ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        process
    }

    async fn is_ready(&self) -> bool {
        TcpStream::connect(self.address).await.is_ok()
            && http(self.address, "GET", "/readyz", &[], "").await.0 == 200
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub async fn join(client: &Client, payload: Value) -> Value {
    client.done("join", payload).await
}

async fn send(client: &Client, content: &str) -> Value {
    client
        .done("message", json!({"room_id": "lobby", "content": content}))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_cleanly_goes_on_in_the_same_epoch() {
    let data = DataDir::new();
    let node = data.start(&[]).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    send(&ann, "one").await;
    let second = send(&ann, "two").await;
    node.stop().await;

    let node = data.start(&[]).await;
    let bob = Client::connect(node.address()).await;
    bob.done("authenticate", json!({"user_id": "bob"})).await;
    let joined = join(
        &bob,
        json!({"room_id": "lobby", "since_seq": 1, "epoch": second["epoch"]}),
    )
    .await;
    assert_eq!(joined["epoch"], second["epoch"]);
    assert_eq!(
        (&joined["seq"], &joined["recovered"]),
        (&json!(2), &json!(true))
    );
    bob.eventually("the missed message", |bob| bob.seqs() == [2])
        .await;
    assert_eq!(bob.events("message")[0]["content"], "two");
    assert_eq!(send(&bob, "three").await["seq"], 3);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_earlier_epochs_resume_after_two_crashes() {
    let data = DataDir::new();
    let mut acks = Vec::new();
    for run in 0..3 {
        let node = Process::start(&data).await;
        let ann = Client::member(node.address, "ann", "lobby").await;
        send(&ann, &format!("first of run {run}")).await;
        acks.push(send(&ann, &format!("second of run {run}")).await);
        // The drop kills the process.
    }
    let epochs: Vec<&Value> = acks.iter().map(|ack| &ack["epoch"]).collect();
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2], "{acks:?}");
    assert_eq!(acks[2]["seq"], 6);

    let node = Process::start(&data).await;
    for (seq, epoch) in [
        (1, epochs[0]),
        (2, epochs[0]),
        (3, epochs[1]),
        (5, epochs[2]),
    ] {
        let bob = Client::connect(node.address).await;
        bob.done("authenticate", json!({"user_id": "bob"})).await;
        let since = json!({"room_id": "lobby", "since_seq": seq, "epoch": epoch});
        let joined = join(&bob, since).await;
        assert_eq!(
            (&joined["recovered"], &joined["gap"], &joined["seq"]),
            (&json!(true), &json!(false), &json!(6)),
            "{seq}"
        );
        let missed: Vec<u64> = (seq + 1..=6).collect();
        bob.eventually("the missed messages", |bob| bob.seqs() == missed)
            .await;
    }
    // Number 3 of the first epoch is none of the archive's messages.
    let bob = Client::connect(node.address).await;
    bob.done("authenticate", json!({"user_id": "bob"})).await;
    let lost = json!({"room_id": "lobby", "since_seq": 3, "epoch": epochs[0]});
    assert_eq!(join(&bob, lost).await["gap"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_a_send_is_a_repeat_after_a_restart_too() {
    let data = DataDir::new();
    let node = data.start(&[]).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    let message = json!({"room_id": "lobby", "content": "hi", "client_msg_id": "c1"});
    let first = ann.done("message", message.clone()).await;
    node.stop().await;

    let node = data.start(&[]).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    let again = ann.done("message", message).await;
    assert_eq!(again["duplicate"], true);
    for field in ["id", "seq", "epoch", "timestamp"] {
        assert_eq!(again[field], first[field], "{field}");
    }
    assert_eq!(send(&ann, "next").await["seq"], 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_keeps_its_numbering_beyond_its_time() {
    let data = DataDir::new();
    let short = [("HISTORY_TTL_SECS", "1"), ("ROOM_TTL_SECS", "1")];
    let node = data.start(&short).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    let first = send(&ann, "one").await;
    ann.done("leave", json!({"room_id": "lobby"})).await;
    // Expired rooms are removed every ten seconds. That this one was is checked below.
    tokio::time::sleep(std::time::Duration::from_secs(12)).await;
    let bob = Client::connect(node.address()).await;
    bob.done("authenticate", json!({"user_id": "bob"})).await;
    let since = json!({"room_id": "lobby", "since_seq": 0, "epoch": first["epoch"]});
    let joined = join(&bob, since).await;
    assert_eq!(
        (&joined["seq"], &joined["recovered"]),
        (&json!(1), &json!(true))
    );
    bob.eventually("the old message", |bob| bob.seqs() == [1])
        .await;
    let metrics = http_text(node.address(), "GET", "/metrics", &[], "").await;
    assert!(
        metrics.contains("\nhubbub_archive_restored_rooms_total 1\n"),
        "the room was removed and restored"
    );
    assert_eq!(send(&bob, "two").await["seq"], 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_of_many_sends_keep_their_order() {
    let data = DataDir::new();
    let burst = [("RATE_EVENTS_PER_SEC", "0"), ("RATE_EVENTS_BURST", "5000")];
    let node = data.start(&burst).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    let sends: Vec<_> = (0..5000)
        .map(|number| {
            let message = json!({"room_id": "lobby", "content": number.to_string()});
            ann.emit("message", &message)
        })
        .collect();
    for (sent, seq) in sends.into_iter().zip(1u64..) {
        assert_eq!(sent.await.unwrap()["seq"], seq);
    }
    let acks: Vec<_> = ann
        .story()
        .into_iter()
        .filter(|(name, ack)| name == "ack" && ack[1].get("timestamp").is_some())
        .map(|(_, ack)| ack[1]["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(acks, (1..=5000).collect::<Vec<_>>());
    node.stop().await;
}
