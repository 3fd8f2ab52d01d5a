//! Deleting an account, on a whole node.

use std::time::{Duration, Instant};

use hubbub_test_support::client::Client;
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::{self, http, metric};
use hubbub_test_support::server::RedisServer;
use serde_json::json;

use crate::fixture::{Rest, SECRET, assert_refused, log_in, sign_up};

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_is_gone_at_once_and_its_messages_become_anonymous() {
    let database = TestDatabase::new(DatabaseKind::Sqlite);
    let settings = [
        SECRET,
        ("DATABASE_URL", database.url.as_str()),
        ("AUTH_MODE", "open"),
    ];
    let node = node::start(&settings).await;
    let address = node.address();
    sign_up(address, "bob").await;
    let ann = sign_up(address, "ann").await;
    let (_, other) = log_in(address, "ann", "correct horse").await;
    let client = Client::with_token(address, ann["access_token"].as_str().unwrap()).await;
    client.await_event("connect").await;
    client.done("authenticate", json!({})).await;
    client.done("join", json!({"room_id": "lobby"})).await;
    let message = json!({"room_id": "lobby", "content": "it is ann"});
    client.done("message", message).await;

    let rest = Rest::of(address, &ann);
    let wrong = json!({"password": "wrong horse!"});
    let refused = rest.send("DELETE", "/api/v1/me", &wrong).await;
    assert_refused(&refused, 401, "invalid_credentials");
    assert_eq!(rest.me().await.0, 200);
    // Of the sign-up's mail, which is in the log, and that of bob.
    let completed = async || metric(address, "hubbub_jobs_completed_total").await;
    let until = async |least: u64| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while completed().await < least {
            assert!(Instant::now() < deadline, "the job does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    until(2).await;
    let password = json!({"password": "correct horse"});
    let (status, answer) = rest.send("DELETE", "/api/v1/me", &password).await;
    assert_eq!((status, &answer["sessions"]), (200, &json!(2)), "{answer}");
    client.await_event("disconnect").await;
    for session in [&ann, &other] {
        assert_eq!(Rest::of(address, session).me().await.0, 401);
    }
    assert_eq!(log_in(address, "ann", "correct horse").await.0, 401);
    until(3).await;
    node.stop().await;

    // The log of the first node is gone with it: the history comes from the archive.
    let node = node::start(&settings).await;
    let rest = Rest::anonymous(node.address());
    let (status, history) = rest.get("/rooms/lobby/messages").await;
    assert_eq!(status, 200, "{history}");
    let message = &history["messages"][0];
    assert_eq!(message["username"], "deleted user", "{history}");
    assert_eq!(message["content"], "it is ann");
    assert_eq!(message["user_id"], ann["user"]["id"]);
    // The name is free.
    let again = sign_up(node.address(), "ann").await;
    assert_ne!(again["user"]["id"], ann["user"]["id"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_table_has_the_address_of_a_deleted_account() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let redis = RedisServer::start();
    let redis_url = redis.url();
    let settings = [
        SECRET,
        ("DATABASE_URL", database.url.as_str()),
        ("REDIS_URL", redis_url.as_str()),
    ];
    let node = node::start(&settings).await;
    let address = node.address();
    let admin = sign_up(address, "admin").await;
    let email = "canary@example.com";
    let invite = json!({"email": email});
    let invited = Rest::of(address, &admin)
        .post("/api/v1/invites", invite)
        .await;
    assert_eq!(invited.0, 201, "{invited:?}");
    let body = json!({"username": "canary", "email": email, "password": "correct horse"});
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", "k"),
    ];
    let sign_up = async || {
        let path = "/api/v1/auth/signup";
        http(address, "POST", path, &headers, &body.to_string()).await
    };
    let (status, _, signed_up) = sign_up().await;
    assert_eq!(status, 201, "{signed_up}");
    let found = |text: &str| {
        let tables = database.sql(
            "SELECT string_agg(quote_ident(tablename), ' ') FROM pg_tables WHERE schemaname = 'public'",
        );
        let rows = tables.split_whitespace().map(|table| {
            let query = format!("SELECT count(*) FROM {table} t WHERE t::text ILIKE '%{text}%'");
            let count: u64 = database.sql(&query).trim().parse().unwrap();
            (table.to_owned(), count)
        });
        rows.filter(|(_, count)| *count > 0).collect::<Vec<_>>()
    };
    let names: Vec<String> = found("canary").into_iter().map(|(name, _)| name).collect();
    for table in ["hubbub_users", "hubbub_invites", "hubbub_audit"] {
        assert!(names.contains(&table.to_owned()), "{names:?}");
    }
    let rest = Rest::of(address, &signed_up);
    // The former address is in a notice that can't be sent.
    let body = json!({"email": "canary@example.org"});
    let changed = rest.send("PATCH", "/api/v1/me", &body).await;
    assert_eq!(changed.0, 200, "{changed:?}");
    let id = signed_up["user"]["id"].as_str().unwrap();
    database.sql(&format!(
        r#"INSERT INTO hubbub_outbox (type, payload, state)
        VALUES ('address_changed', '{{"user":"{id}","email":"{email}"}}', 1)"#
    ));
    let password = json!({"password": "correct horse"});
    let deleted = rest.send("DELETE", "/api/v1/me", &password).await;
    assert_eq!(deleted.0, 200);
    assert_eq!(found("canary"), []);
    let (status, _, repeated) = sign_up().await;
    assert_eq!((status, &repeated), (201, &json!({})));
    node.stop().await;
}
