//! Commits: repeats, conflicts, sizes, and texts that are stored as they are.

use bytes::Bytes;
use hubbub::backplane::record;
use hubbub::domain::{
    ClientMsgId, Epoch, Limits, MessageFields, NewMessage, RoomId, UserId, Username,
};
use hubbub::store::{
    ArchiveStore as _, ArchiveWindow, ArchivedEntry, BATCH_ENTRIES, StoreError, StoredKind,
};
use hubbub_test_support::database::DatabaseKind;
use uuid::Uuid;

use crate::fixture::{Conflict, Stored, TestStore, entry, in_room, room};

crate::on_every_database!(
    a_commit_is_read_back_as_it_was,
    a_change_has_no_sender,
    a_repeated_commit_is_stored_once,
    another_entry_with_the_number_is_refused,
    an_id_is_stored_once_among_all_rooms,
    a_batch_may_have_new_repeated_and_refused_entries,
    the_first_of_two_entries_with_one_number_in_a_batch_wins,
    a_batch_may_have_500_entries_of_500_rooms,
    batches_of_every_size_are_stored,
    a_batch_may_have_a_mebibyte,
    names_are_compared_byte_for_byte,
    unusual_texts_are_stored_as_they_are,
    the_largest_values_are_stored,
    values_that_are_too_long_are_refused_and_not_cut,
    messages_are_stored_without_what_other_columns_have,
);

async fn a_commit_is_read_back_as_it_was(store: &TestStore) {
    let entries = vec![
        ArchivedEntry {
            send_key: Some("key 1".into()),
            ..entry(1)
        },
        ArchivedEntry {
            epoch: Epoch::trusted("later"),
            user: UserId::trusted("bob"),
            record: Bytes::from_static(b"\x00\xff not JSON"),
            ..entry(2)
        },
    ];
    let outcomes = store.commit(&in_room("r", &entries)).await;
    assert_eq!(outcomes, [Stored, Stored]);
    assert_eq!(store.all("r").await, entries);
    let known = store.room("r").await;
    assert_eq!((known.first, known.oldest, known.head), (1, 1, 2));
    assert_eq!(store.store.room(&room("other")).await.unwrap(), None);
    let nothing = store.store.writer(0).commit(&[]).await.unwrap();
    assert_eq!(nothing, []);
}

async fn a_change_has_no_sender(store: &TestStore) {
    let change = ArchivedEntry {
        kind: StoredKind::CHANGE,
        user: UserId::nobody(),
        send_key: Some("key".into()),
        ..entry(1)
    };
    let entries = in_room("r", std::slice::from_ref(&change));
    assert_eq!(store.commit(&entries).await, [Stored]);
    assert_eq!(store.all("r").await, [change]);
}

async fn a_repeated_commit_is_stored_once(store: &TestStore) {
    let entries = [entry(1), entry(2), entry(3)];
    let batch = in_room("r", &entries);
    let mut writer = store.store.writer(0);
    for _ in 0..2 {
        let outcomes = writer.commit(&batch).await.unwrap();
        assert_eq!(outcomes, [Stored, Stored, Stored]);
    }
    // By another node.
    assert_eq!(store.commit(&batch).await, [Stored, Stored, Stored]);
    assert_eq!(store.all("r").await, entries);
}

async fn another_entry_with_the_number_is_refused(store: &TestStore) {
    let first = store.fill("r", [1]).await;
    assert_eq!(store.commit(&in_room("r", &[entry(1)])).await, [Conflict]);
    let in_other_epoch = ArchivedEntry {
        epoch: Epoch::trusted("other"),
        ..entry(1)
    };
    let outcomes = store.commit(&in_room("r", &[in_other_epoch])).await;
    assert_eq!(outcomes, [Conflict]);
    assert_eq!(store.all("r").await, first);
}

async fn an_id_is_stored_once_among_all_rooms(store: &TestStore) {
    let first = entry(1);
    store
        .commit(&in_room("r", std::slice::from_ref(&first)))
        .await;
    let moved = ArchivedEntry {
        seq: 2,
        ..first.clone()
    };
    let outcomes = store.commit(&in_room("r", &[moved])).await;
    assert_eq!(outcomes, [Conflict]);
    let outcomes = store.commit(&in_room("other", &[first])).await;
    assert_eq!(outcomes, [Conflict]);
    assert_eq!(store.seqs("r").await, [1]);
    assert_eq!(store.seqs("other").await, [0; 0]);
}

async fn a_batch_may_have_new_repeated_and_refused_entries(store: &TestStore) {
    let old = store.fill("r", [1, 2]).await;
    let moved = ArchivedEntry {
        seq: 5,
        ..old[1].clone()
    };
    let mut batch = in_room("r", &[entry(4), old[0].clone(), entry(2), entry(3), moved]);
    batch.extend(in_room("new", &[entry(1)]));
    let outcomes = store.commit(&batch).await;
    assert_eq!(
        outcomes,
        [Stored, Stored, Conflict, Stored, Conflict, Stored]
    );
    assert_eq!(store.seqs("r").await, [1, 2, 3, 4]);
    assert_eq!(store.seqs("new").await, [1]);
}

async fn the_first_of_two_entries_with_one_number_in_a_batch_wins(store: &TestStore) {
    let (first, second) = (entry(1), entry(1));
    let batch = in_room("r", &[first.clone(), second, first.clone()]);
    assert_eq!(store.commit(&batch).await, [Stored, Conflict, Stored]);
    assert_eq!(store.all("r").await, [first]);
}

async fn a_batch_may_have_500_entries_of_500_rooms(store: &TestStore) {
    let mut writer = store.store.writer(0);
    let batch = |seq| -> Vec<(RoomId, ArchivedEntry)> {
        (0..BATCH_ENTRIES)
            .map(|number| (room(&format!("room {number}")), entry(seq)))
            .collect()
    };
    // The rooms are new, then known.
    for seq in [1, 2] {
        let outcomes = writer.commit(&batch(seq)).await.unwrap();
        assert_eq!(outcomes, [Stored; BATCH_ENTRIES]);
    }
    assert_eq!(store.seqs("room 0").await, [1, 2]);
    assert_eq!(store.seqs("room 499").await, [1, 2]);
    assert_eq!(store.store.rooms(0, 1000).await.unwrap().len(), 500);
    let mut too_many = batch(3);
    too_many.extend(batch(4));
    let refused = writer.commit(&too_many).await;
    assert!(matches!(refused, Err(StoreError::Broken(_))));
}

async fn batches_of_every_size_are_stored(store: &TestStore) {
    let mut writer = store.store.writer(0);
    let (mut seq, mut all) = (0, Vec::new());
    for size in (1..=40).chain([63, 64, 65, 97, 200, 499]) {
        let entries: Vec<ArchivedEntry> = (1..=size).map(|number| entry(seq + number)).collect();
        seq += size;
        let outcomes = writer.commit(&in_room("r", &entries)).await.unwrap();
        assert_eq!(outcomes.len(), entries.len());
        assert!(outcomes.iter().all(|outcome| *outcome == Stored), "{size}");
        all.extend(entries);
    }
    let read = store.all("r").await;
    assert_eq!(read.len(), all.len());
    assert_eq!(read, all);
}

async fn a_batch_may_have_a_mebibyte(store: &TestStore) {
    let entries: Vec<ArchivedEntry> = (1..=16)
        .map(|seq| ArchivedEntry {
            record: vec![u8::try_from(seq).unwrap(); 64 * 1024].into(),
            ..entry(seq)
        })
        .collect();
    assert_eq!(store.commit(&in_room("r", &entries)).await, [Stored; 16]);
    assert_eq!(store.all("r").await, entries);
    let large = ArchivedEntry {
        record: vec![7; 3 * 1024 * 1024].into(),
        ..entry(17)
    };
    let batch = in_room("r", std::slice::from_ref(&large));
    assert_eq!(store.commit(&batch).await, [Stored]);
    assert_eq!(store.all("r").await.last(), Some(&large));
}

async fn names_are_compared_byte_for_byte(store: &TestStore) {
    let names = [
        "Zoe", "zoe", "zoë", "Zoe ", "Zoe  ", "ZOE", "🎉", "🎊", "a\u{300}", "à",
    ];
    for name in names {
        let entry = ArchivedEntry {
            epoch: Epoch::trusted(name),
            user: UserId::trusted(name),
            send_key: Some(name.into()),
            ..entry(1)
        };
        let batch = in_room(name, std::slice::from_ref(&entry));
        assert_eq!(store.commit(&batch).await, [Stored], "{name:?}");
        // In one room, too: each is an epoch of its own.
        let seq = names.iter().position(|other| *other == name).unwrap() as u64 + 1;
        let entry = ArchivedEntry {
            seq,
            id: Uuid::now_v7(),
            ..entry
        };
        let batch = in_room("shared", std::slice::from_ref(&entry));
        assert_eq!(store.commit(&batch).await, [Stored], "{name:?}");
        assert_eq!(store.all("shared").await.last(), Some(&entry));
    }
    for name in names {
        let read = store.all(name).await;
        assert_eq!(read.len(), 1, "{name:?}");
        assert_eq!(read[0].user.as_str(), name);
        assert_eq!(read[0].epoch.as_str(), name);
    }
    assert_eq!(store.room("shared").await.epochs.len(), names.len());
}

async fn unusual_texts_are_stored_as_they_are(store: &TestStore) {
    let texts = [
        "\u{0}",
        "a\u{0}b",
        "\\",
        "'\"`",
        "?",
        "$1",
        "{list}",
        "%_",
        "\u{10ffff}",
        " ",
    ];
    let entries: Vec<ArchivedEntry> = texts
        .into_iter()
        .zip(1..)
        .map(|(text, seq)| ArchivedEntry {
            send_key: Some(text.into()),
            record: Bytes::copy_from_slice(text.as_bytes()),
            ..entry(seq)
        })
        .collect();
    store.commit(&in_room("r '?' {list}", &entries)).await;
    assert_eq!(store.all("r '?' {list}").await, entries);
}

async fn the_largest_values_are_stored(store: &TestStore) {
    let name = "é".repeat(64);
    let large = ArchivedEntry {
        seq: 1 << 53,
        epoch: Epoch::trusted(&name),
        at: hubbub::domain::Timestamp(253_402_300_799_999),
        user: UserId::trusted(&name),
        send_key: Some("é".repeat(32).into()),
        record: vec![b'x'; 70_000].into(),
        ..entry(1)
    };
    let batch = in_room(&name, std::slice::from_ref(&large));
    assert_eq!(store.commit(&batch).await, [Stored]);
    assert_eq!(store.all(&name).await, [large]);
}

async fn values_that_are_too_long_are_refused_and_not_cut(store: &TestStore) {
    let long = "x".repeat(129);
    let entries = [
        ArchivedEntry {
            user: UserId::trusted(&long),
            ..entry(1)
        },
        ArchivedEntry {
            epoch: Epoch::trusted(&long),
            ..entry(1)
        },
        ArchivedEntry {
            send_key: Some(long[..65].into()),
            ..entry(1)
        },
    ];
    let mut writer = store.store.writer(0);
    for entry in entries {
        let refused = writer.commit(&in_room("r", &[entry])).await;
        assert!(matches!(refused, Err(StoreError::Broken(_))), "{refused:?}");
    }
    let refused = writer.commit(&in_room(&long, &[entry(1)])).await;
    assert!(matches!(refused, Err(StoreError::Broken(_))), "{refused:?}");
    // Nothing of a refused batch is stored, and the writer goes on.
    assert_eq!(store.store.room(&room("r")).await.unwrap(), None);
    let stored = writer.commit(&in_room("r", &[entry(1)])).await;
    assert_eq!(stored.unwrap(), [Stored]);
}

/// The entry of a message, with the record that the log encodes.
fn message(seq: u64, content: &str, key: Option<&str>) -> ArchivedEntry {
    let user = UserId::trusted("ann \"the\" first");
    let fields = MessageFields {
        content: content.to_owned(),
        client_msg_id: key.map(ClientMsgId::trusted),
        ..MessageFields::default()
    };
    let name = Username::from(&user);
    let message = NewMessage::new(room("lobby"), user, name, fields, &Limits::default()).unwrap();
    ArchivedEntry {
        id: message.id,
        user: message.user.clone(),
        send_key: key.map(Into::into),
        record: record::encode(&message),
        ..entry(seq)
    }
}

async fn messages_are_stored_without_what_other_columns_have(store: &TestStore) {
    let entries = [
        message(1, "hello \"world\"", None),
        message(2, "hello \"world\"", Some("c\u{0}1")),
    ];
    store.commit(&in_room("lobby", &entries)).await;
    assert_eq!(store.all("lobby").await, entries);
    let audit = store.store.audit(&room("lobby")).await.unwrap();
    // What is left is the content, as JSON: so the stored form fits the records of the log.
    assert_eq!(audit.bytes, 2 * "hello \\\"world\\\"".len() as u64);
    let window = ArchiveWindow::Before(2);
    let page = store.store.read(&room("lobby"), window, 10, 1).await;
    assert_eq!(page.unwrap(), entries[..1]);
    // The bytes on the disk are those.
    if store.kind() != DatabaseKind::Sqlite {
        let text = "SELECT MAX(LENGTH(record)) FROM hubbub_entries";
        assert_eq!(store.database.sql(text), "15");
    }
}
