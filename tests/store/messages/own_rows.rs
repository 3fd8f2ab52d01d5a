//! Rows of changes that their own transactions claim.

use std::time::Duration;

use hubbub::store::{ArchivedEntry, MessageStore as _, Outbox as _, OwnRow, OwnRows};

use tokio::time::Instant;

use super::fixture::*;
use crate::fixture::TestStore;

crate::on_every_database!(
    a_change_claims_its_row_for_the_worker_of_its_process,
    a_change_claims_no_row_behind_another_one_of_its_room,
    a_change_claims_no_row_while_a_reaction_waits_to_be_announced,
    a_reaction_that_falls_due_waits_for_a_later_row_that_is_claimed,
    a_row_that_no_worker_takes_is_due_after_its_lease,
    changes_claim_no_rows_without_a_worker,
    a_change_whose_caller_gives_up_hands_its_row_over,
    no_rows_are_claimed_that_the_worker_does_not_want,
    the_lease_of_a_row_begins_with_its_claim,
);

const LEASE: Duration = Duration::from_secs(60);

fn own_rows(test: &TestStore, lease: Duration) -> OwnRows {
    test.store.own_rows(lease, Box::new(|| true))
}

async fn next(rows: &mut OwnRows) -> OwnRow {
    let next = tokio::time::timeout(Duration::from_secs(10), rows.next());
    next.await.unwrap().unwrap()
}

async fn a_change_claims_its_row_for_the_worker_of_its_process(test: &TestStore) {
    let mut own = own_rows(test, LEASE);
    let entry = post(test, 1, "ann", "first").await;
    let edit = edit_of(&entry, "second", Some(1));
    assert_eq!(revision(test.store.edit(&edit).await.unwrap()), 1);
    assert!(claim(test).await.is_empty(), "it is claimed");
    let OwnRow { row, .. } = next(&mut own).await;
    assert_eq!(
        (row.attempts, row.kind.as_str(), row.tried_for),
        (1, "message_edited", Duration::ZERO)
    );
    let listed = test.store.list(0, 10).await.unwrap();
    assert_eq!(
        (listed.len(), listed[0].row.id, listed[0].row.first_claimed),
        (1, row.id, row.first_claimed)
    );
    let published = published_at(test, &row, 5).await;
    done(test, &[published]).await;
    let stored = test.store.message(&of(&entry)).await.unwrap().unwrap();
    assert_eq!(stored.form.version, 5);
    // Each kind of change, once those before are done.
    let pin = test.store.pin(&of(&entry), &by("ann"), true).await;
    assert_eq!(revision(pin.unwrap()), 2);
    let pinned = next(&mut own).await.row;
    assert_eq!(pinned.kind, "message_pinned");
    let published = published_at(test, &pinned, 6).await;
    done(test, &[published]).await;
    let deleted = test.store.delete(&of(&entry), &by("ann")).await;
    assert_eq!(revision(deleted.unwrap()), 3);
    assert_eq!(next(&mut own).await.row.kind, "message_deleted");
}

async fn a_change_claims_no_row_behind_another_one_of_its_room(test: &TestStore) {
    let mut own = own_rows(test, LEASE);
    let one = post(test, 1, "ann", "one").await;
    let two = post(test, 2, "ann", "two").await;
    for entry in [&one, &two] {
        let edit = edit_of(entry, "new", None);
        assert_eq!(revision(test.store.edit(&edit).await.unwrap()), 1);
    }
    let first = next(&mut own).await.row;
    assert!(claim(test).await.is_empty(), "the second one waits for it");
    let published = published_at(test, &first, 6).await;
    assert_eq!(published.row.target_seq, 1);
    done(test, &[published]).await;
    let rows = claim(test).await;
    assert_eq!(rows.len(), 1);
    let published = published_at(test, &rows[0], 7).await;
    assert_eq!(published.row.target_seq, 2);
    done(test, &[published]).await;
    own.close();
    assert!(own.next().await.is_none(), "no other row was handed over");
}

/// Two reactions: the first is announced, and the second, which would be due half a second later, in an hour.
async fn react_twice(test: &TestStore, entry: &ArchivedEntry) {
    let change = |user| [reaction(entry, user, "+1", true)];
    test.store.react(&change("bob")).await.unwrap();
    assert_eq!(publish(test, 5).await.len(), 1);
    test.store.react(&change("eve")).await.unwrap();
    test.execute("UPDATE hubbub_outbox SET due_at = due_at + 3600000")
        .await;
}

async fn a_change_claims_no_row_while_a_reaction_waits_to_be_announced(test: &TestStore) {
    let mut own = own_rows(test, LEASE);
    let entry = post(test, 1, "ann", "first").await;
    react_twice(test, &entry).await;
    assert!(claim(test).await.is_empty());
    let edit = edit_of(&entry, "second", None);
    assert_eq!(revision(test.store.edit(&edit).await.unwrap()), 1);
    own.close();
    assert!(own.next().await.is_none());
    assert_eq!(claim(test).await[0].kind, "message_edited");
}

async fn a_reaction_that_falls_due_waits_for_a_later_row_that_is_claimed(test: &TestStore) {
    let entry = post(test, 1, "ann", "first").await;
    react_twice(test, &entry).await;
    test.store
        .edit(&edit_of(&entry, "second", None))
        .await
        .unwrap();
    let edit = claim(test).await.remove(0);
    assert_eq!(edit.kind, "message_edited");
    test.execute("UPDATE hubbub_outbox SET due_at = 1 WHERE type = 'reactions_changed'")
        .await;
    assert_eq!(test.store.next_due().await.unwrap(), Some(Duration::ZERO));
    assert!(claim(test).await.is_empty());
    let published = published_at(test, &edit, 6).await;
    done(test, &[published]).await;
    assert_eq!(claim(test).await[0].kind, "reactions_changed");
}

async fn a_row_that_no_worker_takes_is_due_after_its_lease(test: &TestStore) {
    let own = own_rows(test, Duration::from_millis(50));
    let entry = post(test, 1, "ann", "first").await;
    let edit = edit_of(&entry, "second", None);
    assert_eq!(revision(test.store.edit(&edit).await.unwrap()), 1);
    drop(own);
    let row = loop {
        match claim(test).await.pop() {
            Some(row) => break row,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert_eq!(row.attempts, 2);
}

async fn changes_claim_no_rows_without_a_worker(test: &TestStore) {
    let entry = post(test, 1, "ann", "first").await;
    for (number, close) in [true, false].into_iter().enumerate() {
        let mut own = own_rows(test, LEASE);
        if close {
            own.close();
        } else {
            drop(own);
        }
        let edit = edit_of(&entry, &number.to_string(), None);
        test.store.edit(&edit).await.unwrap();
        assert_eq!(publish(test, 5).await.len(), 1);
    }
}

async fn a_change_whose_caller_gives_up_hands_its_row_over(test: &TestStore) {
    let mut own = own_rows(test, LEASE);
    let entry = post(test, 1, "ann", "first").await;
    let edit = edit_of(&entry, "second", None);
    let mut call = Box::pin(test.store.edit(&edit));
    assert!(futures_util::poll!(&mut call).is_pending());
    drop(call);
    assert_eq!(next(&mut own).await.row.kind, "message_edited");
}

async fn no_rows_are_claimed_that_the_worker_does_not_want(test: &TestStore) {
    let mut own = test.store.own_rows(LEASE, Box::new(|| false));
    let entry = post(test, 1, "ann", "first").await;
    let edit = edit_of(&entry, "second", None);
    test.store.edit(&edit).await.unwrap();
    assert_eq!(claim(test).await.len(), 1);
    own.close();
    assert!(own.next().await.is_none());
}

/// And not with the transaction, which may have waited for a lock before.
async fn the_lease_of_a_row_begins_with_its_claim(test: &TestStore) {
    let mut own = own_rows(test, LEASE);
    let entry = post(test, 1, "ann", "first").await;
    let (store, edit) = (test.store.clone(), edit_of(&entry, "second", None));
    let record = edit.record.clone();
    let (rendered, has_rendered) = std::sync::mpsc::channel();
    let edit = hubbub::store::MessageEdit {
        record: std::sync::Arc::new(move |before: &_| {
            // The transaction has begun.
            std::thread::sleep(Duration::from_millis(20));
            rendered.send(Instant::now()).unwrap();
            record(before)
        }),
        ..edit
    };
    store.edit(&edit).await.unwrap();
    let claimed_at = next(&mut own).await.claimed_at;
    assert!(claimed_at >= has_rendered.recv().unwrap());
}
