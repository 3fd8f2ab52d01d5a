//! Redis killed again and again while many send: whatever a member sees, nothing is missing without a word.
//!
//! `HUBBUB_CHAOS_ROUNDS` makes it go on for longer, `HUBBUB_CHAOS_SEED` begins with another round.

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

use crate::fixture::{SOON, draft, eventually, limits, name, room, settings};
use hubbub_test_support::server::RedisServer;

/// What a member was told, in its order.
#[derive(Debug, Clone)]
enum Told {
    /// It joined: head, and whether a replay goes on at the position it asked for.
    Joined(JoinOutcome, Option<(Epoch, u64)>),
    Message(Epoch, u64, String),
    Reset(Epoch, u64),
    /// Its transport was closed.
    Closed,
}

/// A member whose outlet is full after every few messages, for a moment.
struct Member {
    conn: ConnId,
    user: UserId,
    told: Mutex<Vec<Told>>,
    pace: usize,
    taken: AtomicUsize,
    closed: AtomicBool,
}

impl Outlet for Member {
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
                let said = record["content"].as_str().unwrap().to_owned();
                self.told
                    .lock()
                    .push(Told::Message(entry.epoch.clone(), entry.seq, said));
            }
            Event::RoomReset { head, .. } => self
                .told
                .lock()
                .push(Told::Reset(head.epoch.clone(), head.seq)),
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
        self.told.lock().push(Told::Closed);
        self.closed.store(true, Ordering::SeqCst);
    }
}

impl Member {
    fn new(who: &str, with: &str, pace: usize) -> Arc<Self> {
        Arc::new(Self {
            conn: ConnId::trusted(with),
            user: UserId::trusted(who),
            told: Mutex::default(),
            pace,
            taken: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// Where it stands.
    fn position(&self) -> Option<(Epoch, u64)> {
        self.told.lock().iter().rev().find_map(|told| match told {
            Told::Message(epoch, seq, _) | Told::Reset(epoch, seq) => Some((epoch.clone(), *seq)),
            Told::Joined(..) | Told::Closed => None,
        })
    }

    fn heard_all(&self) -> HashSet<String> {
        let said = |told: &Told| {
            if let Told::Message(_, _, said) = told {
                Some(said.clone())
            } else {
                None
            }
        };
        self.told.lock().iter().filter_map(said).collect()
    }

    /// Every number follows the one before, but after a word; and each means the same to everyone.
    fn check(&self, meanings: &mut HashMap<(Epoch, u64), String>) {
        let told = self.told.lock();
        let mut last: Option<u64> = None;
        for (at, one) in told.iter().enumerate() {
            let around = || &told[at.saturating_sub(6)..(at + 3).min(told.len())];
            match one {
                // Who asks for nothing goes on.
                Told::Joined(_, None) => {}
                Told::Joined(outcome, Some((_, seq))) => last = outcome.recovered.then_some(*seq),
                Told::Closed => last = None,
                Told::Reset(_, seq) => last = Some(*seq),
                Told::Message(epoch, seq, said) => {
                    if let Some(last) = last {
                        assert_eq!(*seq, last + 1, "{} after {last}: {:?}", self.conn, around());
                    }
                    let meaning = meanings
                        .entry((epoch.clone(), *seq))
                        .or_insert_with(|| said.clone());
                    assert_eq!(
                        meaning,
                        said,
                        "one number, two meanings: {epoch} {seq}, {:?}",
                        around()
                    );
                    last = Some(*seq);
                }
            }
        }
    }
}

struct Site {
    backplane: Backplane,
    delivery: Delivery,
}

impl Site {
    async fn start(url: &str, limits: &BackplaneLimits) -> Self {
        let backplane = connect(settings(url), limits.clone()).await.unwrap();
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

    /// Until it is done.
    async fn join(&self, member: &Arc<Member>, start: ReplayFrom) {
        loop {
            let from = match &start {
                ReplayFrom::Since {
                    seq,
                    epoch: Some(epoch),
                } => Some((epoch.clone(), *seq)),
                _ => None,
            };
            let called = name(member.user.as_str());
            if self
                .backplane
                .presence
                .connect(&member.conn, &member.user, &called)
                .await
                .is_ok()
            {
                let outlet = member.clone();
                let on_joined = Box::new(move |outcome: &JoinOutcome| {
                    outlet.told.lock().push(Told::Joined(outcome.clone(), from));
                });
                if self
                    .delivery
                    .join(
                        room("lobby"),
                        member.clone(),
                        called,
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

/// Appends until it is answered well, as a client would.
async fn say(site: &Site, content: &str) -> Option<u64> {
    for _ in 0..600 {
        match site
            .backplane
            .log
            .append(&draft("lobby", "ann", content), Some(content))
            .await
        {
            Ok(place) => return Some(place.seq),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    None
}

/// A linear congruential generator: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

async fn round(number: u64) {
    let mut dice = Dice(number.wrapping_mul(7919).wrapping_add(1));
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
    let sites: Arc<Vec<Site>> = Arc::new(vec![
        Site::start(&redis.url(), &limits).await,
        Site::start(&redis.url(), &limits).await,
    ]);
    let members: Vec<_> = (0..6)
        .map(|n| {
            Member::new(
                &format!("user{n}"),
                &format!("c{n}"),
                if n < 4 { usize::MAX } else { 40 },
            )
        })
        .collect();
    for (n, member) in members.iter().enumerate() {
        sites[n % 2].join(member, ReplayFrom::Live).await;
    }
    let over = Arc::new(AtomicBool::new(false));
    let acked = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for sender in 0..6_usize {
        let (sites, over, acked) = (sites.clone(), over.clone(), acked.clone());
        tasks.push(tokio::spawn(async move {
            for n in 0.. {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let content = format!("{sender}:{n}");
                if say(&sites[sender % 2], &content).await.is_some() {
                    acked.lock().push(content);
                }
                if n % 16 == 0 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        }));
    }
    // Who is closed comes back; one member comes and goes, and one joins again without a reason.
    for (n, member) in members.iter().cloned().enumerate() {
        let (sites, over, mut dice) = (sites.clone(), over.clone(), Dice(number * 31 + n as u64));
        tasks.push(tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let site = &sites[n % 2];
                let resume = |member: &Member| {
                    member
                        .position()
                        .map_or(ReplayFrom::Live, |(epoch, seq)| ReplayFrom::Since {
                            seq,
                            epoch: Some(epoch),
                        })
                };
                if member.closed.load(Ordering::SeqCst) || (n == 3 && dice.below(20) == 0) {
                    site.delivery.leave(&room("lobby"), &member.conn).await;
                    member.closed.store(false, Ordering::SeqCst);
                    site.join(&member, resume(&member)).await;
                } else if n == 2 && dice.below(20) == 0 {
                    site.join(
                        &member,
                        if dice.below(2) == 0 {
                            ReplayFrom::Live
                        } else {
                            resume(&member)
                        },
                    )
                    .await;
                }
            }
        }));
    }
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(50 + dice.below(700))).await;
        redis.kill();
        tokio::time::sleep(Duration::from_millis(dice.below(900))).await;
        redis.run();
        if dice.below(3) == 0 {
            continue;
        }
        eventually(SOON, "up again", async || {
            sites
                .iter()
                .all(|site| site.backplane.lifecycle.is_up())
                .then_some(())
        })
        .await;
    }
    over.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    let end = say(&sites[0], "end").await.unwrap();
    for (n, member) in members.iter().enumerate() {
        let what = format!("{} of round {number} hears the end", member.conn);
        eventually(SOON * 2, &what, async || {
            if member.closed.swap(false, Ordering::SeqCst) {
                let (epoch, seq) = member.position().unwrap();
                sites[n % 2]
                    .delivery
                    .leave(&room("lobby"), &member.conn)
                    .await;
                sites[n % 2]
                    .join(
                        member,
                        ReplayFrom::Since {
                            seq,
                            epoch: Some(epoch),
                        },
                    )
                    .await;
            }
            member.heard_all().contains("end").then_some(())
        })
        .await;
    }
    let mut meanings = HashMap::new();
    members
        .iter()
        .for_each(|member| member.check(&mut meanings));
    if number.is_multiple_of(3) && number % 4 != 3 {
        // Nothing was lost, so nobody heard of a loss, and whoever was there all the time has all that was acknowledged.
        let resets = |member: &Member| {
            member
                .told
                .lock()
                .iter()
                .filter(|told| matches!(told, Told::Reset(..)))
                .count()
        };
        assert!(members.iter().all(|member| resets(member) == 0));
        for member in &members[..2] {
            let heard = member.heard_all();
            let missing: Vec<_> = acked
                .lock()
                .iter()
                .filter(|said| !heard.contains(*said))
                .cloned()
                .collect();
            assert!(missing.is_empty(), "{} never had {missing:?}", member.conn);
        }
    }
    println!(
        "round {number}: {end} messages, {} acknowledged",
        acked.lock().len()
    );
    for site in sites.iter() {
        site.delivery.stop();
        site.backplane.lifecycle.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missing_without_a_word_however_often_redis_dies() {
    let number = |key: &str, otherwise: u64| {
        std::env::var(key).map_or(otherwise, |text| text.parse().unwrap())
    };
    let first = number("HUBBUB_CHAOS_SEED", 2);
    for round_number in first..first + number("HUBBUB_CHAOS_ROUNDS", 2) {
        round(round_number).await;
    }
}
