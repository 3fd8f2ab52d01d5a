//! The metrics of delivery.

use super::Delivery;
use crate::telemetry::sample::Sample;

impl Delivery {
    /// The metrics of delivery as they stand now.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let counters = self.counters();
        vec![
            Sample::gauge(
                "rooms",
                "Rooms with a feed on this node: rooms with members here, and rooms whose last \
                 member left a moment ago",
                self.rooms() as u64,
            ),
            Sample::counter(
                "messages_out",
                "Messages handed to connections on this node, one for each receiving connection",
                counters.delivered.get(),
            ),
            Sample::counter(
                "catch_ups",
                "Reads of a room's log because the node had missed messages or might have",
                counters.catch_ups.get(),
            ),
            Sample::counter(
                "replays",
                "Joins that were promised a replay of earlier messages",
                counters.replays.get(),
            ),
            Sample::counter(
                "replay_reads",
                "Reads of a room's log for replays; one read serves all members of a room \
                 that wait for it",
                counters.replay_reads.get(),
            ),
            Sample::gauge(
                "kept_bytes",
                "Approximate memory taken by messages that rooms keep for replays, in bytes",
                self.kept_bytes() as u64,
            ),
            Sample::counter(
                "replays_outrun",
                "Members closed because they read more slowly than the room was written to, until \
                 the log no longer reached back to their position",
                counters.outrun.get(),
            ),
            Sample::counter(
                "room_resets",
                "Breaks of continuity that members were notified of",
                counters.resets.get(),
            ),
            Sample::counter(
                "bus_overruns",
                "Bus events discarded because a worker's queue was full; each is read from the \
                 log instead",
                counters.overruns.get(),
            ),
            Sample::histogram(
                "delivery_seconds",
                "Time from a message's arrival at this node to its delivery to the last member \
                 here",
                &counters.latency,
            ),
        ]
    }
}
