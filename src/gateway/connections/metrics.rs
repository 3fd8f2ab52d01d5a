//! The metrics of client connections: of events, and of the transports below them.

use std::ops::AddAssign;

use super::Connections;
use crate::telemetry::sample::{Labels, Sample};

impl Connections {
    /// The metrics of client events as they stand now.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let counters = self.counters();
        vec![
            Sample::counter(
                "events_received",
                "Client events received, over Socket.IO and over plain WebSockets",
                counters.events.get(),
            ),
            Sample::counter(
                "events_refused",
                "Client events refused, for any reason",
                counters.refused.get(),
            ),
            Sample::counter(
                "events_rate_limited",
                "Client events refused because a rate limit was exceeded",
                counters.rate_limited.get(),
            ),
            Sample::counter(
                "sockets_closed_rate_limited",
                "Connections closed because they kept exceeding their rate limit",
                counters.closed_rate_limited.get(),
            ),
            Sample::counter(
                "events_dropped",
                "Client events refused because the connection's inbox was full; each is answered \
                 with overloaded",
                counters.overloaded.get(),
            ),
        ]
    }
}

/// The counts of one kind of transport since the node started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TransportCounts {
    pub opened: u64,
    pub slow_consumers: u64,
    pub heartbeat_timeouts: u64,
    pub packets_received: u64,
    pub packets_sent: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

impl AddAssign for TransportCounts {
    fn add_assign(&mut self, other: Self) {
        self.opened += other.opened;
        self.slow_consumers += other.slow_consumers;
        self.heartbeat_timeouts += other.heartbeat_timeouts;
        self.packets_received += other.packets_received;
        self.packets_sent += other.packets_sent;
        self.bytes_received += other.bytes_received;
        self.bytes_sent += other.bytes_sent;
    }
}

/// The metrics that all transports share. `open` has the number of open connections by transport
/// and protocol, `counts` the sum over all transports.
pub(crate) fn transport_samples(open: Vec<(Labels, u64)>, counts: TransportCounts) -> Vec<Sample> {
    vec![
        Sample::gauges(
            "connections",
            "Open connections, by transport (polling, websocket) and protocol (3 and 4 of \
             Engine.IO, plain for a WebSocket without Socket.IO)",
            open,
        ),
        Sample::counter(
            "sessions_opened",
            "Engine.IO sessions and plain WebSockets opened",
            counts.opened,
        ),
        Sample::counter(
            "slow_consumers",
            "Connections closed because the client did not read",
            counts.slow_consumers,
        ),
        Sample::counter(
            "heartbeat_timeouts",
            "Connections closed because the client did not answer a heartbeat, or was silent for \
             too long",
            counts.heartbeat_timeouts,
        ),
        Sample::counter(
            "packets_received",
            "Engine.IO packets and plain WebSocket messages received",
            counts.packets_received,
        ),
        Sample::counter(
            "packets_sent",
            "Engine.IO packets and plain WebSocket messages sent",
            counts.packets_sent,
        ),
        Sample::counter(
            "received_bytes",
            "Bytes received from clients",
            counts.bytes_received,
        ),
        Sample::counter("sent_bytes", "Bytes sent to clients", counts.bytes_sent),
    ]
}
