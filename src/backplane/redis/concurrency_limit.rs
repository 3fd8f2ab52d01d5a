//! A limit on the concurrent calls about presence.
//!
//! It keeps such calls from delaying appends. Redis serves its connections in turn and processes all
//! commands that a connection has sent. So an append, which has a connection of its own, waits for
//! the presence calls that have been sent, and the limit bounds their number.
//!
//! Each group of slots has its own limit. The slots of a group usually lie on the same server, so a
//! server that hangs doesn't block calls to the others.

use std::pin::pin;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::fault::Fault;
use super::keys::Partition;

/// The number of groups into which the cluster's slots are divided.
const GROUPS: usize = 16;
const SLOTS_PER_GROUP: usize = 16_384 / GROUPS;
/// Concurrent calls per group.
const CALLS_PER_GROUP: usize = 8;
/// The longest that a call waits for a permit while other calls of its group get replies.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(15);

/// The permits of all groups.
pub(super) struct ConcurrencyLimit {
    groups: [Group; GROUPS],
    /// A group that got no reply for this long is considered hung.
    hung_after: Duration,
}

struct Group {
    permits: Semaphore,
    last_reply: Mutex<Instant>,
}

impl ConcurrencyLimit {
    pub(super) fn new(hung_after: Duration) -> Self {
        let group = || Group {
            permits: Semaphore::new(CALLS_PER_GROUP),
            last_reply: Mutex::new(Instant::now()),
        };
        Self {
            groups: std::array::from_fn(|_| group()),
            hung_after,
        }
    }

    fn group(&self, partition: Partition) -> &Group {
        &self.groups[usize::from(partition.slot()) / SLOTS_PER_GROUP]
    }

    /// Waits for a permit to call the partition, first come, first served. Keep the permit until the
    /// call is complete.
    ///
    /// # Errors
    /// `Unavailable` if the wait takes longer than [`PERMIT_TIMEOUT`] or the group is hung.
    pub(super) async fn acquire(&self, partition: Partition) -> Result<SemaphorePermit<'_>, Fault> {
        let (group, begun) = (self.group(partition), Instant::now());
        let mut permit = pin!(group.permits.acquire());
        loop {
            if let Ok(permit) = tokio::time::timeout(self.hung_after, &mut permit).await {
                return permit.map_err(|_| Fault::unavailable("the node is stopping"));
            }
            let is_hung = group.last_reply.lock().elapsed() > self.hung_after;
            if is_hung || begun.elapsed() > PERMIT_TIMEOUT {
                return Err(Fault::unavailable("too many calls wait for Redis"));
            }
        }
    }

    /// Records that the partition's server has sent a reply, be it an error.
    pub(super) fn record_reply(&self, partition: Partition) {
        *self.group(partition).last_reply.lock() = Instant::now();
    }
}
