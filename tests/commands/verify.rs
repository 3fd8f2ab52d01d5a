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
    for (damage, kind) in [
        ("form = 0, record = x'7b7d'", "unreadable_record"),
        ("form = 0, record = x''", "unreadable_record"),
        ("form = 0, record = x'5b5d'", "unreadable_record"),
        // Without a content, no JSON, and no UTF-8, in the short form of a plain text without a key.
        (
            "form = 11, send_key = x'', record = x''",
            "unreadable_record",
        ),
        (
            "form = 11, send_key = x'', record = x'22'",
            "unreadable_record",
        ),
        (
            "form = 11, send_key = x'', record = x'ff'",
            "unreadable_record",
        ),
        (
            "id = x'00000000000070008000000000000001', form = 0, record = (SELECT record FROM \
             hubbub_entries e WHERE e.seq = 6 AND e.room_no = hubbub_entries.room_no)",
            "unreadable_record",
        ),
        (
            "form = 0, record = CAST('{\"id\":\"01920000-0000-7000-8000-000000000001\",\
             \"user_id\":\"ann\",\"content\":\"hi\"}' AS BLOB)",
            "changed",
        ),
        ("epoch_no = 99", "unreadable"),
    ] {
        let text = format!("UPDATE hubbub_entries SET {damage} WHERE seq = 5 AND room_no = 1");
        let database = damaged(Sqlite, &text).await;
        let (kinds, text) = findings(&database, &[]);
        assert_eq!(kinds, [kind], "{damage}: {text}");
    }
}

#[tokio::test]
async fn the_newest_messages_of_a_complete_room_are_missed() {
    let damage = "DELETE FROM hubbub_entries WHERE room_no = 1 AND seq > 20";
    let database = damaged(Sqlite, damage).await;
    let (kinds, text) = findings(&database, &[]);
    assert!(kinds.contains(&"mark_beyond_end".to_owned()), "{text}");
    assert!(text.contains("and its last message is 20"), "{text}");
}

#[tokio::test]
async fn rows_of_rooms_that_do_not_exist_are_counted_on_every_database() {
    for kind in [Sqlite, Postgres, MariaDb] {
        let database = seeded(kind, 5, 300);
        let [missing_room, after] = ["demo-2", "demo-5"];
        let damage = format!(
            "INSERT INTO hubbub_gaps (room_no, first_seq, last_seq) VALUES (-3, 1, 1); \
             INSERT INTO hubbub_gaps (room_no, first_seq, last_seq) VALUES (0, 1, 1); \
             DELETE FROM hubbub_rooms WHERE name IN ('{missing_room}', '{after}')"
        );
        let store = crate::fixture::open(&database).await;
        let mut orphans = 0;
        for (room, _, entries) in crate::fixture::contents(&store).await {
            if [missing_room, after].contains(&room.as_str()) {
                orphans += entries.len();
            }
        }
        execute(&database, &damage).await;
        let (kinds, text) = findings(&database, &[]);
        assert_eq!(kinds, ["orphans", "orphans", "orphans"], "{kind:?}: {text}");
        let found = format!("hubbub_entries has {orphans} rows of 2 rooms");
        assert!(text.contains(&found), "{found}: {text}");
        let found = "hubbub_epochs has 2 rows of 2 rooms that hubbub_rooms doesn't have";
        assert!(text.contains(found), "{text}");
        assert!(text.contains("hubbub_gaps has 2 rows of 2 rooms"), "{text}");
        assert!(text.contains("the first has the number -3"), "{text}");
    }
}

#[tokio::test]
async fn an_incomplete_copy_is_no_complete_archive() {
    let damage = "INSERT INTO hubbub_meta (name, value) \
        VALUES ('copy_of', '01920000-0000-7000-8000-000000000001')";
    let database = damaged(Sqlite, damage).await;
    let (kinds, text) = findings(&database, &[]);
    assert_eq!(kinds, ["incomplete_copy"]);
    let advice = "incomplete copy: run `hubbub db copy` again";
    assert!(text.contains(advice), "{text}");
}

#[tokio::test]
async fn an_archive_without_its_id_is_found() {
    let damage = "DELETE FROM hubbub_meta WHERE name = 'deployment'";
    let database = damaged(Sqlite, damage).await;
    let (kinds, text) = findings(&database, &[]);
    assert_eq!(kinds, ["no_id"], "{text}");
    let damage = "INSERT INTO hubbub_meta (name, value) VALUES ('deployment', 'x')";
    execute(&database, damage).await;
    assert_eq!(findings(&database, &[]).0, ["no_id"]);
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
        ("INSERT INTO hubbub_gaps VALUES (1, 6, 4)", "malformed_loss"),
        (
            "INSERT INTO hubbub_gaps VALUES (1, -2, 0)",
            "malformed_loss",
        ),
        (
            "UPDATE hubbub_rooms SET cut_seq = 7 WHERE no = 1",
            "below_cut",
        ),
        (
            "INSERT INTO hubbub_entries SELECT room_no, epoch_no, seq - 10, at, kind, form, \
             randomblob(16), user_id, send_key, record FROM hubbub_entries \
             WHERE room_no = 1 AND seq IN (3, 10)",
            "number_below_one",
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
