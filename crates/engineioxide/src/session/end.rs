//! The end of a session: once, prompt, and told to the layer above exactly once.

use std::sync::Arc;

use super::state::{Life, Upgrade};
use super::{Owner, Session};
use crate::control::Tally;
use crate::socket::DisconnectReason;

/// How the transport is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// A waiting poll is answered with 400, a WebSocket gets a close frame: clients come back.
    Refuse,
    /// The client has closed: a waiting poll is answered with a noop.
    Noop,
    /// A waiting poll is answered with a close packet: the client broke the rules of polling.
    ClosePacket,
    /// The transport doesn't take anything any more: the TCP connection is dropped.
    Abort,
    /// The WebSocket's close frame has this code.
    Code(u16),
}

impl Session {
    /// Ends the session, unless it has ended. Never blocks and calls nothing foreign: the layer
    /// above hears of it on a task of its own.
    pub(crate) fn close(self: &Arc<Self>, reason: DisconnectReason, farewell: Farewell) {
        let (wakers, callbacks, owner, intercept, carrier, transport) = {
            let mut state = self.state.lock();
            if state.life == Life::Closed {
                return;
            }
            state.life = Life::Closed;
            state.end = Some((reason.clone(), farewell));
            state.queue = Default::default();
            state.unwritten = 0;
            state.upgrade = Upgrade::None;
            state.socket_awake = true;
            (
                [state.socket_waker.take(), state.poll_waker.take()],
                std::mem::take(&mut state.below),
                state.owner.take(),
                state.intercept.take(),
                state.carrier.take(),
                state.transport,
            )
        };
        #[cfg(feature = "tracing")]
        tracing::debug!(sid = %self.id, ?reason, ?farewell, "session closed");
        drop(carrier);
        self.control.remove(&self.id, transport, self.protocol);
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
        if owner.is_some() || intercept.is_some() || !callbacks.is_empty() {
            let session = self.clone();
            self.control.spawn(async move {
                drop(intercept);
                for (_, then) in callbacks {
                    then();
                }
                if let Some(owner) = owner {
                    session.finish(owner, reason);
                }
            });
        }
    }

    /// Closes a session whose peer doesn't take what is sent to it.
    pub(super) fn close_slow(self: &Arc<Self>) {
        if !self.is_closed() {
            Tally::add(&self.control.0.counters.slow_consumers, 1);
        }
        self.close(DisconnectReason::TransportError, Farewell::Abort);
    }

    /// Binds the layer above, after its `on_connect`. A session that was closed meanwhile is
    /// disconnected now.
    pub(crate) fn attach(self: &Arc<Self>, owner: Arc<dyn Owner>) {
        let reason = {
            let mut state = self.state.lock();
            match &state.end {
                None => {
                    state.owner = Some(owner);
                    return;
                }
                Some((reason, _)) => reason.clone(),
            }
        };
        let session = self.clone();
        self.control
            .spawn(async move { session.finish(owner, reason) });
    }

    fn finish(&self, owner: Arc<dyn Owner>, reason: DisconnectReason) {
        /// Whoever waits for the end must hear of it even if the handler panics.
        struct Over<'a>(&'a Session);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.state.lock().over = true;
                self.0.over.notify_waiters();
            }
        }
        let _over = Over(self);
        owner.disconnected(reason);
    }

    /// How the transport is to be left, once the session is closed.
    pub(crate) fn farewell(&self) -> Option<Farewell> {
        self.state
            .lock()
            .end
            .as_ref()
            .map(|(_, farewell)| *farewell)
    }

    /// Resolves when the layer above has heard of the end.
    pub(crate) async fn closed(&self) {
        loop {
            let over = self.over.notified();
            let mut over = std::pin::pin!(over);
            // Registered before looking, so that an end between the two isn't missed.
            over.as_mut().enable();
            if self.state.lock().over {
                return;
            }
            over.await;
        }
    }
}
