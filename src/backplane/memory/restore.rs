//! Restores: the archive decides how a room continues, before the room is used.
//!
//! A restore runs in a task of its own, so that it ends even if all calls that wait for it are
//! dropped. There is at most one for each room.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ahash::HashMap;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Memory;
use super::room::Room;
use uuid::Uuid;

use crate::backplane::unarchived::{PAGE_BYTES, PAGE_ENTRIES};
use crate::backplane::{
    Appended, BackplaneError, Entry, EntryKind, NewEntry, RestorePoint, RestoreSource, Result,
    UnarchivedCursor, UnarchivedEntries, Window,
};
use crate::domain::{Amendment, RoomId, UserId};

/// How long a restore may take for each page of entries, and after the last one. Calls that have waited
/// for as long fail, also if the restore goes on.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(4);
/// Restores that use the archive at the same time. More of them wait, and nothing else does.
pub(super) const CONCURRENT_RESTORES: usize = 64;

/// The rooms that are being restored, each with the calls that wait for it, in the order in which
/// they were begun. Locked after the room's shard.
pub(super) type Restores = HashMap<RoomId, Vec<Waiter>>;

/// A call that waits for a room. There are no more of them than calls.
pub(super) enum Waiter {
    /// An append, which is done with the restore: so appends keep their order, among themselves and
    /// before later ones.
    Append(Box<WaitingAppend>),
    /// Another call, which is repeated after the restore.
    Call(oneshot::Sender<Result<()>>),
}

pub(super) struct WaitingAppend {
    id: Uuid,
    room: RoomId,
    user: UserId,
    kind: EntryKind,
    amendment: Option<Box<Amendment>>,
    is_reply: bool,
    key: Option<Box<str>>,
    record: Bytes,
    outcome: oneshot::Sender<Result<Appended>>,
}

impl Waiter {
    /// Continues the call. Its caller may have been dropped.
    fn proceed(self, memory: &Memory, room: &mut Room) {
        match self {
            Self::Append(append) => {
                let entry = NewEntry {
                    id: append.id,
                    room: &append.room,
                    user: &append.user,
                    kind: append.kind,
                    amendment: append.amendment.as_deref(),
                    is_reply: append.is_reply,
                };
                let appended = memory.append_to(room, entry, append.key.as_deref(), append.record);
                let _ = append.outcome.send(Ok(appended));
            }
            Self::Call(outcome) => drop(outcome.send(Ok(()))),
        }
    }

    fn fail(self, error: BackplaneError) {
        match self {
            Self::Append(append) => drop(append.outcome.send(Err(error))),
            Self::Call(outcome) => drop(outcome.send(Err(error))),
        }
    }
}

/// A restore that runs. Dropping it before it has finished fails the calls that wait for it.
struct Restore<'a> {
    memory: &'a Memory,
    room: &'a RoomId,
    is_known: bool,
    result: Result<RestorePoint>,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Err(not_restored()));
        self.memory.finish_restore(self.room, self.is_known, result);
    }
}

/// See [`UnarchivedEntries`].
struct RoomEntries<'a> {
    memory: &'a Memory,
    room: &'a RoomId,
    cursor: UnarchivedCursor,
    /// The number of pages so far.
    pages: &'a AtomicUsize,
}

#[async_trait]
impl UnarchivedEntries for RoomEntries<'_> {
    async fn next_page(&mut self) -> Result<Vec<Entry>> {
        self.pages.fetch_add(1, Ordering::Relaxed);
        loop {
            let window = Window::After(self.cursor.reached());
            let read = |room: &mut Room| room.read_stored(window, PAGE_ENTRIES, PAGE_BYTES);
            let page = self.memory.without_use(self.room, read).unwrap_or_default();
            if page.is_empty() {
                return Ok(page);
            }
            let page = self.cursor.take(page);
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }
}

fn not_restored() -> BackplaneError {
    BackplaneError::Unavailable("the room was not restored from the archive".to_owned())
}

fn late() -> BackplaneError {
    BackplaneError::Unavailable("the archive did not restore the room in time".to_owned())
}

impl Memory {
    /// Waits until the room is restored, unless it is already.
    #[cold]
    pub(super) async fn restored(&self, room: &RoomId) -> Result<()> {
        let (sender, outcome) = oneshot::channel();
        self.wait(room, Waiter::Call(sender));
        outcome.await.unwrap_or_else(|_| Err(not_restored()))
    }

    /// Appends the message once the room is restored.
    #[cold]
    pub(super) fn append_restored(
        &self,
        entry: NewEntry<'_>,
        key: Option<&str>,
        record: Bytes,
    ) -> impl Future<Output = Result<Appended>> + use<> {
        let (sender, outcome) = oneshot::channel();
        let append = WaitingAppend {
            id: entry.id,
            room: entry.room.clone(),
            user: entry.user.clone(),
            kind: entry.kind,
            amendment: entry.amendment.cloned().map(Box::new),
            is_reply: entry.is_reply,
            key: key.map(Into::into),
            record,
            outcome: sender,
        };
        self.wait(entry.room, Waiter::Append(Box::new(append)));
        async { outcome.await.unwrap_or_else(|_| Err(not_restored())) }
    }

    /// Adds a call to those that wait for the room. The room's restore begins unless it runs already.
    /// If the room is restored, the call continues at once.
    fn wait(&self, id: &RoomId, waiter: Waiter) {
        let is_known = loop {
            let mut shard = self.rooms.of(id).lock();
            let room = shard.entries.get_mut(id);
            let is_known = room.is_some();
            if let Some(room) = room
                && !room.must_restore()
            {
                room.forget_expired(&self.limits);
                return waiter.proceed(self, room);
            }
            let mut restores = self.restores.lock();
            if let Some(waiting) = restores.get_mut(id) {
                return waiting.push(waiter);
            }
            if is_known || self.reserve_room() {
                restores.insert(id.clone(), vec![waiter]);
                break is_known;
            }
            drop(restores);
            drop(shard);
            if !self.evict_room() {
                return waiter.fail(BackplaneError::Full);
            }
        };
        self.begin_restore(id.clone(), is_known);
    }

    fn begin_restore(&self, room: RoomId, is_known: bool) {
        let memory = self.this.upgrade();
        let memory = memory.expect("a backplane that is used exists");
        tokio::spawn(async move {
            let mut restore = Restore {
                memory: &memory,
                room: &room,
                is_known,
                result: Err(not_restored()),
            };
            if let Some(source) = &memory.restore {
                restore.result = memory.ask_in_time(source.as_ref(), &room).await;
            }
        });
    }

    /// Queries the archive, which may take long if it has to read many entries.
    async fn ask_in_time(&self, source: &dyn RestoreSource, room: &RoomId) -> Result<RestorePoint> {
        let pages = AtomicUsize::new(0);
        let mut asked = std::pin::pin!(self.ask(source, room, &pages));
        loop {
            let before = pages.load(Ordering::Relaxed);
            if let Ok(point) = timeout(RESTORE_TIMEOUT, asked.as_mut()).await {
                return point;
            }
            if pages.load(Ordering::Relaxed) == before {
                return Err(late());
            }
            self.fail_waiting(room);
        }
    }

    async fn ask(
        &self,
        source: &dyn RestoreSource,
        room: &RoomId,
        pages: &AtomicUsize,
    ) -> Result<RestorePoint> {
        let _permit = self.restore_permits.acquire().await;
        let hot = self.without_use(room, |room| room.hot_state());
        let mut entries = RoomEntries {
            memory: self,
            room,
            cursor: UnarchivedCursor::of(hot.as_ref()),
            pages,
        };
        let point = source.restore_point(room, hot.as_ref(), &mut entries);
        let point = point.await?;
        point.check(hot.as_ref())?;
        Ok(point)
    }

    /// Fails the calls that wait for the room, whose restore goes on.
    fn fail_waiting(&self, room: &RoomId) {
        let waiting = {
            let mut restores = self.restores.lock();
            restores.get_mut(room).map(std::mem::take)
        };
        for waiter in waiting.unwrap_or_default() {
            waiter.fail(late());
        }
    }

    /// Ends a restore, and continues the calls that wait for it. `is_known`: the room existed before,
    /// and was not only reserved.
    fn finish_restore(&self, id: &RoomId, is_known: bool, result: Result<RestorePoint>) {
        let mut shard = self.rooms.of(id).lock();
        let waiting = self.restores.lock().remove(id).unwrap_or_default();
        match result {
            Ok(point) => {
                let room = shard
                    .entries
                    .entry(id.clone())
                    .or_insert_with(Room::archived);
                room.restore(point, &self.limits);
                room.forget_expired(&self.limits);
                self.list_unarchived(id, room);
                for waiter in waiting {
                    waiter.proceed(self, room);
                }
            }
            Err(error) => {
                if !is_known {
                    self.release_rooms(1);
                }
                drop(shard);
                for waiter in waiting {
                    waiter.fail(error.clone());
                }
            }
        }
    }
}
