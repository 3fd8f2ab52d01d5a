//! Publishes the rows of one room: all in one call and one commit, and each once.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use uuid::Uuid;

use super::{LEASE, POLL_INTERVAL, Worker, earlier, ids};
use crate::backplane::{BackplaneError, NewChange, change_record};
use crate::domain::{Change, RoomId};
use crate::store::{Claim, OutboxRow, StoreError};

/// The time that is left of a lease when its rows are not published any more.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// The pause before a row is tried again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// A row, as the entry that it becomes.
struct Announcement {
    row: OutboxRow,
    id: Uuid,
    record: Bytes,
}

/// How far the rows of a room were published.
#[derive(Default)]
struct Progress {
    /// These are in the log.
    done: Vec<Claim>,
    /// These can never be published, for these reasons.
    failed: Vec<(Claim, String)>,
    /// Why those that are left are tried again later; `None` also if the lease ends.
    postponed: Option<String>,
}

impl Progress {
    fn fail(&mut self, row: &OutboxRow, reason: impl Into<String>) {
        self.failed.push((row.claim(), reason.into()));
    }
}

impl Worker {
    /// Publishes the rows of one room, in their order, up to the first one that must wait.
    pub(super) async fn publish_to(
        &self,
        room: &RoomId,
        rows: Vec<OutboxRow>,
        claimed_at: Instant,
    ) -> Result<(), StoreError> {
        // Then the rows may belong to another worker soon, which goes on with the first that is left.
        let deadline = claimed_at + (LEASE - LEASE_MARGIN);
        let mut progress = Progress::default();
        let mut left = self.announcements(room, rows, &mut progress);
        self.skip_published(room, &mut left, deadline, &mut progress)
            .await;
        if progress.postponed.is_none() {
            self.announce(room, &mut left, deadline, &mut progress)
                .await;
        }
        self.record(progress, &left, claimed_at + LEASE).await
    }

    /// Records the progress, again and again while the lease lasts: until it has ended, no worker takes
    /// the rows that are left, nor later ones of the room.
    async fn record(
        &self,
        progress: Progress,
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
        while let Err(error) = self.record_once(&progress, &left).await {
            if Instant::now() + POLL_INTERVAL > lease_end {
                return Err(error);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        self.published.add(progress.done.len() as u64);
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
        self.outbox.done(&progress.done).await?;
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

    /// The announcements of the rows that can be published.
    fn announcements(
        &self,
        room: &RoomId,
        rows: Vec<OutboxRow>,
        progress: &mut Progress,
    ) -> VecDeque<Announcement> {
        let mut announcements = VecDeque::with_capacity(rows.len());
        for row in rows {
            if !Change::EVENTS.contains(&row.kind.as_str()) {
                let reason = format!("this release has no event {:?}", row.kind);
                progress.fail(&row, reason);
            } else if let Err(refusal) = RoomId::parse("room_id", room.as_str()) {
                progress.fail(&row, refusal.text.to_string());
            } else if !change_record::is_payload(&row.payload) {
                progress.fail(&row, "the payload is not a JSON object with a field");
            } else {
                let id = ids::of_row(self.deployment, row.id, row.first_claimed);
                let record = change_record::encode(room, &row.kind, id, &row.payload);
                announcements.push_back(Announcement { row, id, record });
            }
        }
        announcements
    }

    /// Removes the rows that an earlier attempt has published, as far as the log's keys may not show that
    /// any more: one search for all rows of the room.
    async fn skip_published(
        &self,
        room: &RoomId,
        left: &mut VecDeque<Announcement>,
        deadline: Instant,
        progress: &mut Progress,
    ) {
        // The log still knows the keys of attempts that are younger when the lease ends.
        let known = (self.dedupe_ttl / 2).saturating_sub(2 * LEASE);
        // At its first claim a row was never handed to the log.
        let is_old = |row: &OutboxRow| row.attempts > 1 && row.tried_for > known;
        let old = left.iter().filter(|announcement| is_old(&announcement.row));
        let (mut ids, mut since) = (Vec::new(), Duration::ZERO);
        for announcement in old {
            ids.push(announcement.id);
            since = since.max(announcement.row.tried_for);
        }
        if ids.is_empty() {
            return;
        }
        let search = earlier::find(&*self.log, room, ids, since, deadline).await;
        left.retain(|announcement| {
            let is_found = search.found.contains(&announcement.id);
            if is_found {
                progress.done.push(announcement.row.claim());
            }
            !is_found
        });
        match search.error {
            None => {}
            Some(error @ BackplaneError::Unreadable(_)) => left.retain(|announcement| {
                let may_be_there = is_old(&announcement.row);
                if may_be_there {
                    progress.fail(&announcement.row, error.to_string());
                }
                !may_be_there
            }),
            Some(error) => progress.postponed = Some(error.to_string()),
        }
    }

    /// Publishes the remaining rows, in their order, up to the first one that must wait.
    async fn announce(
        &self,
        room: &RoomId,
        left: &mut VecDeque<Announcement>,
        deadline: Instant,
        progress: &mut Progress,
    ) {
        while !left.is_empty() && Instant::now() < deadline {
            let changes: Vec<NewChange> = left
                .iter()
                .map(|left| NewChange::complete(left.id, left.record.clone()))
                .collect();
            let (positions, outcome) = self.log.announce_all(room, &changes).await;
            let published = left.drain(..positions.len());
            let published = published.map(|published| published.row.claim());
            progress.done.extend(published);
            let Err(error) = outcome else { return };
            if !matches!(
                error,
                BackplaneError::TooLarge | BackplaneError::Unreadable(_)
            ) {
                progress.postponed = Some(error.to_string());
                return;
            }
            // Those behind it go on without it.
            if let Some(refused) = left.pop_front() {
                progress.fail(&refused.row, error.to_string());
            }
        }
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
