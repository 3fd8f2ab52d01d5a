//! The application's hold on its sessions: limits, the session table and counters.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Sid, TransportType};
use parking_lot::Mutex;
use tokio::runtime::Handle;

pub(crate) use crate::counters::AtomicCounters;
pub use crate::counters::Counters;
use crate::frame::Frame;
use crate::handle::SessionHandle;
use crate::pause::PauseMonitor;
use crate::scheduler::WriteScheduler;
use crate::session::Session;
use crate::timer::Timer;
use crate::websocket::{Link, Unbox, unbox};

/// Shards of the session table, each with its own lock.
const SHARDS: usize = 16;

/// Limits of the output of one session.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes (of WebSocket frames, headers included) that may wait for one session. A session that
    /// would exceed this limit is closed as a slow consumer; no frame is ever dropped from the
    /// middle of the stream. Default 1 MiB.
    pub outbox_bytes: usize,
    /// Frames of any size that may wait until the session's transport takes them. This limit
    /// exists because the smallest frames need ten times their bytes of memory. A session that
    /// would exceed it is closed as a slow consumer. Default 16,384.
    pub outbox_frames: usize,
    /// How long bytes may wait without any progress before the session is closed. Default 10 s.
    pub write_timeout: Duration,
    /// The time limit for the end of a WebSocket whose session is closed: sending a close frame, if
    /// the close has a code, ending the output, and waiting for the end of the peer's output. Most
    /// closes send no frame. Default 1 s.
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

/// Controls all sessions whose requests carried this `Control`. Insert a clone into each request's
/// extensions before the service receives it; without one, the service's own default `Control`
/// applies. A request finds only the sessions of its own `Control`, so use one for all requests.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<Registry>);

/// The state that all clones of a [`Control`] share.
pub(crate) struct Registry {
    pub(crate) limits: Limits,
    pub(crate) counters: AtomicCounters,
    pub(crate) timer: Timer,
    pub(crate) scheduler: WriteScheduler,
    pub(crate) pauses: PauseMonitor,
    /// For each registered link type, the function that takes it out of hyper's box.
    pub(crate) links: Mutex<Arc<[Unbox]>>,
    /// The runtime of the first session. `on_disconnect` is called on its tasks and never on the
    /// stack of the code that closes a session, because that code may hold locks.
    runtime: OnceLock<Handle>,
    shards: [Mutex<HashMap<Sid, Arc<Session>>>; SHARDS],
    /// Open sessions by transport and protocol version, see [`count_index`].
    counts: [AtomicUsize; 4],
}

impl Control {
    /// A control without sessions.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Registry {
            limits,
            counters: AtomicCounters::default(),
            timer: Timer::default(),
            scheduler: WriteScheduler::default(),
            pauses: PauseMonitor::default(),
            links: Mutex::new(Arc::new([])),
            runtime: OnceLock::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            counts: Default::default(),
        }))
    }

    /// The limits that this control was created with.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Handles of all open sessions. The list is not a snapshot: a session that opens during the
    /// call may be missing, and one that closes during the call may be in it.
    pub fn sessions(&self) -> Vec<SessionHandle> {
        let mut sessions = Vec::with_capacity(self.len());
        for shard in &self.0.shards {
            sessions.extend(shard.lock().values().cloned().map(SessionHandle::new));
        }
        sessions
    }

    /// The number of open sessions.
    pub fn len(&self) -> usize {
        self.0
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// Whether no session is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of open sessions on this transport with this protocol version.
    pub fn count(&self, transport: TransportType, protocol: ProtocolVersion) -> usize {
        self.0.counts[count_index(transport, protocol)].load(Ordering::Relaxed)
    }

    /// The counters' values. Each value is exact, but they are not read at one moment.
    pub fn counters(&self) -> Counters {
        self.0.counters.read()
    }

    /// Registers the stream type `L` that the server passes to hyper as a `TokioIo<L>`. WebSockets
    /// then run on the `L` itself. On a type that is not registered they run on hyper's boxed
    /// stream, which costs each of them memory and time. Call this once for each stream type.
    pub fn register_link<L: Link>(&self) {
        let mut links = self.0.links.lock();
        *links = links.iter().copied().chain([unbox::<L> as Unbox]).collect();
    }

    /// The scheduler in which the sessions wait to write, so that connections of other kinds can
    /// share it. Must be called within a tokio runtime.
    pub fn write_scheduler(&self) -> WriteScheduler {
        self.0.scheduler.start();
        self.0.scheduler.clone()
    }

    /// The monitor by which the sessions know pauses of this process, so that connections of other
    /// kinds can share it. Must be called within a tokio runtime.
    pub fn pause_monitor(&self) -> PauseMonitor {
        self.0.pauses.start();
        self.0.pauses.clone()
    }

    pub(crate) fn find(&self, sid: &Sid) -> Option<Arc<Session>> {
        self.0.find(sid)
    }

    pub(crate) fn insert(&self, session: &Arc<Session>) {
        self.0.runtime.get_or_init(Handle::current);
        self.0.timer.start(&self.0);
        self.0.scheduler.start();
        self.0.pauses.start();
        AtomicCounters::add(&self.0.counters.opened, 1);
        self.0.counts[count_index(session.transport(), session.protocol)]
            .fetch_add(1, Ordering::Relaxed);
        self.0
            .shard(&session.id)
            .lock()
            .insert(session.id, session.clone());
    }

    /// Removes a session that was inserted. `transport` is its transport at the time of the close.
    pub(crate) fn remove(&self, sid: &Sid, transport: TransportType, protocol: ProtocolVersion) {
        if self.0.shard(sid).lock().remove(sid).is_some() {
            self.0.counts[count_index(transport, protocol)].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Counts a session that was upgraded from polling to a WebSocket.
    pub(crate) fn upgraded(&self, protocol: ProtocolVersion) {
        self.0.counts[count_index(TransportType::Websocket, protocol)]
            .fetch_add(1, Ordering::Relaxed);
        self.0.counts[count_index(TransportType::Polling, protocol)]
            .fetch_sub(1, Ordering::Relaxed);
        AtomicCounters::add(&self.0.counters.upgrades, 1);
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // `insert` has set the runtime; work is spawned only for sessions that were inserted.
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
        // Session ids are random base64, so their first two characters spread well enough.
        let bytes = sid.as_str().as_bytes();
        let hash = bytes
            .iter()
            .take(2)
            .fold(0usize, |hash, &byte| hash * 31 + usize::from(byte));
        &self.shards[hash % SHARDS]
    }

    pub(crate) fn find(&self, sid: &Sid) -> Option<Arc<Session>> {
        self.shard(sid).lock().get(sid).cloned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.timer.stop();
        self.scheduler.stop();
    }
}

fn count_index(transport: TransportType, protocol: ProtocolVersion) -> usize {
    let transport = usize::from(transport == TransportType::Websocket);
    let protocol = usize::from(protocol == ProtocolVersion::V4);
    transport * 2 + protocol
}

/// The application's data of one session, which may also handle some of the session's messages. By
/// default it handles none. No method may block.
pub trait SessionData: Any + Send + Sync {
    /// The session has begun. Called before the layer above learns of the session.
    fn opened(&self, session: &SessionHandle) {
        let _ = session;
    }

    /// A binary message has arrived. Returns it for the layer above, or `None` if it was handled.
    fn incoming_binary(&self, session: &SessionHandle, data: Bytes) -> Option<Bytes> {
        let _ = session;
        Some(data)
    }

    /// The layer above sends a text message. Returns the frame to send, or `None` to send nothing.
    /// Frames that the application sends by [`SessionHandle::send`] do not pass here.
    fn outgoing_text(&self, session: &SessionHandle, text: &str) -> Option<Frame> {
        let _ = session;
        Some(Frame::text(text))
    }
}

/// The one request extension that is kept with a session. `Socket::req_parts` holds it, next to the
/// [`SessionHandle`]. Everything else of the request is dropped, because header values and the URI
/// are slices of the connection's read buffer and would keep it allocated for the session's
/// lifetime.
#[derive(Clone)]
pub struct Retained(pub Arc<dyn SessionData>);

impl fmt::Debug for Retained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Retained")
    }
}
