//! Many connections come back to a room at once: each receives the messages that it missed, and the
//! log is read for all of them together.

use crate::backplane::NewChange;
use std::ops::Range;

use tokio::task::JoinSet;

use super::*;

/// About how long a read of the log takes.
const READ_TIME: Duration = Duration::from_millis(20);

/// A log that counts its reads and delays them.
pub(super) struct SlowLog {
    inner: Arc<dyn RoomLog>,
    reads: AtomicU64,
}

#[async_trait]
impl RoomLog for SlowLog {
    async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
        self.inner.append(message, key).await
    }
    async fn announce_all(
        &self,
        room: &RoomId,
        changes: &[NewChange],
    ) -> (Vec<Appended>, Result<()>) {
        self.inner.announce_all(room, changes).await
    }

    async fn read(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Slice> {
        let before = self.reads.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(READ_TIME / 2).await;
        let slice = self.inner.read(room, window, limit, max_bytes).await;
        // A later read may overtake an earlier one.
        tokio::time::sleep(READ_TIME * u32::try_from(3 - before % 4).unwrap()).await;
        slice
    }
    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        self.inner.heads(rooms).await
    }
}

pub(super) fn slow_log(inner: &Backplane) -> (Backplane, Arc<SlowLog>) {
    let log = Arc::new(SlowLog {
        inner: inner.log.clone(),
        reads: AtomicU64::new(0),
    });
    (
        Backplane {
            log: log.clone(),
            ..inner.clone()
        },
        log,
    )
}

async fn say_many(backplane: &Backplane, count: usize) {
    for _ in 0..count {
        say(backplane, "x").await;
    }
}

pub(super) fn since(seq: u64) -> ReplayFrom {
    ReplayFrom::Since {
        seq,
        epoch: None,
        limit: None,
    }
}

/// For each `seq` a connection joins and resumes there, all at once. Returns their outlets when all
/// joins are over.
async fn storm(
    delivery: &Arc<Delivery>,
    seqs: impl IntoIterator<Item = u64>,
) -> Vec<(u64, Arc<Recorder>)> {
    let mut joins = JoinSet::new();
    for (n, seq) in seqs.into_iter().enumerate() {
        let delivery = delivery.clone();
        joins.spawn(async move {
            let outlet = Recorder::new(&format!("joiner{n}"));
            let outcome = join(&delivery, &outlet, since(seq)).await;
            assert_eq!(
                (outcome.recovered, outcome.gap, outcome.replayed),
                (true, false, outcome.head.seq - seq)
            );
            (seq, outlet)
        });
    }
    joins.join_all().await
}

async fn all_received(joined: &[(u64, Arc<Recorder>)], head: u64) {
    eventually("all have the last message", || {
        joined
            .iter()
            .all(|(_, outlet)| outlet.seqs().last() == Some(&head))
    })
    .await;
    for (seq, outlet) in joined {
        assert_eq!(
            outlet.seqs(),
            (seq + 1..=head).collect::<Vec<_>>(),
            "after {seq}"
        );
    }
}

/// 200 connections resume at `seqs` while 100 messages are appended. Returns how often the log was
/// read for them. `resident`: the room has an occupant on this node before.
async fn reads_of_a_storm(resident: bool, seqs: Range<u64>) -> u64 {
    let (backplane, log) = slow_log(&lossy(0));
    let delivery = Arc::new(start(&backplane, 2, 500));
    let ann = Recorder::new("ann");
    if resident {
        join(&delivery, &ann, ReplayFrom::Live).await;
    }
    say_many(&backplane, 300).await;
    let talk = {
        let backplane = backplane.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                say(&backplane, "x").await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    let (from, many) = (seqs.start, seqs.end - seqs.start);
    // In mixed order: 67 and the number of positions have no common divisor.
    let joined = storm(&delivery, (0..200).map(|n| from + (n + 1) * 67 % many)).await;
    talk.await.unwrap();
    all_received(&joined, 400).await;
    if resident {
        eventually("ann missed nothing", || {
            ann.seqs() == (1..=400).collect::<Vec<_>>()
        })
        .await;
    }
    log.reads.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn a_storm_costs_one_read_of_the_log() {
    assert_eq!(reads_of_a_storm(true, 100..300).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_storm_into_a_room_without_a_feed_costs_one_read_of_the_log() {
    assert_eq!(reads_of_a_storm(false, 100..300).await, 1);
}

#[tokio::test(start_paused = true)]
async fn joins_that_each_missed_more_than_the_last_cost_few_reads() {
    let (backplane, log) = slow_log(&lossy(0));
    let delivery = Arc::new(start(&backplane, 1, 500));
    say_many(&backplane, 500).await;
    for seq in (0..500).rev() {
        all_received(&storm(&delivery, [seq]).await, 500).await;
    }
    // 9 messages for the first one, which comes alone. Then each read makes the tail reach twice as
    // far as the joining connection needs, and 8 messages further: 28, 66, 142, 294, all.
    assert_eq!(log.reads.load(Ordering::SeqCst), 6);
}

#[tokio::test(start_paused = true)]
async fn joins_that_missed_more_than_a_tail_holds_share_pages() {
    let (backplane, log) = slow_log(&lossy(0));
    let delivery = Arc::new(start(&backplane, 1, 500));
    say_many(&backplane, 3000).await;
    let joined = storm(&delivery, (0..100).map(|n| n * 7)).await;
    all_received(&joined, 3000).await;
    // Pages of 128 messages up to 1024 before the end, the rest for the tail, and some for
    // positions before the first page.
    let reads = log.reads.load(Ordering::SeqCst);
    assert!(reads <= 30, "{reads} reads");
    assert!(delivery.kept_bytes() > 0);
}

#[tokio::test(start_paused = true)]
async fn tails_keep_within_their_budget_and_are_dropped_when_unused() {
    let (backplane, _) = slow_log(&lossy(0));
    let settings = DeliverySettings {
        kept_bytes: 100_000,
        ..DeliverySettings::default()
    };
    let delivery = Arc::new(Delivery::start(&backplane, &settings));
    let ann = Recorder::new("ann");
    join(&delivery, &ann, ReplayFrom::Live).await;
    say_many(&backplane, 500).await;
    assert_eq!(delivery.kept_bytes(), 0, "no connection has come back yet");
    let joined = storm(&delivery, (0..50).map(|n| n * 10)).await;
    all_received(&joined, 500).await;
    let kept = delivery.kept_bytes();
    assert!((50_000..=100_000).contains(&kept), "{kept}");
    say_many(&backplane, 50).await;
    all_received(&joined, 550).await;
    assert!(delivery.kept_bytes() <= 100_000);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(delivery.kept_bytes(), 0, "the tail was unused for 10 s");
    all_received(&storm(&delivery, [540]).await, 550).await;
    assert!(delivery.kept_bytes() > 0);
    delivery.leave(&room(), &ann.conn).await;
    for n in 0..50 {
        delivery
            .leave(&room(), &ConnId::trusted(&format!("conn-joiner{n}")))
            .await;
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(
        (delivery.kept_bytes(), delivery.rooms()),
        (0, 0),
        "the tail was dropped with the feed"
    );
}

/// Calls a function at each event, before the recorder gets it.
struct Observed(Arc<Recorder>, Box<dyn Fn() + Send + Sync>);

impl Outlet for Observed {
    fn conn(&self) -> &ConnId {
        self.0.conn()
    }
    fn user(&self) -> &UserId {
        self.0.user()
    }
    fn deliver(&self, event: &SharedEvent) {
        (self.1)();
        self.0.deliver(event);
    }
    fn has_capacity(&self) -> bool {
        self.0.has_capacity()
    }
    fn when_writable(&self, wake: Box<dyn FnOnce() + Send>) {
        self.0.when_writable(wake);
    }
    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
    fn close(&self, reason: CloseReason) {
        self.0.close(reason);
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_message_does_not_wait_for_replays() {
    let (backplane, log) = fake();
    let delivery = Arc::new(start(&backplane, 1, 500));
    let bus = delivery.queues.clone();
    (1..=1000).for_each(|seq| drop(log.add(seq)));
    let replayed = Arc::new(AtomicU64::new(0));
    let (first, quick) = (Recorder::new("first"), Recorder::new("quick"));
    let replayed_before = Arc::new(Mutex::new(Vec::new()));
    let observe = {
        let (replayed_before, replayed) = (replayed_before.clone(), replayed.clone());
        Box::new(move || replayed_before.lock().push(replayed.load(Ordering::SeqCst)))
    };
    let ann = Arc::new(Observed(quick.clone(), observe));
    delivery
        .join(
            room(),
            ann,
            Username::from(&quick.user),
            ReplayFrom::Live,
            Box::new(|_| ()),
        )
        .await
        .unwrap();
    assert_eq!(
        replayed_before.lock().drain(..).collect::<Vec<_>>(),
        [0],
        "its room_users"
    );
    // The first replayed message causes another one to be published.
    let mut joins = JoinSet::new();
    for n in 0..50 {
        let outlet = if n == 0 {
            first.clone()
        } else {
            Recorder::new(&format!("other{n}"))
        };
        let (delivery, bus, log, replayed) =
            (delivery.clone(), bus.clone(), log.clone(), replayed.clone());
        let publish_once = Box::new(move || {
            if replayed.fetch_add(1, Ordering::SeqCst) == 0 {
                bus.event(BusEvent::Message(room(), log.add(1001)));
            }
        });
        let username = Username::from(&outlet.user);
        let outlet = Arc::new(Observed(outlet, publish_once));
        joins.spawn(async move {
            delivery
                .join(room(), outlet, username, since(0), Box::new(|_| ()))
                .await
                .unwrap();
        });
    }
    joins.join_all().await;
    eventually("both have all", || {
        first.seqs().len() == 1001 && quick.seqs() == [1001]
    })
    .await;
    let replayed_before = replayed_before.lock();
    let before = replayed_before.last().copied().unwrap();
    assert!(
        before <= 1000,
        "{before} of 50000 messages were replayed before a live one"
    );
}

#[tokio::test(start_paused = true)]
async fn a_tail_is_sent_only_while_the_outlet_has_capacity() {
    let (backplane, log) = fake();
    let delivery = Arc::new(start(&backplane, 1, 500));
    (1..=100).for_each(|seq| drop(log.add(seq)));
    join(&delivery, &Recorder::new("ann"), since(0)).await;
    let bob = Recorder::new("bob");
    let fill = {
        let bob = bob.clone();
        Box::new(move || bob.full.store(bob.seqs().len() % 10 == 9, Ordering::SeqCst))
    };
    let (observed, username) = (
        Arc::new(Observed(bob.clone(), fill)),
        Username::from(&bob.user),
    );
    let joining = tokio::spawn(async move {
        delivery
            .join(room(), observed, username, since(0), Box::new(|_| ()))
            .await
            .unwrap();
    });
    for sent in 1..=9 {
        eventually("the replay waits", || !bob.wakers.lock().is_empty()).await;
        assert_eq!(bob.seqs().len(), sent * 10);
        bob.drain();
    }
    joining.await.unwrap();
    assert_eq!(bob.seqs().len(), 100);
    assert_eq!(bob.story().last().unwrap(), "users 2/2");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_that_the_tail_has_left_behind_is_served_from_the_log() {
    let (backplane, log) = slow_log(&lossy(0));
    let delivery = Arc::new(start(&backplane, 1, 500));
    let slow = Recorder::new("slow");
    say_many(&backplane, 100).await;
    slow.full.store(true, Ordering::SeqCst);
    let joining = {
        let (delivery, slow) = (delivery.clone(), slow.clone());
        tokio::spawn(async move { join(&delivery, &slow, since(0)).await })
    };
    all_received(&storm(&delivery, (0..10).map(|n| n * 10)).await, 100).await;
    say_many(&backplane, 3000).await;
    slow.drain();
    assert_eq!(joining.await.unwrap().replayed, 100);
    all_received(&[(0, slow)], 3100).await;
    let reads = log.reads.load(Ordering::SeqCst);
    assert!(
        (18..=20).contains(&reads),
        "{reads} reads: 1 for the others, then pages up to the tail"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_epoch_is_not_served_from_the_tail_of_the_old_one() {
    let (backplane, log) = fake();
    let delivery = Arc::new(start(&backplane, 1, 500));
    let bus = delivery.queues.clone();
    let (ann, bob) = (Recorder::new("ann"), Recorder::new("bob"));
    (1..=20).for_each(|seq| drop(log.add(seq)));
    join(&delivery, &ann, since(0)).await;
    assert!(delivery.kept_bytes() > 0);
    // The messages from 11 on are lost, and other ones follow 10, further than the feed's position.
    log.roll_back(10, "e2");
    (11..=30).for_each(|seq| drop(log.add(seq)));
    let before = ReplayFrom::Since {
        seq: 5,
        epoch: Some(Epoch::trusted("e1")),
        limit: None,
    };
    assert!(join(&delivery, &bob, before).await.recovered);
    bus.event(BusEvent::Message(room(), log.add(31)));
    eventually("bob has all", || bob.seqs() == (6..=31).collect::<Vec<_>>()).await;
    for event in bob.seen.lock().iter() {
        let Event::Message(entry) = event else {
            continue;
        };
        assert_eq!(
            entry.epoch.as_str(),
            if entry.seq <= 10 { "e1" } else { "e2" },
            "{}",
            entry.seq
        );
    }
    eventually("ann goes on", || ann.seqs().ends_with(&[30, 31])).await;
    assert!(ann.story().contains(&"reset e2 10.. Some(11)".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_finds_another_epoch_is_not_added_to_the_tail() {
    let (inner, log) = fake();
    let (backplane, _) = slow_log(&inner);
    let delivery = Arc::new(start(&backplane, 1, 500));
    let bob = Recorder::new("bob");
    (1..=20).for_each(|seq| drop(log.add(seq)));
    let joining = {
        let (delivery, bob) = (delivery.clone(), bob.clone());
        tokio::spawn(async move { join(&delivery, &bob, since(5)).await })
    };
    tokio::time::sleep(READ_TIME / 4).await;
    log.roll_back(10, "e2");
    (11..=25).for_each(|seq| drop(log.add(seq)));
    assert_eq!(
        joining.await.unwrap().head.epoch.as_str(),
        "e1",
        "the join was processed before"
    );
    eventually("bob has all", || bob.seqs() == (6..=25).collect::<Vec<_>>()).await;
}

#[tokio::test(start_paused = true)]
async fn an_occupant_ahead_of_the_feed_waits_for_the_bus_and_then_for_one_read() {
    let (backplane, log) = fake();
    let delivery = Arc::new(start(&backplane, 1, 500));
    let bus = delivery.queues.clone();
    let [ann, bob, cid] = ["ann", "bob", "cid"].map(Recorder::new);
    join(&delivery, &ann, ReplayFrom::Live).await;
    let reads = || {
        (
            delivery.counters().catch_ups.get(),
            delivery.counters().replay_reads.get(),
        )
    };
    // Still on the bus when bob's join is acknowledged.
    let late = log.add(1);
    let joining = {
        let (delivery, bob) = (delivery.clone(), bob.clone());
        tokio::spawn(async move { join(&delivery, &bob, since(0)).await })
    };
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(bob.story(), [""; 0]);
    bus.event(BusEvent::Message(room(), late));
    assert_eq!(joining.await.unwrap().replayed, 1);
    assert_eq!(
        (bob.story(), reads()),
        (vec!["1".to_owned(), "users 2/2".to_owned()], (0, 0))
    );
    // Lost by the bus.
    drop(log.add(2));
    let began = tokio::time::Instant::now();
    join(&delivery, &cid, since(1)).await;
    assert!(began.elapsed() < Duration::from_millis(500));
    assert_eq!(
        (cid.seqs(), reads()),
        (vec![2], (1, 0)),
        "one read, for all"
    );
    eventually("all have it", || {
        ann.seqs() == [1, 2] && bob.seqs() == [1, 2]
    })
    .await;
}
