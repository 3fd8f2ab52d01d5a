//! How far users have read, and what they have not read.

use uuid::Uuid;

use super::{Messages, ReadingUser, message_ref, no_such_message, refused};
use crate::domain::policy::{Permit, Reading};
use crate::domain::{Refusal, UserId};
use crate::store::{NewPosition, ReadPosition, RoomUnread, ThreadCursor, UserThread};

impl Messages {
    /// The user has read the room up to `seq`, at most up to its head. A position is never lowered.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn read(
        &self,
        permit: &Permit<Reading>,
        by: &ReadingUser,
        seq: u64,
    ) -> Result<ReadPosition, Refusal> {
        let position = self.position(permit, by, seq).await?;
        let read = self.positions.read(&position).await.map_err(refused)?;
        if read.has_moved {
            self.send_receipt(permit.room(), &by.user, read.last_read_seq)
                .await;
            self.send_position(permit.room(), by, &read).await;
        }
        Ok(read)
    }

    /// Makes the message `seq` the first one that the user has not read.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn mark_unread(
        &self,
        permit: &Permit<Reading>,
        by: &ReadingUser,
        seq: u64,
    ) -> Result<ReadPosition, Refusal> {
        let position = self.position(permit, by, seq.saturating_sub(1)).await?;
        let set = self.positions.set(&position).await.map_err(refused)?;
        if set.has_moved {
            self.send_position(permit.room(), by, &set).await;
        }
        Ok(set)
    }

    /// The user has read the thread up to the reply `seq`.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn read_thread(
        &self,
        permit: &Permit<Reading>,
        by: &ReadingUser,
        root: Uuid,
        seq: u64,
    ) -> Result<ReadPosition, Refusal> {
        let root = message_ref(permit.room(), root);
        self.find(&root, permit.hidden_seq()).await?;
        let head = self.head(permit.room()).await?;
        let read = self
            .positions
            .read_thread(&root, &by.user, seq.min(head.seq))
            .await;
        read.map_err(refused)?.ok_or_else(no_such_message)
    }

    async fn position(
        &self,
        permit: &Permit<Reading>,
        by: &ReadingUser,
        seq: u64,
    ) -> Result<NewPosition, Refusal> {
        // Beyond the head, later messages would be read before they are sent.
        let head = self.head(permit.room()).await?;
        Ok(NewPosition {
            user: by.user.clone(),
            room: permit.room().clone(),
            seq: seq.min(head.seq),
            hidden_seq: permit.hidden_seq(),
            has_feed: by.has_account,
        })
    }

    /// All rooms of a user, with what the user has not read there.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn unread(&self, user: &UserId) -> Result<Vec<RoomUnread>, Refusal> {
        self.positions.unread(user).await.map_err(refused)
    }

    /// Threads of a user, the one with the newest reply first, at most `limit`, and whether more follow.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn threads(
        &self,
        user: &UserId,
        before: Option<ThreadCursor>,
        limit: usize,
    ) -> Result<(Vec<UserThread>, bool), Refusal> {
        let found = self.positions.threads(user, before, limit + 1).await;
        let mut threads = found.map_err(refused)?;
        let has_more = threads.len() > limit;
        threads.truncate(limit);
        Ok((threads, has_more))
    }
}
