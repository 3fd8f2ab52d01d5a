//! Announces how far users have read. The rows are claimed and published apart from others, with a share
//! of their own, so that many readers hold up no change of a message.
//!
//! While more positions move than are published, the rows that wait serve several positions each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::announcements::Announcement;
use super::progress::Progress;
use super::publish::LEASE_MARGIN;
use super::{Claimed, ERROR_PAUSE, LEASE, POLL_INTERVAL, Worker};
use crate::domain::RoomId;
use crate::store::{OutboxRow, StoreError};

/// The most rows that are claimed at once.
const BATCH: usize = 64;
/// The most batches that are published at the same time.
const MAX_BATCHES: usize = 2;
/// Feeds of a batch that are published to at the same time.
const CONCURRENT_FEEDS: usize = 8;
/// The least time between two polls of the outbox.
const MIN_INTERVAL: Duration = Duration::from_millis(25);

/// The batches that are being published.
pub(super) struct Positions {
    worker: Arc<Worker>,
    /// Each returns how many rows it has claimed.
    running: JoinSet<usize>,
    /// The next poll is not earlier.
    next_poll: Instant,
}

impl Positions {
    pub fn new(worker: Arc<Worker>) -> Self {
        Self {
            worker,
            running: JoinSet::new(),
            next_poll: Instant::now(),
        }
    }

    /// Claims rows that are due, and begins to publish them. Returns how long nothing more is due, as far
    /// as is known.
    pub async fn start_due(&mut self) -> Duration {
        while let Some(ended) = self.running.try_join_next() {
            self.has_ended(ended);
        }
        if self.running.len() >= MAX_BATCHES {
            return POLL_INTERVAL;
        }
        let wait = self.next_poll.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            return wait;
        }
        self.next_poll = Instant::now() + MIN_INTERVAL;
        match self.claim_due().await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(%error, "outbox: the database can't be reached");
                self.next_poll = Instant::now() + ERROR_PAUSE;
                ERROR_PAUSE
            }
        }
    }

    /// As [`Worker::claim_due`]: a claim writes, so a read comes first.
    async fn claim_due(&mut self) -> Result<Duration, StoreError> {
        match self.worker.outbox.next_due_position().await? {
            Some(Duration::ZERO) => {}
            Some(due) => return Ok(due.clamp(MIN_INTERVAL, POLL_INTERVAL)),
            None => return Ok(POLL_INTERVAL),
        }
        // In a task, since the positions are counted after the claim.
        let worker = self.worker.clone();
        self.running.spawn(async move {
            // The rows are due again after their lease.
            worker.claim_positions().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "outbox: positions could not be announced");
                0
            })
        });
        Ok(MIN_INTERVAL)
    }

    /// Returns when a batch is published or postponed; never without a batch.
    pub async fn one_ended(&mut self) {
        match self.running.join_next().await {
            Some(ended) => self.has_ended(ended),
            None => std::future::pending().await,
        }
    }

    /// The rows that are due may all wait behind rows that are claimed: then a claim, which writes, finds nothing
    /// until these are done.
    fn has_ended(&mut self, claimed: Result<usize, JoinError>) {
        if matches!(claimed, Ok(0)) {
            self.next_poll = self.next_poll.max(Instant::now() + POLL_INTERVAL);
        }
    }

    /// Returns when all batches are published or postponed.
    pub async fn all_ended(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

impl Worker {
    /// Returns how many rows were claimed.
    async fn claim_positions(&self) -> Result<usize, StoreError> {
        let claimed_at = Instant::now();
        let rows = self.outbox.claim_positions(BATCH, LEASE).await?;
        let count = rows.len();
        if count > 0 {
            self.publish_positions(rows, claimed_at).await?;
        }
        Ok(count)
    }

    /// Publishes rows of several feeds, and records that in one transaction.
    pub(super) async fn publish_positions(
        &self,
        rows: Vec<OutboxRow>,
        claimed_at: Instant,
    ) -> Result<(), StoreError> {
        let deadline = claimed_at + (LEASE - LEASE_MARGIN);
        let feeds = Claimed::of(rows).rooms.into_iter();
        let feeds = feeds
            .map(|(feed, rows)| async move { self.publish_to_feed(&feed, rows, deadline).await });
        let mut feeds = stream::iter(feeds).buffer_unordered(CONCURRENT_FEEDS);
        let mut progress = Progress::default();
        let mut left = VecDeque::new();
        while let Some((of_feed, left_of_feed)) = feeds.next().await {
            progress.add(of_feed);
            left.extend(left_of_feed);
        }
        self.record(&progress, &left, claimed_at + LEASE).await
    }

    /// Returns the rows that must be tried again.
    async fn publish_to_feed(
        &self,
        feed: &RoomId,
        rows: Vec<OutboxRow>,
        deadline: Instant,
    ) -> (Progress, VecDeque<Announcement>) {
        let mut progress = Progress::default();
        let mut left = self.announcements(feed, rows, &mut progress);
        self.skip_published(feed, &mut left, deadline, &mut progress)
            .await;
        if progress.postponed.is_none() {
            self.announce_part(feed, &mut left, deadline, &mut progress)
                .await;
        }
        (progress, left)
    }
}
