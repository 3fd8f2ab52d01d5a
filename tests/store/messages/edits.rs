//! Edits: one order, conflicts, versions.

use hubbub::domain::{FormContent, Refusal};
use hubbub::store::{
    Announced, ArchiveStore as _, ChangeOutcome, Changer, MessageEdit, MessageStore as _,
    StoredKind,
};
use serde_json::json;

use super::fixture::*;
use crate::fixture::{TestStore, in_room, room, versions};

crate::on_every_database!(
    twenty_concurrent_editors_of_one_version_have_one_winner,
    edits_without_a_version_have_one_order,
    an_edit_that_changes_nothing_is_not_announced,
    a_stale_version_is_a_conflict_with_the_newest_message,
    an_edit_waits_for_the_version_that_is_not_published,
    only_the_author_edits_and_hidden_messages_are_unknown,
    a_record_that_is_refused_changes_nothing,
    the_versions_of_a_message_are_listed,
    an_announcement_is_recorded_once,
    a_commit_of_the_original_after_an_edit_changes_nothing,
    a_message_that_retention_has_deleted_has_nothing_to_announce,
);

async fn twenty_concurrent_editors_of_one_version_have_one_winner(test: &TestStore) {
    let entry = post(test, 1, "ann", "first").await;
    let mut version = 1;
    for round in 0..3 {
        let editors = (0..20).map(|editor| {
            let store = test.store.clone();
            let edit = edit_of(&entry, &format!("{round}/{editor}"), Some(version));
            tokio::spawn(async move { store.edit(&edit).await.unwrap() })
        });
        let mut changed = 0;
        for editor in editors.collect::<Vec<_>>() {
            match editor.await.unwrap() {
                ChangeOutcome::Changed(_) => changed += 1,
                ChangeOutcome::Pending { revision, .. } => assert_eq!(revision, round + 1),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(changed, 1);
        let next = version + 10;
        assert_eq!(publish(test, next).await.len(), 1);
        // Those that had to wait learn that they were late.
        let late = edit_of(&entry, "late", Some(version));
        let ChangeOutcome::Conflict(newest) = test.store.edit(&late).await.unwrap() else {
            panic!("the version is stale");
        };
        assert_eq!(newest.form.version, next);
        version = next;
    }
}

async fn edits_without_a_version_have_one_order(test: &TestStore) {
    let entry = post(test, 1, "ann", "first").await;
    let editors = (0..20).map(|editor| {
        let store = test.store.clone();
        let edit = edit_of(&entry, &format!("{editor}"), None);
        tokio::spawn(async move { revision(store.edit(&edit).await.unwrap()) })
    });
    let mut revisions = Vec::new();
    for editor in editors.collect::<Vec<_>>() {
        revisions.push(editor.await.unwrap());
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=20).collect::<Vec<u64>>());
    let rows = claim(test).await;
    assert_eq!(rows.len(), 20);
    // The rows of a message are in the order of its revisions.
    for (row, revision) in rows.iter().zip(1..) {
        assert_eq!(published_at(test, row, 1).await.row.revision, revision);
    }
    let versions = versions(test, &of(&entry)).await;
    assert_eq!(versions.len(), 21);
}

async fn an_edit_that_changes_nothing_is_not_announced(test: &TestStore) {
    let entry = post(test, 1, "ann", "first").await;
    let edit = |text: &str| edit_of(&entry, text, None);
    let unchanged = test.store.edit(&edit("first")).await.unwrap();
    assert_eq!(announced(unchanged), Announced::At(1));
    let first = announced(test.store.edit(&edit("second")).await.unwrap());
    let again = announced(test.store.edit(&edit("second")).await.unwrap());
    assert_eq!(first, again);
    assert_eq!(publish(test, 2).await.len(), 1);
    let published = announced(test.store.edit(&edit("second")).await.unwrap());
    assert_eq!(published, Announced::At(2));
    // The repeat of an edit whose answer was lost.
    let repeat = edit_of(&entry, "second", Some(1));
    let repeat = announced(test.store.edit(&repeat).await.unwrap());
    assert_eq!(repeat, Announced::At(2));
    assert!(claim(test).await.is_empty());
}

async fn a_stale_version_is_a_conflict_with_the_newest_message(test: &TestStore) {
    let entry = post(test, 3, "ann", "first").await;
    for unknown in [2, 4] {
        let edit = edit_of(&entry, "x", Some(unknown));
        let outcome = test.store.edit(&edit).await.unwrap();
        assert!(matches!(outcome, ChangeOutcome::Conflict(_)), "{outcome:?}");
    }
    let edit = edit_of(&entry, "second", Some(3));
    assert_eq!(revision(test.store.edit(&edit).await.unwrap()), 1);
    publish(test, 9).await;
    let late = edit_of(&entry, "other", Some(3));
    let ChangeOutcome::Conflict(newest) = test.store.edit(&late).await.unwrap() else {
        panic!("the version is stale");
    };
    assert_eq!(newest.form.version, 9);
    assert_eq!(newest.form.edited_at.unwrap().0, 9000);
    assert_eq!(content(&newest.record), "second");
    assert_eq!(newest.form.content, FormContent::Edited(newest.record));
    // A message that was not changed has no form.
    let other = post(test, 4, "ann", "x").await;
    test.store
        .edit(&edit_of(&other, "y", Some(1)))
        .await
        .unwrap();
    let forms = test.store.forms(&room(ROOM), 4..=4, &[]).await.unwrap();
    assert!(forms.is_empty(), "{forms:?}");
    let next = edit_of(&entry, "other", Some(9));
    assert_eq!(revision(test.store.edit(&next).await.unwrap()), 2);
}

async fn an_edit_waits_for_the_version_that_is_not_published(test: &TestStore) {
    let entry = post(test, 1, "ann", "first").await;
    test.store
        .edit(&edit_of(&entry, "second", None))
        .await
        .unwrap();
    for seen in [1, 2] {
        let outcome = test.store.edit(&edit_of(&entry, "third", Some(seen))).await;
        let expected = ChangeOutcome::Pending {
            target_seq: 1,
            revision: 1,
        };
        assert_eq!(outcome.unwrap(), expected);
    }
    assert_eq!(
        test.store.published(&room("other"), 1, 1).await.unwrap(),
        None
    );
    let room = of(&entry).room;
    assert_eq!(test.store.published(&room, 1, 1).await.unwrap(), None);
    publish(test, 2).await;
    assert_eq!(test.store.published(&room, 1, 1).await.unwrap(), Some(2));
    let edit = edit_of(&entry, "third", Some(2));
    assert_eq!(revision(test.store.edit(&edit).await.unwrap()), 2);
}

async fn only_the_author_edits_and_hidden_messages_are_unknown(test: &TestStore) {
    let entry = post(test, 5, "ann", "first").await;
    let edit = |changer: Changer| MessageEdit {
        by: changer,
        ..edit_of(&entry, "x", None)
    };
    let moderator = Changer {
        is_moderator: true,
        ..by("bob")
    };
    for changer in [by("bob"), moderator] {
        let outcome = test.store.edit(&edit(changer)).await.unwrap();
        assert_eq!(outcome, ChangeOutcome::Forbidden);
    }
    let hidden = Changer {
        hidden_seq: 5,
        ..by("ann")
    };
    let outcome = test.store.edit(&edit(hidden.clone())).await.unwrap();
    assert_eq!(outcome, ChangeOutcome::NotFound);
    let outcomes = [
        test.store.delete(&of(&entry), &hidden).await.unwrap(),
        test.store.pin(&of(&entry), &hidden, true).await.unwrap(),
    ];
    assert_eq!(outcomes, [ChangeOutcome::NotFound, ChangeOutcome::NotFound]);
    let mut elsewhere = edit_of(&entry, "x", None);
    elsewhere.message.room = room("other");
    let outcome = test.store.edit(&elsewhere).await.unwrap();
    assert_eq!(outcome, ChangeOutcome::NotFound);
    // A change is not a message.
    let mut pointer = message(6, "", json!({}));
    pointer.kind = StoredKind::POINTER;
    commit(test, &pointer).await;
    let outcome = test
        .store
        .edit(&edit_of(&pointer, "x", None))
        .await
        .unwrap();
    assert_eq!(outcome, ChangeOutcome::NotFound);
}

async fn a_record_that_is_refused_changes_nothing(test: &TestStore) {
    let entry = post(test, 1, "ann", "first").await;
    let refusal = Refusal::bad_request("empty");
    let refused = refusal.clone();
    let edit = MessageEdit {
        record: std::sync::Arc::new(move |_: &[u8]| Err(refused.clone())),
        ..edit_of(&entry, "x", None)
    };
    let outcome = test.store.edit(&edit).await.unwrap();
    assert_eq!(outcome, ChangeOutcome::Refused(refusal));
    assert!(claim(test).await.is_empty());
    assert_eq!(test.all(ROOM).await, [entry]);
}

async fn the_versions_of_a_message_are_listed(test: &TestStore) {
    let entry = post(test, 1, "ann", "first").await;
    for (text, seq) in [("second", 5), ("third", 7)] {
        test.store.edit(&edit_of(&entry, text, None)).await.unwrap();
        publish(test, seq).await;
    }
    test.store
        .edit(&edit_of(&entry, "fourth", None))
        .await
        .unwrap();
    let versions = versions(test, &of(&entry)).await;
    let listed: Vec<(u64, String)> = versions
        .iter()
        .map(|version| (version.version, content(&version.record)))
        .collect();
    let expected = [(1, "first"), (5, "second"), (7, "third"), (0, "fourth")];
    let expected = expected.map(|(version, text)| (version, text.to_owned()));
    assert_eq!(listed, expected);
    assert_eq!(versions[0].record, entry.record);
    let times: Vec<u64> = versions.iter().map(|version| version.at.0).collect();
    assert_eq!(times[..3], [1000, 5000, 7000]);
    // The archive has the newest content, and the forms of edited messages.
    let newest = test.all(ROOM).await.remove(0);
    assert_eq!(
        (newest.id, content(&newest.record).as_str()),
        (entry.id, "fourth")
    );
    let room = room(ROOM);
    for (range, others) in [(1..=1, vec![]), (2..=9, vec![1]), (1..=9, vec![1, 1])] {
        let forms = test.store.forms(&room, range, &others).await.unwrap();
        assert_eq!(forms.len(), 1);
        assert_eq!((forms[0].version, forms[0].position.seq), (7, 1));
        assert_eq!(forms[0].content, FormContent::Edited(newest.record.clone()));
    }
    assert!(
        test.store
            .forms(&room, 2..=9, &[])
            .await
            .unwrap()
            .is_empty()
    );
}

async fn an_announcement_is_recorded_once(test: &TestStore) {
    let entry = post(test, 1, "ann", "first").await;
    test.store
        .edit(&edit_of(&entry, "second", None))
        .await
        .unwrap();
    let room = room(ROOM);
    let first = claim(test).await.remove(0);
    let early = published_at(test, &first, 2).await;
    test.execute("UPDATE hubbub_outbox SET lease_until = 1")
        .await;
    let second = claim(test).await.remove(0);
    // The first claim has ended.
    test.store.done(std::slice::from_ref(&early)).await.unwrap();
    assert_eq!(test.store.published(&room, 1, 1).await.unwrap(), None);
    let late = published_at(test, &second, 3).await;
    for _ in 0..2 {
        test.store
            .done(&[early.clone(), late.clone()])
            .await
            .unwrap();
        assert_eq!(test.store.published(&room, 1, 1).await.unwrap(), Some(3));
    }
    let stored = test.store.message(&of(&entry)).await.unwrap().unwrap();
    assert_eq!(stored.form.version, 3);
}

async fn a_commit_of_the_original_after_an_edit_changes_nothing(test: &TestStore) {
    let fields = json!({"content": "first", "mentions": ["bob"]});
    let entry = post_with(test, 1, "ann", fields).await;
    test.store
        .edit(&edit_of(&entry, "second", None))
        .await
        .unwrap();
    commit(test, &entry).await;
    let edited = test.all(ROOM).await;
    assert_eq!(content(&edited[0].record), "second");
    test.store.delete(&of(&entry), &by("ann")).await.unwrap();
    commit(test, &entry).await;
    let deleted = test.all(ROOM).await;
    assert_eq!(deleted[0].kind, StoredKind::DELETED);
    assert!(deleted[0].record.is_empty());
    assert_eq!(deleted[0].user, entry.user);
    // Beside a new entry, too.
    let other = message(2, "bob", json!({"content": "x"}));
    let both = in_room(ROOM, &[entry.clone(), other.clone()]);
    assert_eq!(test.commit(&both).await, [crate::fixture::Stored; 2]);
    assert_eq!(test.all(ROOM).await, [deleted[0].clone(), other]);
}

async fn a_message_that_retention_has_deleted_has_nothing_to_announce(test: &TestStore) {
    let entry = post(test, 1, "ann", "first").await;
    post(test, 2, "ann", "next").await;
    test.store
        .edit(&edit_of(&entry, "second", None))
        .await
        .unwrap();
    let row = claim(test).await.remove(0);
    test.store.delete_up_to(&room(ROOM), 1, 10).await.unwrap();
    let change = published_at(test, &row, 3).await;
    let form = test.store.to_publish(&room(ROOM), &change.row).await;
    assert_eq!(form.unwrap(), None);
    assert_eq!(test.store.message(&of(&entry)).await.unwrap(), None);
    test.store.done(&[change]).await.unwrap();
    assert!(claim(test).await.is_empty());
}
