//! What a session's lock guards.

use std::sync::Arc;
use std::task::Waker;

use engineioxide_core::{ProtocolVersion, TransportType};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{Carrier, Farewell, Owner};
use crate::config::EngineIoConfig;
use crate::frame::Frame;
use crate::handle::Intercept;
use crate::socket::DisconnectReason;

/// Frames that wait. As many as mostly do lie in the session itself, so none of its lines of memory is for them alone.
pub(crate) type Queue = SmallVec<[Frame; 6]>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    /// Takes no frames any more, closes when all are written.
    Draining,
    Closed,
}

/// What the heartbeat waits for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Beat {
    /// Engine.IO 4: our next ping.
    Ping(Instant),
    /// Engine.IO 4: the answer to it, at the latest then.
    Pong(Instant),
    /// Engine.IO 3: anything from the client, at the latest then.
    Anything(Instant),
}

impl Beat {
    pub(super) fn first(protocol: ProtocolVersion, config: &EngineIoConfig) -> Self {
        let now = Instant::now();
        match protocol {
            ProtocolVersion::V3 => Self::Anything(now + config.ping_interval + config.ping_timeout),
            ProtocolVersion::V4 => Self::Ping(now + config.ping_interval),
        }
    }

    pub(super) fn at(self) -> Instant {
        match self {
            Self::Ping(at) | Self::Pong(at) | Self::Anything(at) => at,
        }
    }
}

/// How far a WebSocket that wants to take over has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upgrade {
    None,
    /// It is connected.
    Connected(Instant),
    /// It has answered the probe: polls are answered at once, until the client stops polling.
    Probed(Instant),
}

/// Who takes what is queued.
pub(super) enum Reader {
    /// Someone who knows, or is still to come.
    Knows,
    /// A waiting GET, by its task.
    Poll(Waker),
    /// A WebSocket, when it is its turn.
    Socket,
}

/// In the order in which it is needed, see [`Session`](super::Session).
#[repr(C)]
pub(super) struct State {
    pub(super) life: Life,
    pub(super) transport: TransportType,
    /// Whether the WebSocket's task need not be told of output: it has been, or will look by itself.
    pub(super) socket_awake: bool,
    /// Whether it waits for its turn to write.
    pub(super) in_line: bool,
    /// A GET waits.
    pub(super) polling: bool,
    /// A POST is being read.
    pub(super) posting: bool,
    /// `on_disconnect` has returned.
    pub(super) over: bool,
    /// Bytes of `queue`, and of what the carrier has taken and not yet written.
    pub(super) unwritten: usize,
    /// The greatest number of bytes in `below`: with no fewer unwritten, nobody there need be looked for.
    pub(super) highest: usize,
    /// Frames that no carrier has taken yet.
    pub(super) queue: Queue,
    /// The WebSocket that carries it.
    pub(super) carrier: Option<Arc<dyn Carrier>>,
    /// The task of the WebSocket (also of one that wants to take over), while it sleeps.
    pub(super) socket_waker: Option<Waker>,
    /// When the outbox will have been without progress for too long.
    pub(super) stall_at: Option<Instant>,
    /// Who takes texts first.
    pub(super) intercept: Option<Arc<dyn Intercept>>,
    pub(super) below: Vec<(usize, Box<dyn FnOnce() + Send>)>,
    pub(super) beat: Beat,
    pub(super) drain_at: Option<Instant>,
    /// The clock's entry that counts.
    pub(super) armed: Option<Instant>,
    pub(super) upgrade: Upgrade,
    /// Counts the upgrades begun, so that one that was given up can't end its successor.
    pub(super) upgrade_round: u32,
    pub(super) poll_waker: Option<Waker>,
    /// Set from the end of `on_connect` to the close: taking it is the right to disconnect.
    pub(super) owner: Option<Arc<dyn Owner>>,
    pub(super) end: Option<(DisconnectReason, Farewell)>,
}

impl State {
    pub(super) fn new(transport: TransportType, beat: Beat) -> Self {
        Self {
            life: Life::Open,
            transport,
            queue: Queue::new(),
            unwritten: 0,
            beat,
            stall_at: None,
            drain_at: None,
            armed: None,
            upgrade: Upgrade::None,
            upgrade_round: 0,
            socket_waker: None,
            // Until the task first sleeps, it is going to look.
            socket_awake: true,
            carrier: None,
            in_line: false,
            polling: false,
            poll_waker: None,
            posting: false,
            below: Vec::new(),
            highest: 0,
            intercept: None,
            owner: None,
            end: None,
            over: false,
        }
    }

    /// Whom to tell that there is output; each batch is told of once.
    pub(super) fn reader(&mut self) -> Reader {
        match self.transport {
            TransportType::Polling => self.poll_waker.take().map_or(Reader::Knows, Reader::Poll),
            TransportType::Websocket if self.socket_awake => Reader::Knows,
            TransportType::Websocket => {
                (self.socket_awake, self.in_line) = (true, true);
                Reader::Socket
            }
        }
    }

    /// A stall counts only while the transport is meant to carry the outbox.
    pub(super) fn stall_deadline(&self) -> Option<Instant> {
        self.stall_at.filter(|_| self.upgrade == Upgrade::None)
    }

    pub(super) fn next_deadline(&self) -> Instant {
        let upgrade = match self.upgrade {
            Upgrade::None => None,
            Upgrade::Connected(at) | Upgrade::Probed(at) => Some(at),
        };
        [self.stall_deadline(), self.drain_at, upgrade]
            .into_iter()
            .flatten()
            .fold(self.beat.at(), Instant::min)
    }

    /// Counts `bytes` as written; the callbacks that became due are the caller's to call,
    /// without the lock.
    pub(super) fn written(&mut self, bytes: usize) -> Vec<Box<dyn FnOnce() + Send>> {
        self.unwritten = self.unwritten.saturating_sub(bytes);
        let unwritten = self.unwritten;
        if unwritten >= self.highest {
            return Vec::new();
        }
        let due = self.below.extract_if(.., |(below, _)| unwritten < *below);
        let due = due.map(|(_, then)| then).collect();
        self.highest = self
            .below
            .iter()
            .map(|(below, _)| *below)
            .max()
            .unwrap_or(0);
        if self.below.is_empty() {
            self.below = Vec::new();
        }
        due
    }
}
