//! The node's identity in Redis: its incarnation, its lease, and the heartbeats that prolong it.
//!
//! A node writes as an *incarnation*, a random name that holds a lease by Redis's clock. An
//! incarnation whose lease expires is condemned, fenced and reaped by another node. If this node is
//! still alive then, it takes another incarnation and registers its connections again. If Redis has
//! lost the lease itself, it has lost other data too: then everything is restored, and each room that
//! lacked members gets one `Restored` change.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::fault::Fault;
use super::keys::{LAYOUT_VERSION, Partition};
use super::link::millis;
use super::script::HEARTBEAT;
use super::{Node, StartError};

/// Failed heartbeats in a row after which the node is down.
const MAX_MISSED_BEATS: u32 = 2;
/// Dead incarnations that one heartbeat may be handed.
const DEAD_PER_BEAT: i64 = 20;

/// The state of the node's lease.
pub(super) struct Lease {
    state: Mutex<State>,
    missed_beats: AtomicU32,
    is_up: AtomicBool,
    /// Why this Redis can't be used, as it was logged last.
    unusable: Mutex<Option<String>>,
    /// Held during a renewal, so that there is one at a time.
    renewing: tokio::sync::Mutex<()>,
    pending_repair: Mutex<Option<PendingRepair>>,
}

/// A restoration of this node's connections that is still to be made.
pub(super) struct PendingRepair {
    /// Whether Redis has lost data.
    pub(super) data_lost: bool,
    pub(super) scope: RepairScope,
}

/// The partitions that a repair restores.
pub(super) enum RepairScope {
    Everything,
    Partitions(HashSet<Partition>),
}

impl PendingRepair {
    /// A repair of one partition that has lost no data.
    pub(super) fn of(partition: Partition) -> Self {
        Self {
            data_lost: false,
            scope: RepairScope::Partitions(HashSet::from([partition])),
        }
    }

    fn merge(self, other: Self) -> Self {
        Self {
            data_lost: self.data_lost || other.data_lost,
            scope: match (self.scope, other.scope) {
                (RepairScope::Partitions(mut all), RepairScope::Partitions(more)) => {
                    all.extend(more);
                    RepairScope::Partitions(all)
                }
                _ => RepairScope::Everything,
            },
        }
    }
}

impl RepairScope {
    pub(super) fn contains(&self, partition: Partition) -> bool {
        match self {
            Self::Everything => true,
            Self::Partitions(partitions) => partitions.contains(&partition),
        }
    }
}

struct State {
    incarnation: Arc<str>,
    /// Whether Redis has confirmed the lease. Nothing may be written before: without a lease, no
    /// node would ever reap it.
    is_held: bool,
}

impl State {
    /// Another incarnation, without a lease.
    fn fresh() -> Self {
        Self {
            incarnation: Uuid::new_v4().simple().to_string()[..16].into(),
            is_held: false,
        }
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            state: Mutex::new(State::fresh()),
            missed_beats: AtomicU32::new(MAX_MISSED_BEATS),
            is_up: AtomicBool::new(false),
            unusable: Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
            pending_repair: Mutex::default(),
        }
    }
}

impl Lease {
    /// The incarnation, if the node may write.
    pub(super) fn incarnation(&self) -> Result<Arc<str>, Fault> {
        let state = self.state.lock();
        if state.is_held {
            Ok(state.incarnation.clone())
        } else {
            Err(Fault::unavailable("the node has no lease yet"))
        }
    }

    /// Whether heartbeats succeed.
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// The pending repair, which the caller must make or request again.
    pub(super) fn take_repair(&self) -> Option<PendingRepair> {
        self.pending_repair.lock().take()
    }

    /// Requests a repair, in addition to those that are pending.
    pub(super) fn request_repair(&self, repair: PendingRepair) {
        let mut pending = self.pending_repair.lock();
        *pending = Some(match pending.take() {
            Some(earlier) => earlier.merge(repair),
            None => repair,
        });
    }

    /// Gives up the incarnation for good and returns it: the node writes nothing any more.
    pub(super) fn give_up(&self) -> Result<Arc<str>, Fault> {
        let incarnation = self.incarnation()?;
        self.state.lock().is_held = false;
        Ok(incarnation)
    }

    /// Logs why this Redis can't be used, unless the last heartbeat found the same reason. `None`: it
    /// can be used.
    fn report_unusable(&self, reason: Option<String>) {
        let mut last = self.unusable.lock();
        if let Some(reason) = &reason
            && last.as_ref() != Some(reason)
        {
            tracing::error!(error = reason, "redis: this Redis is not used");
        }
        *last = reason;
    }

    fn is_down(&self) -> bool {
        self.missed_beats.load(Ordering::Relaxed) >= MAX_MISSED_BEATS
    }
}

impl Node {
    /// Sends heartbeats for ever.
    pub(super) async fn send_heartbeats(self: Arc<Self>) {
        loop {
            let beat = self.beat(DEAD_PER_BEAT);
            let beat = tokio::time::timeout(self.settings.beat_timeout, beat).await;
            let wait = match beat.unwrap_or_else(|_| Err(Fault::unavailable("no reply in time"))) {
                Ok(dead) => {
                    self.on_beat().await;
                    for incarnation in dead {
                        self.clone().begin_reaping(incarnation);
                    }
                    self.until_next_beat()
                }
                // The node has another incarnation now, which needs a lease at once.
                Err(Fault::Fenced) => Duration::ZERO,
                Err(fault) => {
                    self.on_missed_beat(&fault);
                    self.until_next_beat()
                }
            };
            self.check_denied_rights().await;
            tokio::time::sleep(wait).await;
        }
    }

    /// The first heartbeat, which brings the node up before it is used, provided that Redis is
    /// there.
    pub(super) async fn send_first_heartbeat(&self) {
        let beat = tokio::time::timeout(self.settings.beat_timeout, self.beat(0)).await;
        if matches!(beat, Ok(Ok(_))) {
            self.on_beat().await;
        }
    }

    async fn on_beat(&self) {
        let was_down = self.lease.missed_beats.swap(0, Ordering::Relaxed) >= MAX_MISSED_BEATS;
        if !was_down {
            return;
        }
        let usable = self.check_server().await;
        let unusable = usable.as_ref().err().map(ToString::to_string);
        self.lease.report_unusable(unusable);
        // A node that is sent work must be able to do all of it, and each connection comes back in
        // its own time.
        if usable.is_ok() && self.link.is_connected() && self.bus.is_connected() {
            tracing::info!(redis = %self.description, "redis: up");
            self.lease.is_up.store(true, Ordering::Relaxed);
        } else {
            // As if the heartbeat had failed, so that the next one checks again.
            self.lease
                .missed_beats
                .store(MAX_MISSED_BEATS, Ordering::Relaxed);
        }
    }

    fn on_missed_beat(&self, fault: &Fault) {
        let missed = self.lease.missed_beats.fetch_add(1, Ordering::Relaxed) + 1;
        if missed >= MAX_MISSED_BEATS && self.lease.is_up.swap(false, Ordering::Relaxed) {
            tracing::warn!(?fault, "redis: down");
        }
    }

    /// The pause before the next heartbeat. While the node is down it is shorter, so that the node
    /// is back soon.
    fn until_next_beat(&self) -> Duration {
        if self.lease.is_down() {
            self.settings.beat_interval / 8
        } else {
            self.settings.beat_interval
        }
    }

    /// Prolongs the lease. Returns at most `limit` dead incarnations that this node must reap: no
    /// other node will while this node's claim to them lasts.
    async fn beat(&self, limit: i64) -> Result<Vec<String>, Fault> {
        let (incarnation, is_held) = {
            let state = self.lease.state.lock();
            (state.incarnation.clone(), state.is_held)
        };
        let claim = millis(self.settings.lease / 2);
        let args = vec![
            (&*incarnation).into(),
            millis(self.settings.lease).into(),
            claim.into(),
            limit.into(),
            LAYOUT_VERSION.into(),
            self.link.keys.last_beat_of_layout_1().unwrap_or("").into(),
            self.link.archive.id().into(),
        ];
        let mut reply = self.link.run(&HEARTBEAT, Partition::LEASES, args).await?;
        match reply.text()?.as_str() {
            "LAYOUT" => {
                return Err(self.on_foreign_data(&StartError::Layout(reply.text()?)));
            }
            "ARCHIVE" => {
                let conflict = self.link.archive.conflict(&reply.text()?, &self.link.keys);
                return Err(self.on_foreign_data(&conflict));
            }
            "GONE" => {
                self.replace_incarnation(&incarnation);
                return Err(Fault::Fenced);
            }
            "NEW" if is_held => {
                tracing::warn!("redis: the lease is gone, so data was lost; registering again");
                self.lease.request_repair(PendingRepair {
                    data_lost: true,
                    scope: RepairScope::Everything,
                });
            }
            _ => {}
        }
        self.link.has_foreign_data.store(false, Ordering::Relaxed);
        let mut state = self.lease.state.lock();
        if state.incarnation == incarnation {
            state.is_held = true;
        }
        drop(state);
        reply.texts()
    }

    /// Takes the node down: it must not write to data of another format, or of which another archive
    /// keeps the messages.
    fn on_foreign_data(&self, reason: &StartError) -> Fault {
        self.lease
            .missed_beats
            .store(MAX_MISSED_BEATS, Ordering::Relaxed);
        self.link.has_foreign_data.store(true, Ordering::Relaxed);
        let error = reason.to_string();
        self.lease.report_unusable(Some(error.clone()));
        Fault::unavailable(error)
    }

    /// Takes another incarnation in place of `old`, unless that was done already.
    fn replace_incarnation(&self, old: &str) {
        let mut state = self.lease.state.lock();
        if &*state.incarnation == old {
            tracing::warn!("redis: the lease of this node had expired; registering again");
            *state = State::fresh();
            self.lease.request_repair(PendingRepair {
                data_lost: false,
                scope: RepairScope::Everything,
            });
        }
    }

    /// Takes another incarnation with a lease, after `old` was reaped.
    pub(super) async fn renew_incarnation(&self, old: &str) -> Result<(), Fault> {
        let _one_at_a_time = self.lease.renewing.lock().await;
        self.replace_incarnation(old);
        if self.lease.incarnation().is_err() {
            self.beat(0).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_repairs_add_up() {
        let lease = Lease::default();
        let (one, other) = (Partition::LEASES, Partition::all().next().unwrap());
        lease.request_repair(PendingRepair::of(one));
        lease.request_repair(PendingRepair {
            data_lost: true,
            ..PendingRepair::of(other)
        });
        let repair = lease.take_repair().unwrap();
        assert!(repair.data_lost && repair.scope.contains(one) && repair.scope.contains(other));
        assert!(lease.take_repair().is_none());
        lease.request_repair(PendingRepair {
            data_lost: false,
            scope: RepairScope::Everything,
        });
        lease.request_repair(PendingRepair::of(one));
        assert!(lease.take_repair().unwrap().scope.contains(other));
    }
}
