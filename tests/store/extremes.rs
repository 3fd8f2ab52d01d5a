//! The most extreme messages that the server accepts, whatever its configuration.

use hubbub::archive::archived_message;
use hubbub::domain::{
    ClientMsgId, Epoch, Limits, MessageFields, NewMessage, RoomId, Timestamp, UserId, Username,
};
use hubbub::store::sql::SqlStore;
use hubbub::store::{
    ArchiveStore as _, ArchivedEntry, BATCH_BYTES, BATCH_ENTRIES, Fence, MAX_RECORD_BYTES,
    StoreError,
};
use hubbub_test_support::database::DatabaseKind;

use crate::fixture::{Stored, TestStore, entry, in_room};

crate::on_every_database!(
    the_most_extreme_messages_that_are_accepted_are_read_back_as_they_were,
    the_largest_record_and_the_largest_batch_are_stored,
    a_record_that_is_too_large_is_refused_and_nothing_else,
);

/// Texts that databases are known to refuse or change.
const TEXTS: [&str; 7] = [
    "\u{0}",
    "\u{1f600}\u{10ffff}",
    "\u{fffe}\u{ffff}\u{feff}",
    "\u{1}\u{1b}\u{7f}\u{85}",
    "e\u{301}\u{202e}\u{200b}",
    "\\'\"`;--\\0%_\r\n",
    " \t ",
];

/// `text`, repeated as often as the limit in bytes allows.
fn filled(text: &str, max_bytes: usize) -> String {
    text.repeat((max_bytes / text.len()).max(1))
}

/// A name as long as it may be. Names have no control characters.
fn longest_name(text: &str) -> String {
    let text: String = text.chars().filter(|char| !char.is_control()).collect();
    let name = filled(if text.is_empty() { "n" } else { &text }, 128);
    RoomId::parse("name", &name).unwrap();
    name
}

/// The longest message that these limits accept, made of this text.
fn longest(text: &str, limits: &Limits) -> NewMessage {
    let name = longest_name(text);
    let key = filled(text, 64);
    let deep = format!("{}\"\\ud800\\u0000\"{}", "[".repeat(31), "]".repeat(31));
    let link = format!("https://a.example/{}", "é".repeat(1015));
    let fields = MessageFields {
        content: filled(text, limits.content_bytes),
        kind: Some(filled(text, Limits::TYPE_BYTES)),
        title: Some(filled(text, Limits::TITLE_BYTES)),
        payload: Some(deep.into()),
        attachment_urls: vec![link; Limits::ATTACHMENTS],
        client_msg_id: Some(ClientMsgId::parse("client_msg_id", &key).unwrap()),
        thread: None,
    };
    let username = Username::parse("username", &filled(text, 128)).unwrap();
    let room = RoomId::parse("room_id", &name).unwrap();
    let user = UserId::parse("user_id", &name).unwrap();
    NewMessage::new(room, user, username, fields, limits).unwrap()
}

async fn the_most_extreme_messages_that_are_accepted_are_read_back_as_they_were(store: &TestStore) {
    let limits = Limits::default();
    let batch: Vec<(RoomId, ArchivedEntry)> = TEXTS
        .iter()
        .zip(1..)
        .map(|(text, seq)| {
            let message = longest(text, &limits);
            let epoch = Epoch::trusted(&longest_name(text));
            let at = Timestamp(253_402_300_799_999);
            let entry = archived_message(&message, seq, epoch, at);
            (message.room, entry)
        })
        .collect();
    assert_eq!(store.commit(&batch).await, [Stored; TEXTS.len()]);
    let mut writer = store.store.writer(0);
    let again = writer.commit_with(&batch, Fence::EpochEnds).await.unwrap();
    assert_eq!(again, [Stored; TEXTS.len()]);
    for (room, entry) in &batch {
        let all = store.all(room.as_str()).await;
        assert!(all.contains(entry), "{room}");
        let sends = store.store.recent_sends(room, Timestamp(0), 10).await;
        let sends = sends.unwrap();
        let send = sends.iter().find(|send| send.id == entry.id).unwrap();
        assert_eq!(Some(&send.key), entry.send_key.as_ref());
        assert_eq!(send.user, entry.user);
    }
}

/// A record of so many bytes that no other column shortens.
fn sized(seq: u64, bytes: usize) -> ArchivedEntry {
    ArchivedEntry {
        record: vec![0xff; bytes].into(),
        send_key: Some("\u{0}".repeat(64).into()),
        user: UserId::trusted(&"é".repeat(64)),
        ..entry(seq)
    }
}

async fn the_largest_record_and_the_largest_batch_are_stored(store: &TestStore) {
    let largest = sized(1, MAX_RECORD_BYTES);
    let batch = in_room("large", std::slice::from_ref(&largest));
    assert_eq!(store.commit(&batch).await, [Stored]);
    assert_eq!(store.all("large").await, [largest]);
    let entries: Vec<ArchivedEntry> = (1..=BATCH_ENTRIES as u64)
        .map(|seq| sized(seq, BATCH_BYTES / BATCH_ENTRIES))
        .collect();
    let outcomes = store.commit(&in_room("many", &entries)).await;
    assert_eq!(outcomes, [Stored; BATCH_ENTRIES]);
    assert_eq!(store.all("many").await, entries);
}

async fn a_record_that_is_too_large_is_refused_and_nothing_else(store: &TestStore) {
    let mut writer = store.store.writer(0);
    let large = in_room("r", &[sized(1, MAX_RECORD_BYTES + 1)]);
    let refused = writer.commit(&large).await;
    assert!(matches!(refused, Err(StoreError::Broken(_))), "{refused:?}");
    let stored = writer.commit(&in_room("r", &[entry(1)])).await;
    assert_eq!(stored.unwrap(), [Stored]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_does_not_open_on_a_database_that_takes_small_statements_only() {
    use hubbub_test_support::database::DatabaseServer;
    let server = DatabaseServer::start(DatabaseKind::MariaDb);
    let url = server.create_database("chat");
    crate::fixture::migrate(&url).await;
    server.sql(None, "SET GLOBAL max_allowed_packet = 4194304");
    let settings = crate::fixture::settings(&url);
    let error = SqlStore::open(&settings).await.err().unwrap().to_string();
    assert!(error.contains("max_allowed_packet"), "{error}");
    server.sql(None, "SET GLOBAL max_allowed_packet = 16777216");
    SqlStore::open(&settings).await.unwrap();
}
