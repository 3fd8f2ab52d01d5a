//! Feeds across several epochs: messages kept from older ones are delivered once, and no occupant
//! is notified of a loss twice.

use super::*;
use crate::backplane::NewChange;

/// A live occupant that has the first five messages.
async fn live(delivery: &Delivery, log: &FakeLog) -> Arc<Recorder> {
    let ann = Recorder::new("ann");
    join(delivery, &ann, ReplayFrom::Live).await;
    for seq in 1..=5 {
        delivery
            .queues
            .event(BusEvent::Message(room(), log.add(seq)));
    }
    eventually("ann is live", || ann.seqs().len() == 5).await;
    ann
}

#[tokio::test(start_paused = true)]
async fn messages_kept_from_forgotten_epochs_are_delivered_once() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let ann = live(&delivery, &log).await;
    // Four epochs while the feed receives nothing, each longer than a page. Of the older ones only
    // their messages are known.
    for (number, end) in [1200, 2400, 3600, 4800].into_iter().enumerate() {
        (end - 1199..=end)
            .filter(|seq| *seq > 5)
            .for_each(|seq| drop(log.add(seq)));
        log.roll_back(end, &format!("e{}", number + 2));
    }
    log.forget_before(4800);
    log.add(4801);
    eventually("ann has all", || ann.seqs().last() == Some(&4801)).await;
    assert_eq!(ann.seqs(), (1..=4801).collect::<Vec<_>>());
    let resets: Vec<_> = ann
        .story()
        .into_iter()
        .filter(|event| event.starts_with("reset"))
        .collect();
    assert_eq!(resets, ["reset e5 5.. None"]);
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_was_lost_itself_is_left_where_it_had_begun() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let ann = live(&delivery, &log).await;
    let bus = delivery.queues.clone();
    // Ann gets 6 and 7 in an epoch that its server doesn't survive: the next epoch knows only the
    // one before.
    log.roll_back(5, "e2");
    (6..=7).for_each(|seq| bus.event(BusEvent::Message(room(), log.add(seq))));
    eventually("ann has both", || ann.seqs().len() == 7).await;
    log.roll_back(5, "e3");
    log.forget("e2");
    (6..=9).for_each(|seq| bus.event(BusEvent::Message(room(), log.add(seq))));
    eventually("ann goes on", || ann.seqs().len() == 11).await;
    assert_eq!(
        ann.story()[6..],
        ["6", "7", "reset e3 5.. Some(6)", "6", "7", "8", "9"]
    );
    // The loss of an epoch without messages causes no reset.
    log.roll_back(9, "e4");
    tokio::time::sleep(Duration::from_secs(5)).await;
    log.roll_back(9, "e5");
    log.forget("e4");
    bus.event(BusEvent::Message(room(), log.add(10)));
    eventually("ann goes on", || ann.seqs().len() == 12).await;
    assert_eq!(ann.story()[13..], ["10"]);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_goes_on_in_the_epoch_of_the_last_message_has_lost_nothing() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let ann = live(&delivery, &log).await;
    let bus = delivery.queues.clone();
    // Two primaries share an archive: this one has restored the messages of the other one.
    log.roll_back(5, "other");
    (6..=8).for_each(|seq| drop(log.add(seq)));
    log.roll_back(8, "here");
    log.forget("other");
    eventually("ann has the messages of both", || ann.seqs().len() == 8).await;
    // This primary ends. The other one goes on, and knows nothing of the epoch here.
    log.roll_back(8, "other");
    log.forget("here");
    bus.event(BusEvent::Message(room(), log.add(9)));
    eventually("ann goes on", || ann.seqs().len() == 9).await;
    assert_eq!(ann.story()[6..], ["6", "7", "8", "9"]);
}

#[tokio::test(start_paused = true)]
async fn an_occupant_that_joins_again_across_a_change_of_epoch_misses_nothing() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let ann = live(&delivery, &log).await;
    log.roll_back(5, "e2");
    (6..=9).for_each(|seq| drop(log.add(seq)));
    assert_eq!(join(&delivery, &ann, ReplayFrom::Live).await.head.seq, 9);
    delivery
        .queues
        .event(BusEvent::Message(room(), log.add(10)));
    eventually("ann goes on", || ann.seqs().last() == Some(&10)).await;
    assert_eq!(ann.seqs(), (1..=10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_occupant_ahead_of_the_feed_resumes_when_a_new_epoch_replaced_its_messages() {
    let (backplane, log) = fake();
    let delivery = Delivery::start(
        &backplane,
        &DeliverySettings {
            kept_bytes: 0,
            ..DeliverySettings::default()
        },
    );
    let ann = live(&delivery, &log).await;
    (6..=8).for_each(|seq| drop(log.add(seq)));
    // Bob is live at 8, by a page of the log, while the feed is at 5.
    let bob = Recorder::new("bob");
    join(
        &delivery,
        &bob,
        ReplayFrom::Since {
            seq: 4,
            epoch: None,
            limit: None,
        },
    )
    .await;
    assert_eq!(bob.seqs(), [5, 6, 7, 8]);
    log.roll_back(6, "e2");
    (7..=8).for_each(|seq| drop(log.add(seq)));
    delivery.queues.event(BusEvent::Message(room(), log.add(9)));
    eventually("ann goes on, and bob is closed to resume", || {
        ann.seqs().last() == Some(&9) && bob.is_closed()
    })
    .await;
    assert_eq!(ann.seqs(), (1..=9).collect::<Vec<_>>());
    assert_eq!(bob.seqs(), [5, 6, 7, 8]);
}

/// A log of which only a given number of further reads succeed.
pub(super) struct Faltering {
    pub log: Arc<FakeLog>,
    pub left: AtomicU64,
}

#[async_trait]
impl RoomLog for Faltering {
    async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
        self.log.append(message, key).await
    }
    async fn announce_all(
        &self,
        room: &RoomId,
        changes: &[NewChange],
    ) -> (Vec<Appended>, Result<()>) {
        self.log.announce_all(room, changes).await
    }

    async fn read(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Slice> {
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        left.map_err(|_| BackplaneError::Unavailable("on purpose".into()))?;
        self.log.read(room, window, limit, max_bytes).await
    }
    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        self.log.heads(rooms).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_occupant_that_joins_before_a_loss_is_reported_receives_no_reset() {
    let (backplane, log) = fake();
    let faltering = Arc::new(Faltering {
        log: log.clone(),
        left: AtomicU64::new(1000),
    });
    let delivery = start(
        &Backplane {
            log: faltering.clone(),
            ..backplane
        },
        1,
        500,
    );
    let ann = live(&delivery, &log).await;
    log.lose_all("e2");
    (1..=3).for_each(|seq| drop(log.add(seq)));
    // One read finds that everything is lost, and the next one, for the new messages, fails for a
    // while.
    faltering.left.store(1, Ordering::SeqCst);
    delivery.queues.interrupted(None);
    eventually("the loss is found", || {
        faltering.left.load(Ordering::SeqCst) == 0
    })
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Bob has all messages of the new epoch, from another node.
    let bob = Recorder::new("bob");
    let outcome = join(
        &delivery,
        &bob,
        ReplayFrom::Since {
            seq: 3,
            epoch: Some(Epoch::trusted("e2")),
            limit: None,
        },
    )
    .await;
    assert!(outcome.recovered);
    faltering.left.store(1000, Ordering::SeqCst);
    eventually("ann has the new messages", || ann.seqs().len() == 8).await;
    delivery.queues.event(BusEvent::Message(room(), log.add(4)));
    eventually("both go on", || {
        ann.seqs().len() == 9 && bob.seqs().last() == Some(&4)
    })
    .await;
    assert!(
        ann.story().contains(&"reset e2 0.. None".to_owned()),
        "{:?}",
        ann.story()
    );
    assert_eq!(bob.story(), ["users 2/2", "4"]);
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
        kind: EntryKind::Message,
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
            limit: None,
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
            limit: None,
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
