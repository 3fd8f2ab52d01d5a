//! Changes whose announcement was given up.

use hubbub::store::{ChangeOutcome, MessageStore as _, Outbox as _};

use super::fixture::*;
use crate::fixture::TestStore;

crate::on_every_database!(an_edit_that_is_given_up_prevents_no_later_one);

async fn an_edit_that_is_given_up_prevents_no_later_one(test: &TestStore) {
    let store = &test.store;
    let entry = post(test, 1, "ann", "first").await;
    let edit = |content: &'static str| {
        let edit = edit_of(&entry, content, Some(1));
        async move { store.edit(&edit).await.unwrap() }
    };
    assert_eq!(revision(edit("second").await), 1);
    let pending = ChangeOutcome::Pending {
        target_seq: 1,
        revision: 1,
    };
    assert_eq!(edit("third").await, pending);
    let row = claim(test).await.remove(0);
    assert_eq!(edit("third").await, pending);
    store.fail(row.claim(), "it is unreadable").await.unwrap();
    assert_eq!(revision(edit("third").await), 2);
    publish(test, 5).await;
    let stored = store.message(&of(&entry)).await.unwrap().unwrap();
    assert_eq!(
        (content(&stored.record), stored.form.version),
        ("third".to_owned(), 5)
    );
}
