//! Messages of a deleted user that are changed while its job rewrites them.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use hubbub::domain::{RoomId, UserId};
use hubbub::store::{
    ArchivedEntry, Changer, DeletionReport, DeletionStep, DeletionStore, EditedRecord, MessageEdit,
    MessageRef, MessageStore as _, Rewrite, StoredKind,
};
use hubbub_test_support::database::DatabaseKind;
use parking_lot::Mutex;

use crate::deletion::{announce, create, job, message, rewrite};
use crate::fixture::{TestStore, in_room, versions};

crate::on_every_database!(
    the_job_brings_no_deleted_message_back,
    versions_of_a_damaged_message_stop_nothing,
);

fn of(entry: &ArchivedEntry) -> MessageRef {
    MessageRef {
        room: RoomId::trusted("a"),
        id: entry.id,
    }
}

fn moderator(user: &str) -> Changer {
    Changer {
        user: UserId::trusted(user),
        is_moderator: true,
        hidden_seq: 0,
    }
}

/// Commits a message of the user, and edits it once.
async fn edited_message(test: &TestStore, user: &str, seq: u64) -> ArchivedEntry {
    let entry = message(user, "Ann", "a", seq);
    test.commit(&in_room("a", std::slice::from_ref(&entry)))
        .await;
    let edited = String::from_utf8(entry.record.to_vec()).unwrap();
    let edited = edited.replace("\"hi\"", "\"hello\"");
    let edit = MessageEdit {
        message: of(&entry),
        by: moderator(user),
        version: None,
        record: Arc::new(move |_: &[u8]| {
            Ok(EditedRecord {
                record: edited.clone().into(),
                mentions: None,
            })
        }),
    };
    test.store.edit(&edit).await.unwrap();
    entry
}

async fn delete_account(test: &TestStore, user: uuid::Uuid) {
    test.store
        .delete_account(user, "hash".to_owned(), job(), announce())
        .await
        .unwrap();
}

/// Runs one pass over the messages.
async fn pass(test: &TestStore, user: uuid::Uuid, rewrite: Rewrite) -> DeletionReport {
    for _ in 0..20 {
        let step = test.store.rewrite_next(user, rewrite.clone(), job()).await;
        if step.unwrap() != DeletionStep::More {
            return test.store.deletion(user).await.unwrap().unwrap();
        }
    }
    panic!("the pass does not end");
}

/// The lengths of the records in a table, as `empty` or `text`.
async fn records(test: &TestStore, table: &str) -> Vec<String> {
    let text = format!(
        "SELECT CASE WHEN LENGTH(record) > 0 THEN 'text' ELSE 'empty' END FROM {table} ORDER BY seq"
    );
    test.lines(&text).await
}

async fn the_job_brings_no_deleted_message_back(test: &TestStore) {
    let user = create(&test.store).await;
    let id = user.to_string();
    let entry = edited_message(test, &id, 1).await;
    delete_account(test, user).await;
    // A moderator deletes the message once the job has read it.
    let (read, has_read) = mpsc::channel();
    let (deleted, is_deleted) = mpsc::channel();
    let is_deleted = Mutex::new(is_deleted);
    let anonymise = rewrite(&id);
    let observed: Rewrite = Arc::new(move |record| {
        // The second call has nobody to wait for.
        if read.send(()).is_ok() {
            let _ = is_deleted.lock().recv_timeout(Duration::from_secs(1));
        }
        anonymise(record)
    });
    let (store, target) = (test.store.clone(), of(&entry));
    let deletion = tokio::spawn(async move {
        let has_read = tokio::task::spawn_blocking(move || has_read.recv());
        has_read.await.unwrap().unwrap();
        let outcome = store.delete(&target, &moderator("bob")).await;
        let _ = deleted.send(());
        outcome.unwrap()
    });
    pass(test, user, observed).await;
    deletion.await.unwrap();
    assert_eq!(records(test, "hubbub_entries").await, ["empty"]);
    let versions = records(test, "hubbub_message_changes").await;
    assert_eq!(versions, ["empty", "empty"]);
    assert_eq!(test.all("a").await[0].kind, StoredKind::DELETED);
}

/// A message with an id that is none, where the database allows that, and a version that is no JSON.
async fn versions_of_a_damaged_message_stop_nothing(test: &TestStore) {
    let user = create(&test.store).await;
    let id = user.to_string();
    for seq in 1..=2 {
        edited_message(test, &id, seq).await;
    }
    let last = edited_message(test, &id, 3).await;
    let byte = match test.kind() {
        DatabaseKind::Postgres => "decode('ff', 'hex')",
        _ => "x'ff'",
    };
    let mut skipped = 1;
    let damage =
        format!("UPDATE hubbub_message_changes SET form = 0, record = {byte} WHERE seq = 2");
    test.execute(&damage).await;
    if test.kind() == DatabaseKind::Sqlite {
        test.execute("UPDATE hubbub_entries SET id = x'01' WHERE seq = 1")
            .await;
        skipped += 1;
    }
    delete_account(test, user).await;
    let report = pass(test, user, rewrite(&id)).await;
    assert_eq!((report.passes, report.skipped), (1, skipped));
    let versions = versions(test, &of(&last)).await;
    assert_eq!(versions.len(), 2);
    for version in versions {
        let text = String::from_utf8(version.record.to_vec()).unwrap();
        assert!(text.contains(r#""username":"deleted user""#), "{text}");
    }
}
