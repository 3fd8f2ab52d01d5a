//! The rights of users in chats, as this node knows them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::refused;
use crate::domain::{Membership, Refusal, RoomId, UserId};
use crate::store::ChatStore;

/// How long a right is known at most: so a change takes effect on every node within this time, even
/// where its announcement is late.
const LIFETIME: Duration = Duration::from_millis(500);
/// The most rights that are known at once. Beyond it they are forgotten, and read again.
const MAX_KNOWN: usize = 1 << 16;

/// A chat and a user.
type Key = (Uuid, Uuid);

/// The rights of users in chats: read from the store, and kept for a moment.
pub struct Memberships {
    store: Arc<dyn ChatStore>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    rights: HashMap<Key, (Option<Membership>, Instant)>,
    /// The number of changes so far. What was read before a change is not kept after it.
    changes: u64,
}

impl Memberships {
    /// The rights in this store.
    #[must_use]
    pub fn new(store: Arc<dyn ChatStore>) -> Self {
        Self {
            store,
            known: Mutex::default(),
        }
    }

    /// The rights of a user with an account in the chat whose room it is. `None` without any, and for
    /// other rooms.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn find(&self, room: &RoomId, user: &UserId) -> Result<Option<Membership>, Refusal> {
        let Some(key) = key(room, user) else {
            return Ok(None);
        };
        let changes = match self.known(&key) {
            Ok(membership) => return Ok(membership),
            Err(changes) => changes,
        };
        let read_at = Instant::now();
        let (chat, user) = key;
        let membership = self.store.membership(chat, user).await.map_err(refused)?;
        let mut known = self.known.lock();
        // A user who is added may use the chat at once, on every node. So it is never known that there is
        // no right.
        if membership.is_some() && known.changes == changes {
            known.make_space();
            known.rights.insert(key, (membership, read_at));
        }
        Ok(membership)
    }

    /// As [`find`](Self::find), always by the store.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn stored(
        &self,
        room: &RoomId,
        user: &UserId,
    ) -> Result<Option<Membership>, Refusal> {
        match key(room, user) {
            Some((chat, user)) => self.store.membership(chat, user).await.map_err(refused),
            None => Ok(None),
        }
    }

    /// What is known, or else the number of changes so far.
    fn known(&self, key: &Key) -> Result<Option<Membership>, u64> {
        let known = self.known.lock();
        match known.rights.get(key) {
            Some((membership, read_at)) if read_at.elapsed() < LIFETIME => Ok(*membership),
            _ => Err(known.changes),
        }
    }

    /// Forgets the rights of a user in the chat whose room it is, because they have changed. A call of
    /// [`find`](Self::find) that begins afterwards reads them. To be called when `member_added` or
    /// `member_removed` arrives, before the event is delivered.
    pub fn changed(&self, room: &RoomId, user: &UserId) {
        let Some(key) = key(room, user) else { return };
        let mut known = self.known.lock();
        known.changes += 1;
        known.rights.remove(&key);
    }
}

impl Known {
    fn make_space(&mut self) {
        if self.rights.len() < MAX_KNOWN {
            return;
        }
        self.rights
            .retain(|_, (_, read_at)| read_at.elapsed() < LIFETIME);
        if self.rights.len() >= MAX_KNOWN {
            self.rights.clear();
        }
    }
}

fn key(room: &RoomId, user: &UserId) -> Option<Key> {
    Some((room.chat_id()?, Uuid::try_parse(user.as_str()).ok()?))
}
