//! `hubbub outbox`.

use std::process::Command;
use std::time::Duration;

use hubbub::store::sql::{DatabaseUrl, Settings, SqlStore};
use hubbub::store::{JobEnd, JobQueue as _, NewRow, RecoveryStore as _};
use hubbub_test_support::database::TestDatabase;
use serde_json::Value;

use crate::fixture::{Ended, Sqlite};

fn outbox(database: &TestDatabase, arguments: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_hubbub"))
        .env_clear()
        .current_dir(std::env::temp_dir())
        .arg("outbox")
        .args(arguments)
        .args(["--database-url", &database.url])
        .output();
    Ended::of(output.unwrap())
}

async fn add(store: &SqlStore, kind: &str) {
    let row = NewRow {
        room: None,
        kind: kind.to_owned(),
        payload: "{\"email\":\"ann@example.com\"}".to_owned(),
    };
    store.add_row(row).await.unwrap();
}

#[tokio::test]
async fn rows_that_wait_or_have_failed_are_listed_and_repeated() {
    let database = TestDatabase::new(Sqlite);
    let url = DatabaseUrl::parse(&database.url).unwrap();
    hubbub::store::sql::migrate::up(&url).await.unwrap();
    assert_eq!(
        outbox(&database, &["list"]).stdout,
        "nothing waits or has failed\n"
    );
    let store = SqlStore::open(&Settings::new(url)).await.unwrap();
    add(&store, "mail").await;
    add(&store, "other").await;
    let lease = Duration::from_secs(60);
    let claimed = store.claim_jobs(&["mail"], 1, lease).await.unwrap();
    let reason = "no such\nmailbox".to_owned();
    let end = JobEnd::Failed { reason };
    assert!(store.end_job(&claimed[0], end).await.unwrap());

    let listed = outbox(&database, &["list"]);
    let expected = "1\tfailed\t1\t(job)\tmail\tno such mailbox\n2\twaits\t0\t(job)\tother\t-\n";
    assert_eq!((listed.code, listed.stdout.as_str()), (0, expected));
    let listed = outbox(&database, &["list", "--failed", "--json"]);
    let row: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(
        (&row["number"], &row["state"]),
        (&1.into(), &"failed".into())
    );
    assert!(!listed.stdout.contains("example.com"), "{}", listed.stdout);

    let retried = outbox(&database, &["retry", "2"]);
    assert_eq!(
        (retried.code, retried.stdout.as_str()),
        (1, "0 rows are due now\n")
    );
    let retried = outbox(&database, &["retry", "--failed"]);
    assert_eq!(
        (retried.code, retried.stdout.as_str()),
        (0, "1 rows are due now\n")
    );
    assert_eq!(
        store.claim_jobs(&["mail"], 1, lease).await.unwrap().len(),
        1
    );
    assert_eq!(outbox(&database, &["retry"]).code, 2);
    store.close().await;
}

#[test]
fn a_worker_needs_a_database_and_redis() {
    for (database, reason) in [("none", "DATABASE_URL"), ("sqlite::memory:", "REDIS_URL")] {
        let output = Command::new(env!("CARGO_BIN_EXE_hubbub"))
            .env_clear()
            .current_dir(std::env::temp_dir())
            .args(["worker", "--database-url", database])
            .output();
        let ended = Ended::of(output.unwrap());
        assert_ne!(ended.code, 0);
        assert!(ended.stderr.contains(reason), "{}", ended.stderr);
    }
}
