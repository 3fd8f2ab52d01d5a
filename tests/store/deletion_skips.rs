//! Data that can't be read does not stop the job of a deleted account: it is skipped and counted.

use hubbub::domain::ChatHistory;
use hubbub::store::{ChatStore, DeletionReport, DeletionStep, DeletionStore};
use hubbub_test_support::database::DatabaseKind;
use uuid::Uuid;

use crate::chats::{group, user};
use crate::deletion::{announce, create, job, message, rewrite};
use crate::fixture::{TestStore, in_room};
use crate::memberships::{delete, leave_groups};

crate::on_every_database!(
    entries_that_can_not_be_read_are_skipped_and_counted,
    a_group_that_can_not_be_read_keeps_the_user_in_no_other,
);

/// Runs one pass over the messages.
async fn pass(test: &TestStore, user: Uuid) -> DeletionReport {
    let rewrite = rewrite(&user.to_string());
    for _ in 0..20 {
        let step = test.store.rewrite_next(user, rewrite.clone(), job()).await;
        if step.unwrap() != DeletionStep::More {
            return test.store.deletion(user).await.unwrap().unwrap();
        }
    }
    panic!("the pass does not end");
}

async fn entries_that_can_not_be_read_are_skipped_and_counted(test: &TestStore) {
    let user = create(&test.store).await;
    let id = user.to_string();
    let messages: Vec<_> = (1..=100).map(|seq| message(&id, "Ann", "a", seq)).collect();
    test.commit(&in_room("a", &messages)).await;
    let byte = match test.kind() {
        DatabaseKind::Postgres => "decode('ff', 'hex')",
        _ => "x'ff'",
    };
    // A key that is no text, a record that is no JSON, and the last one; an id that is none, where the
    // database allows that; and an epoch that is missing, which the name does not need.
    let mut broken = vec![10, 20, 100];
    for (seq, change) in [
        (10, format!("send_key = {byte}")),
        (20, format!("form = 0, record = {byte}")),
        (100, format!("form = 0, record = {byte}")),
        (40, "epoch_no = 99".to_owned()),
    ] {
        let update = format!("UPDATE hubbub_entries SET {change} WHERE seq = {seq}");
        test.execute(&update).await;
    }
    if test.kind() == DatabaseKind::Sqlite {
        test.execute("UPDATE hubbub_entries SET id = x'01' WHERE seq = 30")
            .await;
        broken.push(30);
    }
    let skipped = broken.len() as u64;
    test.store
        .delete_account(user, "hash".to_owned(), job(), announce())
        .await
        .unwrap();
    let report = pass(test, user).await;
    let count = |report: &DeletionReport| (report.passes, report.messages, report.skipped);
    assert_eq!(count(&report), (1, 100 - skipped, skipped));
    // The second pass counts them once more, and not twice.
    let report = pass(test, user).await;
    assert_eq!(count(&report), (2, 100 - skipped, skipped));
    assert!(report.finished_at.is_some());
}

async fn a_group_that_can_not_be_read_keeps_the_user_in_no_other(test: &TestStore) {
    user(test, "admin").await;
    let (ann, bob) = (user(test, "ann").await, user(test, "bob").await);
    let broken = group(test, ann, &[bob], ChatHistory::All).await;
    test.execute("UPDATE hubbub_chats SET history = 9").await;
    let other = group(test, ann, &[bob], ChatHistory::All).await;
    assert!(broken < other);
    delete(test, ann).await;
    leave_groups(test, ann).await;
    let members = test.store.chat_members(other, None, 10).await.unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(pass(test, ann).await.skipped, 1);
    // It was repaired before the second pass.
    test.execute("UPDATE hubbub_chats SET history = 0").await;
    leave_groups(test, ann).await;
    let report = pass(test, ann).await;
    assert_eq!((report.passes, report.skipped), (2, 0));
}
