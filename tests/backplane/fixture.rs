//! The tests' vocabulary: a backplane to try, a sink that remembers, drafts, and the one way to wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hubbub::backplane::redis::{RedisSettings, connect};
use hubbub::backplane::{
    Appended, Backplane, BackplaneLimits, Bus, BusEvent, BusSink, BusTopic, RoomLog, memory,
};
use hubbub::domain::{ConnId, Limits, MessageFields, NewMessage, RoomId, UserId, Username};
use parking_lot::Mutex;

use hubbub_test_support::server::RedisServer;

/// Long enough for a busy machine; nothing waits for all of it unless it fails.
pub const SOON: Duration = Duration::from_secs(10);
/// The grace in tests.
pub const GRACE: Duration = Duration::from_millis(400);

/// Makes backplanes of one kind.
pub struct Fixture {
    server: Option<RedisServer>,
}

impl Fixture {
    pub fn embedded() -> Self {
        Self { server: None }
    }

    pub fn redis() -> Self {
        Self {
            server: Some(RedisServer::start()),
        }
    }

    /// The Redis behind it.
    pub fn server(&mut self) -> &mut RedisServer {
        self.server.as_mut().expect("only for Redis")
    }

    /// A node with these limits.
    pub async fn start(&self, limits: BackplaneLimits) -> Backplane {
        match &self.server {
            None => memory::embedded(limits),
            Some(server) => connect(settings(&server.url()), limits).await.unwrap(),
        }
    }
}

/// Shorter times than in production, so that tests don't wait.
pub fn settings(url: &str) -> RedisSettings {
    RedisSettings {
        url: url.to_owned(),
        connections: 2,
        beat_interval: Duration::from_millis(300),
        beat_timeout: Duration::from_secs(1),
        lease: Duration::from_millis(2500),
        sweep_interval: Duration::from_millis(50),
        full_sweep: Duration::from_millis(500),
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

pub fn draft(room: &str, user: &str, content: &str) -> NewMessage {
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

/// Appends with a key of its own.
pub async fn say(node: &Backplane, room: &str, content: &str) -> Appended {
    node.log
        .append(
            &draft(room, "ann", content),
            Some(&uuid::Uuid::new_v4().to_string()),
        )
        .await
        .unwrap()
}

/// Registers a connection and puts it into a room.
pub async fn enter(
    node: &Backplane,
    who: &str,
    with: &str,
    place: &str,
) -> hubbub::backplane::Joined {
    node.presence
        .connect(&conn(with), &user(who), &name(who))
        .await
        .unwrap();
    node.presence
        .join(&conn(with), &user(who), &name(who), &room(place))
        .await
        .unwrap()
}

/// Asks until the answer is there, and fails when it isn't by the deadline.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A sink that remembers everything.
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
    /// A recorder that listens to the node and is subscribed to these topics.
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

    /// All events up to the message with this content, which is said now: whatever was published before has arrived.
    pub async fn events_until_said(&self, node: &Backplane, place: &str) -> Vec<BusEvent> {
        let seq = say(node, place, "end").await.seq;
        let is_end = |event: &BusEvent| matches!(event, BusEvent::Message(room, entry) if room.as_str() == place && entry.seq == seq);
        let mut events = eventually(SOON, "the sentinel", async || {
            Some(self.events()).filter(|events| events.iter().any(is_end))
        })
        .await;
        events.retain(|event| !is_end(event));
        events
    }

    /// The events, once there are so many.
    pub async fn wait_for(&self, count: usize) -> Vec<BusEvent> {
        eventually(SOON, "events", async || {
            Some(self.events()).filter(|events| events.len() >= count)
        })
        .await
    }
}

/// Subscribes; a connection that is still coming up gets a moment.
pub async fn subscribe(bus: &dyn Bus, topic: &BusTopic) {
    eventually(SOON, "a subscription", async || {
        bus.subscribe(topic).await.ok()
    })
    .await;
}

/// All records' contents and numbers of a room, read in one go.
pub async fn seqs(log: &dyn RoomLog, place: &str) -> Vec<u64> {
    let slice = log
        .read(
            &room(place),
            hubbub::backplane::Window::After(0),
            100_000,
            usize::MAX,
        )
        .await
        .unwrap();
    slice.entries.iter().map(|entry| entry.seq).collect()
}
