//! Shared by all cases: backplanes, a recording sink, messages, and the one function that waits for
//! a condition.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hubbub::backplane::redis::{RedisSettings, connect};
use hubbub::backplane::{
    Appended, Backplane, BackplaneLimits, Bus, BusEvent, BusSink, BusTopic, RoomLog, memory,
};
use hubbub::domain::{ConnId, Limits, MessageFields, NewMessage, RoomId, UserId, Username};
use parking_lot::Mutex;

use hubbub_test_support::server::RedisServer;

use crate::restore_source::Source;

/// The deadline of a wait. It is long enough for a busy machine, and used up only by a wait that
/// fails.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// The presence grace of [`limits`].
pub const GRACE: Duration = Duration::from_millis(400);

/// Starts backplanes of one kind. Those on Redis share one server.
pub struct Fixture {
    server: Option<RedisServer>,
    /// The URL of the server, with credentials if it requires them.
    url: String,
}

impl Fixture {
    pub fn embedded() -> Self {
        Self {
            server: None,
            url: String::new(),
        }
    }

    pub fn redis() -> Self {
        let server = RedisServer::start();
        Self {
            url: server.url(),
            server: Some(server),
        }
    }

    /// Redis with a user that has the documented rights and no others.
    pub fn redis_with_least_rights() -> Self {
        let server = RedisServer::start();
        grant(&server, &least_rights());
        Self {
            url: restricted_url(&server),
            server: Some(server),
        }
    }

    /// The Redis server of the backplanes. Panics for the embedded kind.
    pub fn server(&mut self) -> &mut RedisServer {
        self.server
            .as_mut()
            .expect("the fixture was created by Fixture::redis")
    }

    /// Starts a node with these limits.
    pub async fn start(&self, limits: BackplaneLimits) -> Backplane {
        match &self.server {
            None => memory::embedded(limits),
            Some(_) => connect(settings(&self.url), limits, None).await.unwrap(),
        }
    }

    /// Starts a node whose rooms this source restores.
    pub async fn start_archived(&self, limits: BackplaneLimits, source: &Arc<Source>) -> Backplane {
        match &self.server {
            None => memory::embedded_with_archive(limits, source.clone()),
            Some(server) => {
                if self.url == restricted_url(server) {
                    grant(server, &archive_rights());
                }
                let settings = settings(&self.url);
                connect(settings, limits, Some(source.clone()))
                    .await
                    .unwrap()
            }
        }
    }
}

/// The words of the first `ACL SETUSER` of docs/security.md behind the user's name.
pub fn least_rights() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (_, command) = document.split_once("\nACL SETUSER hubbub ").unwrap();
    let (command, _) = command.split_once("```").unwrap();
    command.split_whitespace().map(str::to_owned).collect()
}

/// The words of docs/security.md that a node with an archive needs in addition.
pub fn archive_rights() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md");
    let document = std::fs::read_to_string(path).unwrap();
    let row = "\n| an archive behind the rooms (`DATABASE_URL`) | `";
    let (_, words) = document.split_once(row).unwrap();
    let (words, _) = words.split_once('`').unwrap();
    words.split_whitespace().map(str::to_owned).collect()
}

/// Gives the user `hubbub` these rights.
pub fn grant(server: &RedisServer, words: &[String]) {
    let command = ["ACL", "SETUSER", "hubbub"].into_iter();
    let command: Vec<_> = command.chain(words.iter().map(String::as_str)).collect();
    assert_eq!(server.cli(&command), "OK", "{command:?}");
}

/// The URL with the credentials of the user `hubbub`.
pub fn restricted_url(server: &RedisServer) -> String {
    format!("redis://hubbub:PASSWORD@127.0.0.1:{}", server.port)
}

/// Settings with shorter times than in production, so that tests don't wait long.
pub fn settings(url: &str) -> RedisSettings {
    RedisSettings {
        url: url.to_owned(),
        connections: 2,
        beat_interval: Duration::from_millis(300),
        beat_timeout: Duration::from_secs(1),
        lease: Duration::from_millis(2500),
        sweep_interval: Duration::from_millis(50),
        full_sweep: Duration::from_millis(500),
        scrub_delay: Duration::from_millis(200),
        check_interval: Duration::from_millis(500),
        ..RedisSettings::default()
    }
}

pub fn limits() -> BackplaneLimits {
    BackplaneLimits {
        presence_grace: GRACE,
        ..BackplaneLimits::default()
    }
}

pub fn room(name: &str) -> RoomId {
    RoomId::trusted(name)
}

pub fn user(name: &str) -> UserId {
    UserId::trusted(name)
}

pub fn conn(name: &str) -> ConnId {
    ConnId::trusted(name)
}

pub fn name(text: &str) -> Username {
    Username::trusted(text)
}

pub fn message(room: &str, user: &str, content: &str) -> NewMessage {
    let fields = MessageFields {
        content: content.to_owned(),
        ..MessageFields::default()
    };
    NewMessage::new(
        RoomId::trusted(room),
        UserId::trusted(user),
        Username::trusted(user),
        fields,
        &Limits::default(),
    )
    .unwrap()
}

/// Appends a message under a new deduplication key.
pub async fn append_message(node: &Backplane, room: &str, content: &str) -> Appended {
    node.log
        .append(
            &message(room, "ann", content),
            Some(&uuid::Uuid::new_v4().to_string()),
        )
        .await
        .unwrap()
}

/// Registers a connection and joins a room with it.
pub async fn connect_and_join(
    node: &Backplane,
    user_id: &str,
    conn_id: &str,
    room_id: &str,
) -> hubbub::backplane::Joined {
    node.presence
        .connect(&conn(conn_id), &user(user_id), &name(user_id))
        .await
        .unwrap();
    node.presence
        .join(
            &conn(conn_id),
            &user(user_id),
            &name(user_id),
            &room(room_id),
        )
        .await
        .unwrap()
}

/// Polls until there is a result, which it returns. Panics if there is none by the deadline.
/// `condition` describes the expected result in the panic message.
pub async fn eventually<T>(
    deadline: Duration,
    condition: &str,
    mut poll: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(result) = poll().await {
            return result;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {condition}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A sink that records all events and interruptions.
#[derive(Default)]
pub struct Recorder {
    events: Mutex<Vec<BusEvent>>,
    interruptions: Mutex<Vec<Option<BusTopic>>>,
}

impl BusSink for Recorder {
    fn event(&self, event: BusEvent) {
        self.events.lock().push(event);
    }

    fn interrupted(&self, topic: Option<BusTopic>) {
        self.interruptions.lock().push(topic);
    }
}

impl Recorder {
    /// Sets a new recorder as the sink of the node and subscribes the node to these topics.
    pub async fn on(node: &Backplane, topics: &[BusTopic]) -> Arc<Self> {
        let recorder = Arc::new(Self::default());
        node.bus.deliver_to(recorder.clone());
        for topic in topics {
            subscribe(node.bus.as_ref(), topic).await;
        }
        recorder
    }

    pub fn events(&self) -> Vec<BusEvent> {
        self.events.lock().clone()
    }

    pub fn interruptions(&self) -> Vec<Option<BusTopic>> {
        self.interruptions.lock().clone()
    }

    /// Appends a sentinel message to the room and returns all events up to it, without the
    /// sentinel. Every event of the room that was published before is among them.
    pub async fn events_until_sentinel(&self, node: &Backplane, room_id: &str) -> Vec<BusEvent> {
        let seq = append_message(node, room_id, "end").await.seq;
        let is_end = |event: &BusEvent| {
            matches!(
                event,
                BusEvent::Message(room, entry) if room.as_str() == room_id && entry.seq == seq
            )
        };
        let mut events = eventually(DEADLINE, "the sentinel arrives", async || {
            Some(self.events()).filter(|events| events.iter().any(is_end))
        })
        .await;
        events.retain(|event| !is_end(event));
        events
    }

    /// Waits for at least `count` events and returns all events.
    pub async fn wait_for(&self, count: usize) -> Vec<BusEvent> {
        eventually(DEADLINE, "enough events arrive", async || {
            Some(self.events()).filter(|events| events.len() >= count)
        })
        .await
    }
}

/// Subscribes. Retries while the connection to Redis is still being established.
pub async fn subscribe(bus: &dyn Bus, topic: &BusTopic) {
    eventually(DEADLINE, "the subscription succeeds", async || {
        bus.subscribe(topic).await.ok()
    })
    .await;
}

/// The numbers of all entries of a room, read in one call.
pub async fn seqs(log: &dyn RoomLog, room_id: &str) -> Vec<u64> {
    let slice = log
        .read(
            &room(room_id),
            hubbub::backplane::Window::After(0),
            100_000,
            usize::MAX,
        )
        .await
        .unwrap();
    slice.entries.iter().map(|entry| entry.seq).collect()
}
