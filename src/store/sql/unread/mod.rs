//! Positions of users, and the messages after them.
//!
//! | table | contents |
//! | --- | --- |
//! | `hubbub_positions` | how far users have read rooms |
//! | `hubbub_thread_positions` | the same of threads |
//! | `hubbub_threads` | the number of replies of each thread, and the last one |
//! | `hubbub_unread_rooms` | how far the blocks of a room go |
//! | `hubbub_unread_blocks` | the messages that count as unread, in blocks |
//!
//! Unread messages are not counted up: they are counted when they are asked for ([`count`]), from the
//! blocks ([`block`]) and, behind the last projected number, from the entries themselves. [`project()`]
//! brings the blocks up to date, off the path of a commit.
//!
//! The row of a thread is the lock of its totals, and the row of a room in `hubbub_unread_rooms` that of its
//! blocks. They are, in this order, the last locks of a
//! transaction on rows that exist ([`messages`](super::messages) lists their order); locks of several
//! rooms are taken in the order of their numbers.

mod announcements;
mod behind;
mod block;
mod changes;
mod count;
mod positions;
mod project;
mod rooms;
mod thread_totals;
mod threads;

use async_trait::async_trait;

pub(in crate::store::sql) use announcements::{
    claim as claim_announcements, next_due as next_due_announcement,
};
pub(super) use behind::Behind;
pub(in crate::store::sql) use changes::{entries_added, entries_cut, message_deleted};
pub(super) use project::{project, project_next};
pub(in crate::store::sql) use thread_totals::{
    NewReply, decode as decode_participants, delete_reply, replies_added,
};

use super::store::SqlStore;
use crate::domain::{RoomId, Timestamp, UserId};
use crate::store::{
    MessageRef, NewPosition, PositionStore, ReadPosition, Result, RoomUnread, ThreadCursor,
    UserThread,
};
use positions::Direction;

#[async_trait]
impl PositionStore for SqlStore {
    async fn read(&self, position: &NewPosition) -> Result<ReadPosition> {
        positions::move_to(self, position, Direction::Up).await
    }

    async fn set(&self, position: &NewPosition) -> Result<ReadPosition> {
        positions::move_to(self, position, Direction::Any).await
    }

    async fn read_thread(
        &self,
        root: &MessageRef,
        user: &UserId,
        seq: u64,
    ) -> Result<Option<ReadPosition>> {
        threads::read(self.db(), root, user, seq).await
    }

    async fn joined(&self, users: &[(UserId, RoomId, u64)]) -> Result<()> {
        positions::joined(self.db(), users).await
    }

    async fn unread(&self, user: &UserId) -> Result<Vec<RoomUnread>> {
        count::all(self, user).await
    }

    async fn unread_in(&self, user: &UserId, rooms: &[RoomId]) -> Result<Vec<RoomUnread>> {
        count::of_rooms(self, user, rooms).await
    }

    async fn readers(
        &self,
        room: &RoomId,
        seq: u64,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, u64, Timestamp)>> {
        positions::readers(self.db(), room, seq, after, limit).await
    }

    async fn threads(
        &self,
        user: &UserId,
        before: Option<ThreadCursor>,
        limit: usize,
    ) -> Result<Vec<UserThread>> {
        threads::page(self.db(), user, before, limit).await
    }
}
