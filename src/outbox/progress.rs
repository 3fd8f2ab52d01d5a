//! How far the rows of a room were published, and its record in the store.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::announcements::{Announcement, Content};
use super::{POLL_INTERVAL, Worker};
use crate::domain::{Reaction, RoomId, Timestamp};
use crate::store::{Claim, OutboxRow, PublishedChange, StoreError};

/// The pause before a row is tried again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How far the rows of a room were published.
#[derive(Default)]
pub(super) struct Progress {
    /// These are in the log.
    published: Vec<Claim>,
    /// These changes of messages, too.
    pub changes: Vec<PublishedChange>,
    /// These have nothing to announce.
    skipped: Vec<Claim>,
    /// These can never be published, for these reasons.
    failed: Vec<(Claim, String)>,
    /// Why those that are left are tried again later.
    pub postponed: Option<String>,
}

/// The position of a row's entry.
pub(super) struct Position {
    pub seq: u64,
    pub at: Timestamp,
    /// Those of the entry; `None` if they are not known.
    pub reactions: Option<Vec<Reaction>>,
}

impl Progress {
    /// Adds the progress of another room.
    pub fn add(&mut self, other: Self) {
        self.published.extend(other.published);
        self.changes.extend(other.changes);
        self.skipped.extend(other.skipped);
        self.failed.extend(other.failed);
        self.postponed = self.postponed.take().or(other.postponed);
    }

    pub fn fail(&mut self, row: &OutboxRow, reason: impl Into<String>) {
        self.failed.push((row.claim(), reason.into()));
    }

    pub fn skip(&mut self, row: &OutboxRow) {
        self.skipped.push(row.claim());
    }

    /// Notes that a row is in the log.
    pub fn is_published(&mut self, room: &RoomId, announcement: Announcement, position: Position) {
        let claim = announcement.row.claim();
        let (kind, row) = match announcement.content {
            Content::Complete(_) => {
                self.published.push(claim);
                return;
            }
            Content::MessageChange(kind, row) => (kind, row),
        };
        self.changes.push(PublishedChange {
            claim,
            room: room.clone(),
            kind,
            row,
            seq: position.seq,
            at: position.at,
            reactions: position.reactions,
        });
    }
}

impl Worker {
    /// Records the progress, again and again while the lease lasts: until it has ended, no worker takes
    /// the rows that are left, nor later ones of the room.
    pub(super) async fn record(
        &self,
        progress: &Progress,
        left: &VecDeque<Announcement>,
        lease_end: Instant,
    ) -> Result<(), StoreError> {
        for (claim, reason) in &progress.failed {
            tracing::error!(
                row = claim.row,
                reason,
                "outbox: a row is given up; see hubbub outbox list"
            );
        }
        let left: Vec<&OutboxRow> = left.iter().map(|left| &left.row).collect();
        while let Err(error) = self.record_once(progress, &left).await {
            if Instant::now() + POLL_INTERVAL > lease_end {
                return Err(error);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        let published = progress.published.len() + progress.changes.len();
        self.published.add(published as u64);
        self.failed.add(progress.failed.len() as u64);
        self.postponed.add(u64::from(progress.postponed.is_some()));
        Ok(())
    }

    /// A repeat changes nothing.
    async fn record_once(
        &self,
        progress: &Progress,
        left: &[&OutboxRow],
    ) -> Result<(), StoreError> {
        if !progress.changes.is_empty() {
            self.messages.done(&progress.changes).await?;
            for change in &progress.changes {
                let (room, row) = (&change.room, &change.row);
                self.publications.recorded(room, row, change.seq);
            }
        }
        let done = [progress.published.as_slice(), &progress.skipped].concat();
        self.outbox.done(&done).await?;
        for (claim, reason) in &progress.failed {
            self.outbox.fail(*claim, reason).await?;
        }
        if let (Some(reason), Some(first)) = (&progress.postponed, left.first()) {
            let claims: Vec<Claim> = left.iter().map(|row| row.claim()).collect();
            let pause = backoff(first.attempts);
            self.outbox.retry(&claims, pause, reason).await?;
        }
        Ok(())
    }
}

/// The pause after so many attempts: doubled with each, and up to a fifth longer, so that rows which were
/// postponed at once are not due at once.
fn backoff(attempts: u64) -> Duration {
    let doubled = FIRST_PAUSE * 2_u32.pow(attempts.saturating_sub(1).min(7) as u32);
    let random = u32::from(Uuid::new_v4().as_bytes()[0]);
    let pause = doubled.min(LAST_PAUSE);
    pause + pause * random / (256 * 5)
}
