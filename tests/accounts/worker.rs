//! `hubbub worker`: the outbox's worker in a process of its own.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hubbub_test_support::client::Client;
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::SharedStorage;
use hubbub_test_support::smtp::SmtpSink;
use serde_json::json;

use crate::fixture::{Rest, SECRET, log_in, sign_up};

/// A worker in a process of its own, which is killed when this is dropped.
pub struct Worker(Child);

impl Worker {
    /// Starts a worker with this environment.
    pub fn start(environment: &[(&str, &str)]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_hubbub"))
            .env_clear()
            .envs(environment.iter().copied())
            .current_dir(std::env::temp_dir())
            .arg("worker")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_publishes_and_mails_for_nodes_that_do_not_and_ends_on_sigterm() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let storage = SharedStorage::new(&database.url);
    let sink = SmtpSink::start().await;
    let port = sink.port().to_string();
    let settings = storage.settings(&[
        SECRET,
        ("SMTP_HOST", "127.0.0.1"),
        ("SMTP_PORT", &port),
        ("MAIL_FROM", "no-reply@example.com"),
        ("REFRESH_GRACE_SECS", "0"),
    ]);
    let off = [("WORKERS", "off")];
    let node = hubbub_test_support::node::start(&[&settings, &off[..]].concat()).await;
    let address = node.address();
    let one = sign_up(address, "ann").await;
    let (_, other) = log_in(address, "ann", "correct horse").await;
    let token = other["access_token"].as_str().unwrap();
    let client = Client::with_token(address, token).await;
    client.await_event("connect").await;
    client.done("authenticate", json!({})).await;
    let rest = Rest::of(address, &one);
    assert_eq!(rest.post("/api/v1/auth/logout", json!({})).await.0, 200);
    assert!(sink.mails().is_empty(), "no worker runs yet");

    let mut worker = Worker::start(&settings);
    assert_eq!(sink.await_mails(1).await[0].to, ["ann@example.com"]);
    let told = client.await_event("session_ended").await;
    assert_eq!(told["reason"], "logged_out");
    let pid = worker.0.id().to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(killed.unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = worker.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "the worker does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(status.code(), Some(0));
    node.stop().await;
}
