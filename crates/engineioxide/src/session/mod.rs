//! One session, independent of its transport: its outbox, its deadlines and its close.
//!
//! The lock of [`State`] is used in this module only, and no foreign code runs under it. Wakers are
//! called after it is released. `on_message` and `on_binary` run on the connection's task without the
//! lock, and `on_disconnect` runs on a task of its own. Callbacks that wait for capacity in the outbox run in the code that has just written from it.

mod close;
mod deadlines;
mod guards;
mod outbox;
mod state;
mod transport;

use std::sync::Arc;

use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Sid, Str, TransportType};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::EngineIoConfig;
use crate::control::{AtomicCounters, Control};
use crate::frame::Frame;
use crate::handle::Intercept;
use crate::packet::{Incoming, Malformed};
use crate::socket::DisconnectReason;

pub(crate) use close::CloseMode;
pub(crate) use guards::{PollGuard, PollReply, PostGuard, UpgradeGuard};
pub(crate) use state::Queue;
use state::{Heartbeat, Phase, State};
pub(crate) use transport::{DirectWriter, NextBatch};

/// The layer above, as a session calls it.
pub(crate) trait SessionHandler: Send + Sync {
    fn on_message(&self, text: Str);
    fn on_binary(&self, data: Bytes);
    fn on_disconnect(&self, reason: DisconnectReason);
}

/// Fields are ordered by use. With thousands of sessions none of them is in a processor's cache,
/// so the fields that queueing a message needs should lie in few cache lines.
#[repr(C)]
pub(crate) struct Session {
    pub(crate) control: Control,
    state: Mutex<State>,
    pub(crate) config: Arc<EngineIoConfig>,
    pub(crate) id: Sid,
    pub(crate) protocol: ProtocolVersion,
    /// Engine.IO 3: the handshake said that the client accepts text only.
    pub(crate) b64: bool,
    /// Notified when [`State::disconnected`] is set.
    on_disconnected: Notify,
}

/// The action that is left to the transport after a packet was processed.
#[derive(Debug, PartialEq)]
pub(crate) enum PacketOutcome {
    /// Nothing.
    Handled,
    /// The packet was `5`: the upgrade.
    Upgrade,
}

impl Session {
    /// Opens a session on `transport`: adds it to the session table and starts its heartbeat.
    pub(crate) fn open(
        id: Sid,
        protocol: ProtocolVersion,
        transport: TransportType,
        control: Control,
        config: Arc<EngineIoConfig>,
        b64: bool,
    ) -> Arc<Self> {
        let heartbeat = Heartbeat::first(protocol, &config);
        let session = Arc::new(Self {
            id,
            protocol,
            control,
            config,
            b64,
            state: Mutex::new(State::new(transport, heartbeat)),
            on_disconnected: Notify::new(),
        });
        session.control.insert(&session);
        session.arm(&mut session.state.lock());
        session
    }

    pub(crate) fn transport(&self) -> TransportType {
        self.state.lock().transport
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().phase == Phase::Closed
    }

    /// Whether the session accepts frames.
    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().phase == Phase::Open
    }

    /// The text of the open packet.
    pub(crate) fn open_packet(&self, transport: TransportType) -> String {
        let upgradable = transport == TransportType::Polling
            && self.config.allowed_transport(TransportType::Websocket);
        format!(
            r#"0{{"sid":"{}","upgrades":[{}],"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
            self.id,
            if upgradable { r#""websocket""# } else { "" },
            self.config.ping_interval.as_millis(),
            self.config.ping_timeout.as_millis(),
            self.config.max_payload,
        )
    }

    pub(crate) fn intercept(&self, intercept: Arc<dyn Intercept>) {
        let mut state = self.state.lock();
        let unneeded = match state.phase {
            Phase::Closed => Some(intercept),
            Phase::Open | Phase::Draining => state.intercept.replace(intercept),
        };
        // Dropped without the lock, because dropping an interceptor may call this session.
        drop(state);
        drop(unneeded);
    }

    /// The layer above, from the return of `on_connect` until the close (also while draining).
    pub(crate) fn handler(&self) -> Option<Arc<dyn SessionHandler>> {
        self.state.lock().handler.clone()
    }

    /// Passes a message to the layer above, and handles other packets as the protocol specifies.
    pub(crate) fn process_packet(
        self: &Arc<Self>,
        packet: Incoming,
        handler: &dyn SessionHandler,
    ) -> Result<PacketOutcome, Malformed> {
        AtomicCounters::add(&self.control.0.counters.packets_in, 1);
        if self.protocol == ProtocolVersion::V3 {
            self.record_heartbeat();
        }
        match packet {
            Incoming::Message(text) => {
                let intercept = self.state.lock().intercept.clone();
                let unhandled = match intercept {
                    Some(intercept) => intercept.text(text),
                    None => Err(text),
                };
                if let Err(text) = unhandled {
                    handler.on_message(text);
                }
            }
            Incoming::Binary(data) => handler.on_binary(data),
            Incoming::Ping if self.protocol == ProtocolVersion::V3 => {
                self.send_internal(Frame::packet("3"));
            }
            Incoming::Pong if self.protocol == ProtocolVersion::V4 => self.record_heartbeat(),
            Incoming::Close => self.close(DisconnectReason::TransportClose, CloseMode::Noop),
            Incoming::Upgrade => return Ok(PacketOutcome::Upgrade),
            Incoming::Noop => {}
            // A heartbeat in the wrong direction, or a probe on a transport that is in use.
            Incoming::Ping | Incoming::Pong | Incoming::Probe => return Err(Malformed),
        }
        Ok(PacketOutcome::Handled)
    }
}

#[cfg(test)]
mod tests;
