//! Log entries of kinds that this release doesn't know, as a node of a later release appends them,
//! and entries that an earlier release has appended.

use std::sync::Arc;

use hubbub::backplane::{BusEvent, BusTopic, EntryKind, Window};
use hubbub::delivery::{
    CloseReason, Delivery, DeliverySettings, Event, Outlet, ReplayFrom, SharedEvent,
};
use hubbub::domain::{ConnId, UserId};
use parking_lot::Mutex;

use crate::fixture::{
    DEADLINE, Fixture, Recorder, append_message, conn, eventually, limits, name, room, user,
};
use hubbub_test_support::server::RedisServer;

/// Appends an entry to the lobby, which has a numbering already: its record lies in this field of
/// the stream, and its frame begins with this letter.
fn append_entry(redis: &RedisServer, field: &str, letter: &str) {
    let script = "
        local numbering, log, channel = 'hubbub:{c85}m:bG9iYnk', 'hubbub:{c85}h:bG9iYnk', 'hubbub:{c85}r0:bG9iYnk'
        local field, letter = ARGV[1], ARGV[2]
        local seq = redis.call('HINCRBY', numbering, 's', 1)
        local epoch = redis.call('HGET', numbering, 'e')
        redis.call('XADD', log, seq .. '-0', 'e', epoch, 't', '1', field, '{}')
        redis.call('PUBLISH', channel, letter .. seq .. ' ' .. epoch .. ' 1\\n{}')
        return 'appended'";
    assert_eq!(redis.cli(&["EVAL", script, "0", field, letter]), "appended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_unknown_kinds_are_read_and_published_in_their_positions() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let recorder = Recorder::on(&node, &[BusTopic::Room(room("lobby"))]).await;
    append_message(&node, "lobby", "first").await;
    append_entry(fixture.server(), "x", "X");
    // Before kinds existed, the field of a message was `r`.
    append_entry(fixture.server(), "r", "M");
    append_message(&node, "lobby", "last").await;
    let expected = [
        (1, EntryKind::Message),
        (2, EntryKind::Unknown),
        (3, EntryKind::Message),
        (4, EntryKind::Message),
    ];
    let slice = node
        .log
        .read(&room("lobby"), Window::After(0), 10, 9999)
        .await
        .unwrap();
    let entries: Vec<_> = slice
        .entries
        .iter()
        .map(|entry| (entry.seq, entry.kind))
        .collect();
    assert_eq!(entries, expected);
    let published: Vec<_> = recorder
        .wait_for(4)
        .await
        .iter()
        .map(|event| match event {
            BusEvent::Message(_, entry) => (entry.seq, entry.kind),
            other => panic!("not an entry: {other:?}"),
        })
        .collect();
    assert_eq!(published, expected);
}

/// An outlet that records the numbers of messages, and 0 for a reset.
struct Client {
    conn: ConnId,
    user: UserId,
    seqs: Mutex<Vec<u64>>,
}

impl Client {
    fn new(conn_id: &str) -> Arc<Self> {
        Arc::new(Self {
            conn: conn(conn_id),
            user: user(conn_id),
            seqs: Mutex::default(),
        })
    }

    async fn wait_for(&self, seqs: &[u64]) {
        let what = format!("{} receives {seqs:?}", self.conn);
        eventually(DEADLINE, &what, async || {
            let has_last = self.seqs.lock().last() == seqs.last();
            has_last.then_some(())
        })
        .await;
        assert_eq!(*self.seqs.lock(), seqs);
    }
}

impl Outlet for Client {
    fn conn(&self) -> &ConnId {
        &self.conn
    }
    fn user(&self) -> &UserId {
        &self.user
    }
    fn deliver(&self, event: &SharedEvent) {
        match event.event() {
            Event::Message(entry) => self.seqs.lock().push(entry.seq),
            Event::RoomReset { .. } => self.seqs.lock().push(0),
            _ => {}
        }
    }
    fn has_capacity(&self) -> bool {
        true
    }
    fn when_writable(&self, wake: Box<dyn FnOnce() + Send>) {
        wake();
    }
    fn is_closed(&self) -> bool {
        false
    }
    fn close(&self, reason: CloseReason) {
        panic!("{} was closed: {reason:?}", self.conn);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_not_sent_entries_of_unknown_kinds() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let delivery = Delivery::start(&node, &DeliverySettings::default());
    let join = async |client: &Arc<Client>, from: ReplayFrom| {
        node.presence
            .connect(&client.conn, &client.user, &name("client"))
            .await
            .unwrap();
        delivery
            .join(
                room("lobby"),
                client.clone(),
                name("client"),
                from,
                Box::new(|_| ()),
            )
            .await
            .unwrap();
    };
    append_message(&node, "lobby", "1").await;
    // Live: the feed moves past the entries, and finds no gap behind them.
    let live = Client::new("live");
    join(&live, ReplayFrom::Live).await;
    append_entry(fixture.server(), "x", "X");
    append_entry(fixture.server(), "y", "Y");
    append_message(&node, "lobby", "4").await;
    live.wait_for(&[4]).await;
    // A replay from the log moves past them too, also where it begins or ends with them.
    let since = |seq| ReplayFrom::Since {
        seq,
        epoch: None,
        limit: None,
    };
    let all = Client::new("all");
    join(&all, since(0)).await;
    all.wait_for(&[1, 4]).await;
    let from_unknown = Client::new("from-unknown");
    join(&from_unknown, since(1)).await;
    from_unknown.wait_for(&[4]).await;
    append_entry(fixture.server(), "x", "X");
    let to_unknown = Client::new("to-unknown");
    join(&to_unknown, since(3)).await;
    to_unknown.wait_for(&[4]).await;
    // Everybody goes on live from there.
    append_message(&node, "lobby", "6").await;
    live.wait_for(&[4, 6]).await;
    all.wait_for(&[1, 4, 6]).await;
    from_unknown.wait_for(&[4, 6]).await;
    to_unknown.wait_for(&[4, 6]).await;
    delivery.stop();
}
