//! The settings of the feeds.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

pub(super) type PauseFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The wait of a worker that has delivered much: it ends when the outlets that had something to
/// write have begun to write it.
#[derive(Clone)]
pub struct Pause(Arc<dyn Fn() -> PauseFuture + Send + Sync>);

impl Pause {
    /// Calls `pause` for a new future at each wait. The worker delivers nothing until that future
    /// is ready.
    #[must_use]
    pub fn new<F: Future<Output = ()> + Send + 'static>(
        pause: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move || Box::pin(pause())))
    }

    pub(super) fn begin(&self) -> PauseFuture {
        (self.0)()
    }
}

impl Default for Pause {
    /// Yields to the tasks that are ready to run.
    fn default() -> Self {
        Self::new(tokio::task::yield_now)
    }
}

impl fmt::Debug for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pause")
    }
}

/// The settings of the feeds.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// The number of workers; at least one is started.
    pub workers: usize,
    /// Rooms with more occupants than this publish only their number, not each join and leave.
    pub room_events: u64,
    /// The most bytes of messages that one read of a log requests. An outlet that has capacity must
    /// be able to take a whole read.
    pub page_bytes: usize,
    /// About how many bytes all rooms together may keep of messages for replays.
    pub kept_bytes: usize,
    /// The most bytes of messages that may wait for a worker before senders have to wait; also half
    /// of the bytes that a worker delivers before outlets have had their turn to write. An outlet
    /// that has capacity must be able to take both.
    pub backlog_bytes: usize,
    /// The wait for outlets that write in turns.
    pub pause: Pause,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            workers: 1,
            room_events: 500,
            page_bytes: 128 * 1024,
            kept_bytes: 64 * 1024 * 1024,
            backlog_bytes: 256 * 1024,
            pause: Pause::default(),
        }
    }
}
