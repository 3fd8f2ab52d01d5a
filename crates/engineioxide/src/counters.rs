//! Counters of all sessions of one [`Control`](crate::Control).

use std::sync::atomic::{AtomicU64, Ordering};

/// A reading of a [`Control`](crate::Control)'s counters. All count from its creation on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions opened.
    pub opened: u64,
    /// Sessions closed because their outbox overflowed or made no progress.
    pub slow_consumers: u64,
    /// Sessions closed because the client's heartbeat stopped.
    pub heartbeat_timeouts: u64,
    /// Sessions upgraded from polling to a WebSocket.
    pub upgrades: u64,
    /// WebSockets that run on hyper's boxed stream because the type in the box was not registered:
    /// see [`Control::register_link`](crate::Control::register_link).
    pub boxed: u64,
    /// Engine.IO packets received.
    pub packets_in: u64,
    /// Frames handed to a transport.
    pub packets_out: u64,
    /// Bytes read: all bytes of WebSockets, the bodies of polling requests.
    pub bytes_in: u64,
    /// Bytes written: all bytes of WebSockets, the bodies of polling responses.
    pub bytes_out: u64,
}

/// The atomics behind [`Counters`].
#[derive(Default)]
pub(crate) struct AtomicCounters {
    pub(crate) opened: AtomicU64,
    pub(crate) slow_consumers: AtomicU64,
    pub(crate) heartbeat_timeouts: AtomicU64,
    pub(crate) upgrades: AtomicU64,
    pub(crate) boxed: AtomicU64,
    pub(crate) packets_in: AtomicU64,
    pub(crate) packets_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

impl AtomicCounters {
    pub(crate) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            opened: read(&self.opened),
            slow_consumers: read(&self.slow_consumers),
            heartbeat_timeouts: read(&self.heartbeat_timeouts),
            upgrades: read(&self.upgrades),
            boxed: read(&self.boxed),
            packets_in: read(&self.packets_in),
            packets_out: read(&self.packets_out),
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
        }
    }
}
