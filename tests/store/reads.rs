//! Reading pages, recent sends and lists of rooms.

use hubbub::domain::{Epoch, Timestamp, UserId};
use hubbub::store::{ArchiveStore as _, ArchiveWindow, ArchivedEntry, ArchivedSend};

use crate::fixture::{TestStore, entry, in_room, room};

crate::on_every_database!(
    pages_go_forwards_and_backwards,
    a_page_ends_at_its_bytes_and_has_one_entry_at_least,
    pages_go_over_holes,
    recent_sends_are_those_with_keys_newest_first,
    recent_sends_are_found_behind_many_entries,
    rooms_are_listed_in_pages,
);

async fn seqs(store: &TestStore, window: ArchiveWindow, limit: usize, bytes: usize) -> Vec<u64> {
    let read = store.store.read(&room("r"), window, limit, bytes).await;
    read.unwrap().iter().map(|entry| entry.seq).collect()
}

async fn pages_go_forwards_and_backwards(store: &TestStore) {
    store.fill("q", 1..=3).await;
    store.fill("r", 1..=20).await;
    store.fill("s", 1..=3).await;
    let (after, before) = (ArchiveWindow::After, ArchiveWindow::Before);
    assert_eq!(seqs(store, after(0), 3, 1000).await, [1, 2, 3]);
    assert_eq!(seqs(store, after(18), 10, 1000).await, [19, 20]);
    assert_eq!(seqs(store, after(20), 10, 1000).await, [0; 0]);
    assert_eq!(seqs(store, before(4), 10, 1000).await, [1, 2, 3]);
    assert_eq!(seqs(store, before(11), 2, 1000).await, [9, 10]);
    assert_eq!(seqs(store, before(u64::MAX), 2, 1000).await, [19, 20]);
    assert_eq!(seqs(store, after(u64::MAX), 2, 1000).await, [0; 0]);
    assert_eq!(seqs(store, before(1), 10, 1000).await, [0; 0]);
    assert_eq!(seqs(store, after(5), 0, 1000).await, [0; 0]);
    let unknown = store.store.read(&room("x"), after(0), 10, 1000).await;
    assert_eq!(unknown.unwrap(), []);
}

async fn a_page_ends_at_its_bytes_and_has_one_entry_at_least(store: &TestStore) {
    let entries: Vec<ArchivedEntry> = (1..=10)
        .map(|seq| ArchivedEntry {
            record: vec![b'x'; 100].into(),
            ..entry(seq)
        })
        .collect();
    store.commit(&in_room("r", &entries)).await;
    let (after, before) = (ArchiveWindow::After, ArchiveWindow::Before);
    assert_eq!(seqs(store, after(2), 10, 300).await, [3, 4, 5]);
    assert_eq!(seqs(store, after(2), 10, 299).await, [3, 4]);
    assert_eq!(seqs(store, after(2), 10, 1).await, [3]);
    assert_eq!(seqs(store, before(9), 10, 300).await, [6, 7, 8]);
    assert_eq!(seqs(store, before(9), 10, 0).await, [8]);
}

async fn pages_go_over_holes(store: &TestStore) {
    store.fill("r", [2, 3, 7, 11]).await;
    let (after, before) = (ArchiveWindow::After, ArchiveWindow::Before);
    assert_eq!(seqs(store, after(0), 3, 1000).await, [2, 3, 7]);
    assert_eq!(seqs(store, after(4), 3, 1000).await, [7, 11]);
    assert_eq!(seqs(store, before(10), 2, 1000).await, [3, 7]);
}

/// An entry with a key, in a time.
fn keyed(seq: u64, at: u64, key: Option<&str>) -> ArchivedEntry {
    ArchivedEntry {
        at: Timestamp(at),
        send_key: key.map(Into::into),
        ..entry(seq)
    }
}

async fn recent_sends_are_those_with_keys_newest_first(store: &TestStore) {
    let mut entries = vec![
        keyed(1, 100, Some("old")),
        keyed(2, 200, Some("a")),
        keyed(3, 300, None),
        // The clock went back.
        keyed(4, 150, Some("b")),
        keyed(5, 400, Some("a")),
    ];
    entries[4].user = UserId::trusted("bob");
    entries[4].epoch = Epoch::trusted("f");
    store.commit(&in_room("r", &entries)).await;
    let sends = |since, limit| {
        let store = &store.store;
        async move {
            let room = room("r");
            let sends = store.recent_sends(&room, Timestamp(since), limit);
            sends.await.unwrap()
        }
    };
    let send = |entry: &ArchivedEntry| ArchivedSend {
        user: entry.user.clone(),
        key: entry.send_key.clone().unwrap(),
        id: entry.id,
        seq: entry.seq,
        epoch: entry.epoch.clone(),
        at: entry.at,
    };
    assert_eq!(sends(200, 10).await, [send(&entries[4]), send(&entries[1])]);
    assert_eq!(sends(150, 2).await, [send(&entries[4]), send(&entries[3])]);
    assert_eq!(sends(401, 10).await, []);
    let unknown = store.store.recent_sends(&room("x"), Timestamp(0), 10).await;
    assert_eq!(unknown.unwrap(), []);
}

async fn recent_sends_are_found_behind_many_entries(store: &TestStore) {
    let mut entries: Vec<ArchivedEntry> = (1..=1500).map(|seq| keyed(seq, seq, None)).collect();
    entries[699].send_key = Some("far".into());
    for batch in entries.chunks(500) {
        store.commit(&in_room("r", batch)).await;
    }
    let sends = store
        .store
        .recent_sends(&room("r"), Timestamp(600), 10)
        .await;
    let keys: Vec<_> = sends.unwrap().into_iter().map(|send| send.seq).collect();
    assert_eq!(keys, [700]);
}

async fn rooms_are_listed_in_pages(store: &TestStore) {
    for name in ["c", "a", "b"] {
        store.fill(name, [1]).await;
    }
    let mut found = Vec::new();
    let mut after = 0;
    loop {
        let page = store.store.rooms(after, 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some((last, _)) = page.last() else { break };
        assert!(*last > after);
        after = *last;
        found.extend(page.into_iter().map(|(_, room)| room));
    }
    assert_eq!(found, [room("c"), room("a"), room("b")]);
}
