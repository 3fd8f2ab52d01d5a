//! Deployments with Redis servers of their own that use one database by mistake.

use std::time::{Duration, Instant};

use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::log::CollectedLog;
use hubbub_test_support::node::SharedStorage;
use serde_json::Value;

/// The time within which both deployments log an error: a minute, and some for slow machines.
const DEADLINE: Duration = Duration::from_secs(75);

/// The fields of the JSON lines with this level about other deployments.
fn reports(log: &CollectedLog, level: &str) -> Vec<Value> {
    let text = log.text();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| line["level"] == level)
        .map(|line| line["fields"].clone())
        .filter(|fields| fields["message"].to_string().contains("another deployment"))
        .collect()
}

// The test runs on one thread, so that its subscriber receives the logs of both nodes.
#[tokio::test]
async fn two_deployments_with_the_same_names_in_two_redis_servers_notice_each_other() {
    let log = CollectedLog::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_env_filter("hubbub=warn")
        .with_writer(log.writer())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let production = SharedStorage::new(&database.url);
    let staging = SharedStorage::new(&database.url);
    let first = production.start_node(&[]).await;
    let second_of_production = production.start_node(&[]).await;
    assert_eq!(reports(&log, "WARN"), Vec::<Value>::new());

    let node_of_staging = staging.start_node(&[]).await;
    let warnings = reports(&log, "WARN");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let (found, own) = (&warnings[0]["found"], &warnings[0]["own"]);
    for name in [found, own] {
        let name = name.as_str().unwrap();
        assert!(name.starts_with("redis hubbub: 0 "), "{name}");
    }
    let deadline = Instant::now() + DEADLINE;
    for (found, own) in [(own, found), (found, own)] {
        let is_logged = |error: &Value| &error["found"] == found && &error["own"] == own;
        while !reports(&log, "ERROR").iter().any(is_logged) {
            assert!(Instant::now() < deadline, "{own} logged no error");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    for node in [first, second_of_production, node_of_staging] {
        node.stop().await;
    }
}
