//! The steps of the message path that `scripts/counts` measures in processor instructions:
//! `counts STEP TIMES` runs one step `TIMES` times. Counting twice, with different `TIMES`,
//! eliminates the cost of the start.

// A step that fails should stop, and report the position.
#![allow(clippy::unwrap_used)]

mod archive;

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;

use engineioxide::Frame;
use hubbub::backplane::redis::{RedisSettings, connect};
use hubbub::backplane::{Backplane, BackplaneLimits, memory};
use hubbub::delivery::{
    CloseReason, Delivery, DeliverySettings, Event, Outlet, ReplayFrom, SharedEvent,
};
use hubbub::domain::{ConnId, Limits, MessageFields, NewMessage, RoomId, UserId, Username};
use hubbub::gateway::connections::decode_event;
use hubbub::gateway::wire;
use parking_lot::Mutex;

/// An outlet that does the work of a socket up to the system call: it encodes, counts and queues.
/// The benchmark empties the queue in place of the writer.
struct Sink {
    conn: ConnId,
    user: UserId,
    queue: Mutex<VecDeque<Frame>>,
}

impl Outlet for Sink {
    fn conn(&self) -> &ConnId {
        &self.conn
    }
    fn user(&self) -> &UserId {
        &self.user
    }
    fn deliver(&self, event: &SharedEvent) {
        let frame = event
            .encoded(|event: &Event| {
                Frame::text(&wire::encode_event(wire::Envelope::SocketIo, event))
            })
            .unwrap();
        self.queue.lock().push_back(frame.clone());
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
    fn close(&self, _: CloseReason) {}
}

fn new_message() -> NewMessage {
    new_message_in("room")
}

fn new_message_in(room: &str) -> NewMessage {
    let fields = MessageFields {
        content: "x".repeat(100),
        ..MessageFields::default()
    };
    let room = RoomId::parse("room_id", room).unwrap();
    let user = UserId::parse("user_id", "ann").unwrap();
    NewMessage::new(
        room,
        user.clone(),
        Username::from(&user),
        fields,
        &Limits::default(),
    )
    .unwrap()
}

fn decode(times: usize) {
    let packet = format!(
        "[\"message\",{{\"room_id\":\"room\",\"content\":\"{}\"}}]",
        "x".repeat(100)
    );
    let limits = Limits::default();
    for _ in 0..times {
        let event = wire::parse_packet(black_box(&packet), &limits);
        let (_, request) = decode_event(event, &limits);
        black_box(request.unwrap());
    }
}

async fn append(times: usize) {
    let backplane = memory::embedded(BackplaneLimits::default());
    for _ in 0..times {
        black_box(
            backplane
                .log
                .append(black_box(&new_message()), None)
                .await
                .unwrap(),
        );
    }
}

/// Calls the append script of Redis with ten messages of ten rooms per call. If `keyed`, each call
/// has its own key.
async fn append_to_redis(times: usize, url: &str, keyed: bool) {
    let settings = RedisSettings {
        url: url.to_owned(),
        ..RedisSettings::default()
    };
    let backplane = connect(settings, BackplaneLimits::default(), None)
        .await
        .unwrap();
    let rooms: Vec<_> = (0..10).map(|room| format!("room-{room}")).collect();
    for call in 0..times {
        let key = format!("key-{call}");
        let key = if keyed { Some(&*key) } else { None };
        let messages: Vec<_> = rooms.iter().map(|room| new_message_in(room)).collect();
        let appends = messages
            .iter()
            .map(|message| backplane.log.append(message, key));
        for appended in futures_util::future::join_all(appends).await {
            appended.unwrap();
        }
    }
}

/// A room with `members` members on this node, all of them joined.
async fn populated_room(backplane: &Backplane, members: usize) -> (Delivery, Vec<Arc<Sink>>) {
    let delivery = Delivery::start(backplane, &DeliverySettings::default());
    let mut sinks = Vec::new();
    for member in 0..members {
        let user = UserId::parse("user_id", &format!("user-{member}")).unwrap();
        let conn = ConnId::parse("conn", &format!("conn-{member}")).unwrap();
        let name = Username::from(&user);
        backplane
            .presence
            .connect(&conn, &user, &name)
            .await
            .unwrap();
        let sink = Arc::new(Sink {
            conn,
            user,
            queue: Mutex::default(),
        });
        let room = RoomId::parse("room_id", "room").unwrap();
        delivery
            .join(room, sink.clone(), name, ReplayFrom::Live, Box::new(|_| ()))
            .await
            .unwrap();
        sinks.push(sink);
    }
    (delivery, sinks)
}

/// Appends messages, and waits until each is in the queues of all members.
async fn broadcast(times: usize, members: usize) {
    let backplane = memory::embedded(BackplaneLimits::default());
    let (delivery, sinks) = populated_room(&backplane, members).await;
    let room = RoomId::parse("room_id", "room").unwrap();
    delivery.flush(&room).await;
    sinks.iter().for_each(|sink| sink.queue.lock().clear());
    for _ in 0..times {
        backplane.log.append(&new_message(), None).await.unwrap();
        delivery.flush(&room).await;
        for sink in &sinks {
            black_box(sink.queue.lock().pop_front().unwrap());
        }
    }
    delivery.stop();
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(step), Some(times)) = (arguments.next(), arguments.next()) else {
        println!("usage: counts STEP TIMES [REDIS_URL]; scripts/counts runs it under valgrind");
        return;
    };
    let url = arguments.next().unwrap_or_default();
    let times = times.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    match step.as_str() {
        "decode" => decode(times),
        "append" => runtime.block_on(append(times)),
        "append-archived" => runtime.block_on(archive::append(times)),
        "commit-sqlite" => runtime.block_on(archive::commit_to_sqlite(times)),
        "feed" => runtime.block_on(broadcast(times, 1)),
        "broadcast-100" => runtime.block_on(broadcast(times, 100)),
        "redis" => runtime.block_on(append_to_redis(times, &url, false)),
        "redis-keyed" => runtime.block_on(append_to_redis(times, &url, true)),
        other => panic!("unknown step {other}"),
    }
}
