//! Deletions: nothing of the content is left anywhere.

use std::sync::Arc;
use std::time::Duration;

use hubbub::domain::{FormContent, MessageChangeKind};
use hubbub::store::sql::{DatabaseUrl, migrate};
use hubbub::store::{
    Announced, ArchiveStore as _, ChangeOutcome, Changer, DeletableContent, IdempotencyStore as _,
    IdempotentRequest, MessageStore as _, StoredAnswer, StoredKind,
};
use hubbub_test_support::database::DatabaseKind;
use serde_json::json;

use super::fixture::*;
use crate::fixture::{TestStore, room, versions};

crate::on_every_database!(
    the_text_of_a_deleted_message_is_in_no_column,
    a_deletion_is_announced_once,
    authors_and_moderators_delete,
    a_deleted_message_cannot_be_changed,
    a_deleted_reply_has_a_tombstone_with_its_thread,
    a_deletion_is_known_after_its_record_was_reverted,
);

const CANARY: &str = "canary-7f3a";

/// Places where the text is: tables with columns.
async fn found(test: &TestStore) -> Vec<String> {
    match test.kind() {
        DatabaseKind::Sqlite => found_in_sqlite(test).await,
        DatabaseKind::Postgres => {
            let tables = "SELECT table_name FROM information_schema.tables \
                WHERE table_schema = current_schema() AND table_name LIKE 'hubbub%'";
            let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
            let search = |table: &str| {
                let text = format!("SELECT CAST(t AS text) FROM {table} t");
                let rows = test.database.sql(&text);
                rows.contains(CANARY) || rows.contains(&hex)
            };
            let tables = test.database.sql(tables);
            let with_text = tables.lines().filter(|table| search(table));
            with_text.map(str::to_owned).collect()
        }
        DatabaseKind::MariaDb => {
            let columns = "SELECT CONCAT(table_name, '.', column_name) \
                FROM information_schema.columns \
                WHERE table_schema = DATABASE() AND table_name LIKE 'hubbub%'";
            let search = |column: &str| {
                let (table, name) = column.split_once('.').unwrap();
                let text = format!(
                    "SELECT COUNT(*) FROM {table} WHERE LOCATE('{CANARY}', CAST({name} AS BINARY)) > 0"
                );
                test.database.sql(&text).trim() != "0"
            };
            let columns = test.database.sql(columns);
            let with_text = columns.lines().filter(|column| search(column));
            with_text.map(str::to_owned).collect()
        }
    }
}

async fn found_in_sqlite(test: &TestStore) -> Vec<String> {
    use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(test.database.file());
    let mut connection = options.connect().await.unwrap();
    let columns = "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c \
        WHERE m.type = 'table' AND m.name LIKE 'hubbub%'";
    let columns = sqlx::raw_sql(columns)
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let mut found = Vec::new();
    for row in columns {
        let (table, column): (String, String) = (row.get(0), row.get(1));
        let search = format!(
            "SELECT COUNT(*) FROM {table} \
             WHERE instr(CAST({column} AS BLOB), CAST('{CANARY}' AS BLOB)) > 0"
        );
        let search = sqlx::raw_sql(AssertSqlSafe(search));
        let count = search.fetch_one(&mut connection).await.unwrap();
        if count.get::<i64, _>(0) > 0 {
            found.push(format!("{table}.{column}"));
        }
    }
    found
}

/// The files of SQLite that have the text.
fn found_in_files(test: &TestStore) -> Vec<String> {
    let file = test.database.file();
    let names = ["", "-wal"].map(|end| format!("{}{end}", file.display()));
    let has_text = |name: &String| {
        let bytes = std::fs::read(name).unwrap_or_default();
        let mut parts = bytes.windows(CANARY.len());
        parts.any(|part| part == CANARY.as_bytes())
    };
    names.into_iter().filter(has_text).collect()
}

async fn the_text_of_a_deleted_message_is_in_no_column(test: &TestStore) {
    let store = &test.store;
    // Neighbours, so that pages are split and rows move.
    for seq in 1..=40 {
        post(test, seq, "ann", &"x".repeat(700)).await;
    }
    let long = format!("{CANARY} {}", "y".repeat(9000));
    let entry = post(test, 41, "ann", &long).await;
    for (number, seq) in (1..=3).zip(100..) {
        let text = format!("{number} {CANARY}");
        let edit = with_mentions(edit_of(&entry, &text, None), Some(&["bob"]));
        store.edit(&edit).await.unwrap();
        publish(test, seq).await;
    }
    // One edit is not published when the message is deleted.
    let pending = edit_of(&entry, &format!("pending {CANARY}"), None);
    store.edit(&pending).await.unwrap();
    store
        .react(&[reaction(&entry, "bob", "+1", true)])
        .await
        .unwrap();
    store.pin(&of(&entry), &by("bob"), true).await.unwrap();
    let request = IdempotentRequest {
        digest: [1; 32],
        user: None,
        route: "POST /x".to_owned(),
        bodies: vec![[2; 32]],
    };
    let answer = StoredAnswer {
        status: 201,
        body: format!("{{\"content\":\"{CANARY}\"}}").into_bytes(),
        content: Some(DeletableContent {
            subject: entry.id.to_string(),
            redacted: b"{}".to_vec(),
        }),
    };
    assert_eq!(store.reserve(&request).await.unwrap(), None);
    store.keep_answer(&request, answer).await.unwrap();
    assert!(found(test).await.len() >= 3, "the search finds nothing");
    let forms = store.forms(&room(ROOM), 41..=41, &[]).await.unwrap();
    assert!(format!("{forms:?}").contains(CANARY));

    store.delete(&of(&entry), &by("ann")).await.unwrap();
    assert_eq!(found(test).await, Vec::<String>::new());
    let answers = [
        format!("{:?}", store.message(&of(&entry)).await.unwrap()),
        format!("{:?}", versions(test, &of(&entry)).await),
        format!("{:?}", store.forms(&room(ROOM), 1..=99, &[]).await.unwrap()),
        format!("{:?}", test.all(ROOM).await),
    ];
    for answer in answers {
        assert!(!answer.contains(CANARY), "{answer}");
    }
    // The rows that waited announce the deletion.
    for row in claim(test).await {
        let change = published_at(test, &row, 200).await;
        let form = store.to_publish(&room(ROOM), &change.row).await.unwrap();
        let form = form.unwrap();
        assert!(matches!(form.content, FormContent::Deleted(_)), "{form:?}");
        assert_eq!(form.reactions, None);
        store.done(&[change]).await.unwrap();
    }
    assert_eq!(found(test).await, Vec::<String>::new());
    if test.kind() == DatabaseKind::Sqlite {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !found_in_files(test).is_empty() {
            assert!(
                std::time::Instant::now() < deadline,
                "{:?}",
                found_in_files(test)
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn a_deletion_is_announced_once(test: &TestStore) {
    let entry = post(test, 1, "ann", "first").await;
    let delete = || async {
        let outcome = test.store.delete(&of(&entry), &by("ann")).await;
        announced(outcome.unwrap())
    };
    let first = delete().await;
    assert!(matches!(first, Announced::ByRow { revision: 1, .. }));
    assert_eq!(delete().await, first);
    assert_eq!(publish(test, 2).await, [MessageChangeKind::Deleted]);
    assert_eq!(delete().await, Announced::At(2));
    assert!(claim(test).await.is_empty());
    let stored = test.store.message(&of(&entry)).await.unwrap().unwrap();
    assert_eq!(
        (stored.form.version, stored.form.edited_at.unwrap().0),
        (2, 2000)
    );
    assert!(stored.record.is_empty());
    assert_eq!(
        test.store.published(&room(ROOM), 1, 1).await.unwrap(),
        Some(2)
    );
    // Of many at once, one makes the change.
    let other = Arc::new(post(test, 3, "ann", "second").await);
    let deletions = (0..20).map(|_| {
        let (store, other) = (test.store.clone(), other.clone());
        tokio::spawn(async move { announced(store.delete(&of(&other), &by("ann")).await.unwrap()) })
    });
    let mut outcomes = Vec::new();
    for deletion in deletions.collect::<Vec<_>>() {
        outcomes.push(deletion.await.unwrap());
    }
    outcomes.dedup();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(publish(test, 4).await.len(), 1);
}

async fn authors_and_moderators_delete(test: &TestStore) {
    let entry = post(test, 1, "ann", "first").await;
    let other = test.store.delete(&of(&entry), &by("bob")).await.unwrap();
    assert_eq!(other, ChangeOutcome::Forbidden);
    let moderator = Changer {
        is_moderator: true,
        ..by("bob")
    };
    let outcome = test.store.delete(&of(&entry), &moderator).await.unwrap();
    assert_eq!(revision(outcome), 1);
    let stored = test.store.message(&of(&entry)).await.unwrap().unwrap();
    let FormContent::Deleted(tombstone) = stored.form.content else {
        panic!("the message is deleted");
    };
    assert_eq!(tombstone.deleted_by.as_str(), "bob");
    assert_eq!(tombstone.author.as_str(), "ann");
    assert_eq!((tombstone.id, tombstone.room), (entry.id, room(ROOM)));
    assert_eq!(tombstone.thread, None);
    let again = test.store.delete(&of(&entry), &by("eve")).await.unwrap();
    assert_eq!(again, ChangeOutcome::Forbidden);
}

async fn a_deleted_message_cannot_be_changed(test: &TestStore) {
    let entry = post(test, 1, "ann", "first").await;
    test.store
        .edit(&edit_of(&entry, "second", None))
        .await
        .unwrap();
    test.store.delete(&of(&entry), &by("ann")).await.unwrap();
    let store = &test.store;
    let mut outcomes = vec![
        store.edit(&edit_of(&entry, "third", None)).await.unwrap(),
        store
            .edit(&edit_of(&entry, "second", Some(1)))
            .await
            .unwrap(),
        store.pin(&of(&entry), &by("bob"), true).await.unwrap(),
    ];
    outcomes.extend(
        store
            .react(&[reaction(&entry, "bob", "+1", true)])
            .await
            .unwrap(),
    );
    assert_eq!(outcomes, vec![ChangeOutcome::Deleted; 4]);
    assert_eq!(versions(test, &of(&entry)).await, []);
    assert_eq!(
        store.reactions(&of(&entry)).await.unwrap(),
        Some(Vec::new())
    );
    let states = store.states(&room(ROOM), 1..=1, true).await.unwrap();
    let state = &states[0].1;
    let by = state.deletion.as_ref().map(|deletion| deletion.by.as_str());
    assert_eq!((by, state.unrecorded.revision), (Some("ann"), true));
    assert!(state.reactions.is_none() && state.pinned.is_none());
    // The edit is still published, as the deletion.
    let kinds = publish(test, 2).await;
    assert_eq!(
        kinds,
        [MessageChangeKind::Edited, MessageChangeKind::Deleted]
    );
    assert_eq!(store.published(&room(ROOM), 1, 1).await.unwrap(), Some(2));
    assert_eq!(store.published(&room(ROOM), 1, 2).await.unwrap(), Some(3));
}

async fn a_deleted_reply_has_a_tombstone_with_its_thread(test: &TestStore) {
    let root = post(test, 1, "ann", "root").await;
    let fields = json!({"content": "reply", "thread_id": root.id, "mentions": ["eve"]});
    let reply = post_with(test, 2, "bob", fields).await;
    test.store.delete(&of(&reply), &by("bob")).await.unwrap();
    let stored = test.store.message(&of(&reply)).await.unwrap().unwrap();
    let FormContent::Deleted(tombstone) = stored.form.content else {
        panic!("the message is deleted");
    };
    assert_eq!(tombstone.thread, Some(root.id));
    let left = super::projection::rows(test).await;
    assert_eq!(left, (Vec::new(), Vec::new()));
    // A repeat of the commit brings nothing back.
    commit(test, &reply).await;
    assert_eq!(super::projection::rows(test).await, left);
    assert_eq!(test.all(ROOM).await[1].kind, StoredKind::DELETED);
}

/// The tables of changes are removed and made anew; the entries stay.
async fn a_deletion_is_known_after_its_record_was_reverted(test: &TestStore) {
    let store = &test.store;
    let gone = post(test, 1, "ann", "first").await;
    let edited = post(test, 2, "ann", "first").await;
    store.delete(&of(&gone), &by("ann")).await.unwrap();
    store.edit(&edit_of(&edited, "second", None)).await.unwrap();
    publish(test, 3).await;
    let url = DatabaseUrl::parse(&test.database.url).unwrap();
    let down = migrate::down(&url, 1).await.unwrap();
    assert_eq!(down, ["0010_messages"]);
    migrate::up(&url).await.unwrap();

    let again = store.delete(&of(&gone), &by("ann")).await.unwrap();
    assert_eq!(announced(again), Announced::At(1));
    let stored = store.message(&of(&gone)).await.unwrap().unwrap();
    assert_eq!((stored.form.version, stored.record.len()), (1, 0));
    let FormContent::Deleted(tombstone) = stored.form.content else {
        panic!("the message is deleted");
    };
    assert_eq!(tombstone.deleted_by.as_str(), "ann");
    let edit = store.edit(&edit_of(&gone, "third", None)).await.unwrap();
    assert_eq!(edit, ChangeOutcome::Deleted);
    assert_eq!(versions(test, &of(&gone)).await, []);
    // The newest content of a message is its only version.
    let stored = store.message(&of(&edited)).await.unwrap().unwrap();
    assert_eq!((stored.form.version, stored.form.edited_at), (2, None));
    let kept = versions(test, &of(&edited)).await;
    assert_eq!(
        (kept.len(), content(&kept[0].record)),
        (1, "second".to_owned())
    );
    let edit = edit_of(&edited, "third", Some(2));
    assert_eq!(revision(store.edit(&edit).await.unwrap()), 1);
}
