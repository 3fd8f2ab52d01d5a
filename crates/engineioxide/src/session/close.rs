//! The close of a session: it happens once, takes effect at once, and is reported to the layer
//! above exactly once.

use std::sync::Arc;

use super::state::{Phase, Upgrade};
use super::{Session, SessionHandler};
use crate::control::AtomicCounters;
use crate::socket::DisconnectReason;

/// How the transport is closed with the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseMode {
    /// A waiting poll is answered with status 400, a WebSocket ends without a close frame. Clients
    /// reconnect: at once, because they see a lost connection. To a close frame the Java clients
    /// do not react at all, and would notice the end only when a heartbeat is missing.
    Refuse,
    /// The client has closed the session: a waiting poll is answered with a noop.
    Noop,
    /// The client violated the rules of polling: a waiting poll is answered with a close packet.
    ClosePacket,
    /// The transport accepts no more data: the TCP connection is dropped.
    Abort,
    /// A WebSocket gets a close frame with this code.
    Code(u16),
}

impl Session {
    /// Closes the session, unless it is closed. Never blocks and calls no foreign code: the layer
    /// above is notified on a task of its own.
    pub(crate) fn close(self: &Arc<Self>, reason: DisconnectReason, close_mode: CloseMode) {
        let (wakers, callbacks, handler, intercept, direct_writer, transport) = {
            let mut state = self.state.lock();
            if state.phase == Phase::Closed {
                return;
            }
            state.phase = Phase::Closed;
            state.closed_with = Some((reason.clone(), close_mode));
            state.queue = Default::default();
            state.unwritten = 0;
            state.upgrade = Upgrade::None;
            state.output_signaled = true;
            (
                [state.socket_waker.take(), state.poll_waker.take()],
                std::mem::take(&mut state.low_water),
                state.handler.take(),
                state.intercept.take(),
                state.direct_writer.take(),
                state.transport,
            )
        };
        #[cfg(feature = "tracing")]
        tracing::debug!(sid = %self.id, ?reason, ?close_mode, "session closed");
        drop(direct_writer);
        self.control.remove(&self.id, transport, self.protocol);
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
        if handler.is_some() || intercept.is_some() || !callbacks.is_empty() {
            let session = self.clone();
            self.control.spawn(async move {
                drop(intercept);
                for (_, then) in callbacks {
                    then();
                }
                if let Some(handler) = handler {
                    session.notify_disconnect(handler, reason);
                }
            });
        }
    }

    /// Closes a session whose peer does not read its output.
    pub(super) fn close_slow_consumer(self: &Arc<Self>) {
        let is_first = {
            let mut state = self.state.lock();
            let is_open = state.phase != Phase::Closed;
            state.slow_consumer |= is_open;
            is_open
        };
        if is_first {
            AtomicCounters::add(&self.control.0.counters.slow_consumers, 1);
        }
        self.close(DisconnectReason::TransportError, CloseMode::Abort);
    }

    /// Attaches the layer above, after its `on_connect` has returned. If the session has been
    /// closed meanwhile, calls `on_disconnect` on a task.
    pub(crate) fn attach_handler(self: &Arc<Self>, handler: Arc<dyn SessionHandler>) {
        let reason = {
            let mut state = self.state.lock();
            match &state.closed_with {
                None => {
                    state.handler = Some(handler);
                    return;
                }
                Some((reason, _)) => reason.clone(),
            }
        };
        let session = self.clone();
        self.control
            .spawn(async move { session.notify_disconnect(handler, reason) });
    }

    fn notify_disconnect(&self, handler: Arc<dyn SessionHandler>, reason: DisconnectReason) {
        /// Wakes the tasks in [`Session::closed`], also when the handler panics.
        struct SetDisconnected<'a>(&'a Session);
        impl Drop for SetDisconnected<'_> {
            fn drop(&mut self) {
                self.0.state.lock().disconnected = true;
                self.0.on_disconnected.notify_waiters();
            }
        }
        let _guard = SetDisconnected(self);
        handler.on_disconnect(reason);
    }

    /// The reason of the close; `None` while the session is not closed.
    pub(crate) fn close_reason(&self) -> Option<DisconnectReason> {
        let state = self.state.lock();
        let (reason, _) = state.closed_with.as_ref()?;
        Some(reason.clone())
    }

    /// Whether the session was closed because its peer does not read its output.
    pub(crate) fn is_slow_consumer(&self) -> bool {
        self.state.lock().slow_consumer
    }

    /// How the transport has to be closed; `None` while the session is not closed.
    pub(crate) fn close_mode(&self) -> Option<CloseMode> {
        let state = self.state.lock();
        let (_, close_mode) = state.closed_with.as_ref()?;
        Some(*close_mode)
    }

    /// Resolves when `on_disconnect` of the layer above has returned.
    pub(crate) async fn closed(&self) {
        loop {
            let disconnected = self.on_disconnected.notified();
            let mut disconnected = std::pin::pin!(disconnected);
            // Registered before the check, so that a notification between the two is not missed.
            disconnected.as_mut().enable();
            if self.state.lock().disconnected {
                return;
            }
            disconnected.await;
        }
    }
}
