//! The embedded backplane: all state in this process's memory, for a node that runs alone.
//!
//! Rooms and users are stored in shards, each behind its own lock. A lock guard never leaves
//! [`Memory`]'s methods and is never held across an await. Events are published while the shard is
//! locked: this makes "append and publish" one atomic step and keeps the events of a topic in order.

mod hot_log;
mod log;
mod occupants;
mod presence;
mod ranges;
mod restore;
mod room;
mod rooms;
#[cfg(test)]
mod tests;
mod user;

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ahash::{HashMap, HashSet, RandomState};
use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{
    Backplane, BackplaneKind, BackplaneLimits, Bus, BusEvent, BusSink, BusTopic, Counters,
    Lifecycle, ReadReceipt, RestoreSource, Result, Typing, is_permanent,
};
use crate::domain::{OnlineStatus, RoomChange, RoomId, UserId};
use hot_log::UnarchivedRooms;
use restore::{CONCURRENT_RESTORES, Restores};
use room::Room;
use rooms::Evictions;
use user::User;

/// Enough shards that two cores rarely contend for one lock.
const SHARDS: usize = 64;
/// How often expired graces are ended; a grace may last this much longer.
const GRACE_SWEEP: Duration = Duration::from_millis(50);
/// How often expired rooms and users are removed.
const TTL_SWEEP: Duration = Duration::from_secs(10);
/// Presence changes kept per room and per user.
const CHANGES_KEPT: usize = 128;

/// Creates an embedded backplane and starts the task that ends graces and removes expired state.
/// Must be called within a tokio runtime.
#[must_use]
pub fn embedded(limits: BackplaneLimits) -> Backplane {
    start(limits, None)
}

/// As [`embedded`], with an archive behind the rooms' logs.
#[must_use]
pub fn embedded_with_archive(
    limits: BackplaneLimits,
    restore: Arc<dyn RestoreSource>,
) -> Backplane {
    start(limits, Some(restore))
}

fn start(limits: BackplaneLimits, restore: Option<Arc<dyn RestoreSource>>) -> Backplane {
    let memory = Arc::new_cyclic(|this| Memory {
        this: this.clone(),
        limits,
        restore,
        rooms: Shards::default(),
        users: Shards::default(),
        room_count: AtomicUsize::new(0),
        restores: Mutex::default(),
        restore_permits: Semaphore::new(CONCURRENT_RESTORES),
        unarchived: Mutex::default(),
        evictions: Mutex::default(),
        topics: RwLock::default(),
        sink: OnceLock::new(),
        presence_changes: AtomicU64::new(0),
        sweeper: Mutex::new(None),
    });
    let weak = Arc::downgrade(&memory);
    let sweeper = tokio::spawn(async move {
        let mut tick = tokio::time::interval(GRACE_SWEEP);
        let mut next_ttl_sweep = Instant::now() + TTL_SWEEP;
        loop {
            tick.tick().await;
            let Some(memory) = weak.upgrade() else { return };
            let now = Instant::now();
            memory.end_graces(now);
            if now >= next_ttl_sweep {
                memory.remove_expired(now);
                next_ttl_sweep = now + TTL_SWEEP;
            }
        }
    });
    *memory.sweeper.lock() = Some(sweeper);
    Backplane {
        log: memory.clone(),
        hot_log: memory.clone(),
        presence: memory.clone(),
        bus: memory.clone(),
        rate_limiter: None,
        lifecycle: memory,
    }
}

/// The rooms or users behind one lock, and their running graces.
struct Shard<K, V> {
    entries: HashMap<K, V>,
    /// When to check whether a user's grace has ended, for which room or user. An element has
    /// no effect if the grace was ended or prolonged meanwhile.
    graces: Vec<(Instant, K, UserId)>,
}

struct Shards<K, V> {
    hasher: RandomState,
    shards: Vec<Mutex<Shard<K, V>>>,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        let shard = || {
            Mutex::new(Shard {
                entries: HashMap::default(),
                graces: Vec::new(),
            })
        };
        Self {
            hasher: RandomState::new(),
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
        }
    }
}

impl<K: Hash, V> Shards<K, V> {
    fn of(&self, key: &K) -> &Mutex<Shard<K, V>> {
        // The remainder is below SHARDS, so the narrowing loses nothing.
        let index = (self.hasher.hash_one(key) % SHARDS as u64) as usize;
        &self.shards[index]
    }
}

struct Memory {
    /// This backplane, for the tasks that it starts.
    this: Weak<Self>,
    limits: BackplaneLimits,
    /// The archive behind the rooms' logs, if there is one.
    restore: Option<Arc<dyn RestoreSource>>,
    rooms: Shards<RoomId, Room>,
    users: Shards<UserId, User>,
    room_count: AtomicUsize,
    restores: Mutex<Restores>,
    restore_permits: Semaphore,
    unarchived: Mutex<UnarchivedRooms>,
    evictions: Mutex<Evictions>,
    topics: RwLock<HashSet<BusTopic>>,
    sink: OnceLock<Arc<dyn BusSink>>,
    presence_changes: AtomicU64,
    sweeper: Mutex<Option<JoinHandle<()>>>,
}

impl Memory {
    /// Passes `event` to the sink if its topic is subscribed. Called while the topic's shard is
    /// locked, except for typing notices and disconnects, which need no order.
    fn publish(&self, topic: &BusTopic, event: BusEvent) {
        if matches!(
            event,
            BusEvent::RoomChanged(..) | BusEvent::StatusChanged(..)
        ) {
            self.presence_changes.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(sink) = self.sink.get()
            && self.topics.read().contains(topic)
        {
            sink.event(event);
        }
    }

    fn publish_change(&self, room: &RoomId, change: Option<RoomChange>) {
        if let Some(change) = change {
            self.publish(
                &BusTopic::Room(room.clone()),
                BusEvent::RoomChanged(room.clone(), change),
            );
        }
    }

    fn publish_status(&self, status: Option<OnlineStatus>) {
        if let Some(status) = status {
            self.publish(
                &BusTopic::User(status.user.clone()),
                BusEvent::StatusChanged(status),
            );
        }
    }

    fn end_graces(&self, now: Instant) {
        for shard in &self.rooms.shards {
            let mut shard = shard.lock();
            let Shard { entries, graces } = &mut *shard;
            for (_, id, user) in graces.extract_if(.., |(due, ..)| *due <= now) {
                let change = entries
                    .get_mut(&id)
                    .and_then(|room| room.occupants.end_grace(&user, now));
                self.publish_change(&id, change);
            }
        }
        for shard in &self.users.shards {
            let mut shard = shard.lock();
            let Shard { entries, graces } = &mut *shard;
            for (_, id, _) in graces.extract_if(.., |(due, ..)| *due <= now) {
                let status = entries
                    .get_mut(&id)
                    .and_then(|user| user.end_grace(&id, now));
                self.publish_status(status);
            }
        }
    }

    fn remove_expired(&self, now: Instant) {
        for shard in &self.rooms.shards {
            let mut removed = 0;
            shard.lock().entries.retain(|id, room| {
                let keep = is_permanent(id) || !room.is_expired(now, self.limits.room_ttl);
                removed += usize::from(!keep);
                keep
            });
            self.release_rooms(removed);
        }
        for shard in &self.users.shards {
            shard
                .lock()
                .entries
                .retain(|_, user| !user.is_expired(now, self.limits.room_ttl));
        }
    }
}

#[async_trait]
impl Bus for Memory {
    fn deliver_to(&self, sink: Arc<dyn BusSink>) {
        // The trait forbids a second call; if there is one, the first sink stays.
        let _ = self.sink.set(sink);
    }

    async fn subscribe(&self, topic: &BusTopic) -> Result<()> {
        self.topics.write().insert(topic.clone());
        Ok(())
    }

    async fn unsubscribe(&self, topic: &BusTopic) {
        self.topics.write().remove(topic);
    }

    fn is_lossless(&self) -> bool {
        true
    }

    async fn publish_typing(&self, typing: &Typing) -> Result<()> {
        let topic = BusTopic::Room(typing.room.clone());
        self.publish(&topic, BusEvent::Typing(typing.clone()));
        Ok(())
    }

    async fn publish_receipt(&self, receipt: &ReadReceipt) -> Result<()> {
        let topic = BusTopic::Room(receipt.room.clone());
        self.publish(&topic, BusEvent::Receipt(receipt.clone()));
        Ok(())
    }

    async fn publish_disconnect(&self, user: &UserId) -> Result<()> {
        self.publish(&BusTopic::Nodes, BusEvent::Disconnect(user.clone()));
        Ok(())
    }
}

#[async_trait]
impl Lifecycle for Memory {
    fn kind(&self) -> BackplaneKind {
        BackplaneKind::Embedded
    }

    fn describe(&self) -> String {
        "embedded".to_owned()
    }

    fn is_up(&self) -> bool {
        true
    }

    async fn deployment(&self) -> Result<Option<String>> {
        Ok(None)
    }

    fn counters(&self) -> Counters {
        Counters {
            presence_changes: self.presence_changes.load(Ordering::Relaxed),
            ..Counters::default()
        }
    }

    async fn stop(&self) {
        if let Some(sweeper) = self.sweeper.lock().take() {
            sweeper.abort();
        }
    }
}
