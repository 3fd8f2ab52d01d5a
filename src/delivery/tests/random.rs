//! Random scenarios: no occupant misses or repeats a message, or receives messages across a loss
//! without a reset.

use std::collections::HashMap;

use tokio::task::JoinHandle;

use super::storm::{since, slow_log};
use super::*;

/// A linear congruential generator: a seed gives the same scenario in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Gives the outlet capacity, and returns true when it has the last message or is closed.
fn has_ended(outlet: &Recorder, head: u64) -> bool {
    outlet.drain();
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

/// Connections join at random positions and read slowly, while messages are appended, events are
/// lost, and logs are trimmed.
async fn random_joins(seed: u64) {
    let mut random = Random(seed);
    let inner = memory::embedded(BackplaneLimits {
        history_size: 1500,
        ..BackplaneLimits::default()
    });
    let inner = Backplane {
        bus: Arc::new(LossyBus {
            inner: inner.bus.clone(),
            lost: random.below(3) * 10,
        }),
        ..inner
    };
    let (backplane, _) = slow_log(&inner);
    let kept_bytes = [usize::MAX, 20_000, 0][usize::try_from(random.below(3)).unwrap()];
    let settings = DeliverySettings {
        kept_bytes,
        ..DeliverySettings::default()
    };
    let delivery = Arc::new(Delivery::start(&backplane, &settings));
    let mut head = 0;
    let mut joins: Vec<(Arc<Recorder>, JoinHandle<JoinOutcome>)> = Vec::new();
    for _ in 0..300 {
        match random.below(8) {
            0..=2 => {
                for _ in 0..random.below(40) {
                    head = say(&backplane, "x").await;
                }
            }
            3 | 4 => {
                let seq = head.saturating_sub(random.below(1200));
                let outlet = Recorder::new(&format!("joiner{}", joins.len()));
                let (delivery, to) = (delivery.clone(), outlet.clone());
                joins.push((
                    outlet,
                    tokio::spawn(async move { join(&delivery, &to, since(seq)).await }),
                ));
            }
            5 | 6 if !joins.is_empty() => {
                let outlet = &joins[usize::try_from(random.below(joins.len() as u64)).unwrap()].0;
                if outlet.full.fetch_not(Ordering::SeqCst) {
                    outlet.drain();
                }
            }
            _ => tokio::time::sleep(Duration::from_millis(random.below(60))).await,
        }
    }
    head = say(&backplane, "last").await;
    let ended = || joins.iter().all(|(outlet, _)| has_ended(outlet, head));
    eventually("all have the last message, or are closed", ended).await;
    for (n, (outlet, joining)) in joins.into_iter().enumerate() {
        let outcome = joining.await.unwrap();
        let first = outcome.head.seq - outcome.replayed + 1;
        let seqs = outlet.seqs();
        assert!(
            seqs.iter().copied().eq(first..first + seqs.len() as u64),
            "seed {seed}, joiner {n} from {first}"
        );
    }
    assert!(delivery.kept_bytes() <= kept_bytes);
}

#[tokio::test(start_paused = true)]
async fn random_joins_over_a_lossy_bus_miss_and_repeat_no_message() {
    for seed in 0..40 {
        random_joins(seed).await;
    }
}

/// The history of a log that loses its numbering now and then.
struct History {
    log: Arc<FakeLog>,
    /// For each epoch that has ended, the `seq` after which its successor began.
    ends: HashMap<u64, u64>,
    epoch: u64,
}

impl History {
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

    /// The last `seq` that an older and a newer epoch have in common.
    fn shared(&self, older: u64, newer: u64) -> u64 {
        (older..newer)
            .map(|epoch| self.ends[&epoch])
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Checks that the events received after a join at `position` of `epoch` form one consistent
    /// sequence.
    fn check(&self, seen: &[Event], (mut epoch, mut position): (u64, u64), name: &str) {
        let mut reset = false;
        for event in seen {
            match event {
                Event::RoomReset { .. } => reset = true,
                Event::Message(entry) => {
                    let of: u64 = entry.epoch.as_str()[1..].parse().unwrap();
                    let context = format!(
                        "{name}: {} {} after {epoch} {position}",
                        entry.epoch, entry.seq
                    );
                    assert!(reset || entry.seq == position + 1, "{context}");
                    // A message of an older epoch must be part of the newer one, and a newer epoch
                    // must contain the position that was left.
                    let common = self.shared(of.min(epoch), of.max(epoch));
                    assert!(
                        reset || if of < epoch { entry.seq } else { position } <= common,
                        "{context}: lost at {common}"
                    );
                    (epoch, position, reset) = (of.max(epoch), entry.seq, false);
                }
                _ => {}
            }
        }
    }
}

async fn random_epochs(seed: u64) {
    let mut random = Random(seed);
    let (inner, log) = fake();
    let (backplane, _) = slow_log(&inner);
    let kept_bytes = [usize::MAX, 20_000, 0][usize::try_from(random.below(3)).unwrap()];
    let settings = DeliverySettings {
        kept_bytes,
        ..DeliverySettings::default()
    };
    let delivery = Arc::new(Delivery::start(&backplane, &settings));
    let bus = delivery.queues.clone();
    let mut history = History {
        log,
        ends: HashMap::new(),
        epoch: 1,
    };
    let trims = random.below(2) == 0;
    let mut joins: Vec<(Arc<Recorder>, JoinHandle<JoinOutcome>, u64, u64)> = Vec::new();
    for _ in 0..200 {
        match random.below(12) {
            0..=4 => {
                for _ in 0..random.below(30) {
                    let entry = history.log.add(history.head() + 1);
                    if random.below(10) > 0 {
                        bus.event(BusEvent::Message(room(), entry));
                    }
                }
            }
            5..=7 => {
                let seq = history.head().saturating_sub(random.below(300));
                let outlet = Recorder::new(&format!("joiner{}", joins.len()));
                let (delivery, to) = (delivery.clone(), outlet.clone());
                let joining = tokio::spawn(async move { join(&delivery, &to, since(seq)).await });
                joins.push((outlet, joining, seq, history.epoch));
            }
            8 if random.below(4) == 0 => {
                let end = history.head().saturating_sub(random.below(30));
                // Trimmed messages stay trimmed.
                history.roll_back(end.max(history.oldest() - 1));
            }
            9 if trims => {
                let head = history.head();
                let oldest = (head + 1)
                    .saturating_sub(100 + random.below(300))
                    .max(history.oldest());
                history.log.trim(oldest);
            }
            10 if !joins.is_empty() => {
                let outlet = &joins[usize::try_from(random.below(joins.len() as u64)).unwrap()].0;
                if outlet.full.fetch_not(Ordering::SeqCst) {
                    outlet.drain();
                }
            }
            _ => tokio::time::sleep(Duration::from_millis(random.below(60))).await,
        }
    }
    for _ in 0..3 {
        bus.event(BusEvent::Message(
            room(),
            history.log.add(history.head() + 1),
        ));
    }
    let ended = || {
        joins
            .iter()
            .all(|(outlet, ..)| has_ended(outlet, history.head()))
    };
    eventually("all have the last message, or are closed", ended).await;
    for (n, (outlet, joining, seq, began)) in joins.into_iter().enumerate() {
        let outcome = joining.await.unwrap();
        let epoch: u64 = outcome.head.epoch.as_str()[1..].parse().unwrap();
        let name = format!("seed {seed}, joiner {n} at {seq}");
        assert!(
            trims || began < history.epoch || !outlet.is_closed(),
            "{name}: closed without need"
        );
        let position = outcome.head.seq - outcome.replayed;
        history.check(&outlet.seen.lock(), (epoch, position), &name);
    }
}

#[tokio::test(start_paused = true)]
async fn random_joins_across_lost_epochs_receive_one_consistent_sequence() {
    for seed in 0..30 {
        random_epochs(seed).await;
    }
}
