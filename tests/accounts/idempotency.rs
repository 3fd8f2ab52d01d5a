//! Requests with `Idempotency-Key`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::{Cluster, SharedStorage, http};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::fixture::{MEMORY, Rest, SECRET, log_in};

const SIGN_UP: &str = "/api/v1/auth/signup";

fn sign_up_body(username: &str) -> String {
    json!({
        "email": format!("{username}@example.com"),
        "username": username,
        "password": "correct horse",
    })
    .to_string()
}

type Answer = (u16, BTreeMap<String, String>, Value);

async fn sign_up(address: SocketAddr, key: &str, body: &str) -> Answer {
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", key),
    ];
    http(address, "POST", SIGN_UP, &headers, body).await
}

fn is_repeat((_, headers, _): &Answer) -> bool {
    headers
        .get("idempotency-replayed")
        .is_some_and(|value| value == "true")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_sign_up_gets_the_first_answer() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let body = sign_up_body("ann");
    let first = sign_up(address, "key 1", &body).await;
    assert_eq!((first.0, is_repeat(&first)), (201, false), "{first:?}");
    for _ in 0..2 {
        let again = sign_up(address, "key 1", &body).await;
        assert_eq!((again.0, &again.2), (201, &first.2));
        assert!(is_repeat(&again), "{again:?}");
    }
    let tokens = Rest::of(address, &first.2);
    assert_eq!(tokens.me().await.0, 200);

    let other = sign_up(address, "key 1", &sign_up_body("bob")).await;
    assert_eq!(
        (other.0, &other.2["code"]),
        (422, &json!("idempotency_mismatch"))
    );
    assert_eq!(other.2["field"], "Idempotency-Key");
    let without = sign_up(address, "key 2", &body).await;
    assert_eq!(
        (without.0, &without.2["code"]),
        (409, &json!("username_taken"))
    );
    // The refused request has changed nothing: its key is free for a corrected body.
    let corrected = sign_up(address, "key 2", &sign_up_body("bob")).await;
    assert_eq!((corrected.0, is_repeat(&corrected)), (201, false));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_key_is_refused() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let body = sign_up_body("ann");
    let too_long = "k".repeat(256);
    for key in ["", "a\tb", &too_long] {
        let (status, _, refused) = sign_up(address, key, &body).await;
        assert_eq!(
            (status, &refused["code"]),
            (400, &json!("bad_request")),
            "{key:?}"
        );
        assert_eq!(refused["field"], "Idempotency-Key");
    }
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", "a"),
        ("idempotency-key", "b"),
    ];
    let (status, _, refused) = http(address, "POST", SIGN_UP, &headers, &body).await;
    assert_eq!(
        (status, &refused["field"]),
        (400, &json!("Idempotency-Key"))
    );
    assert_eq!(log_in(address, "ann", "correct horse").await.0, 401);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_ups_at_once_on_two_nodes_create_one_account() {
    for kind in [DatabaseKind::Postgres, DatabaseKind::MariaDb] {
        let database = TestDatabase::new(kind);
        let storage = SharedStorage::new(&database.url);
        let nodes = [
            storage.start_node(&[SECRET]).await,
            storage.start_node(&[SECRET]).await,
        ];
        let body = sign_up_body("ann");
        let requests = (0..8).map(|number| {
            let (address, body) = (nodes[number % 2].address(), body.clone());
            tokio::spawn(async move { sign_up(address, "the key", &body).await })
        });
        let mut answers = Vec::new();
        let mut repeats = 0;
        for request in requests.collect::<Vec<_>>() {
            let answer = request.await.unwrap();
            assert_eq!(answer.0, 201, "{answer:?}");
            repeats += u8::from(is_repeat(&answer));
            answers.push(answer.2);
        }
        answers.dedup();
        assert_eq!((answers.len(), repeats), (1, 7), "{kind:?}");
        for node in nodes {
            node.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_reveals_neither_tokens_nor_passwords() {
    let database = TestDatabase::new(DatabaseKind::Sqlite);
    let node = Cluster::alone(&[SECRET, ("DATABASE_URL", &database.url)]).await;
    let body = sign_up_body("ann");
    let (status, _, answer) = sign_up(node.address(0), "a key of one client", &body).await;
    assert_eq!(status, 201);
    node.stop().await;
    let mut stored = std::fs::read(database.file()).unwrap();
    let log = database.file().with_extension("db-wal");
    stored.extend(std::fs::read(log).unwrap_or_default());
    let contains = |part: &[u8]| stored.windows(part.len()).any(|window| window == part);
    assert!(contains(b"ann@example.com") && contains(b"POST /api/v1/auth/signup"));
    let access_token = answer["access_token"].as_str().unwrap();
    let refresh_token = answer["refresh_token"].as_str().unwrap();
    let digest = hubbub::auth::digest(body.as_bytes());
    for secret in [
        access_token.as_bytes(),
        refresh_token.as_bytes(),
        b"correct horse",
        b"a key of one client",
        &digest,
    ] {
        assert!(!contains(secret), "{}", String::from_utf8_lossy(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_bot_is_made_once_for_each_key() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let mut users = Vec::new();
    for name in ["ann", "bob"] {
        users.push(sign_up(address, name, &sign_up_body(name)).await.2);
    }
    let body = json!({"name": "bot", "scopes": ["read"]}).to_string();
    let mut made = Vec::new();
    for user in &users {
        let authorization = format!("Bearer {}", user["access_token"].as_str().unwrap());
        let headers = [
            ("content-type", "application/json"),
            ("authorization", authorization.as_str()),
            ("idempotency-key", "k"),
        ];
        let post = async || http(address, "POST", "/api/v1/tokens", &headers, &body).await;
        let (first, again) = (post().await, post().await);
        assert_eq!((first.0, is_repeat(&first)), (201, false), "{first:?}");
        assert_eq!(
            (again.0, is_repeat(&again), &again.2),
            (201, true, &first.2)
        );
        let (_, list) = Rest::of(address, user).get("/api/v1/tokens").await;
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
        let token = first.2["token"].as_str().unwrap();
        assert_eq!(Rest::with_token(address, token).me().await.0, 200);
        made.push(first.2["token"].clone());
    }
    // The keys of users are their own.
    assert_ne!(made[0], made[1]);
    node.stop().await;
}

/// A request of the property test.
#[derive(Debug, Clone)]
struct Step {
    key: u8,
    /// How long after the request its client disconnects; `None`: it reads the answer.
    cut_after: Option<Duration>,
    /// Whether the next request is sent before this one has ended.
    is_concurrent: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cut_after = prop::option::of((0..400_u64).prop_map(Duration::from_millis));
    let step = (0..2_u8, cut_after, any::<bool>());
    let step = step.prop_map(|(key, cut_after, is_concurrent)| Step {
        key,
        cut_after,
        is_concurrent,
    });
    prop::collection::vec(step, 2..8)
}

/// Sends a sign-up, and disconnects without reading its answer.
async fn cut(address: SocketAddr, key: &str, body: &str, after: Duration) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST {SIGN_UP} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         idempotency-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(after).await;
}

/// The handler of a client that disconnects is dropped wherever it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_up_is_done_once_in_any_order_of_repeats_and_disconnects() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let mut runner = TestRunner::default();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut case = 0;
    while case < 12 && Instant::now() < deadline {
        case += 1;
        let steps = steps().new_tree(&mut runner).unwrap().current();
        let mut running = Vec::new();
        let mut answers: BTreeMap<u8, Vec<Value>> = BTreeMap::new();
        let mut ended = Vec::new();
        for step in steps.clone() {
            let is_concurrent = step.is_concurrent;
            running.push(tokio::spawn(async move {
                let name = format!("u{case}_{}", step.key);
                let (key, body) = (format!("key of {name}"), sign_up_body(&name));
                match step.cut_after {
                    Some(after) => {
                        cut(address, &key, &body, after).await;
                        None
                    }
                    None => Some((step.key, sign_up(address, &key, &body).await)),
                }
            }));
            if !is_concurrent {
                for task in running.drain(..) {
                    ended.push(task.await.unwrap());
                }
            }
        }
        for task in running {
            ended.push(task.await.unwrap());
        }
        for (key, answer) in ended.into_iter().flatten() {
            // Any other status would mean that a repeat has tried to do the work again.
            assert_eq!(answer.0, 201, "{steps:?}: {answer:?}");
            answers.entry(key).or_default().push(answer.2);
        }
        for (_, mut answers) in answers {
            answers.dedup();
            assert_eq!(answers.len(), 1, "{steps:?}");
        }
    }
    node.stop().await;
}
