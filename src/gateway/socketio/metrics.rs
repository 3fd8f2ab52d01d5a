//! The metrics of the Engine.IO sessions that carry Socket.IO.

use engineioxide::{Control, ProtocolVersion, TransportType};

use crate::gateway::connections::metrics::TransportCounts;
use crate::telemetry::sample::{Labels, Sample};

/// Open sessions by transport and protocol.
pub(crate) fn open(control: &Control) -> Vec<(Labels, u64)> {
    let mut open = Vec::new();
    for (transport, transport_name) in [
        (TransportType::Polling, "polling"),
        (TransportType::Websocket, "websocket"),
    ] {
        for (protocol, protocol_name) in [(ProtocolVersion::V3, "3"), (ProtocolVersion::V4, "4")] {
            let labels = vec![("transport", transport_name), ("protocol", protocol_name)];
            open.push((labels, control.count(transport, protocol) as u64));
        }
    }
    open
}

/// The counts that Engine.IO sessions share with other transports.
pub(crate) fn counts(control: &Control) -> TransportCounts {
    let counters = control.counters();
    TransportCounts {
        opened: counters.opened,
        slow_consumers: counters.slow_consumers,
        heartbeat_timeouts: counters.heartbeat_timeouts,
        packets_received: counters.packets_in,
        packets_sent: counters.packets_out,
        bytes_received: counters.bytes_in,
        bytes_sent: counters.bytes_out,
    }
}

/// The metrics that only Engine.IO sessions have.
pub(crate) fn samples(control: &Control) -> Vec<Sample> {
    let counters = control.counters();
    vec![
        Sample::counter(
            "upgrades",
            "Engine.IO sessions upgraded from long-polling to a WebSocket",
            counters.upgrades,
        ),
        Sample::counter(
            "websockets_boxed",
            "WebSockets that do not run on the listener's own stream; any other value than 0 is a \
             fault of the build",
            counters.boxed,
        ),
    ]
}
