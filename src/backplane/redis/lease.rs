//! The node's life in Redis: its incarnation and its lease.
//!
//! A node writes as an *incarnation*, which holds a lease by Redis's clock. One that let its lease run out is given up,
//! fenced and reaped; the node then takes another incarnation and registers again. When Redis has lost the lease, it has
//! lost more: then everything is put back too, and rooms that lacked someone get one `Restored`.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::Node;
use super::keys::Partition;
use super::link::{Fault, millis};
use super::script::BEAT;

/// Heartbeats that may be missed.
const MISSES: u32 = 2;
/// Dead incarnations that one heartbeat may be handed.
const HANDED_OUT: i64 = 20;

/// What is known of the node's incarnation.
pub(super) struct Lease {
    state: Mutex<State>,
    missed: AtomicU32,
    up: AtomicBool,
    /// One renewal at a time.
    renewing: tokio::sync::Mutex<()>,
    owed: Mutex<Option<Owed>>,
}

/// What is to be put back.
pub(super) struct Owed {
    /// Redis has lost data.
    pub(super) data_lost: bool,
    /// Only what lies in these; `None`: everything.
    pub(super) only: Option<HashSet<Partition>>,
}

struct State {
    incarnation: Arc<str>,
    /// True once Redis has confirmed the lease: nothing may be written before, for nobody would ever reap it.
    held: bool,
}

fn another() -> Arc<str> {
    Uuid::new_v4().simple().to_string()[..16].into()
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                incarnation: another(),
                held: false,
            }),
            missed: AtomicU32::new(MISSES),
            up: AtomicBool::new(false),
            renewing: tokio::sync::Mutex::default(),
            owed: Mutex::default(),
        }
    }
}

impl Lease {
    /// Who the node is, if it may write.
    pub(super) fn incarnation(&self) -> Result<Arc<str>, Fault> {
        let state = self.state.lock();
        if state.held {
            Ok(state.incarnation.clone())
        } else {
            Err(Fault::unavailable("no lease yet"))
        }
    }

    /// Whether heartbeats get through.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// What is owed, which the caller is about to do.
    pub(super) fn take_owed(&self) -> Option<Owed> {
        self.owed.lock().take()
    }

    /// Everything live is to be put back; `data_lost` when Redis has lost data.
    pub(super) fn owe(&self, data_lost: bool) {
        let mut owed = self.owed.lock();
        let data_lost = data_lost || owed.as_ref().is_some_and(|owed| owed.data_lost);
        *owed = Some(Owed {
            data_lost,
            only: None,
        });
    }

    /// What is live in these partitions is to be put back, or put back again.
    pub(super) fn owe_partitions(&self, data_lost: bool, partitions: HashSet<Partition>) {
        let mut owed = self.owed.lock();
        let owed = owed.get_or_insert_with(|| Owed {
            data_lost,
            only: Some(HashSet::new()),
        });
        owed.data_lost |= data_lost;
        if let Some(only) = &mut owed.only {
            only.extend(partitions);
        }
    }

    /// Who the node was; it doesn't write as that any more.
    pub(super) fn give_up(&self) -> Result<Arc<str>, Fault> {
        let incarnation = self.incarnation()?;
        self.state.lock().held = false;
        Ok(incarnation)
    }
}

impl Node {
    /// Beats for ever.
    pub(super) async fn beat_on(self: Arc<Self>) {
        loop {
            let beat =
                tokio::time::timeout(self.settings.beat_timeout, self.beat(HANDED_OUT)).await;
            let done = beat.unwrap_or_else(|_| Err(Fault::unavailable("no heartbeat in time")));
            let wait = match done {
                Ok(dead) => {
                    self.beaten().await;
                    for incarnation in dead {
                        self.clone().begin_reaping(incarnation);
                    }
                    self.until_next_beat()
                }
                Err(Fault::Fenced) => Duration::ZERO,
                Err(fault) => self.missed(&fault),
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// The beat that brings the node up before it is handed out, when Redis is there.
    pub(super) async fn first_beat(&self) {
        let beat = tokio::time::timeout(self.settings.beat_timeout, self.beat(0)).await;
        if matches!(beat, Ok(Ok(_))) {
            self.beaten().await;
        }
    }

    async fn beaten(&self) {
        if self.lease.missed.swap(0, Ordering::Relaxed) < MISSES {
            return;
        }
        let fit = self.check_policy().await;
        if let Err(error) = &fit {
            tracing::error!(%error, "redis: not used");
        }
        // A node that is sent work must be able to do all of it: each connection comes back in its own time.
        if fit.is_ok() && self.link.is_whole() && self.bus.is_whole() {
            tracing::info!(redis = %self.describe, "redis: up");
            self.lease.up.store(true, Ordering::Relaxed);
        } else {
            // As if the beat were missed, so that the next one looks again.
            self.lease.missed.store(MISSES, Ordering::Relaxed);
        }
    }

    fn missed(&self, fault: &Fault) -> Duration {
        let missed = self.lease.missed.fetch_add(1, Ordering::Relaxed) + 1;
        if missed >= MISSES && self.lease.up.swap(false, Ordering::Relaxed) {
            tracing::warn!(?fault, "redis: down");
        }
        self.until_next_beat()
    }

    /// A node that is down looks more often, so that it is back soon.
    fn until_next_beat(&self) -> Duration {
        let down = self.lease.missed.load(Ordering::Relaxed) >= MISSES;
        if down {
            self.settings.beat_interval / 8
        } else {
            self.settings.beat_interval
        }
    }

    /// Prolongs the lease; the incarnations that this node shall reap, at most so many: who is handed one must reap it,
    /// for nobody else will while the claim lasts.
    async fn beat(&self, hand_out: i64) -> Result<Vec<String>, Fault> {
        let (incarnation, held) = {
            let state = self.lease.state.lock();
            (state.incarnation.clone(), state.held)
        };
        let claim = millis(self.settings.lease / 2);
        let args = vec![
            (&*incarnation).into(),
            millis(self.settings.lease).into(),
            claim.into(),
            hand_out.into(),
        ];
        let mut answer = self.link.run(&BEAT, Partition::LEASES, args).await?;
        match answer.text()?.as_str() {
            "GONE" => {
                self.renounce(&incarnation);
                return Err(Fault::Fenced);
            }
            "NEW" if held => {
                tracing::warn!("redis: the lease is gone, so data was lost; registering again");
                self.lease.owe(true);
            }
            _ => {}
        }
        let mut state = self.lease.state.lock();
        if state.incarnation == incarnation {
            state.held = true;
        }
        drop(state);
        answer.texts()
    }

    /// Takes another incarnation, unless that was done already.
    fn renounce(&self, old: &str) {
        let mut state = self.lease.state.lock();
        if &*state.incarnation == old {
            tracing::warn!("redis: this node was given up for dead; registering again");
            *state = State {
                incarnation: another(),
                held: false,
            };
            self.lease.owe(false);
        }
    }

    /// The incarnation was reaped: the node takes another, with a lease.
    pub(super) async fn renew(&self, old: &str) -> Result<(), Fault> {
        let _one = self.lease.renewing.lock().await;
        self.renounce(old);
        if self.lease.incarnation().is_err() {
            self.beat(0).await?;
        }
        Ok(())
    }
}
