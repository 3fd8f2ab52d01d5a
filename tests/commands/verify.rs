//! `hubbub db verify`.

use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use serde_json::Value;

use crate::fixture::{MariaDb, Postgres, Sqlite, execute, run, seeded};

/// The kinds of what `verify` finds, and the texts.
fn findings(database: &TestDatabase, options: &[&str]) -> (Vec<String>, String) {
    let common = ["verify", "--json", "--database-url", &database.url];
    let ended = run(&[&common[..], options].concat());
    let summary = ended.summary();
    let findings: Vec<Value> = summary["findings"].as_array().unwrap().clone();
    assert_eq!(ended.code, i32::from(!findings.is_empty()));
    assert_eq!(summary["is_complete"], findings.is_empty());
    let kinds = findings
        .iter()
        .map(|found| found["kind"].as_str().unwrap().to_owned());
    (kinds.collect(), summary.to_string())
}

async fn damaged(kind: DatabaseKind, damage: &str) -> TestDatabase {
    let database = seeded(kind, 3, 300);
    assert_eq!(findings(&database, &[]).0, Vec::<String>::new());
    execute(&database, damage).await;
    database
}

#[tokio::test]
async fn a_row_that_was_removed_is_found_on_every_database() {
    for kind in [Sqlite, Postgres, MariaDb] {
        let damage = "DELETE FROM hubbub_entries WHERE seq IN (7, 8, 20) \
            AND room_no = (SELECT no FROM hubbub_rooms WHERE name = 'demo-2')";
        let database = damaged(kind, damage).await;
        let (kinds, text) = findings(&database, &[]);
        assert_eq!(kinds, ["missing", "missing"], "{kind:?}");
        assert!(text.contains("messages 7 to 8 are missing"), "{text}");
        assert!(text.contains("message 20 is missing"), "{text}");
        let (kinds, _) = findings(&database, &["--room", "demo-1"]);
        assert_eq!(kinds, Vec::<String>::new());
        let (kinds, _) = findings(&database, &["--room", "demo-2"]);
        assert_eq!(kinds.len(), 2);
    }
}

#[tokio::test]
async fn a_record_that_was_changed_is_found() {
    for (damage, what) in [
        ("SET form = 0, record = x'7b7d'", "no message"),
        (
            "SET id = x'00000000000070008000000000000001', form = 0, record = (SELECT record FROM \
          hubbub_entries e WHERE e.seq = 6 AND e.room_no = hubbub_entries.room_no)",
            "another record",
        ),
        ("SET epoch_no = 99", "another epoch"),
    ] {
        let text = format!("UPDATE hubbub_entries {damage} WHERE seq = 5 AND room_no = 1");
        let database = damaged(Sqlite, &text).await;
        let (kinds, text) = findings(&database, &[]);
        assert_eq!(kinds.len(), 1, "{what}: {text}");
        assert!(
            ["changed", "unreadable"].contains(&kinds[0].as_str()),
            "{text}"
        );
    }
}

#[tokio::test]
async fn an_id_that_two_messages_have_is_found() {
    let damage = "DROP INDEX hubbub_entries_id; UPDATE hubbub_entries SET id = \
        (SELECT e.id FROM hubbub_entries e WHERE e.room_no = 1 AND e.seq = 1) \
        WHERE room_no = 2 AND seq = 3";
    let database = damaged(Sqlite, damage).await;
    let (kinds, text) = findings(&database, &[]);
    assert!(kinds.contains(&"doubled_id".to_owned()), "{text}");
}

#[tokio::test]
async fn records_of_a_room_that_contradict_its_messages_are_found() {
    for (damage, kind) in [
        ("INSERT INTO hubbub_gaps VALUES (1, 4, 6)", "not_lost"),
        (
            "UPDATE hubbub_rooms SET contiguous_seq = 999 WHERE no = 1",
            "mark_beyond_end",
        ),
        (
            "UPDATE hubbub_epochs SET ended_seq = 999 WHERE room_no = 1",
            "epoch_beyond_end",
        ),
    ] {
        let database = damaged(Sqlite, damage).await;
        let (kinds, text) = findings(&database, &[]);
        assert!(kinds.iter().all(|found| found == kind), "{text}");
        assert!(!kinds.is_empty(), "{kind}");
    }
}

#[tokio::test]
async fn many_findings_of_a_room_are_summed_up() {
    let database = damaged(Sqlite, "DELETE FROM hubbub_entries WHERE seq % 2 = 0").await;
    let (kinds, text) = findings(&database, &["--room", "demo-1"]);
    assert_eq!(kinds.len(), 21, "{text}");
    assert_eq!(kinds[20], "more");
}
