//! The worker that looks for messages that are missing in the archive, once a day on one node: a loss
//! that nothing else has noticed must not be noticed by users.
//!
//! It goes through all rooms in small steps, and pauses for 99 times as long as each step took. A room
//! whose hot log ends before the archive does is a fault, too.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::domain::{RoomId, Timestamp};
use crate::store::{Result, StoreError};

/// The first check of a node begins so long after its start.
const FIRST_CHECK: Duration = Duration::from_secs(300);
/// The time between the end of a check, or its interruption, and the next one in the cluster.
const INTERVAL: Duration = Duration::from_secs(86_400);
/// The time between two attempts of a node to begin a check.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(600);
/// The time between two renewals of a claim.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// The pause after a step, as a multiple of the time that the step took; at least, and at most.
const PAUSE_FACTOR: u32 = 99;
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(60));
/// The rooms that are listed at once.
const ROOMS_PER_PAGE: usize = 500;

/// Checks until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    tokio::time::sleep(FIRST_CHECK).await;
    loop {
        // While the database is away a check would only fail.
        if shared.health.is_up()
            && let Err(error) = attempt(&shared, Timestamp::now()).await
        {
            tracing::warn!(%error, "archive: the check for missing messages was interrupted");
        }
        tokio::time::sleep(ATTEMPT_INTERVAL).await;
    }
}

/// Checks all rooms, if no node has done so lately. Returns whether it did.
pub(super) async fn attempt(shared: &Shared, now: Timestamp) -> Result<bool> {
    let interval = u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX);
    let since = Timestamp(now.0.saturating_sub(interval));
    if !shared.store.claim_check(now, since).await? {
        return Ok(false);
    }
    let began = Instant::now();
    let mut check = Check {
        shared,
        renewed_at: began,
        rooms: 0,
        missing: 0,
    };
    check.all_rooms().await?;
    check.renew().await?;
    shared.counters.checks.add(1);
    tracing::info!(
        rooms = check.rooms,
        missing = check.missing,
        seconds = began.elapsed().as_secs_f64(),
        "archive: all rooms are checked for missing messages"
    );
    Ok(true)
}

struct Check<'a> {
    shared: &'a Shared,
    renewed_at: Instant,
    rooms: u64,
    missing: u64,
}

impl Check<'_> {
    async fn all_rooms(&mut self) -> Result<()> {
        let store = &self.shared.store;
        let mut after = 0;
        loop {
            let rooms = paced(store.rooms(after, ROOMS_PER_PAGE)).await?;
            let Some((last, _)) = rooms.last() else {
                return Ok(());
            };
            after = *last;
            for (_, room) in &rooms {
                self.room(room).await?;
                self.rooms += 1;
            }
        }
    }

    async fn room(&mut self, room: &RoomId) -> Result<()> {
        let mut after = 0;
        loop {
            let page = paced(self.shared.store.find_missing(room, after)).await?;
            if !page.missing.is_empty() {
                self.confirm(room, after).await?;
            }
            if self.renewed_at.elapsed() >= RENEWAL_INTERVAL {
                self.renew().await?;
            }
            match page.next {
                Some(next) => after = next,
                None => return paced(self.head(room)).await,
            }
        }
    }

    /// Reports the missing numbers of a page, except those that only wait for their commit. The log is
    /// read before the archive: what it has as archived then must be there.
    async fn confirm(&mut self, room: &RoomId, after: u64) -> Result<()> {
        let store = &self.shared.store;
        let mut suspected = Vec::new();
        for range in store.find_missing(room, after).await?.missing {
            if !self.is_pending(room, &range).await? {
                suspected.push(range);
            }
        }
        // Numbers of which the log was not asked may be those of later messages.
        let still_missing = store.find_missing(room, after).await?.missing;
        for range in common(&suspected, &still_missing) {
            let count = range.end() - range.start() + 1;
            self.missing += count;
            self.shared.counters.gaps.add(count);
            tracing::warn!(
                %room,
                from = range.start(),
                to = range.end(),
                "archive: messages are missing, and not recorded as lost"
            );
        }
        Ok(())
    }

    /// Whether the log has these numbers, and has not counted them as archived. It has either all of
    /// them or none.
    async fn is_pending(&self, room: &RoomId, range: &RangeInclusive<u64>) -> Result<bool> {
        let hot = &self.shared.hot;
        let read = hot.read_unarchived(room, range.start() - 1, 1, usize::MAX);
        let Some(entries) = read.await.map_err(unavailable)? else {
            return Ok(false);
        };
        let Some(entry) = entries.first() else {
            return Ok(false);
        };
        let report = [(room.clone(), entry.epoch.clone(), Vec::new())];
        let watermarks = hot.advance_watermarks(&report).await.map_err(unavailable)?;
        let watermark = watermarks.first().copied().unwrap_or(0);
        Ok(entry.seq == *range.start() && entry.seq > watermark)
    }

    /// Reports a room whose log ends before the archive does.
    async fn head(&self, room: &RoomId) -> Result<()> {
        let Some(archived) = self.shared.store.room(room).await? else {
            return Ok(());
        };
        if !self.is_behind(room, archived.head).await? {
            return Ok(());
        }
        // A log that has lost its end is restored at its next use, which is this one.
        let hot = &self.shared.hot;
        let window = crate::backplane::Window::Newest;
        hot.read(room, window, 0, 0).await.map_err(unavailable)?;
        if self.is_behind(room, archived.head).await? {
            self.shared.counters.head_mismatches.add(1);
            tracing::warn!(
                %room,
                archive = archived.head,
                "archive: the room's log ends before the archive does"
            );
        }
        Ok(())
    }

    async fn is_behind(&self, room: &RoomId, archived: u64) -> Result<bool> {
        let rooms = std::slice::from_ref(room);
        let heads = self.shared.hot.heads(rooms).await.map_err(unavailable)?;
        let head = heads.into_iter().next().flatten();
        Ok(head.is_some_and(|head| head.seq < archived))
    }

    /// Renews the claim, so that no other node begins.
    async fn renew(&mut self) -> Result<()> {
        self.renewed_at = Instant::now();
        let now = Timestamp::now();
        // A later claim than this moment's can't be there.
        self.shared.store.claim_check(now, now).await.map(drop)
    }
}

/// The numbers that are in ranges of both lists.
fn common(
    suspected: &[RangeInclusive<u64>],
    missing: &[RangeInclusive<u64>],
) -> Vec<RangeInclusive<u64>> {
    let pairs = suspected
        .iter()
        .flat_map(|one| missing.iter().map(move |other| (one, other)));
    pairs
        .map(|(one, other)| *one.start().max(other.start())..=*one.end().min(other.end()))
        .filter(|both| !both.is_empty())
        .collect()
}

/// Does a step, and then pauses so that the check takes about 1 % of the time.
async fn paced<T>(step: impl Future<Output = Result<T>>) -> Result<T> {
    let began = Instant::now();
    let result = step.await;
    let (shortest, longest) = PAUSES;
    let pause = began.elapsed().saturating_mul(PAUSE_FACTOR);
    tokio::time::sleep(pause.clamp(shortest, longest)).await;
    result
}

fn unavailable(error: crate::backplane::BackplaneError) -> StoreError {
    StoreError::Unavailable(format!("the log: {error}"))
}
