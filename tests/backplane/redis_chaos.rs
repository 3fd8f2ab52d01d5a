//! Redis is killed repeatedly while several clients send. An occupant of the room misses no message
//! without a notice: a reset, a join that isn't recovered, or a close.
//!
//! `HUBBUB_CHAOS_ROUNDS` sets the number of rounds (2 by default), `HUBBUB_CHAOS_SEED` the number
//! of the first round (2 by default), which also seeds its random choices.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hubbub::backplane::redis::connect;
use hubbub::backplane::{Backplane, BackplaneLimits};
use hubbub::delivery::{
    CloseReason, Delivery, DeliverySettings, Event, JoinOutcome, Outlet, ReplayFrom, SharedEvent,
};
use hubbub::domain::{ConnId, Epoch, UserId};
use parking_lot::Mutex;

use crate::fixture::{DEADLINE, eventually, limits, message, name, room, settings};
use hubbub_test_support::server::RedisServer;

/// A notification that an occupant received.
#[derive(Debug, Clone)]
enum Received {
    /// It joined: the outcome, and the position from which it requested a replay, if it did.
    Joined(JoinOutcome, Option<(Epoch, u64)>),
    Message(Epoch, u64, String),
    Reset(Epoch, u64),
    /// Its connection was closed.
    Closed,
}

/// A connection in the room. Its outlet is full for 20 ms after every `pace` messages.
struct Occupant {
    conn: ConnId,
    user: UserId,
    /// In the order of arrival.
    received: Mutex<Vec<Received>>,
    pace: usize,
    taken: AtomicUsize,
    closed: AtomicBool,
}

impl Outlet for Occupant {
    fn conn(&self) -> &ConnId {
        &self.conn
    }
    fn user(&self) -> &UserId {
        &self.user
    }
    fn deliver(&self, event: &SharedEvent) {
        match event.event() {
            Event::Message(entry) => {
                self.taken.fetch_add(1, Ordering::SeqCst);
                let record: serde_json::Value = serde_json::from_slice(&entry.record).unwrap();
                let content = record["content"].as_str().unwrap().to_owned();
                self.received.lock().push(Received::Message(
                    entry.epoch.clone(),
                    entry.seq,
                    content,
                ));
            }
            Event::RoomReset { head, .. } => self
                .received
                .lock()
                .push(Received::Reset(head.epoch.clone(), head.seq)),
            _ => {}
        }
    }
    fn has_capacity(&self) -> bool {
        self.taken.load(Ordering::SeqCst) < self.pace
    }
    fn when_writable(&self, wake: Box<dyn FnOnce() + Send>) {
        self.taken.store(0, Ordering::SeqCst);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            wake();
        });
    }
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
    fn close(&self, _: CloseReason) {
        self.received.lock().push(Received::Closed);
        self.closed.store(true, Ordering::SeqCst);
    }
}

impl Occupant {
    fn new(user_id: &str, conn_id: &str, pace: usize) -> Arc<Self> {
        Arc::new(Self {
            conn: ConnId::trusted(conn_id),
            user: UserId::trusted(user_id),
            received: Mutex::default(),
            pace,
            taken: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// The position of the last message or reset.
    fn position(&self) -> Option<(Epoch, u64)> {
        self.received
            .lock()
            .iter()
            .rev()
            .find_map(|received| match received {
                Received::Message(epoch, seq, _) | Received::Reset(epoch, seq) => {
                    Some((epoch.clone(), *seq))
                }
                Received::Joined(..) | Received::Closed => None,
            })
    }

    fn contents(&self) -> HashSet<String> {
        let content = |received: &Received| {
            if let Received::Message(_, _, content) = received {
                Some(content.clone())
            } else {
                None
            }
        };
        self.received.lock().iter().filter_map(content).collect()
    }

    /// Asserts that each number follows the previous one, except after a notice (a reset, a join
    /// that isn't recovered, or a close), and that each number has the same content for all
    /// occupants. `meanings` collects the contents by epoch and number.
    fn check(&self, meanings: &mut HashMap<(Epoch, u64), String>) {
        let received = self.received.lock();
        let mut last: Option<u64> = None;
        for (at, one) in received.iter().enumerate() {
            let around = || &received[at.saturating_sub(6)..(at + 3).min(received.len())];
            match one {
                // A join without a position to replay from doesn't change the position.
                Received::Joined(_, None) => {}
                Received::Joined(outcome, Some((_, seq))) => {
                    last = outcome.recovered.then_some(*seq)
                }
                Received::Closed => last = None,
                Received::Reset(_, seq) => last = Some(*seq),
                Received::Message(epoch, seq, content) => {
                    if let Some(last) = last {
                        assert_eq!(*seq, last + 1, "{} after {last}: {:?}", self.conn, around());
                    }
                    let meaning = meanings
                        .entry((epoch.clone(), *seq))
                        .or_insert_with(|| content.clone());
                    assert_eq!(
                        meaning,
                        content,
                        "one number with two contents: {epoch} {seq}, {:?}",
                        around()
                    );
                    last = Some(*seq);
                }
            }
        }
    }
}

struct Node {
    backplane: Backplane,
    delivery: Delivery,
}

impl Node {
    async fn start(url: &str, limits: &BackplaneLimits) -> Self {
        let backplane = connect(settings(url), limits.clone(), None).await.unwrap();
        let delivery = Delivery::start(
            &backplane,
            &DeliverySettings {
                page_bytes: 4096,
                ..DeliverySettings::default()
            },
        );
        Self {
            backplane,
            delivery,
        }
    }

    /// Joins the room. Retries until the join succeeds.
    async fn join(&self, occupant: &Arc<Occupant>, start: ReplayFrom) {
        loop {
            let from = match &start {
                ReplayFrom::Since {
                    seq,
                    epoch: Some(epoch),
                    ..
                } => Some((epoch.clone(), *seq)),
                _ => None,
            };
            let username = name(occupant.user.as_str());
            if self
                .backplane
                .presence
                .connect(&occupant.conn, &occupant.user, &username)
                .await
                .is_ok()
            {
                let outlet = occupant.clone();
                let on_joined = Box::new(move |outcome: &JoinOutcome| {
                    outlet
                        .received
                        .lock()
                        .push(Received::Joined(outcome.clone(), from));
                });
                if self
                    .delivery
                    .join(
                        room("lobby"),
                        occupant.clone(),
                        username,
                        start.clone(),
                        on_joined,
                    )
                    .await
                    .is_ok()
                {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Appends a message, and retries as a client would: up to 600 times, at intervals of 20 ms.
/// Returns the number of the message.
async fn append_with_retries(node: &Node, content: &str) -> Option<u64> {
    for _ in 0..600 {
        match node
            .backplane
            .log
            .append(&message("lobby", "ann", content), Some(content))
            .await
        {
            Ok(appended) => return Some(appended.seq),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    None
}

/// A linear congruential generator: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

async fn round(number: u64) {
    let mut random = Random(number.wrapping_mul(7919).wrapping_add(1));
    let durability: &[&str] = match number % 3 {
        0 => &["--appendonly", "yes", "--appendfsync", "always"],
        1 => &[],
        _ => &["--appendonly", "yes", "--appendfsync", "everysec"],
    };
    let limits = BackplaneLimits {
        history_size: if number % 4 == 3 { 120 } else { 100_000 },
        ..limits()
    };
    let mut redis = RedisServer::start_with(durability);
    let nodes: Arc<Vec<Node>> = Arc::new(vec![
        Node::start(&redis.url(), &limits).await,
        Node::start(&redis.url(), &limits).await,
    ]);
    let occupants: Vec<_> = (0..6)
        .map(|n| {
            Occupant::new(
                &format!("user{n}"),
                &format!("c{n}"),
                if n < 4 { usize::MAX } else { 40 },
            )
        })
        .collect();
    for (n, occupant) in occupants.iter().enumerate() {
        nodes[n % 2].join(occupant, ReplayFrom::Live).await;
    }
    let over = Arc::new(AtomicBool::new(false));
    let acked = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for sender in 0..6_usize {
        let (nodes, over, acked) = (nodes.clone(), over.clone(), acked.clone());
        tasks.push(tokio::spawn(async move {
            for n in 0.. {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let content = format!("{sender}:{n}");
                if append_with_retries(&nodes[sender % 2], &content)
                    .await
                    .is_some()
                {
                    acked.lock().push(content);
                }
                if n % 16 == 0 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        }));
    }
    // An occupant that was closed joins again. In addition, occupant 3 leaves and returns at
    // random, and occupant 2 joins again at random although it is in the room.
    for (n, occupant) in occupants.iter().cloned().enumerate() {
        let (nodes, over, mut random) =
            (nodes.clone(), over.clone(), Random(number * 31 + n as u64));
        tasks.push(tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let node = &nodes[n % 2];
                let resume = |occupant: &Occupant| {
                    occupant
                        .position()
                        .map_or(ReplayFrom::Live, |(epoch, seq)| ReplayFrom::Since {
                            seq,
                            epoch: Some(epoch),
                            limit: None,
                        })
                };
                if occupant.closed.load(Ordering::SeqCst) || (n == 3 && random.below(20) == 0) {
                    node.delivery.leave(&room("lobby"), &occupant.conn).await;
                    occupant.closed.store(false, Ordering::SeqCst);
                    node.join(&occupant, resume(&occupant)).await;
                } else if n == 2 && random.below(20) == 0 {
                    node.join(
                        &occupant,
                        if random.below(2) == 0 {
                            ReplayFrom::Live
                        } else {
                            resume(&occupant)
                        },
                    )
                    .await;
                }
            }
        }));
    }
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(50 + random.below(700))).await;
        redis.kill();
        tokio::time::sleep(Duration::from_millis(random.below(900))).await;
        redis.run();
        if random.below(3) == 0 {
            continue;
        }
        eventually(DEADLINE, "both nodes are up again", async || {
            nodes
                .iter()
                .all(|node| node.backplane.lifecycle.is_up())
                .then_some(())
        })
        .await;
    }
    over.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    let end = append_with_retries(&nodes[0], "end").await.unwrap();
    for (n, occupant) in occupants.iter().enumerate() {
        let condition = format!("{} of round {number} receives the end", occupant.conn);
        eventually(DEADLINE * 2, &condition, async || {
            if occupant.closed.swap(false, Ordering::SeqCst) {
                let (epoch, seq) = occupant.position().unwrap();
                nodes[n % 2]
                    .delivery
                    .leave(&room("lobby"), &occupant.conn)
                    .await;
                nodes[n % 2]
                    .join(
                        occupant,
                        ReplayFrom::Since {
                            seq,
                            epoch: Some(epoch),
                            limit: None,
                        },
                    )
                    .await;
            }
            occupant.contents().contains("end").then_some(())
        })
        .await;
    }
    let mut meanings = HashMap::new();
    occupants
        .iter()
        .for_each(|occupant| occupant.check(&mut meanings));
    if number.is_multiple_of(3) && number % 4 != 3 {
        // Redis synced every write before it replied, so it lost nothing: no occupant received a
        // reset, and the occupants that never left have received all acknowledged messages.
        let resets = |occupant: &Occupant| {
            occupant
                .received
                .lock()
                .iter()
                .filter(|received| matches!(received, Received::Reset(..)))
                .count()
        };
        assert!(occupants.iter().all(|occupant| resets(occupant) == 0));
        for occupant in &occupants[..2] {
            let contents = occupant.contents();
            let missing: Vec<_> = acked
                .lock()
                .iter()
                .filter(|content| !contents.contains(*content))
                .cloned()
                .collect();
            assert!(
                missing.is_empty(),
                "{} never received {missing:?}",
                occupant.conn
            );
        }
    }
    println!(
        "round {number}: {end} messages, {} acknowledged",
        acked.lock().len()
    );
    for node in nodes.iter() {
        node.delivery.stop();
        node.backplane.lifecycle.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_redis_crashes_lose_no_message_without_a_notice() {
    let number = |key: &str, otherwise: u64| {
        std::env::var(key).map_or(otherwise, |text| text.parse().unwrap())
    };
    let first = number("HUBBUB_CHAOS_SEED", 2);
    for round_number in first..first + number("HUBBUB_CHAOS_ROUNDS", 2) {
        round(round_number).await;
    }
}
