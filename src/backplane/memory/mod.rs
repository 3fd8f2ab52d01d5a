//! The embedded backplane: all state in this process's memory, for a node that runs alone.
//!
//! Rooms and users are stored in shards, each behind its own lock. A lock guard never leaves
//! [`Memory`]'s methods and is never held across an await. Events are published while the shard is
//! locked: this makes "append and publish" one atomic step and keeps the events of a topic in order.

mod hot_log;
mod room;
mod user;

use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ahash::{HashMap, HashSet, RandomState};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{
    Appended, Backplane, BackplaneError, BackplaneKind, BackplaneLimits, Bus, BusEvent, BusSink,
    BusTopic, Changes, Counters, Joined, Lifecycle, OccupantPage, Presence, RestoreSource, Result,
    RoomLog, Roster, Slice, Typing, Window, is_permanent, record,
};
use crate::domain::{
    ConnId, Head, Limits, NewMessage, OnlineStatus, RoomChange, RoomId, UserId, Username,
};
use room::Room;
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
    let memory = Arc::new(Memory {
        limits,
        restore,
        rooms: Shards::default(),
        users: Shards::default(),
        room_count: AtomicUsize::new(0),
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
    limits: BackplaneLimits,
    #[expect(dead_code, reason = "the restore follows")]
    restore: Option<Arc<dyn RestoreSource>>,
    rooms: Shards<RoomId, Room>,
    users: Shards<UserId, User>,
    room_count: AtomicUsize,
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

    /// Runs `act` on the room, creating the room if it doesn't exist.
    fn with_room<T>(
        &self,
        room: &RoomId,
        act: impl FnOnce(&mut Room, &mut Vec<(Instant, RoomId, UserId)>) -> T,
    ) -> Result<T> {
        let mut shard = self.rooms.of(room).lock();
        let Shard { entries, graces } = &mut *shard;
        let room = match entries.entry(room.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let others = self.room_count.fetch_add(1, Ordering::Relaxed);
                if others >= self.limits.rooms {
                    self.room_count.fetch_sub(1, Ordering::Relaxed);
                    return Err(BackplaneError::Full);
                }
                vacant.insert(Room::new())
            }
        };
        room.forget_expired(&self.limits);
        Ok(act(room, graces))
    }

    fn append_encoded(
        &self,
        message: &NewMessage,
        key: Option<&str>,
        record: Bytes,
    ) -> Result<Appended> {
        self.with_room(&message.room, |room, _| {
            let (appended, entry) = room.append(message, key, record, &self.limits);
            if let Some(entry) = entry {
                self.publish(
                    &BusTopic::Room(message.room.clone()),
                    BusEvent::Message(message.room.clone(), entry),
                );
            }
            appended
        })
    }

    /// Runs `act` on the room if it exists.
    fn with_known_room<T>(&self, room: &RoomId, act: impl FnOnce(&mut Room) -> T) -> Option<T> {
        let mut shard = self.rooms.of(room).lock();
        let room = shard.entries.get_mut(room)?;
        room.forget_expired(&self.limits);
        Some(act(room))
    }

    fn end_graces(&self, now: Instant) {
        for shard in &self.rooms.shards {
            let mut shard = shard.lock();
            let Shard { entries, graces } = &mut *shard;
            for (_, id, user) in graces.extract_if(.., |(due, ..)| *due <= now) {
                let change = entries
                    .get_mut(&id)
                    .and_then(|room| room.end_grace(&user, now));
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
            self.room_count.fetch_sub(removed, Ordering::Relaxed);
        }
        for shard in &self.users.shards {
            shard
                .lock()
                .entries
                .retain(|_, user| !user.is_expired(now, self.limits.room_ttl));
        }
    }
}

/// The changes after `version` of a room or user that isn't known: version 0 is its state.
fn changes_of_unknown<T>(version: u64) -> Changes<T> {
    if version == 0 {
        Changes::Since(Vec::new())
    } else {
        Changes::TooOld
    }
}

#[async_trait]
impl RoomLog for Memory {
    async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
        self.append_encoded(message, key, record::encode(message))
    }

    async fn read(
        &self,
        room: &RoomId,
        window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Slice> {
        self.with_room(room, |room, _| room.read(window, limit, max_bytes))
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        Ok(rooms
            .iter()
            .map(|room| self.with_known_room(room, |room| room.span().head))
            .collect())
    }
}

#[async_trait]
impl Presence for Memory {
    async fn connect(&self, conn: &ConnId, user: &UserId, username: &Username) -> Result<()> {
        let mut shard = self.users.of(user).lock();
        let entry = shard.entries.entry(user.clone()).or_default();
        let status = entry.connect(conn, user, username, self.limits.sockets_per_user)?;
        self.publish_status(status);
        Ok(())
    }

    async fn join(
        &self,
        conn: &ConnId,
        user: &UserId,
        username: &Username,
        room: &RoomId,
    ) -> Result<Joined> {
        self.with_room(room, |entry, _| {
            let change = entry.join(conn, user, username);
            self.publish_change(room, change);
            Joined {
                span: entry.span(),
                roster: entry.roster(Limits::ROSTER, Some(user)),
            }
        })
    }

    async fn leave(&self, conn: &ConnId, _user: &UserId, room: &RoomId) -> Result<()> {
        self.with_known_room(room, |entry| {
            let change = entry.leave(conn);
            self.publish_change(room, change);
        });
        Ok(())
    }

    async fn connection_lost(&self, conn: &ConnId, user: &UserId, rooms: &[RoomId]) {
        let until = Instant::now() + self.limits.presence_grace;
        for room in rooms {
            let mut shard = self.rooms.of(room).lock();
            if shard
                .entries
                .get_mut(room)
                .is_some_and(|entry| entry.connection_lost(conn, until))
            {
                shard.graces.push((until, room.clone(), user.clone()));
            }
        }
        let mut shard = self.users.of(user).lock();
        if shard
            .entries
            .get_mut(user)
            .is_some_and(|entry| entry.connection_lost(conn, until))
        {
            shard.graces.push((until, user.clone(), user.clone()));
        }
    }

    async fn roster(&self, room: &RoomId, limit: usize) -> Result<Roster> {
        let known = self.with_known_room(room, |entry| entry.roster(limit, None));
        Ok(known.unwrap_or_else(Roster::empty))
    }

    async fn members(
        &self,
        room: &RoomId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<OccupantPage> {
        let known = self.with_known_room(room, |entry| entry.members(after, limit));
        Ok(known.unwrap_or(OccupantPage {
            members: Vec::new(),
            total: 0,
            next: None,
        }))
    }

    async fn is_occupant(&self, room: &RoomId, user: &UserId) -> Result<bool> {
        Ok(self
            .with_known_room(room, |entry| entry.is_occupant(user))
            .unwrap_or(false))
    }

    async fn room_changes(&self, room: &RoomId, version: u64) -> Result<Changes<RoomChange>> {
        let known = self.with_known_room(room, |entry| entry.changes_after(version));
        Ok(known.unwrap_or_else(|| changes_of_unknown(version)))
    }

    async fn connections(&self, user: &UserId) -> Result<Vec<ConnId>> {
        let shard = self.users.of(user).lock();
        Ok(shard
            .entries
            .get(user)
            .map(|entry| entry.connections())
            .unwrap_or_default())
    }

    async fn status(&self, user: &UserId) -> Result<OnlineStatus> {
        let shard = self.users.of(user).lock();
        let known = shard.entries.get(user).map(|entry| entry.status(user));
        Ok(known.unwrap_or_else(|| OnlineStatus::never_seen(user.clone())))
    }

    async fn status_changes(&self, user: &UserId, version: u64) -> Result<Changes<OnlineStatus>> {
        let shard = self.users.of(user).lock();
        let known = shard
            .entries
            .get(user)
            .map(|entry| entry.changes_after(version));
        Ok(known.unwrap_or_else(|| changes_of_unknown(version)))
    }

    async fn versions(&self, topics: &[BusTopic]) -> Result<Vec<u64>> {
        let version = |topic: &BusTopic| match topic {
            BusTopic::Room(room) => self.with_known_room(room, |entry| entry.version()),
            BusTopic::User(user) => self
                .users
                .of(user)
                .lock()
                .entries
                .get(user)
                .map(|entry| entry.status(user).version),
            BusTopic::Nodes => None,
        };
        Ok(topics
            .iter()
            .map(|topic| version(topic).unwrap_or(0))
            .collect())
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
