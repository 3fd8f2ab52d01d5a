//! A restore that holds the claim of its room: the entries that it reads, and its deadline.

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::fault::Fault;
use super::keys::{Partition, encode_name};
use super::link::{Link, millis};
use super::log::{limit_arg, parse_entries};
use super::script::READ_CLAIMED;
use crate::backplane::unarchived::{PAGE_BYTES, PAGE_ENTRIES};
use crate::backplane::{
    BackplaneError, Entry, HotState, Result, UnarchivedCursor, UnarchivedEntries,
};
use crate::domain::RoomId;

/// How long a claim lasts, unless it is renewed.
pub(super) const CLAIM: Duration = Duration::from_secs(10);
/// How long the archive may take for each page of entries, and after the last one: less than the claim
/// lasts.
const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(8);

/// The claim of a room by one restore.
pub(super) struct RoomClaim<'a> {
    pub(super) link: &'a Link,
    pub(super) room: &'a RoomId,
    pub(super) token: &'a str,
    state: Mutex<ClaimState>,
}

struct ClaimState {
    /// When the claim was requested, or renewed. It has not ended before that and the time it lasts.
    since: Instant,
    is_lost: bool,
}

impl<'a> RoomClaim<'a> {
    /// A claim that is requested now.
    pub(super) fn new(link: &'a Link, room: &'a RoomId, token: &'a str) -> Self {
        let since = Instant::now();
        Self {
            link,
            room,
            token,
            state: Mutex::new(ClaimState {
                since,
                is_lost: false,
            }),
        }
    }

    /// Whether another restore may have begun.
    pub(super) fn is_lost(&self) -> bool {
        self.state.lock().is_lost
    }

    fn deadline(&self) -> Instant {
        self.state.lock().since + ARCHIVE_TIMEOUT
    }

    /// Awaits work of the archive, as long as the claim certainly lasts.
    pub(super) async fn limit<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        loop {
            let deadline = self.deadline();
            if let Ok(done) = timeout_at(deadline, work.as_mut()).await {
                return done;
            }
            if self.deadline() <= deadline {
                return Err(BackplaneError::Unavailable(
                    "the archive didn't respond in time".to_owned(),
                ));
            }
        }
    }

    /// Reads entries after a `seq`, and renews the claim. `None` if the claim has ended.
    async fn read(&self, after: u64) -> std::result::Result<Option<Vec<Entry>>, Fault> {
        let since = Instant::now();
        let args = vec![
            encode_name(self.room.as_str()).into(),
            self.token.into(),
            millis(CLAIM).into(),
            after.to_string().into(),
            limit_arg(PAGE_ENTRIES),
            limit_arg(PAGE_BYTES),
        ];
        let partition = Partition::of_room(self.room);
        let mut reply = self.link.run(&READ_CLAIMED, partition, args).await?;
        if reply.text()? != "READ" {
            self.state.lock().is_lost = true;
            return Ok(None);
        }
        let entries = parse_entries(reply)?;
        self.state.lock().since = since;
        Ok(Some(entries))
    }
}

/// See [`UnarchivedEntries`].
pub(super) struct ClaimedEntries<'a> {
    claim: &'a RoomClaim<'a>,
    cursor: UnarchivedCursor,
    /// The room's last `seq`.
    last: u64,
}

impl<'a> ClaimedEntries<'a> {
    pub(super) fn new(claim: &'a RoomClaim<'a>, hot: Option<&HotState>) -> Self {
        Self {
            claim,
            cursor: UnarchivedCursor::of(hot),
            last: hot.map_or(0, |hot| hot.head.seq),
        }
    }
}

#[async_trait]
impl UnarchivedEntries for ClaimedEntries<'_> {
    async fn next_page(&mut self) -> Result<Vec<Entry>> {
        while self.cursor.reached() < self.last {
            let Some(page) = self.claim.read(self.cursor.reached()).await? else {
                return Err(BackplaneError::Unavailable(
                    "another restore of the room has begun".to_owned(),
                ));
            };
            if page.is_empty() {
                break;
            }
            let page = self.cursor.take(page);
            if !page.is_empty() {
                return Ok(page);
            }
        }
        Ok(Vec::new())
    }
}
