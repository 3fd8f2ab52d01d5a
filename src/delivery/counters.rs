//! The counters of the feeds.

use std::sync::atomic::AtomicUsize;

use crate::telemetry::meter::{Counter, Histogram};

/// The counters of all feeds of a node.
#[derive(Debug, Default)]
pub struct DeliveryCounters {
    /// Messages that outlets have accepted, counted once per outlet.
    pub delivered: Counter,
    /// Reads of the log by feeds that had missed something, or might have.
    pub catch_ups: Counter,
    /// Joins with an acknowledgement that promised messages.
    pub replays: Counter,
    /// Reads of the log for replays. One read serves all connections of a room that wait for it.
    pub replay_reads: Counter,
    /// Breaks of continuity that feeds have reported to the connections of their room.
    pub resets: Counter,
    /// Connections closed because the log no longer held the next message of their replay. They are
    /// told of the gap when they come back.
    pub outrun: Counter,
    /// Bus events dropped because a worker's queue was full. Their feeds catch up from the log.
    pub overruns: Counter,
    /// Rooms that have a feed now.
    pub rooms: AtomicUsize,
    /// Seconds from a message's arrival at this node until it was offered to the last outlet of its
    /// room here.
    pub latency: Histogram,
}
