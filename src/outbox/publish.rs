//! Publishes the rows of one room: all in one call and one commit as far as possible, and each once.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::announcements::Announcement;
use super::progress::{Position, Progress};
use super::{LEASE, Worker, earlier};
use crate::backplane::{Appended, BackplaneError, NewChange};
use crate::domain::RoomId;
use crate::store::{OutboxRow, StoreError};

/// The time that is left of a lease when its rows are not published any more.
pub(super) const LEASE_MARGIN: Duration = Duration::from_secs(5);

impl Worker {
    /// Publishes the rows of one room, in their order, up to the first one that must wait.
    pub(super) async fn publish_to(
        &self,
        room: &RoomId,
        rows: Vec<OutboxRow>,
        lease_end: Instant,
    ) -> Result<(), StoreError> {
        // Then the rows may belong to another worker soon, which goes on with the first that is left.
        let deadline = lease_end - LEASE_MARGIN;
        let mut progress = Progress::default();
        let mut left = self.announcements(room, rows, &mut progress);
        self.skip_published(room, &mut left, deadline, &mut progress)
            .await;
        loop {
            // The next part is rendered with the versions that the store knows.
            let is_recorded = progress.changes.is_empty();
            if is_recorded && progress.postponed.is_none() && Instant::now() < deadline {
                self.announce_part(room, &mut left, deadline, &mut progress)
                    .await;
            }
            // Before they are recorded: answers with these messages have what the log has announced.
            for change in &progress.changes {
                self.publications.announced(room, &change.row, change.seq);
            }
            // Another worker can claim them at once, instead of after the lease.
            if !left.is_empty() && progress.postponed.is_none() && Instant::now() >= deadline {
                progress.postponed = Some("the lease has ended before it was published".to_owned());
            }
            let is_over = left.is_empty() || progress.postponed.is_some();
            self.record(&progress, &left, lease_end).await?;
            if is_over {
                return Ok(());
            }
            progress = Progress::default();
        }
    }

    /// Removes the rows that an earlier attempt has published, as far as the log's keys may not show that
    /// any more: one search for all rows of the room.
    pub(super) async fn skip_published(
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
        let mut search = earlier::find(&*self.log, room, ids, since, deadline).await;
        for announcement in std::mem::take(left) {
            match search.found.remove(&announcement.id) {
                Some(position) => progress.is_published(room, announcement, position),
                None => left.push_back(announcement),
            }
        }
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

    /// Publishes the first of the remaining rows, in their order: as many as can be rendered now, up to the
    /// first one that must wait or can never be published.
    pub(super) async fn announce_part(
        &self,
        room: &RoomId,
        left: &mut VecDeque<Announcement>,
        deadline: Instant,
        progress: &mut Progress,
    ) {
        let changes = self.render(room, left, progress).await;
        if changes.is_empty() || Instant::now() >= deadline {
            return;
        }
        let (positions, outcome) = self.log.announce_all(room, &changes).await;
        let positions = positions.into_iter().zip(changes);
        for (announcement, (appended, change)) in left.drain(..positions.len()).zip(positions) {
            progress.is_published(room, announcement, position(appended, change));
        }
        match outcome {
            Ok(()) => {}
            // Those behind it go on without it.
            Err(error @ (BackplaneError::TooLarge | BackplaneError::Unreadable(_))) => {
                if let Some(refused) = left.pop_front() {
                    progress.fail(&refused.row, error.to_string());
                }
            }
            Err(error) => progress.postponed = Some(error.to_string()),
        }
    }
}

/// The position of a change. An earlier attempt may have announced other reactions.
fn position(appended: Appended, change: NewChange) -> Position {
    let reactions = match change.amendment {
        Some(amendment) if !appended.duplicate => amendment.form.reactions,
        _ => None,
    };
    Position {
        seq: appended.seq,
        at: appended.at,
        reactions,
    }
}
