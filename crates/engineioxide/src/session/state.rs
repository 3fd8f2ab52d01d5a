//! The state that a session's lock guards.

use std::sync::Arc;
use std::task::Waker;

use engineioxide_core::{ProtocolVersion, TransportType};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{CloseMode, DirectWriter, SessionHandler};
use crate::config::EngineIoConfig;
use crate::frame::Frame;
use crate::handle::Intercept;
use crate::socket::DisconnectReason;

/// Frames that wait to be written. The usual number fits into the session itself, so that it needs
/// no further allocation and no further cache line.
pub(crate) type Queue = SmallVec<[Frame; 6]>;

/// The phases of a session, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Closes when all queued frames are written. Accepts no more frames, unless some are held.
    Draining,
    Closed,
}

/// The next step of the heartbeat, and its time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Heartbeat {
    /// Engine.IO 4: the server sends its next ping at this time.
    SendPing(Instant),
    /// Engine.IO 4: the pong must arrive by this time.
    AwaitPong(Instant),
    /// Engine.IO 3: any packet from the client must arrive by this time.
    AwaitAny(Instant),
}

impl Heartbeat {
    pub(super) fn first(protocol: ProtocolVersion, config: &EngineIoConfig) -> Self {
        let now = Instant::now();
        match protocol {
            ProtocolVersion::V3 => Self::AwaitAny(now + config.ping_interval + config.ping_timeout),
            ProtocolVersion::V4 => Self::SendPing(now + config.ping_interval),
        }
    }

    pub(super) fn at(self) -> Instant {
        match self {
            Self::SendPing(at) | Self::AwaitPong(at) | Self::AwaitAny(at) => at,
        }
    }
}

/// The progress of an upgrade to a WebSocket, and the time at which it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upgrade {
    None,
    /// The WebSocket is connected.
    Connected(Instant),
    /// The WebSocket has received the probe. Polls are answered at once, until the client stops
    /// polling.
    Probed(Instant),
}

/// The deadlines that were extended after a pause of this process. Each may be extended once, until
/// the client shows life: otherwise repeated short pauses would keep a dead client open.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extended {
    /// [`State::heartbeat`], since the last heartbeat.
    pub(super) heartbeat: bool,
    /// [`State::stall_at`], since the last progress. Counts only while `stall_at` is set.
    pub(super) stall: bool,
    /// [`State::upgrade`], since its beginning. Counts only during an upgrade.
    pub(super) upgrade: bool,
}

/// The reader of the queue that has to be notified of new output.
pub(super) enum Wakeup {
    /// None: the reader has been notified, or no reader is there yet.
    NotNeeded,
    /// The task of a waiting GET.
    Poll(Waker),
    /// The WebSocket, through the write scheduler.
    Scheduler,
}

/// Fields are ordered by use, see [`Session`](super::Session).
#[repr(C)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) transport: TransportType,
    /// The WebSocket's task needs no notification of output: it has got one, or will check the
    /// queue by itself.
    pub(super) output_signaled: bool,
    /// The session is queued in the write scheduler.
    pub(super) scheduled: bool,
    /// A GET is waiting.
    pub(super) polling: bool,
    /// A POST is being read.
    pub(super) posting: bool,
    /// `on_disconnect` has returned.
    pub(super) disconnected: bool,
    /// The session is closed because the client did not read.
    pub(super) slow_consumer: bool,
    /// Bytes of `queue`, and of the frames that the transport has taken but not yet written.
    pub(super) unwritten: usize,
    /// The highest threshold in `low_water`. While `unwritten` is not below it, no callback is due.
    pub(super) highest_threshold: usize,
    /// Frames that no transport has taken yet.
    pub(super) queue: Queue,
    /// The WebSocket that carries the session.
    pub(super) direct_writer: Option<Arc<dyn DirectWriter>>,
    /// The sleeping task of the WebSocket, or of one that is being upgraded to.
    pub(super) socket_waker: Option<Waker>,
    /// The time at which the outbox will have been without progress for too long.
    pub(super) stall_at: Option<Instant>,
    /// Receives text messages before `handler`.
    pub(super) intercept: Option<Arc<dyn Intercept>>,
    /// Callbacks, each due as soon as fewer bytes than its threshold are unwritten.
    pub(super) low_water: Vec<(usize, Box<dyn FnOnce() + Send>)>,
    pub(super) heartbeat: Heartbeat,
    /// The time at which a draining session is closed, drained or not.
    pub(super) drain_at: Option<Instant>,
    /// The timer entry that counts.
    pub(super) armed: Option<Instant>,
    pub(super) upgrade: Upgrade,
    /// Counts the upgrades begun, so that an abandoned one cannot end its successor.
    pub(super) upgrade_round: u32,
    /// Here, where `upgrade_round` leaves space before the next field.
    pub(super) extended: Extended,
    /// Frames that are still to come, and that a draining session waits for.
    pub(super) held: u32,
    pub(super) poll_waker: Option<Waker>,
    /// Set from the return of `on_connect` until the close. The code that takes it must call its
    /// `on_disconnect`.
    pub(super) handler: Option<Arc<dyn SessionHandler>>,
    /// Set by the close.
    pub(super) closed_with: Option<(DisconnectReason, CloseMode)>,
}

impl State {
    pub(super) fn new(transport: TransportType, heartbeat: Heartbeat) -> Self {
        Self {
            phase: Phase::Open,
            transport,
            queue: Queue::new(),
            unwritten: 0,
            heartbeat,
            stall_at: None,
            drain_at: None,
            armed: None,
            upgrade: Upgrade::None,
            upgrade_round: 0,
            extended: Extended::default(),
            held: 0,
            socket_waker: None,
            // Before its first sleep the task checks the queue by itself.
            output_signaled: true,
            direct_writer: None,
            scheduled: false,
            polling: false,
            poll_waker: None,
            posting: false,
            low_water: Vec::new(),
            highest_threshold: 0,
            intercept: None,
            handler: None,
            closed_with: None,
            disconnected: false,
            slow_consumer: false,
        }
    }

    /// The reader to notify of new output. Each batch is notified of once.
    pub(super) fn take_wakeup(&mut self) -> Wakeup {
        match self.transport {
            TransportType::Polling => match self.poll_waker.take() {
                Some(waker) => Wakeup::Poll(waker),
                None => Wakeup::NotNeeded,
            },
            TransportType::Websocket if self.output_signaled => Wakeup::NotNeeded,
            TransportType::Websocket => {
                self.output_signaled = true;
                self.scheduled = true;
                Wakeup::Scheduler
            }
        }
    }

    /// The deadline of a stall. It does not apply during an upgrade, because the client stops polling
    /// before the WebSocket takes over. `upgrade_timeout` and `MAX_UPGRADES` bound that time.
    pub(super) fn stall_deadline(&self) -> Option<Instant> {
        match self.upgrade {
            Upgrade::None => self.stall_at,
            Upgrade::Connected(_) | Upgrade::Probed(_) => None,
        }
    }

    pub(super) fn next_deadline(&self) -> Instant {
        let upgrade = match self.upgrade {
            Upgrade::None => None,
            Upgrade::Connected(at) | Upgrade::Probed(at) => Some(at),
        };
        [self.stall_deadline(), self.drain_at, upgrade]
            .into_iter()
            .flatten()
            .fold(self.heartbeat.at(), Instant::min)
    }

    /// Counts `bytes` as written. The caller must call the returned callbacks, which are due now,
    /// without holding the lock.
    pub(super) fn count_written(&mut self, bytes: usize) -> Vec<Box<dyn FnOnce() + Send>> {
        self.unwritten = self.unwritten.saturating_sub(bytes);
        let unwritten = self.unwritten;
        if unwritten >= self.highest_threshold {
            return Vec::new();
        }
        let due = self
            .low_water
            .extract_if(.., |(threshold, _)| unwritten < *threshold);
        let due = due.map(|(_, then)| then).collect();
        self.highest_threshold = self
            .low_water
            .iter()
            .map(|(threshold, _)| *threshold)
            .max()
            .unwrap_or(0);
        if self.low_water.is_empty() {
            self.low_water = Vec::new();
        }
        due
    }

    /// Whether frames of the layer above are queued.
    pub(super) fn accepts_frames(&self) -> bool {
        match self.phase {
            Phase::Open => true,
            Phase::Draining => self.held > 0,
            Phase::Closed => false,
        }
    }

    /// Whether nothing is left to be written before a draining session closes.
    pub(super) fn is_flushed(&self) -> bool {
        self.unwritten == 0 && self.held == 0
    }

    /// Whether a draining session has written everything.
    pub(super) fn is_drained(&self) -> bool {
        self.phase == Phase::Draining && self.is_flushed()
    }

    /// The WebSocket's task goes to sleep, and has to be notified of output.
    pub(super) fn park_until_output(&mut self, waker: &Waker) {
        self.output_signaled = false;
        self.park(waker);
    }

    /// The WebSocket's task goes to sleep. Whether it has to be notified of output stays the same.
    pub(super) fn park(&mut self, waker: &Waker) {
        match &mut self.socket_waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}
