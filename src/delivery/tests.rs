//! Tests of the feeds on a backplane that loses events, trims logs and changes epochs on purpose.

mod chance;
mod numberings;
mod requests;
mod storm;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use parking_lot::Mutex;

use super::*;
use crate::backplane::{
    Appended, BackplaneLimits, Bus, Entry, Result, RoomLog, Slice, Typing, Window, memory,
};
use crate::domain::Limits;
use crate::domain::{LogSpan, MessageFields, NewMessage, Timestamp};

/// What an outlet was handed, and whether it takes more.
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

    /// Short names of all that came, in order.
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

    fn take_more(&self) {
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
        self.take_more();
    }
}

/// A bus that loses a share of what it carries, without a word.
struct LossyBus {
    inner: Arc<dyn Bus>,
    /// Of 100 events.
    lost: u64,
}

struct LossySink {
    inner: Arc<dyn BusSink>,
    lost: u64,
    random: AtomicU64,
}

impl BusSink for LossySink {
    fn event(&self, event: BusEvent) {
        // A linear congruential generator: the same losses in every run.
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

/// A log whose numbering can be lost.
struct FakeLog {
    state: Mutex<(Vec<Entry>, LogSpan)>,
    /// Presence beside it says nothing of versions any more.
    presence_hangs: AtomicBool,
}

impl FakeLog {
    fn say(&self, seq: u64) -> Entry {
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

    /// The messages after `end` are lost, and a new epoch goes on from there.
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

    /// Everything is lost.
    fn flush(&self, epoch: &str) {
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

    /// Numberings that ended before `end` are known no more.
    fn forget_before(&self, end: u64) {
        let (_, span) = &mut *self.state.lock();
        span.past.retain(|head| head.seq >= end);
    }

    /// The numbering is known no more.
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
        unreachable!("tests write with `say`")
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
            Window::Newest => unreachable!("feeds ask for what they need"),
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

/// Presence of the embedded backplane, with the fake log's span in every join.
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
async fn a_worker_with_much_to_hand_out_pauses_so_that_outlets_can_write() {
    let (backplane, ann) = (lossy(0), Recorder::new("ann"));
    let (recorder, heard) = (ann.clone(), Arc::new(Mutex::new(Vec::new())));
    let note = heard.clone();
    let pause = Pause::new(move || {
        note.lock().push(recorder.seqs().len());
        tokio::task::yield_now()
    });
    let settings = DeliverySettings {
        pause,
        backlog_bytes: usize::MAX,
        ..DeliverySettings::default()
    };
    let delivery = Delivery::start(&backplane, &settings);
    join(&delivery, &ann, ReplayFrom::Live).await;
    // Nothing in between waits: the worker finds all of them at once.
    for n in 0..1100 {
        say(&backplane, &n.to_string()).await;
    }
    delivery.flush(&room()).await;
    assert_eq!(
        (&**heard.lock(), ann.seqs().len()),
        (&[512, 1024][..], 1100)
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_hands_out_no_more_bytes_than_outlets_take_before_they_can_write() {
    let (backplane, ann) = (lossy(0), Recorder::new("ann"));
    let (turns, begun) = (
        Arc::new(tokio::sync::Semaphore::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (others, count) = (turns.clone(), begun.clone());
    let pause = Pause::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let turns = others.clone();
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
        // The worker is let run until it waits for a turn.
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
async fn who_sends_waits_while_a_worker_has_much_to_hand_on() {
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
        assert!(sent <= 10, "nothing was handed on meanwhile");
    }
    assert!(sent >= 8 && ann.seqs().is_empty());
    tokio::time::timeout(Duration::from_secs(60), delivery.wait_for_capacity(&room()))
        .await
        .unwrap();
    assert!(!ann.seqs().is_empty());
}

async fn say(backplane: &Backplane, text: &str) -> u64 {
    let fields = MessageFields {
        content: text.into(),
        ..MessageFields::default()
    };
    let user = UserId::trusted("sender");
    let name = Username::from(&user);
    let draft = NewMessage::new(room(), user, name, fields, &Limits::default()).unwrap();
    backplane.log.append(&draft, None).await.unwrap().seq
}

/// Waits until `true`; time is paused, so that waiting costs none.
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
async fn on_the_wire_come_ack_replay_users_and_live() {
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
    eventually("ann heard of bob", || ann.story().len() == 5).await;
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
async fn a_bus_that_loses_a_third_costs_no_message_and_repeats_none() {
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
async fn the_very_last_message_is_found_though_nothing_follows_it() {
    let backplane = lossy(100);
    let delivery = start(&backplane, 1, 500);
    let ann = Recorder::new("ann");
    join(&delivery, &ann, ReplayFrom::Live).await;
    say(&backplane, "lost").await;
    eventually("ann has it", || ann.seqs() == [1]).await;
    let bob = Recorder::new("bob");
    join(&delivery, &bob, ReplayFrom::Live).await;
    eventually("ann heard of bob", || {
        ann.story().contains(&"Joined bob".to_owned())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_is_found_though_presence_says_nothing() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let ann = Recorder::new("ann");
    join(&delivery, &ann, ReplayFrom::Live).await;
    log.presence_hangs.store(true, Ordering::SeqCst);
    // Its event never comes.
    log.say(1);
    eventually("ann has it", || ann.seqs() == [1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_waits_for_its_reader_and_for_nobody_else() {
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
    slow.take_more();
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
async fn a_live_member_without_room_goes_on_at_its_own_pace_and_holds_up_nobody() {
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
        slow.take_more();
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
async fn a_log_that_outruns_its_reader_ends_in_a_closed_transport() {
    let (backplane, log) = fake();
    let delivery = Arc::new(start(&backplane, 1, 500));
    (1..=300).for_each(|seq| drop(log.say(seq)));
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
    slow.take_more();
    assert!(
        !joining.await.unwrap().gap,
        "nothing was missing when it was asked"
    );
    assert!(slow.is_closed() && slow.seqs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_epoch_is_told_to_whoever_had_seen_what_is_lost() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let ann = Recorder::new("ann");
    join(&delivery, &ann, ReplayFrom::Live).await;
    let bus = delivery.queues.clone();
    (1..=10).for_each(|seq| bus.event(BusEvent::Message(room(), log.say(seq))));
    eventually("ann has ten", || ann.seqs().len() == 10).await;
    // The tail from 8 on is lost, and others go on from there.
    log.roll_back(7, "e2");
    bus.event(BusEvent::Message(room(), log.say(8)));
    eventually("ann is told and goes on", || ann.seqs().len() == 11).await;
    assert_eq!(ann.story()[11..], ["reset e2 7.. Some(8)", "8"]);
    // A change without a loss is no news.
    log.roll_back(8, "e3");
    bus.event(BusEvent::Message(room(), log.say(9)));
    eventually("ann goes on", || ann.seqs().len() == 12).await;
    assert_eq!(ann.story()[13..], ["9"]);
    // Nor is a late message of an old epoch.
    let late = Entry {
        seq: 9,
        epoch: Epoch::trusted("e1"),
        at: Timestamp(0),
        record: "{}".into(),
    };
    bus.event(BusEvent::Message(room(), late));
    bus.event(BusEvent::Message(room(), log.say(10)));
    eventually("ann goes on", || ann.seqs().len() == 13).await;
    assert_eq!(ann.story()[14..], ["10"]);
    // Everything is lost, and nobody says anything: the comparison of heads finds it.
    log.flush("e4");
    eventually("ann is told", || {
        ann.story()
            .last()
            .is_some_and(|last| last.starts_with("reset e4"))
    })
    .await;
    bus.event(BusEvent::Message(room(), log.say(1)));
    eventually("ann goes on", || ann.seqs().len() == 14).await;
    assert_eq!(ann.story()[15..], ["reset e4 0.. None", "1"]);
}

#[tokio::test(start_paused = true)]
async fn a_joiner_who_is_ahead_of_the_feed_meets_it_in_the_new_epoch() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let (ann, bob) = (Recorder::new("ann"), Recorder::new("bob"));
    join(&delivery, &ann, ReplayFrom::Live).await;
    let bus = delivery.queues.clone();
    (1..=10).for_each(|seq| bus.event(BusEvent::Message(room(), log.say(seq))));
    eventually("ann has ten", || ann.seqs().len() == 10).await;
    log.roll_back(5, "e2");
    drop(log.say(6));
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
    bus.event(BusEvent::Message(room(), log.say(7)));
    eventually("both go on", || {
        bob.seqs() == [6, 7] && ann.seqs().ends_with(&[6, 7])
    })
    .await;
    assert!(ann.story().contains(&"reset e2 5.. Some(6)".to_owned()));
    assert!(!bob.story().iter().any(|event| event.starts_with("reset")));
}

#[tokio::test(start_paused = true)]
async fn a_large_room_tells_its_number_and_a_smaller_one_its_members_again() {
    let backplane = lossy(0);
    let delivery = start(&backplane, 1, 2);
    let [ann, bob, cid] = ["ann", "bob", "cid"].map(Recorder::new);
    join(&delivery, &ann, ReplayFrom::Live).await;
    join(&delivery, &bob, ReplayFrom::Live).await;
    join(&delivery, &cid, ReplayFrom::Live).await;
    eventually("ann is told the number", || {
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
    eventually("ann is told the members", || ann.story().len() == 4).await;
    assert_eq!(ann.story().last().unwrap(), "users 2/2");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_gets_each_state_once_over_a_bus_that_loses_them() {
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
        "what happened in between is not made up for"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hole_is_filled_as_soon_as_it_shows() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let ann = Recorder::new("ann");
    join(&delivery, &ann, ReplayFrom::Live).await;
    drop(log.say(1));
    let began = tokio::time::Instant::now();
    delivery.queues.event(BusEvent::Message(room(), log.say(2)));
    eventually("ann has both", || ann.seqs() == [1, 2]).await;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "it waited for the comparison of heads"
    );
}

#[tokio::test(start_paused = true)]
async fn a_joiner_is_not_told_of_what_its_list_already_shows() {
    // The bus brings nothing: the feed learns of all changes late, by comparison.
    let backplane = lossy(100);
    let delivery = start(&backplane, 1, 500);
    let [ann, bob, cid] = ["ann", "bob", "cid"].map(Recorder::new);
    for member in [&ann, &bob, &cid] {
        join(&delivery, member, ReplayFrom::Live).await;
    }
    eventually("ann heard of both", || {
        ann.story() == ["users 1/1", "Joined bob", "Joined cid"]
    })
    .await;
    assert_eq!(bob.story(), ["users 2/2", "Joined cid"]);
    assert_eq!(cid.story(), ["users 3/3"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_replay_to_the_first_member_comes_once() {
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
