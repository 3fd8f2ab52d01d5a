//! Changes messages at random: sends them, replies to them, edits, deletes and pins them, and reacts to
//! them. A change is made over the device's connection or over REST at a random node, and repeated until
//! it is answered.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::attempt::{Outcome, Wanted};
use super::fold::Shown;
use super::{DeviceConfig, OwnVersion, Request, Shared};
use crate::history::changes::{ChangeFact, MessageChange};
use crate::history::{Fact, Recorder};

/// Longer than a node waits for the announcement of a change: an attempt without an answer is over.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Changes are about the newest messages of a room.
const NEWEST: usize = 20;
/// All devices of an account edit a version with a number that this divides, as soon as they know it.
const RACE: u64 = 4;

pub(super) struct Changer {
    config: Arc<DeviceConfig>,
    rng: ChaCha8Rng,
    recorder: Recorder,
    shared: Arc<Mutex<Shared>>,
    requests: mpsc::Sender<Request>,
    own_versions: watch::Receiver<Option<OwnVersion>>,
    changes: u64,
}

impl Changer {
    pub fn new(
        (config, seed): (Arc<DeviceConfig>, u64),
        recorder: Recorder,
        shared: Arc<Mutex<Shared>>,
        (requests, own_versions): (mpsc::Sender<Request>, watch::Receiver<Option<OwnVersion>>),
    ) -> Self {
        Self {
            // Not the numbers of the reader.
            rng: ChaCha8Rng::seed_from_u64(!seed),
            config,
            recorder,
            shared,
            requests,
            own_versions,
            changes: 0,
        }
    }

    pub async fn run(mut self, mut changing: watch::Receiver<bool>) {
        loop {
            let factor = self.rng.random_range(0.5..1.5);
            let pause = sleep(self.config.change_interval.mul_f64(factor));
            tokio::pin!(pause);
            let raced = loop {
                tokio::select! {
                    () = &mut pause => break None,
                    changed = self.own_versions.changed() => {
                        let own = self.own_versions.borrow_and_update().clone();
                        let is_race = |own: &OwnVersion| own.version.is_multiple_of(RACE);
                        match own {
                            _ if changed.is_err() => return,
                            Some(own) if is_race(&own) => break Some(own),
                            _ => {}
                        }
                    }
                }
            };
            if changing.wait_for(|changing| *changing).await.is_err() {
                return;
            }
            let wanted = match raced {
                Some(own) => self.raced(&own),
                None => self.random(),
            };
            if let Some(wanted) = wanted {
                self.shared.lock().is_changing = true;
                self.perform(wanted).await;
                self.shared.lock().is_changing = false;
            }
        }
    }

    fn new_text(&mut self) -> String {
        self.changes += 1;
        format!("{}-{}", self.config.name, self.changes)
    }

    /// An edit of a version that has just become known.
    fn raced(&mut self, own: &OwnVersion) -> Option<Wanted> {
        let shown = {
            let shared = self.shared.lock();
            let message = shared.rooms.get(&own.room)?.fold.0.get(&own.seq)?;
            message.shown.clone()?
        };
        let change = MessageChange::Edit {
            content: self.new_text(),
            condition: Some(own.version),
        };
        Some(wanted(&own.room, &shown, change))
    }

    fn random(&mut self) -> Option<Wanted> {
        let room = self.config.rooms.iter().choose(&mut self.rng)?.clone();
        let newest: Vec<Shown> = {
            let shared = self.shared.lock();
            let live = shared.rooms.get(&room)?.fold.live();
            live.rev().take(NEWEST).cloned().collect()
        };
        let user = self.config.account.id.clone();
        let own = || newest.iter().filter(|shown| shown.user == user);
        let (target, change) = match self.rng.random_range(0..100) {
            0..25 => return Some(self.new_message(&room, &newest)),
            25..52 => {
                let target = own().choose(&mut self.rng)?;
                let content = self.new_text();
                let condition = self.rng.random_bool(0.7).then_some(target.version);
                (target, MessageChange::Edit { content, condition })
            }
            52..82 => {
                let emoji = self.config.emojis.iter().choose(&mut self.rng)?.clone();
                let on = self.rng.random_bool(0.6);
                let change = MessageChange::React { user, emoji, on };
                (newest.iter().choose(&mut self.rng)?, change)
            }
            82..92 => {
                let on = self.rng.random_bool(0.5);
                let target = newest.iter().choose(&mut self.rng)?;
                (target, MessageChange::Pin { on })
            }
            _ => {
                let is_moderator = self.config.is_moderator;
                let mut deletable = newest
                    .iter()
                    .filter(|shown| is_moderator || shown.user == user);
                (
                    deletable.by_ref().choose(&mut self.rng)?,
                    MessageChange::Delete,
                )
            }
        };
        Some(wanted(&room, target, change))
    }

    /// A new message, or a reply to a message that is none itself.
    fn new_message(&mut self, room: &str, newest: &[Shown]) -> Wanted {
        let roots = newest.iter().filter(|shown| shown.thread_id.is_none());
        let mut thread = None;
        if self.rng.random_bool(0.4) {
            thread = roots.choose(&mut self.rng).map(|root| root.id.clone());
        }
        let content = self.new_text();
        Wanted {
            room: room.to_owned(),
            target: 0,
            id: String::new(),
            send_key: content.clone(),
            change: MessageChange::Send { content, thread },
        }
    }

    /// Makes a change, and repeats it until it is answered.
    async fn perform(&mut self, wanted: Wanted) {
        let deadline = Instant::now() + self.config.timeout;
        let mut is_repeat = false;
        while Instant::now() < deadline {
            // Recorded first: the checker must know of every change that a node may have made.
            self.record(ChangeFact::Attempted {
                room: wanted.room.clone(),
                target: wanted.target,
                change: wanted.change.clone(),
                is_repeat,
            });
            let Wanted { room, change, .. } = &wanted;
            let (room, change) = (room.clone(), change.clone());
            match self.attempt(&wanted).await {
                Outcome::Acked { target, seq } => {
                    return self.record(ChangeFact::Acked {
                        room,
                        target,
                        seq,
                        change,
                    });
                }
                Outcome::Refused(code) => {
                    return self.record(ChangeFact::Refused {
                        room,
                        target: wanted.target,
                        change,
                        code,
                    });
                }
                Outcome::Unknown => sleep(RETRY_DELAY).await,
            }
            is_repeat = true;
        }
    }

    async fn attempt(&mut self, wanted: &Wanted) -> Outcome {
        if self.rng.random_bool(0.5) {
            let (method, path, body) = wanted.request();
            let index = self.rng.random_range(0..self.config.addresses.len());
            let address = self.config.addresses[index];
            let account = &self.config.account;
            let answer = account.request(method, address, &path, None, body.as_ref());
            return wanted.outcome_of_answer(&answer.await);
        }
        let (event, payload) = wanted.event();
        let (answer, answered) = oneshot::channel();
        let request = Request {
            event,
            payload,
            answer,
        };
        let asking = async {
            self.requests.send(request).await.ok()?;
            // The connection was lost.
            answered.await.ok()
        };
        match timeout(ANSWER_TIMEOUT, asking).await {
            Ok(Some(answer)) => wanted.outcome_of_ack(&answer),
            Ok(None) | Err(_) => Outcome::Unknown,
        }
    }

    fn record(&self, fact: ChangeFact) {
        self.recorder.record(&self.config.name, Fact::Change(fact));
    }
}

fn wanted(room: &str, target: &Shown, change: MessageChange) -> Wanted {
    Wanted {
        room: room.to_owned(),
        target: target.seq,
        id: target.id.clone(),
        change,
        send_key: String::new(),
    }
}
