//! The versions of a message: in pages, and as many as are kept.

use hubbub::domain::RoomId;
use hubbub::store::{MAX_VERSIONS, MessageRef, MessageStore as _, Outbox as _, VersionPage};
use uuid::Uuid;

use super::fixture::*;
use crate::fixture::{TestStore, versions};

crate::on_every_database!(
    versions_are_listed_in_pages,
    a_page_of_large_versions_ends_early,
    the_newest_versions_are_kept,
    an_edit_that_waits_for_its_announcement_is_named,
);

fn listed(page: &VersionPage) -> Vec<(u64, String)> {
    let version =
        |version: &hubbub::store::MessageVersion| (version.version, content(&version.record));
    page.versions.iter().map(version).collect()
}

async fn versions_are_listed_in_pages(test: &TestStore) {
    let store = &test.store;
    let entry = post(test, 1, "ann", "v1").await;
    for seq in 2..=7 {
        let edit = edit_of(&entry, &format!("v{seq}"), None);
        store.edit(&edit).await.unwrap();
        publish(test, seq).await;
    }
    // Other changes have revisions, too.
    store.pin(&of(&entry), &by("bob"), true).await.unwrap();
    let all: Vec<(u64, String)> = (1..=7).map(|seq| (seq, format!("v{seq}"))).collect();
    for limit in [1, 2, 3, 6, 7, 200] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = store.versions(&of(&entry), after, limit).await;
            let page = page.unwrap().unwrap();
            assert!(page.versions.len() <= limit);
            found.extend(listed(&page));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, all, "{limit}");
    }
    // An edit between two pages.
    let first = store.versions(&of(&entry), None, 6).await.unwrap().unwrap();
    store.edit(&edit_of(&entry, "v9", None)).await.unwrap();
    // The pin gets the number 9.
    publish(test, 9).await;
    let second = store.versions(&of(&entry), first.next, 6).await;
    let expected = [(7, "v7".to_owned()), (10, "v9".to_owned())];
    assert_eq!(listed(&second.unwrap().unwrap()), expected);
    let elsewhere = MessageRef {
        room: RoomId::trusted("other"),
        ..of(&entry)
    };
    let unknown = MessageRef {
        id: Uuid::now_v7(),
        ..of(&entry)
    };
    for message in [elsewhere, unknown] {
        assert_eq!(store.versions(&message, None, 5).await.unwrap(), None);
    }
}

async fn a_page_of_large_versions_ends_early(test: &TestStore) {
    let store = &test.store;
    let large = |letter: &str| letter.repeat(3 * 1024 * 1024);
    let entry = post(test, 1, "ann", &large("a")).await;
    for (letter, seq) in [("b", 2), ("c", 3)] {
        store
            .edit(&edit_of(&entry, &large(letter), None))
            .await
            .unwrap();
        publish(test, seq).await;
    }
    let first = store.versions(&of(&entry), None, 200).await;
    let first = first.unwrap().unwrap();
    assert_eq!(first.versions.len(), 2);
    let second = store.versions(&of(&entry), first.next, 200).await;
    let second = second.unwrap().unwrap();
    assert_eq!((second.versions.len(), second.next), (1, None));
    assert_eq!(second.versions[0].version, 3);
}

async fn the_newest_versions_are_kept(test: &TestStore) {
    let store = &test.store;
    let entry = post(test, 1, "ann", "v0").await;
    store.edit(&edit_of(&entry, "v1", None)).await.unwrap();
    // As many edits as are kept, without the time that so many calls take.
    let last = MAX_VERSIONS - 1;
    let mut count = 1;
    while count < last {
        let copied = count.min(last - count);
        test.execute(&format!(
            "INSERT INTO hubbub_message_changes (room_no, seq, revision, kind, form, at, change_seq, \
             outbox_id, user_id, record) SELECT room_no, seq, revision + {count}, kind, form, at, \
             change_seq, outbox_id, user_id, record FROM hubbub_message_changes \
             WHERE revision <= {copied}"
        ))
        .await;
        count += copied;
    }
    test.execute("UPDATE hubbub_message_changes SET change_seq = revision")
        .await;
    test.execute(&format!("UPDATE hubbub_messages SET revision = {last}"))
        .await;
    assert_eq!(versions(test, &of(&entry)).await.len(), MAX_VERSIONS);
    for (text, oldest) in [("one more", 1), ("and another", 2)] {
        store.edit(&edit_of(&entry, text, None)).await.unwrap();
        let kept = versions(test, &of(&entry)).await;
        assert_eq!(kept.len(), MAX_VERSIONS);
        assert_eq!(kept[0].version, oldest);
        assert_eq!(content(&kept[MAX_VERSIONS - 1].record), text);
        let page = store.versions(&of(&entry), None, 10).await.unwrap();
        assert_eq!(page.unwrap().versions, kept[..10]);
    }
    let rows = test
        .lines("SELECT CAST(COUNT(*) AS CHAR(9)) FROM hubbub_message_changes")
        .await;
    assert_eq!(rows[0].trim(), MAX_VERSIONS.to_string());
}

async fn an_edit_that_waits_for_its_announcement_is_named(test: &TestStore) {
    let store = &test.store;
    let entry = post(test, 1, "ann", "first").await;
    let pending = async || {
        let page = store.versions(&of(&entry), None, 9).await;
        page.unwrap().unwrap().pending
    };
    assert_eq!(pending().await, None);
    for (text, revision) in [("second", 1), ("third", 2)] {
        store.edit(&edit_of(&entry, text, None)).await.unwrap();
        assert_eq!(pending().await, Some((1, revision)));
    }
    let rows = claim(test).await;
    assert_eq!(pending().await, Some((1, 2)));
    let failed = store.fail(rows[1].claim(), "it is unreadable").await;
    failed.unwrap();
    assert_eq!(pending().await, Some((1, 1)));
    let first = published_at(test, &rows[0], 7).await;
    done(test, &[first]).await;
    assert_eq!(pending().await, None);
}
