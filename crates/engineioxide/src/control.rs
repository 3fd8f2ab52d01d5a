//! What the application holds: its limits, the list of its sessions and their figures.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engineioxide_core::{ProtocolVersion, Sid, TransportType};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::handle::SessionHandle;
use crate::rota::Rota;
use crate::session::Session;
use crate::websocket::{Link, Unbox, unbox};

const SHARDS: usize = 16;

/// Limits of what goes out to one session.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes (of WebSocket frames, headers included) that may wait for one session. A session
    /// that would pass it is closed as a slow consumer; nothing is ever dropped from the middle.
    /// Default 1 MiB.
    pub outbox_bytes: usize,
    /// Frames that may wait for one session's transport to take them, whatever their size: the smallest take ten times
    /// their bytes of memory. A session that would pass it is closed as a slow consumer. Default 16,384.
    pub outbox_frames: usize,
    /// How long bytes may wait without any progress before the session is closed. Default 10 s.
    pub write_timeout: Duration,
    /// How long a closing WebSocket may take to take the close frame and to answer it.
    /// Default 1 s.
    pub close_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            outbox_bytes: 1024 * 1024,
            outbox_frames: 16 * 1024,
            write_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(1),
        }
    }
}

/// The application's hold on all sessions whose requests carried it. Insert a clone into each
/// request's extensions before the service sees it; without one, a default of the service's own
/// applies. Sessions are found by the `Control` of the request, so use one for all.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<Registry>);

pub(crate) struct Registry {
    pub(crate) limits: Limits,
    pub(crate) counters: Tally,
    pub(crate) clock: Clock,
    pub(crate) rota: Rota,
    /// For each kind of link what takes it out of hyper's box.
    pub(crate) links: Mutex<Arc<[Unbox]>>,
    /// The runtime of the first session. Disconnections are told there, never in the stack of
    /// whoever closes, who may hold locks.
    runtime: OnceLock<Handle>,
    shards: [Mutex<HashMap<Sid, Arc<Session>>>; SHARDS],
    population: [AtomicUsize; 4],
}

impl Control {
    /// A control with no sessions yet.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Registry {
            limits,
            counters: Tally::default(),
            clock: Clock::default(),
            rota: Rota::default(),
            links: Mutex::new(Arc::new([])),
            runtime: OnceLock::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            population: Default::default(),
        }))
    }

    /// The limits that it was made with.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Handles of all living sessions. Sessions that open or close meanwhile may be missed or
    /// already be closed.
    pub fn sessions(&self) -> Vec<SessionHandle> {
        let mut sessions = Vec::with_capacity(self.len());
        for shard in &self.0.shards {
            sessions.extend(shard.lock().values().cloned().map(SessionHandle::new));
        }
        sessions
    }

    /// How many sessions live.
    pub fn len(&self) -> usize {
        self.0
            .population
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// Whether no session lives.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many sessions live on this transport with this protocol.
    pub fn count(&self, transport: TransportType, protocol: ProtocolVersion) -> usize {
        self.0.population[index(transport, protocol)].load(Ordering::Relaxed)
    }

    /// The figures so far. Each is exact, together they aren't one moment.
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &self.0.counters;
        Counters {
            opened: read(&tally.opened),
            slow_consumers: read(&tally.slow_consumers),
            heartbeat_timeouts: read(&tally.heartbeat_timeouts),
            upgrades: read(&tally.upgrades),
            boxed: read(&tally.boxed),
            packets_in: read(&tally.packets_in),
            packets_out: read(&tally.packets_out),
            bytes_in: read(&tally.bytes_in),
            bytes_out: read(&tally.bytes_out),
        }
    }

    /// Where the server gives hyper a `TokioIo<L>` to serve, WebSockets run on the `L` itself: without being told they run on
    /// what hyper hands over, which has it in a box, and costs each of them memory and time. To be told once of each kind.
    pub fn runs_on<L: Link>(&self) {
        let mut links = self.0.links.lock();
        *links = links.iter().copied().chain([unbox::<L> as Unbox]).collect();
    }

    /// The line in which sessions wait to write, for connections of another kind. Must be called within a tokio runtime.
    pub fn rota(&self) -> Rota {
        self.0.rota.start();
        self.0.rota.clone()
    }

    pub(crate) fn find(&self, sid: &Sid) -> Option<Arc<Session>> {
        self.0.find(sid)
    }

    pub(crate) fn insert(&self, session: &Arc<Session>) {
        self.0.runtime.get_or_init(Handle::current);
        self.0.clock.start(&self.0);
        self.0.rota.start();
        Tally::add(&self.0.counters.opened, 1);
        self.0.population[index(session.transport(), session.protocol)]
            .fetch_add(1, Ordering::Relaxed);
        self.0
            .shard(&session.id)
            .lock()
            .insert(session.id, session.clone());
    }

    /// Forgets a session that was inserted; `transport` is what carried it at its end.
    pub(crate) fn remove(&self, sid: &Sid, transport: TransportType, protocol: ProtocolVersion) {
        if self.0.shard(sid).lock().remove(sid).is_some() {
            self.0.population[index(transport, protocol)].fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn upgraded(&self, protocol: ProtocolVersion) {
        self.0.population[index(TransportType::Websocket, protocol)]
            .fetch_add(1, Ordering::Relaxed);
        self.0.population[index(TransportType::Polling, protocol)].fetch_sub(1, Ordering::Relaxed);
        Tally::add(&self.0.counters.upgrades, 1);
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Set by `insert`; nothing is spawned for sessions that never were.
        self.0.runtime.get_or_init(Handle::current).spawn(work);
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("limits", &self.0.limits)
            .field("len", &self.len())
            .finish()
    }
}

impl Registry {
    fn shard(&self, sid: &Sid) -> &Mutex<HashMap<Sid, Arc<Session>>> {
        // Ids are random base64: any two characters spread well enough.
        let bytes = sid.as_str().as_bytes();
        let spread = bytes
            .iter()
            .take(2)
            .fold(0usize, |sum, &byte| sum * 31 + usize::from(byte));
        &self.shards[spread % SHARDS]
    }

    pub(crate) fn find(&self, sid: &Sid) -> Option<Arc<Session>> {
        self.shard(sid).lock().get(sid).cloned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.clock.stop();
        self.rota.stop();
    }
}

fn index(transport: TransportType, protocol: ProtocolVersion) -> usize {
    let transport = usize::from(transport == TransportType::Websocket);
    let protocol = usize::from(protocol == ProtocolVersion::V4);
    transport * 2 + protocol
}

/// A reading of a [`Control`]'s figures, all since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions opened.
    pub opened: u64,
    /// Sessions closed because their outbox overflowed or made no progress.
    pub slow_consumers: u64,
    /// Sessions closed for want of a heartbeat.
    pub heartbeat_timeouts: u64,
    /// Sessions that went from polling to a WebSocket.
    pub upgrades: u64,
    /// WebSockets that run on what hyper handed over, as nobody told of what is in it: see [`Control::runs_on`].
    pub boxed: u64,
    /// Engine.IO packets received.
    pub packets_in: u64,
    /// Frames handed to a transport.
    pub packets_out: u64,
    /// Bytes read: of WebSockets all, of polling the bodies.
    pub bytes_in: u64,
    /// Bytes written: of WebSockets all, of polling the bodies.
    pub bytes_out: u64,
}

/// The living figures behind [`Counters`].
#[derive(Default)]
pub(crate) struct Tally {
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

impl Tally {
    pub(crate) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// The one request extension that is kept with a session: `Socket::req_parts` has it, beside the
/// [`SessionHandle`]. Everything else of the request is let go, because header and URI are slices
/// that would pin the connection's read buffer for the session's life.
#[derive(Clone)]
pub struct Retained(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Retained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Retained")
    }
}
