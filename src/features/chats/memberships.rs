//! The rights of users in chats, as this node knows them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::refused;
use crate::delivery::ChatFeed;
use crate::domain::{Code, Membership, Refusal, RoomId, UserId};
use crate::store::{ChatStore, StoreError};

/// How long a right is used without a read: so a change takes effect on every node within this time,
/// even where its announcement is late.
const LIFETIME: Duration = Duration::from_millis(500);
/// How long a read may take where a known right can replace its result.
const READ_TIME: Duration = Duration::from_millis(250);
/// The time between two reads while the database is away.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The most rights that are known at once. Beyond it they are forgotten, and read again.
const MAX_KNOWN: usize = 1 << 18;

/// A chat and a user.
type Key = (Uuid, Uuid);

/// The rights of users in chats: read from the store, and kept for a moment.
///
/// While the database is away, a right that was read before goes on, as long as this node hears each
/// change of the chat's members. So members go on chatting, and a removal takes effect all the same.
pub struct Memberships {
    store: Arc<dyn ChatStore>,
    known: Mutex<Known>,
    /// While the database is away, one read at a time finds out whether it is back.
    probe: Arc<Semaphore>,
}

#[derive(Default)]
struct Known {
    rights: HashMap<Key, Right>,
    /// The number of changes so far. A right that was read before a change is not kept after it.
    changes: u64,
    outage: Option<Outage>,
}

/// A right that a user has.
#[derive(Clone, Copy)]
struct Right {
    membership: Membership,
    /// When the read began.
    read_at: Instant,
    /// The number of the chat's feed, if there was one when the read began. The feed has heard every
    /// change since.
    feed: Option<u64>,
}

/// Reads of the store fail, or take too long.
#[derive(Clone, Copy)]
struct Outage {
    /// When the next read may begin.
    probe_at: Instant,
    /// Whether a read has failed. Otherwise the database may only be slow: rights that nothing replaces
    /// are read then.
    has_failed: bool,
}

impl Memberships {
    /// The rights in this store.
    #[must_use]
    pub fn new(store: Arc<dyn ChatStore>) -> Self {
        Self {
            store,
            known: Mutex::default(),
            probe: Arc::new(Semaphore::new(1)),
        }
    }

    /// The rights of a user with an account in the room's chat. `None` without any, and for
    /// other rooms. `feed` returns the chat's feed on this node.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn find(
        self: &Arc<Self>,
        room: &RoomId,
        user: &UserId,
        feed: impl Fn() -> Option<ChatFeed>,
    ) -> Result<Option<Membership>, Refusal> {
        let Some(key) = key(room, user) else {
            return Ok(None);
        };
        match self.fresh(&key) {
            Some(membership) => Ok(Some(membership)),
            None => self.read(key, feed).await,
        }
    }

    /// As [`find`](Self::find), always by the store while the database answers.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn stored(
        self: &Arc<Self>,
        room: &RoomId,
        user: &UserId,
        feed: impl Fn() -> Option<ChatFeed>,
    ) -> Result<Option<Membership>, Refusal> {
        match key(room, user) {
            Some(key) => self.read(key, feed).await,
            None => Ok(None),
        }
    }

    /// Forgets the rights of a user in the room's chat, because they have changed. A call of
    /// [`find`](Self::find) that begins afterwards reads them. To be called when `member_added` or
    /// `member_removed` arrives.
    pub fn changed(&self, room: &RoomId, user: &UserId) {
        let Some(key) = key(room, user) else { return };
        let mut known = self.known.lock();
        known.changes += 1;
        known.rights.remove(&key);
    }

    fn fresh(&self, key: &Key) -> Option<Membership> {
        let known = self.known.lock();
        let right = known.rights.get(key)?;
        right.is_fresh().then_some(right.membership)
    }

    /// The right, if this feed has heard every change since it was read.
    fn heard(&self, key: &Key, feed: Option<ChatFeed>) -> Option<Membership> {
        let feed = feed?;
        let known = self.known.lock();
        let right = known.rights.get(key)?;
        (feed.is_current && right.feed == Some(feed.number)).then_some(right.membership)
    }

    /// Reads the store. If that fails or takes long, the right that is known counts, where the feed has
    /// heard every change since.
    async fn read(
        self: &Arc<Self>,
        key: Key,
        feed: impl Fn() -> Option<ChatFeed>,
    ) -> Result<Option<Membership>, Refusal> {
        let before = feed();
        let is_replaceable = self.heard(&key, before).is_some();
        if let Ok(probe) = self.may_read(is_replaceable) {
            let reading = self.clone().read_store(key, before, probe);
            if !is_replaceable {
                return reading.await;
            }
            // In a task, because the result of a read that takes longer counts for later calls.
            match timeout(READ_TIME, tokio::spawn(reading)).await {
                Ok(Ok(Err(refusal))) if refusal.code == Code::Unavailable => {}
                Ok(Ok(read)) => return read,
                // The read has panicked.
                Ok(Err(_)) => {}
                Err(_) => self.known.lock().begin_outage(false),
            }
        }
        // Not the right that was known before: it may have changed during the read.
        let membership = self.heard(&key, feed());
        membership.map(Some).ok_or_else(away)
    }

    /// Whether the store may be read now, with the permit of a probe while the database is away.
    fn may_read(&self, is_replaceable: bool) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let outage = self.known.lock().outage;
        match outage {
            None => Ok(None),
            Some(outage) if !outage.has_failed && !is_replaceable => Ok(None),
            Some(outage) if Instant::now() < outage.probe_at => Err(away()),
            Some(_) => {
                let probe = self.probe.clone().try_acquire_owned();
                probe.map(Some).map_err(|_| away())
            }
        }
    }

    async fn read_store(
        self: Arc<Self>,
        key: Key,
        feed: Option<ChatFeed>,
        _probe: Option<OwnedSemaphorePermit>,
    ) -> Result<Option<Membership>, Refusal> {
        let (chat, user) = key;
        let changes = self.known.lock().changes;
        let read_at = Instant::now();
        let read = self.store.membership(chat, user).await;
        let mut known = self.known.lock();
        match &read {
            Ok(Some(membership)) => {
                known.outage = None;
                let right = Right {
                    membership: *membership,
                    read_at,
                    feed: feed.map(|feed| feed.number),
                };
                if known.changes == changes {
                    known.make_space();
                    known.rights.insert(key, right);
                }
            }
            // A user who is added may use the chat at once, on every node. So it is never known that
            // there is no right.
            Ok(None) => {
                known.outage = None;
                known.rights.remove(&key);
            }
            Err(StoreError::Unavailable(_)) => known.begin_outage(true),
            Err(_) => {}
        }
        drop(known);
        read.map_err(refused)
    }
}

impl Right {
    fn is_fresh(&self) -> bool {
        self.read_at.elapsed() < LIFETIME
    }
}

impl Known {
    fn begin_outage(&mut self, has_failed: bool) {
        let had_failed = self.outage.is_some_and(|outage| outage.has_failed);
        self.outage = Some(Outage {
            probe_at: Instant::now() + PROBE_INTERVAL,
            has_failed: has_failed || had_failed,
        });
    }

    /// Forgets rights that are not used any more, or else all that would have to be read again.
    fn make_space(&mut self) {
        if self.rights.len() < MAX_KNOWN {
            return;
        }
        self.rights
            .retain(|_, right| right.is_fresh() || right.feed.is_some());
        if self.rights.len() >= MAX_KNOWN {
            self.rights.retain(|_, right| right.is_fresh());
        }
        if self.rights.len() >= MAX_KNOWN {
            self.rights.clear();
        }
    }
}

fn key(room: &RoomId, user: &UserId) -> Option<Key> {
    Some((room.chat_id()?, Uuid::try_parse(user.as_str()).ok()?))
}

/// The refusal while the database is known to be away.
fn away() -> Refusal {
    refused(StoreError::Unavailable("known to be away".to_owned()))
}
