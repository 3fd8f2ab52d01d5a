//! The metrics of plain WebSockets.

use super::PlainWebSocket;
use crate::gateway::connections::metrics::TransportCounts;
use crate::telemetry::sample::Labels;

impl PlainWebSocket {
    /// Open connections by transport and protocol.
    pub(crate) fn open_by_protocol(&self) -> Vec<(Labels, u64)> {
        let labels = vec![("transport", "websocket"), ("protocol", "plain")];
        vec![(labels, self.len() as u64)]
    }

    /// The counts that plain WebSockets share with other transports.
    pub(crate) fn counts(&self) -> TransportCounts {
        let counters = self.counters();
        TransportCounts {
            opened: counters.opened.get(),
            slow_consumers: counters.slow_consumers.get(),
            heartbeat_timeouts: counters.idle.get(),
            packets_received: counters.messages_in.get(),
            packets_sent: counters.messages_out.get(),
            bytes_received: counters.bytes_in.get(),
            bytes_sent: counters.bytes_out.get(),
        }
    }
}
