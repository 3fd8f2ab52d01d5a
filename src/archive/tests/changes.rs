//! Changes of messages: in the archive's part of the log, and at the boundary to the hot log.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::*;
use crate::backplane::{Entry, EntryKind, NewChange, Pointer};
use crate::domain::{Amendment, FormContent, MessageChangeKind, MessageForm, Tombstone};
use crate::store::Fence;

/// A change of a message that was appended at this position, as a worker publishes it.
fn change(at: &Appended, kind: MessageChangeKind, content: FormContent) -> NewChange {
    let id = Uuid::new_v4();
    let pointer = Pointer {
        kind,
        entry_id: id,
        room: lobby(),
        id: at.id,
        target_seq: at.seq,
        user: None,
    };
    let form = MessageForm {
        position: Head {
            epoch: at.epoch.clone(),
            seq: at.seq,
        },
        at: at.at,
        version: at.seq,
        edited_at: None,
        content,
        reactions: None,
    };
    NewChange {
        id,
        record: pointer.encode(),
        amendment: Some(Box::new(Amendment {
            raises_version: true,
            form,
        })),
    }
}

fn edit(at: &Appended, content: &str) -> NewChange {
    let mut edited = message(&lobby(), content);
    edited.id = at.id;
    let content = FormContent::Edited(record::encode(&edited));
    change(at, MessageChangeKind::Edited, content)
}

fn deletion(at: &Appended) -> NewChange {
    let tombstone = Tombstone {
        id: at.id,
        room: lobby(),
        author: UserId::trusted("ann"),
        deleted_by: UserId::trusted("ann"),
        thread: None,
    };
    change(
        at,
        MessageChangeKind::Deleted,
        FormContent::Deleted(tombstone),
    )
}

/// Makes a change in the store, publishes it, and records its number as the version.
async fn make(node: &Node, store: &FakeStore, change: &NewChange) -> u64 {
    let mut form = change.amendment.as_ref().unwrap().form.clone();
    store.set_form(&lobby(), form.clone());
    let (positions, outcome) = node
        .log
        .announce_all(&lobby(), std::slice::from_ref(change))
        .await;
    outcome.unwrap();
    form.version = positions[0].seq;
    form.edited_at = Some(positions[0].at);
    store.set_form(&lobby(), form);
    positions[0].seq
}

async fn read(node: &Node, window: Window) -> Vec<Entry> {
    let slice = node.log.read(&lobby(), window, 1000, usize::MAX).await;
    slice.unwrap().entries
}

fn text(entry: &Entry) -> &str {
    std::str::from_utf8(&entry.record).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_archive_shows_the_same_forms_as_the_log() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    let kept = node.append(&lobby(), "kept").await.unwrap();
    let gone = node.append(&lobby(), "secret").await.unwrap();
    node.append(&lobby(), "plain").await.unwrap();
    make(&node, &store, &edit(&gone, "secret, too")).await;
    assert_eq!(make(&node, &store, &edit(&kept, "edited")).await, 5);
    assert_eq!(make(&node, &store, &deletion(&gone)).await, 6);
    let hot = read(&node, Window::After(0)).await;
    assert_eq!(hot.len(), 6);
    // The log is trimmed to the last entries.
    for number in 0..8 {
        node.append(&lobby(), &number.to_string()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let joined = read(&node, Window::After(0)).await;
    assert_eq!(joined[..6], hot[..]);
    assert_eq!(read(&node, Window::Before(7)).await, hot);
    for number in 0..8 {
        node.append(&lobby(), &number.to_string()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let archived = read(&node, Window::Before(7)).await;
    assert_eq!(archived, hot);
    assert_eq!(archived[0].kind, EntryKind::Amended);
    assert!(
        text(&archived[0]).contains("\"content\":\"edited\"")
            && text(&archived[0]).contains("\"version\":5,")
    );
    assert_eq!(archived[2].kind, EntryKind::Message);
    assert!(archived.iter().all(|entry| !text(entry).contains("secret")));
    // The messages of these announcements lie before the page.
    assert_eq!(read(&node, Window::After(3)).await[..3], hot[3..]);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pointer_whose_message_retention_has_deleted_keeps_its_place() {
    let store = FakeStore::new();
    let setup = Setup {
        history_size: 1,
        ..Setup::default()
    };
    let node = setup.start(&store).await;
    let first = node.append(&lobby(), "first").await.unwrap();
    make(&node, &store, &edit(&first, "edited")).await;
    node.append(&lobby(), "last").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.remove_forms(&lobby());
    let entries = read(&node, Window::After(1)).await;
    let kinds: Vec<_> = entries
        .iter()
        .map(|entry| (entry.seq, entry.kind))
        .collect();
    assert_eq!(kinds, [(2, EntryKind::Unknown), (3, EntryKind::Message)]);
    node.stop().await;
}

/// Reverting a migration removes the records of deletions, and no entry.
#[tokio::test(start_paused = true)]
async fn a_deletion_without_its_record_is_a_deletion_at_the_message() {
    let store = FakeStore::new();
    let setup = Setup {
        history_size: 1,
        ..Setup::default()
    };
    let node = setup.start(&store).await;
    let first = node.append(&lobby(), "first").await.unwrap();
    make(&node, &store, &deletion(&first)).await;
    node.append(&lobby(), "last").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.remove_forms(&lobby());
    let entries = read(&node, Window::After(0)).await;
    let kinds: Vec<_> = entries
        .iter()
        .map(|entry| (entry.seq, entry.kind))
        .collect();
    let expected = [
        (1, EntryKind::Change),
        (2, EntryKind::Change),
        (3, EntryKind::Message),
    ];
    assert_eq!(kinds, expected);
    for entry in &entries[..2] {
        assert!(text(entry).starts_with("{\"event\":\"message_deleted\""));
    }
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_room_is_archived_at_once() {
    let store = FakeStore::new();
    let setup = Setup {
        acknowledge_commits: false,
        ..Setup::default()
    };
    let node = setup.start(&store).await;
    node.log.archive_now(&lobby()).await.unwrap();
    node.know(&lobby()).await;
    let began = Instant::now();
    node.append(&lobby(), "queued here").await.unwrap();
    let other = message(&lobby(), "numbered by another node");
    let record = record::encode(&other);
    let hot = &node.backplane.hot_log;
    hot.append_record((&other).into(), None, record)
        .await
        .unwrap();
    assert!(store.seqs(&lobby()).is_empty());
    node.log.archive_now(&lobby()).await.unwrap();
    assert_eq!(store.seqs(&lobby()), [1, 2]);
    // The clock of tokio counts milliseconds, and rounds up.
    assert!(
        began.elapsed() < Duration::from_millis(10),
        "{:?}",
        began.elapsed()
    );
    let commits = store.commits().len();
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.log.archive_now(&lobby()).await.unwrap();
    assert_eq!(store.commits().len(), commits, "all was archived before");
    store.set_away(true);
    node.append(&lobby(), "while the database is away")
        .await
        .unwrap();
    assert!(node.log.archive_now(&lobby()).await.is_err());
    store.set_away(false);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn archiving_at_once_goes_past_an_entry_that_the_database_refuses() {
    let store = FakeStore::new();
    let setup = Setup {
        acknowledge_commits: false,
        ..Setup::default()
    };
    let node = setup.start(&store).await;
    node.know(&lobby()).await;
    store.refuse(Some("rotten"));
    for text in ["first", "rotten", "last"] {
        let message = message(&lobby(), text);
        let record = record::encode(&message);
        let hot = &node.backplane.hot_log;
        hot.append_record((&message).into(), None, record)
            .await
            .unwrap();
    }
    for _ in 0..2 {
        node.log.archive_now(&lobby()).await.unwrap();
        assert_eq!(store.seqs(&lobby()), [1, 3]);
    }
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn archiving_at_once_commits_no_entries_again_behind_a_refused_one() {
    let store = FakeStore::new();
    let setup = Setup {
        acknowledge_commits: false,
        ..Setup::default()
    };
    let node = setup.start(&store).await;
    node.know(&lobby()).await;
    store.refuse(Some("rotten"));
    let hot = &node.backplane.hot_log;
    let append = async |text: &str| {
        let message = message(&lobby(), text);
        let record = record::encode(&message);
        let appended = hot.append_record((&message).into(), None, record).await;
        appended.unwrap();
    };
    append("rotten").await;
    for _ in 0..700 {
        append("kept").await;
    }
    node.log.archive_now(&lobby()).await.unwrap();
    assert_eq!(store.seqs(&lobby()).len(), 700);
    let commits = store.commits().len();
    append("new").await;
    node.log.archive_now(&lobby()).await.unwrap();
    let entries: usize = store.commits()[commits..].iter().sum();
    assert_eq!((store.seqs(&lobby()).len(), entries), (701, 1));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_commit_was_lost_is_archived_as_it_was_appended() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    let first = node.append(&lobby(), "first").await.unwrap();
    let change = edit(&first, "edited");
    let hot = &node.backplane.hot_log;
    let changes = std::slice::from_ref(&change);
    hot.append_changes(&lobby(), changes)
        .await
        .pop()
        .unwrap()
        .unwrap();
    let (positions, outcome) = node.log.announce_all(&lobby(), changes).await;
    outcome.unwrap();
    assert!(positions[0].duplicate);
    let archived = store.entries(&lobby()).pop().unwrap();
    assert_eq!(
        (archived.kind, archived.id),
        (StoredKind::POINTER, change.id)
    );
    assert_eq!(archived.record, change.record);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_without_its_text_counts_as_archived() {
    let store = FakeStore::new();
    let node = Setup::default().start(&store).await;
    // Another node has archived it, and has not reported that.
    let first = message(&lobby(), "first");
    let record = record::encode(&first);
    let hot = &node.backplane.hot_log;
    let append = hot.append_record((&first).into(), None, record.clone());
    let appended = append.await.unwrap();
    let row = (
        lobby(),
        crate::archive::entry::of_message(&first, &appended, record),
    );
    let mut writer = store.writer(0);
    writer.commit_with(&[row], Fence::EpochEnds).await.unwrap();
    make(&node, &store, &deletion(&appended)).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let unarchived = node.backplane.hot_log.unarchived(Duration::ZERO, 10).await;
    assert_eq!(unarchived.unwrap(), []);
    let archived = store.entries(&lobby());
    assert_eq!(
        (archived[0].kind, archived[0].record.len()),
        (StoredKind::DELETED, 0)
    );
    node.stop().await;
}
