//! Tests of the feeds on backplanes that lose events, trim logs and change epochs on purpose.

mod epochs;
mod random;
mod requests;
mod storm;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use parking_lot::Mutex;

use super::*;
use crate::backplane::{
    Appended, BackplaneLimits, Bus, BusEvent, BusSink, Result, RoomLog, Slice, Window, memory,
};
use crate::domain::{
    Epoch, Head, Limits, LogSpan, MessageFields, NewMessage, OnlineStatus, Timestamp,
};

/// An outlet that records what it receives, and can be made to have no capacity.
struct Recorder {
    conn: ConnId,
    user: UserId,
    seen: Mutex<Vec<Event>>,
    full: AtomicBool,
    wakers: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    closed: AtomicBool,
}

impl Recorder {
    fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            conn: ConnId::trusted(&format!("conn-{name}")),
            user: UserId::trusted(name),
            seen: Mutex::default(),
            full: AtomicBool::new(false),
            wakers: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    fn seqs(&self) -> Vec<u64> {
        let seq = |event: &Event| {
            if let Event::Message(entry) = event {
                Some(entry.seq)
            } else {
                None
            }
        };
        self.seen.lock().iter().filter_map(seq).collect()
    }

    /// Short names of all received events, in order.
    fn story(&self) -> Vec<String> {
        let name = |event: &Event| match event {
            Event::Message(entry) => format!("{}", entry.seq),
            Event::RoomUsers { users, total, .. } => format!("users {}/{total}", users.len()),
            Event::RoomChanged(_, change) => format!("{:?} {}", change.kind, change.user),
            Event::Typing(typing) => format!("typing {}", typing.user),
            Event::OnlineStatus { status, initial } => {
                format!("{} {} {initial}", status.user, status.online)
            }
            Event::RoomReset {
                head, lost_from, ..
            } => format!("reset {} {}.. {lost_from:?}", head.epoch, head.seq),
        };
        self.seen.lock().iter().map(name).collect()
    }

    fn drain(&self) {
        self.full.store(false, Ordering::SeqCst);
        for wake in self.wakers.lock().drain(..) {
            wake();
        }
    }
}

impl Outlet for Recorder {
    fn conn(&self) -> &ConnId {
        &self.conn
    }
    fn user(&self) -> &UserId {
        &self.user
    }
    fn deliver(&self, event: &SharedEvent) {
        self.seen.lock().push(event.event().clone());
    }
    fn has_capacity(&self) -> bool {
        !self.full.load(Ordering::SeqCst)
    }
    fn when_writable(&self, wake: Box<dyn FnOnce() + Send>) {
        self.wakers.lock().push(wake);
    }
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
    fn close(&self, _: CloseReason) {
        self.closed.store(true, Ordering::SeqCst);
        self.drain();
    }
}

/// A bus that silently loses some of its events.
struct LossyBus {
    inner: Arc<dyn Bus>,
    /// Of 100 events, how many are lost.
    lost: u64,
}

struct LossySink {
    inner: Arc<dyn BusSink>,
    lost: u64,
    random: AtomicU64,
}

impl BusSink for LossySink {
    fn event(&self, event: BusEvent) {
        // A linear congruential generator loses the same events in every run.
        let next = |state: u64| {
            Some(
                state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407),
            )
        };
        let state = self
            .random
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next)
            .unwrap();
        if (state >> 33) % 100 >= self.lost {
            self.inner.event(event);
        }
    }
    fn interrupted(&self, topic: Option<BusTopic>) {
        self.inner.interrupted(topic);
    }
}

#[async_trait]
impl Bus for LossyBus {
    fn deliver_to(&self, sink: Arc<dyn BusSink>) {
        let random = AtomicU64::new(42);
        self.inner.deliver_to(Arc::new(LossySink {
            inner: sink,
            lost: self.lost,
            random,
        }));
    }
    async fn subscribe(&self, topic: &BusTopic) -> Result<()> {
        self.inner.subscribe(topic).await
    }
    async fn unsubscribe(&self, topic: &BusTopic) {
        self.inner.unsubscribe(topic).await;
    }
    async fn publish_typing(&self, typing: &Typing) -> Result<()> {
        self.inner.publish_typing(typing).await
    }
    async fn publish_disconnect(&self, user: &UserId) -> Result<()> {
        self.inner.publish_disconnect(user).await
    }
}

/// A log that tests fill, trim and roll back.
struct FakeLog {
    state: Mutex<(Vec<Entry>, LogSpan)>,
    /// Makes [`FakePresence`] never return versions.
    presence_hangs: AtomicBool,
}

impl FakeLog {
    /// Adds a message, and returns it without publishing it.
    fn add(&self, seq: u64) -> Entry {
        let (entries, span) = &mut *self.state.lock();
        let entry = Entry {
            seq,
            epoch: span.head.epoch.clone(),
            at: Timestamp(0),
            record: "{}".into(),
        };
        entries.push(entry.clone());
        span.head.seq = seq;
        entry
    }

    /// Loses the messages after `end`, and begins a new epoch there.
    fn roll_back(&self, end: u64, epoch: &str) {
        let (entries, span) = &mut *self.state.lock();
        entries.retain(|entry| entry.seq <= end);
        let old = std::mem::replace(
            &mut span.head,
            Head {
                epoch: Epoch::trusted(epoch),
                seq: end,
            },
        );
        span.past.insert(0, Head { seq: end, ..old });
    }

    /// Loses everything, and begins a new epoch.
    fn lose_all(&self, epoch: &str) {
        let head = Head {
            epoch: Epoch::trusted(epoch),
            seq: 0,
        };
        *self.state.lock() = (
            Vec::new(),
            LogSpan {
                head,
                oldest: 1,
                past: Vec::new(),
            },
        );
    }

    /// Forgets the epochs that ended before `end`.
    fn forget_before(&self, end: u64) {
        let (_, span) = &mut *self.state.lock();
        span.past.retain(|head| head.seq >= end);
    }

    /// Forgets the epoch, and where it ended.
    fn forget(&self, epoch: &str) {
        self.state
            .lock()
            .1
            .past
            .retain(|head| head.epoch.as_str() != epoch);
    }

    fn trim(&self, oldest: u64) {
        let (entries, span) = &mut *self.state.lock();
        entries.retain(|entry| entry.seq >= oldest);
        span.oldest = oldest;
    }
}

#[async_trait]
impl RoomLog for FakeLog {
    async fn append(&self, _: &NewMessage, _: Option<&str>) -> Result<Appended> {
        unreachable!("tests write with `FakeLog::add`")
    }
    async fn read(&self, _: &RoomId, window: Window, limit: usize, _: usize) -> Result<Slice> {
        let (entries, span) = &*self.state.lock();
        let entries = match window {
            Window::After(after) => entries
                .iter()
                .filter(|entry| entry.seq > after)
                .take(limit)
                .cloned()
                .collect(),
            Window::Before(before) => {
                let from = entries
                    .iter()
                    .filter(|entry| entry.seq < before)
                    .count()
                    .saturating_sub(limit);
                entries
                    .iter()
                    .skip(from)
                    .filter(|entry| entry.seq < before)
                    .cloned()
                    .collect()
            }
            Window::Newest => unreachable!("feeds request a position"),
        };
        Ok(Slice {
            entries,
            span: span.clone(),
        })
    }
    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        Ok(rooms
            .iter()
            .map(|_| Some(self.state.lock().1.head.clone()))
            .collect())
    }
}

/// The embedded backplane's presence, with the fake log's span in every join.
struct FakePresence(Arc<dyn crate::backplane::Presence>, Arc<FakeLog>);

#[async_trait]
impl crate::backplane::Presence for FakePresence {
    async fn connect(&self, conn: &ConnId, user: &UserId, username: &Username) -> Result<()> {
        self.0.connect(conn, user, username).await
    }
    async fn join(
        &self,
        conn: &ConnId,
        user: &UserId,
        username: &Username,
        room: &RoomId,
    ) -> Result<crate::backplane::Joined> {
        let joined = self.0.join(conn, user, username, room).await?;
        Ok(crate::backplane::Joined {
            span: self.1.state.lock().1.clone(),
            ..joined
        })
    }
    async fn leave(&self, conn: &ConnId, user: &UserId, room: &RoomId) -> Result<()> {
        self.0.leave(conn, user, room).await
    }
    async fn lost(&self, conn: &ConnId, user: &UserId, rooms: &[RoomId]) {
        self.0.lost(conn, user, rooms).await;
    }
    async fn roster(&self, room: &RoomId, limit: usize) -> Result<crate::backplane::Roster> {
        self.0.roster(room, limit).await
    }
    async fn members(
        &self,
        r: &RoomId,
        a: Option<&UserId>,
        l: usize,
    ) -> Result<crate::backplane::OccupantPage> {
        self.0.members(r, a, l).await
    }
    async fn is_occupant(&self, room: &RoomId, user: &UserId) -> Result<bool> {
        self.0.is_occupant(room, user).await
    }
    async fn connections(&self, user: &UserId) -> Result<Vec<ConnId>> {
        self.0.connections(user).await
    }
    async fn room_changes(
        &self,
        r: &RoomId,
        v: u64,
    ) -> Result<crate::backplane::Changes<crate::domain::RoomChange>> {
        self.0.room_changes(r, v).await
    }
    async fn status(&self, user: &UserId) -> Result<OnlineStatus> {
        self.0.status(user).await
    }
    async fn status_changes(
        &self,
        user: &UserId,
        v: u64,
    ) -> Result<crate::backplane::Changes<OnlineStatus>> {
        self.0.status_changes(user, v).await
    }
    async fn versions(&self, topics: &[BusTopic]) -> Result<Vec<u64>> {
        if self.1.presence_hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.0.versions(topics).await
    }
}

fn start(backplane: &Backplane, workers: usize, room_events: u64) -> Delivery {
    Delivery::start(
        backplane,
        &DeliverySettings {
            workers,
            room_events,
            ..DeliverySettings::default()
        },
    )
}

fn room() -> RoomId {
    RoomId::trusted("room")
}

/// An embedded backplane whose bus loses so many of 100 events.
fn lossy(lost: u64) -> Backplane {
    let inner = memory::embedded(BackplaneLimits {
        history_size: 100_000,
        ..BackplaneLimits::default()
    });
    Backplane {
        bus: Arc::new(LossyBus {
            inner: inner.bus.clone(),
            lost,
        }),
        ..inner
    }
}

/// An embedded backplane with a fake log.
fn fake() -> (Backplane, Arc<FakeLog>) {
    let inner = lossy(0);
    let span = LogSpan {
        head: Head {
            epoch: Epoch::trusted("e1"),
            seq: 0,
        },
        oldest: 1,
        past: Vec::new(),
    };
    let log = Arc::new(FakeLog {
        state: Mutex::new((Vec::new(), span)),
        presence_hangs: AtomicBool::new(false),
    });
    let presence = Arc::new(FakePresence(inner.presence.clone(), log.clone()));
    (
        Backplane {
            log: log.clone(),
            presence,
            ..inner
        },
        log,
    )
}

async fn join(delivery: &Delivery, outlet: &Arc<Recorder>, start: ReplayFrom) -> JoinOutcome {
    let (acknowledge, acknowledged) = oneshot::channel();
    let on_joined = Box::new(move |outcome: &JoinOutcome| drop(acknowledge.send(outcome.clone())));
    let username = Username::from(&outlet.user);
    delivery
        .join(room(), outlet.clone(), username, start, on_joined)
        .await
        .unwrap();
    acknowledged.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_worker_pauses_after_512_commands_so_that_outlets_can_write() {
    let (backplane, ann) = (lossy(0), Recorder::new("ann"));
    let (recorder, pauses) = (ann.clone(), Arc::new(Mutex::new(Vec::new())));
    let received_at_pauses = pauses.clone();
    let pause = Pause::new(move || {
        received_at_pauses.lock().push(recorder.seqs().len());
        tokio::task::yield_now()
    });
    let settings = DeliverySettings {
        pause,
        backlog_bytes: usize::MAX,
        ..DeliverySettings::default()
    };
    let delivery = Delivery::start(&backplane, &settings);
    join(&delivery, &ann, ReplayFrom::Live).await;
    // Nothing in between yields, so the worker finds all of them at once.
    for n in 0..1100 {
        say(&backplane, &n.to_string()).await;
    }
    delivery.flush(&room()).await;
    assert_eq!(
        (&**pauses.lock(), ann.seqs().len()),
        (&[512, 1024][..], 1100)
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_delivers_at_most_twice_the_backlog_limit_before_outlets_can_write() {
    let (backplane, ann) = (lossy(0), Recorder::new("ann"));
    let (turns, begun) = (
        Arc::new(tokio::sync::Semaphore::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (granted, count) = (turns.clone(), begun.clone());
    let pause = Pause::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let turns = granted.clone();
        async move { turns.acquire().await.unwrap().forget() }
    });
    let text = "x".repeat(1000);
    let delivery = Delivery::start(
        &backplane,
        &DeliverySettings {
            pause,
            backlog_bytes: 5_000,
            ..DeliverySettings::default()
        },
    );
    join(&delivery, &ann, ReplayFrom::Live).await;
    for _ in 0..40 {
        say(&backplane, &text).await;
    }
    let most = 10_000 / text.len();
    let mut before = 0;
    while ann.seqs().len() < 40 {
        // The worker runs until it waits for a turn.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let now = ann.seqs().len();
        assert!(
            now > before && now - before <= most,
            "{} more in a turn",
            now - before
        );
        before = now;
        turns.add_permits(1);
    }
    assert!(
        (40 / most..=40 * 2 / most + 1).contains(&begun.load(Ordering::Relaxed)),
        "{begun:?} turns"
    );
}

#[tokio::test(start_paused = true)]
async fn senders_wait_while_the_backlog_of_a_worker_is_full() {
    let (backplane, ann) = (lossy(0), Recorder::new("ann"));
    let delivery = Delivery::start(
        &backplane,
        &DeliverySettings {
            backlog_bytes: 10_000,
            ..DeliverySettings::default()
        },
    );
    join(&delivery, &ann, ReplayFrom::Live).await;
    let mut sent = 0;
    while delivery.wait_for_capacity(&room()).now_or_never().is_some() {
        say(&backplane, &"x".repeat(1000)).await;
        sent += 1;
        assert!(sent <= 10, "the worker has delivered nothing meanwhile");
    }
    assert!(sent >= 8 && ann.seqs().is_empty());
    tokio::time::timeout(Duration::from_secs(60), delivery.wait_for_capacity(&room()))
        .await
        .unwrap();
    assert!(!ann.seqs().is_empty());
}

/// Appends a message, and returns its `seq`.
async fn say(backplane: &Backplane, text: &str) -> u64 {
    let fields = MessageFields {
        content: text.into(),
        ..MessageFields::default()
    };
    let user = UserId::trusted("sender");
    let name = Username::from(&user);
    let message = NewMessage::new(room(), user, name, fields, &Limits::default()).unwrap();
    backplane.log.append(&message, None).await.unwrap().seq
}

/// Waits until the check is true. The clock is paused, so waiting takes no time.
async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(start_paused = true)]
async fn the_order_on_the_wire_is_ack_replay_room_users_live() {
    let backplane = lossy(0);
    let delivery = start(&backplane, 1, 500);
    for text in ["a", "b", "c"] {
        say(&backplane, text).await;
    }
    let ann = Recorder::new("ann");
    let outcome = join(
        &delivery,
        &ann,
        ReplayFrom::Since {
            seq: 1,
            epoch: None,
        },
    )
    .await;
    assert_eq!(
        (
            outcome.recovered,
            outcome.gap,
            outcome.replayed,
            outcome.total
        ),
        (true, false, 2, 1)
    );
    say(&backplane, "d").await;
    let bob = Recorder::new("bob");
    let outcome = join(&delivery, &bob, ReplayFrom::Last(1)).await;
    assert_eq!(
        (
            outcome.recovered,
            outcome.gap,
            outcome.replayed,
            outcome.total
        ),
        (false, false, 1, 2)
    );
    eventually("both are up to date", || {
        ann.seqs() == [2, 3, 4] && bob.seqs() == [4]
    })
    .await;
    eventually("ann is told of bob", || ann.story().len() == 5).await;
    assert_eq!(ann.story(), ["2", "3", "users 1/1", "4", "Joined bob"]);
    assert_eq!(bob.story(), ["4", "users 2/2"]);
    delivery.leave(&room(), &bob.conn).await;
    backplane
        .presence
        .leave(&bob.conn, &bob.user, &room())
        .await
        .unwrap();
    say(&backplane, "e").await;
    eventually("ann got it", || {
        ann.story().ends_with(&["Left bob".into(), "5".into()])
    })
    .await;
    assert_eq!(bob.seqs(), [4], "nothing comes after leaving");
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_loses_a_third_of_its_events_causes_no_loss_and_no_repeat() {
    let backplane = lossy(33);
    let delivery = Arc::new(start(&backplane, 2, 500));
    let everyone: Vec<_> = (0..10)
        .map(|n| Recorder::new(&format!("user{n}")))
        .collect();
    let talk = {
        let backplane = backplane.clone();
        tokio::spawn(async move {
            for n in 0..2000_u32 {
                say(&backplane, "x").await;
                if n % 7 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        })
    };
    for (n, outlet) in everyone.iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(n as u64 * 7)).await;
        join(
            &delivery,
            outlet,
            ReplayFrom::Since {
                seq: 0,
                epoch: None,
            },
        )
        .await;
    }
    talk.await.unwrap();
    let all: Vec<u64> = (1..=2000).collect();
    eventually("everyone has everything", || {
        everyone.iter().all(|outlet| outlet.seqs().len() >= 2000)
    })
    .await;
    for outlet in &everyone {
        assert_eq!(outlet.seqs(), all);
    }
    assert!(delivery.counters().catch_ups.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_last_message_is_found_though_nothing_follows_it() {
    let backplane = lossy(100);
    let delivery = start(&backplane, 1, 500);
    let ann = Recorder::new("ann");
    join(&delivery, &ann, ReplayFrom::Live).await;
    say(&backplane, "lost").await;
    eventually("ann has it", || ann.seqs() == [1]).await;
    let bob = Recorder::new("bob");
    join(&delivery, &bob, ReplayFrom::Live).await;
    eventually("ann is told of bob", || {
        ann.story().contains(&"Joined bob".to_owned())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_is_found_while_presence_does_not_respond() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let ann = Recorder::new("ann");
    join(&delivery, &ann, ReplayFrom::Live).await;
    log.presence_hangs.store(true, Ordering::SeqCst);
    // Its event is never published.
    log.add(1);
    eventually("ann has it", || ann.seqs() == [1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_waits_only_for_its_own_outlet() {
    let backplane = lossy(0);
    let delivery = Arc::new(start(&backplane, 1, 500));
    for _ in 0..500 {
        say(&backplane, "x").await;
    }
    let (slow, quick) = (Recorder::new("slow"), Recorder::new("quick"));
    slow.full.store(true, Ordering::SeqCst);
    let joining = {
        let (delivery, slow) = (delivery.clone(), slow.clone());
        tokio::spawn(async move {
            join(
                &delivery,
                &slow,
                ReplayFrom::Since {
                    seq: 0,
                    epoch: None,
                },
            )
            .await
        })
    };
    join(&delivery, &quick, ReplayFrom::Live).await;
    say(&backplane, "y").await;
    eventually("quick has it", || quick.seqs() == [501]).await;
    assert!(slow.seqs().is_empty());
    slow.drain();
    assert_eq!(joining.await.unwrap().replayed, 500);
    eventually("slow has all", || {
        slow.seqs() == (1..=501).collect::<Vec<_>>()
    })
    .await;
    let users = slow
        .story()
        .iter()
        .position(|event| event.starts_with("users"))
        .unwrap();
    assert_eq!(
        users, 500,
        "room_users comes right after what the ack promised"
    );
}

#[tokio::test(start_paused = true)]
async fn a_live_occupant_without_capacity_falls_behind_and_delays_no_other() {
    let backplane = lossy(0);
    let delivery = start(&backplane, 1, 500);
    let (slow, quick) = (Recorder::new("slow"), Recorder::new("quick"));
    for outlet in [&slow, &quick] {
        join(&delivery, outlet, ReplayFrom::Live).await;
    }
    for round in 1..=3 {
        let before = slow.seqs();
        slow.full.store(true, Ordering::SeqCst);
        for _ in 0..300 {
            say(&backplane, "x").await;
        }
        let all: Vec<u64> = (1..=round * 300 + round - 1).collect();
        eventually("quick has all", || quick.seqs() == all).await;
        assert_eq!(slow.seqs(), before);
        slow.drain();
        eventually("slow has all", || slow.seqs() == all).await;
        say(&backplane, "live again").await;
        eventually("both have it", || {
            [&slow, &quick]
                .iter()
                .all(|outlet| outlet.seqs().len() == all.len() + 1)
        })
        .await;
    }
    assert!(!slow.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_replay_closes_its_transport_when_the_log_was_trimmed_past_it() {
    let (backplane, log) = fake();
    let delivery = Arc::new(start(&backplane, 1, 500));
    (1..=300).for_each(|seq| drop(log.add(seq)));
    let slow = Recorder::new("slow");
    slow.full.store(true, Ordering::SeqCst);
    let joining = {
        let (delivery, slow) = (delivery.clone(), slow.clone());
        tokio::spawn(async move {
            join(
                &delivery,
                &slow,
                ReplayFrom::Since {
                    seq: 0,
                    epoch: None,
                },
            )
            .await
        })
    };
    eventually("the replay waits", || !slow.wakers.lock().is_empty()).await;
    log.trim(200);
    slow.drain();
    assert!(
        !joining.await.unwrap().gap,
        "nothing was missing when it joined"
    );
    assert!(slow.is_closed() && slow.seqs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_epoch_resets_the_occupants_that_had_received_lost_messages() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let ann = Recorder::new("ann");
    join(&delivery, &ann, ReplayFrom::Live).await;
    let bus = delivery.queues.clone();
    (1..=10).for_each(|seq| bus.event(BusEvent::Message(room(), log.add(seq))));
    eventually("ann has ten", || ann.seqs().len() == 10).await;
    // The messages from 8 on are lost, and other ones follow 7.
    log.roll_back(7, "e2");
    bus.event(BusEvent::Message(room(), log.add(8)));
    eventually("ann is reset and goes on", || ann.seqs().len() == 11).await;
    assert_eq!(ann.story()[11..], ["reset e2 7.. Some(8)", "8"]);
    // A new epoch without a loss causes no reset.
    log.roll_back(8, "e3");
    bus.event(BusEvent::Message(room(), log.add(9)));
    eventually("ann goes on", || ann.seqs().len() == 12).await;
    assert_eq!(ann.story()[13..], ["9"]);
    // Nor does a late message of an old epoch.
    let late = Entry {
        seq: 9,
        epoch: Epoch::trusted("e1"),
        at: Timestamp(0),
        record: "{}".into(),
    };
    bus.event(BusEvent::Message(room(), late));
    bus.event(BusEvent::Message(room(), log.add(10)));
    eventually("ann goes on", || ann.seqs().len() == 13).await;
    assert_eq!(ann.story()[14..], ["10"]);
    // Everything is lost, and nothing is published: the comparison of heads finds it.
    log.lose_all("e4");
    eventually("ann is reset", || {
        ann.story()
            .last()
            .is_some_and(|last| last.starts_with("reset e4"))
    })
    .await;
    bus.event(BusEvent::Message(room(), log.add(1)));
    eventually("ann goes on", || ann.seqs().len() == 14).await;
    assert_eq!(ann.story()[15..], ["reset e4 0.. None", "1"]);
}

#[tokio::test(start_paused = true)]
async fn an_occupant_ahead_of_the_feed_meets_it_in_the_new_epoch() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let (ann, bob) = (Recorder::new("ann"), Recorder::new("bob"));
    join(&delivery, &ann, ReplayFrom::Live).await;
    let bus = delivery.queues.clone();
    (1..=10).for_each(|seq| bus.event(BusEvent::Message(room(), log.add(seq))));
    eventually("ann has ten", || ann.seqs().len() == 10).await;
    log.roll_back(5, "e2");
    drop(log.add(6));
    let outcome = join(
        &delivery,
        &bob,
        ReplayFrom::Since {
            seq: 5,
            epoch: Some(Epoch::trusted("e1")),
        },
    )
    .await;
    assert_eq!(
        (
            outcome.recovered,
            outcome.replayed,
            outcome.head.epoch.as_str()
        ),
        (true, 1, "e2")
    );
    let gone = join(
        &delivery,
        &Recorder::new("cid"),
        ReplayFrom::Since {
            seq: 9,
            epoch: Some(Epoch::trusted("e1")),
        },
    )
    .await;
    assert_eq!((gone.recovered, gone.gap, gone.replayed), (false, true, 6));
    bus.event(BusEvent::Message(room(), log.add(7)));
    eventually("both go on", || {
        bob.seqs() == [6, 7] && ann.seqs().ends_with(&[6, 7])
    })
    .await;
    assert!(ann.story().contains(&"reset e2 5.. Some(6)".to_owned()));
    assert!(!bob.story().iter().any(|event| event.starts_with("reset")));
}

#[tokio::test(start_paused = true)]
async fn a_large_room_publishes_only_its_number_until_it_is_small_again() {
    let backplane = lossy(0);
    let delivery = start(&backplane, 1, 2);
    let [ann, bob, cid] = ["ann", "bob", "cid"].map(Recorder::new);
    join(&delivery, &ann, ReplayFrom::Live).await;
    join(&delivery, &bob, ReplayFrom::Live).await;
    join(&delivery, &cid, ReplayFrom::Live).await;
    eventually("ann receives the number", || {
        ann.story().contains(&"users 0/3".to_owned())
    })
    .await;
    assert_eq!(ann.story(), ["users 1/1", "Joined bob", "users 0/3"]);
    delivery.leave(&room(), &cid.conn).await;
    backplane
        .presence
        .leave(&cid.conn, &cid.user, &room())
        .await
        .unwrap();
    eventually("ann receives the list", || ann.story().len() == 4).await;
    assert_eq!(ann.story().last().unwrap(), "users 2/2");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_receives_each_status_once_over_a_lossy_bus() {
    let backplane = lossy(50);
    let delivery = start(&backplane, 1, 500);
    let (ann, conn) = (UserId::trusted("ann"), ConnId::trusted("c"));
    let watcher = Recorder::new("watcher");
    delivery
        .watch(
            ann.clone(),
            watcher.clone(),
            Box::new(|status| assert!(!status.online)),
        )
        .await
        .unwrap();
    let name = Username::from(&ann);
    for _ in 0..20 {
        backplane
            .presence
            .connect(&conn, &ann, &name)
            .await
            .unwrap();
        backplane.presence.lost(&conn, &ann, &[]).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    eventually("all forty came", || watcher.story().len() == 41).await;
    let expected: Vec<_> = (0..41)
        .map(|n| format!("ann {} {}", n % 2 == 1, n == 0))
        .collect();
    assert_eq!(watcher.story(), expected);
    delivery.unwatch(&ann, &watcher.conn).await;
    backplane
        .presence
        .connect(&conn, &ann, &name)
        .await
        .unwrap();
    delivery
        .watch(
            ann,
            watcher.clone(),
            Box::new(|status| assert!(status.online)),
        )
        .await
        .unwrap();
    assert_eq!(
        watcher.story().len(),
        42,
        "changes between the two watches are not delivered"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hole_is_filled_as_soon_as_a_later_message_shows_it() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let ann = Recorder::new("ann");
    join(&delivery, &ann, ReplayFrom::Live).await;
    drop(log.add(1));
    let began = tokio::time::Instant::now();
    delivery.queues.event(BusEvent::Message(room(), log.add(2)));
    eventually("ann has both", || ann.seqs() == [1, 2]).await;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "the hole was found by the comparison of heads only"
    );
}

#[tokio::test(start_paused = true)]
async fn an_occupant_receives_no_change_that_its_list_already_contains() {
    // The bus carries nothing, so the feed learns of every change late, by comparison.
    let backplane = lossy(100);
    let delivery = start(&backplane, 1, 500);
    let [ann, bob, cid] = ["ann", "bob", "cid"].map(Recorder::new);
    for outlet in [&ann, &bob, &cid] {
        join(&delivery, outlet, ReplayFrom::Live).await;
    }
    eventually("ann is told of both", || {
        ann.story() == ["users 1/1", "Joined bob", "Joined cid"]
    })
    .await;
    assert_eq!(bob.story(), ["users 2/2", "Joined cid"]);
    assert_eq!(cid.story(), ["users 3/3"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_replay_to_the_first_occupant_repeats_nothing() {
    let backplane = lossy(0);
    let delivery = start(&backplane, 1, 500);
    for _ in 0..500 {
        say(&backplane, "x").await;
    }
    let ann = Recorder::new("ann");
    assert_eq!(
        join(
            &delivery,
            &ann,
            ReplayFrom::Since {
                seq: 0,
                epoch: None
            }
        )
        .await
        .replayed,
        500
    );
    say(&backplane, "y").await;
    eventually("ann has all", || ann.seqs().len() >= 501).await;
    assert_eq!(ann.seqs(), (1..=501).collect::<Vec<_>>());
}
