//! Changes whose announcement was given up.

use hubbub::domain::MessageChangeKind;
use hubbub::store::{Announced, ArchivedEntry, ChangeOutcome, MessageStore as _, Outbox as _};

use super::fixture::*;
use crate::fixture::TestStore;

crate::on_every_database!(
    an_edit_that_is_given_up_prevents_no_later_one,
    a_repeat_of_a_change_that_was_given_up_announces_it,
    a_repeat_of_a_change_whose_row_was_removed_announces_it,
);

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

/// Makes one of the changes that can be repeated.
async fn make(test: &TestStore, kind: MessageChangeKind, entry: &ArchivedEntry) -> Announced {
    let store = &test.store;
    let outcome = match kind {
        MessageChangeKind::Edited => store.edit(&edit_of(entry, "second", None)).await,
        MessageChangeKind::Deleted => store.delete(&of(entry), &by("ann")).await,
        MessageChangeKind::Pinned => store.pin(&of(entry), &by("bob"), true).await,
        _ => store.pin(&of(entry), &by("eve"), false).await,
    };
    announced(outcome.unwrap())
}

const REPEATED: [MessageChangeKind; 4] = [
    MessageChangeKind::Edited,
    MessageChangeKind::Pinned,
    MessageChangeKind::Unpinned,
    MessageChangeKind::Deleted,
];

/// Repeats each change once its row was lost in some way, publishes it, and repeats it again.
async fn repeat_each(test: &TestStore, lose: impl AsyncFn()) {
    let entry = post(test, 1, "ann", "first").await;
    for (kind, revision) in REPEATED.into_iter().zip(1..) {
        let waits = Announced::ByRow { revision };
        assert_eq!(make(test, kind, &entry).await, waits);
        lose().await;
        assert!(claim(test).await.is_empty());
        for _ in 0..2 {
            assert_eq!(make(test, kind, &entry).await, waits, "{kind:?}");
        }
        let rows = claim(test).await;
        assert_eq!(rows.len(), 1, "{kind:?}");
        assert_eq!(make(test, kind, &entry).await, waits, "it is claimed");
        let seq = 10 + revision;
        let published = published_at(test, &rows[0], seq).await;
        assert_eq!((published.kind, published.row.revision), (kind, revision));
        let user = match kind {
            MessageChangeKind::Pinned => Some("bob".to_owned()),
            MessageChangeKind::Unpinned => Some("eve".to_owned()),
            _ => None,
        };
        assert_eq!(published.row.user_id, user);
        done(test, &[published]).await;
        assert_eq!(make(test, kind, &entry).await, Announced::At(seq));
        assert!(claim(test).await.is_empty());
    }
}

async fn a_repeat_of_a_change_that_was_given_up_announces_it(test: &TestStore) {
    repeat_each(test, async || {
        let row = claim(test).await.remove(0);
        let failed = test.store.fail(row.claim(), "it is unreadable").await;
        failed.unwrap();
    })
    .await;
}

async fn a_repeat_of_a_change_whose_row_was_removed_announces_it(test: &TestStore) {
    repeat_each(test, async || {
        test.execute("DELETE FROM hubbub_outbox").await;
    })
    .await;
}
