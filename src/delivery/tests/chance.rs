//! Many short stories by chance: whatever happens, nobody misses or repeats a message, or is told of a lost one as if it
//! were not.

use std::collections::HashMap;

use tokio::task::JoinHandle;

use super::storm::{counted, since};
use super::*;

/// A linear congruential generator: the same story in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Reads on, and tells whether it has the last message, or is closed.
fn has_ended(outlet: &Recorder, head: u64) -> bool {
    outlet.take_more();
    let seen = outlet.seen.lock();
    let last = seen.iter().rev().find_map(|event| {
        if let Event::Message(entry) = event {
            Some(entry.seq)
        } else {
            None
        }
    });
    last == Some(head) || outlet.is_closed()
}

/// Members come back anywhere and read slowly, while messages are said, events are lost, and logs are trimmed.
async fn a_wild_hour(seed: u64) {
    let mut chance = Chance(seed);
    let inner = memory::embedded(BackplaneLimits {
        history_size: 1500,
        ..BackplaneLimits::default()
    });
    let inner = Backplane {
        bus: Arc::new(LossyBus {
            inner: inner.bus.clone(),
            lost: chance.below(3) * 10,
        }),
        ..inner
    };
    let (backplane, _) = counted(&inner);
    let kept_bytes = [usize::MAX, 20_000, 0][usize::try_from(chance.below(3)).unwrap()];
    let settings = DeliverySettings {
        kept_bytes,
        ..DeliverySettings::default()
    };
    let delivery = Arc::new(Delivery::start(&backplane, &settings));
    let mut head = 0;
    let mut members: Vec<(Arc<Recorder>, JoinHandle<JoinOutcome>)> = Vec::new();
    for _ in 0..300 {
        match chance.below(8) {
            0..=2 => {
                for _ in 0..chance.below(40) {
                    head = say(&backplane, "x").await;
                }
            }
            3 | 4 => {
                let seq = head.saturating_sub(chance.below(1200));
                let outlet = Recorder::new(&format!("member{}", members.len()));
                let (delivery, to) = (delivery.clone(), outlet.clone());
                members.push((
                    outlet,
                    tokio::spawn(async move { join(&delivery, &to, since(seq)).await }),
                ));
            }
            5 | 6 if !members.is_empty() => {
                let outlet =
                    &members[usize::try_from(chance.below(members.len() as u64)).unwrap()].0;
                if outlet.full.fetch_not(Ordering::SeqCst) {
                    outlet.take_more();
                }
            }
            _ => tokio::time::sleep(Duration::from_millis(chance.below(60))).await,
        }
    }
    head = say(&backplane, "last").await;
    let ended = || members.iter().all(|(outlet, _)| has_ended(outlet, head));
    eventually("everyone has the last message, or was outrun", ended).await;
    for (n, (outlet, joining)) in members.into_iter().enumerate() {
        let outcome = joining.await.unwrap();
        let first = outcome.head.seq - outcome.replayed + 1;
        let seqs = outlet.seqs();
        assert!(
            seqs.iter().copied().eq(first..first + seqs.len() as u64),
            "seed {seed}, member {n} from {first}"
        );
    }
    assert!(delivery.kept_bytes() <= kept_bytes);
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_nobody_misses_or_repeats_a_message() {
    for seed in 0..40 {
        a_wild_hour(seed).await;
    }
}

/// What may happen to a log whose numbering is lost now and then.
struct Life {
    log: Arc<FakeLog>,
    /// The `seq` after which an epoch's successor began.
    ends: HashMap<u64, u64>,
    epoch: u64,
}

impl Life {
    fn head(&self) -> u64 {
        self.log.state.lock().1.head.seq
    }

    fn oldest(&self) -> u64 {
        self.log.state.lock().1.oldest
    }

    fn roll_back(&mut self, end: u64) {
        self.ends.insert(self.epoch, end);
        self.epoch += 1;
        self.log.roll_back(end, &format!("e{}", self.epoch));
    }

    /// The last number that two epochs, the first of them the older, have in common.
    fn shared(&self, older: u64, newer: u64) -> u64 {
        (older..newer)
            .map(|epoch| self.ends[&epoch])
            .min()
            .unwrap_or(u64::MAX)
    }

    /// What came after a join at `position` of `epoch` is one story.
    fn check(&self, seen: &[Event], (mut epoch, mut position): (u64, u64), what: &str) {
        let mut reset = false;
        for event in seen {
            match event {
                Event::RoomReset { .. } => reset = true,
                Event::Message(entry) => {
                    let of: u64 = entry.epoch.as_str()[1..].parse().unwrap();
                    let told = format!(
                        "{what}: {} {} after {epoch} {position}",
                        entry.epoch, entry.seq
                    );
                    assert!(reset || entry.seq == position + 1, "{told}");
                    // One of an older epoch is part of the newer one, or the newer one goes on from where one was.
                    let common = self.shared(of.min(epoch), of.max(epoch));
                    assert!(
                        reset || if of < epoch { entry.seq } else { position } <= common,
                        "{told}: lost at {common}"
                    );
                    (epoch, position, reset) = (of.max(epoch), entry.seq, false);
                }
                _ => {}
            }
        }
    }
}

async fn a_wild_life(seed: u64) {
    let mut chance = Chance(seed);
    let (inner, log) = fake();
    let (backplane, _) = counted(&inner);
    let kept_bytes = [usize::MAX, 20_000, 0][usize::try_from(chance.below(3)).unwrap()];
    let settings = DeliverySettings {
        kept_bytes,
        ..DeliverySettings::default()
    };
    let delivery = Arc::new(Delivery::start(&backplane, &settings));
    let bus = delivery.queues.clone();
    let mut life = Life {
        log,
        ends: HashMap::new(),
        epoch: 1,
    };
    let trims = chance.below(2) == 0;
    let mut members: Vec<(Arc<Recorder>, JoinHandle<JoinOutcome>, u64, u64)> = Vec::new();
    for _ in 0..200 {
        match chance.below(12) {
            0..=4 => {
                for _ in 0..chance.below(30) {
                    let entry = life.log.say(life.head() + 1);
                    if chance.below(10) > 0 {
                        bus.event(BusEvent::Message(room(), entry));
                    }
                }
            }
            5..=7 => {
                let seq = life.head().saturating_sub(chance.below(300));
                let outlet = Recorder::new(&format!("member{}", members.len()));
                let (delivery, to) = (delivery.clone(), outlet.clone());
                let joining = tokio::spawn(async move { join(&delivery, &to, since(seq)).await });
                members.push((outlet, joining, seq, life.epoch));
            }
            8 if chance.below(4) == 0 => {
                let end = life.head().saturating_sub(chance.below(30));
                // What was trimmed stays so.
                life.roll_back(end.max(life.oldest() - 1));
            }
            9 if trims => {
                let head = life.head();
                let oldest = (head + 1)
                    .saturating_sub(100 + chance.below(300))
                    .max(life.oldest());
                life.log.trim(oldest);
            }
            10 if !members.is_empty() => {
                let outlet =
                    &members[usize::try_from(chance.below(members.len() as u64)).unwrap()].0;
                if outlet.full.fetch_not(Ordering::SeqCst) {
                    outlet.take_more();
                }
            }
            _ => tokio::time::sleep(Duration::from_millis(chance.below(60))).await,
        }
    }
    for _ in 0..3 {
        bus.event(BusEvent::Message(room(), life.log.say(life.head() + 1)));
    }
    let ended = || {
        members
            .iter()
            .all(|(outlet, ..)| has_ended(outlet, life.head()))
    };
    eventually("everyone has the last message, or was outrun", ended).await;
    for (n, (outlet, joining, seq, began)) in members.into_iter().enumerate() {
        let outcome = joining.await.unwrap();
        let epoch: u64 = outcome.head.epoch.as_str()[1..].parse().unwrap();
        let what = format!("seed {seed}, member {n} at {seq}");
        assert!(
            trims || began < life.epoch || !outlet.is_closed(),
            "{what}: closed without need"
        );
        let position = outcome.head.seq - outcome.replayed;
        life.check(&outlet.seen.lock(), (epoch, position), &what);
    }
}

#[tokio::test(start_paused = true)]
async fn through_lost_numberings_everyone_is_told_one_story() {
    for seed in 0..30 {
        a_wild_life(seed).await;
    }
}
