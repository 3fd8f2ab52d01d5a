//! Rights that a transport holds on a session: to answer its poll, to post, to take it over. Each
//! is given up by dropping it, so no path forgets.

use std::sync::Arc;
use std::task::{self, Context};

use engineioxide_core::TransportType;
use parking_lot::MutexGuard;
use tokio::time::Instant;

use super::state::{Life, Queue, State, Upgrade};
use super::{Farewell, Session};
use crate::socket::DisconnectReason;

/// How a poll is answered.
pub(crate) enum Poll {
    Frames(Queue),
    Noop,
    ClosePacket,
    Refuse,
    /// An upgrade has come far: a noop is due, unless the poll is asked again soon, because the
    /// `5` may be on its way.
    Probed,
}

/// The right to take a session over from polling. Dropped before that (the WebSocket is gone),
/// polling goes on.
pub(crate) struct UpgradeTicket {
    session: Arc<Session>,
    round: u32,
}

impl UpgradeTicket {
    pub(super) fn new(session: Arc<Session>, round: u32) -> Self {
        Self { session, round }
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The state, as long as this upgrade is the one that counts.
    fn state(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.session.state.lock();
        let counts = state.upgrade != Upgrade::None && state.upgrade_round == self.round;
        counts.then_some(state)
    }

    /// For the WebSocket's task before it sleeps. False: the upgrade took too long, or the
    /// session is over.
    pub(crate) fn wait(&self, cx: &Context<'_>) -> bool {
        self.state()
            .map(|mut state| state.sleep(cx.waker()))
            .is_some()
    }

    /// The probe has come: from now on polls are answered at once.
    pub(crate) fn probed(&self) {
        let waker = self.state().and_then(|mut state| {
            if let Upgrade::Connected(at) = state.upgrade {
                state.upgrade = Upgrade::Probed(at);
            }
            state.poll_waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The WebSocket takes over: what is queued is its to send. False: too late, or too early.
    pub(crate) fn finish(&self) -> bool {
        let waker = {
            let Some(mut state) = self.state() else {
                return false;
            };
            if !matches!(state.upgrade, Upgrade::Probed(_)) {
                return false;
            }
            state.upgrade = Upgrade::None;
            state.transport = TransportType::Websocket;
            state.stall_at = None;
            state.socket_awake = true;
            self.session.control.upgraded(self.session.protocol);
            state.poll_waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

impl Drop for UpgradeTicket {
    fn drop(&mut self) {
        if let Some(mut state) = self.state() {
            drop(self.session.end_upgrade(&mut state));
        }
    }
}

/// Packets in one answer to a poll. python-engineio takes no more, and breaks off the connection.
const POLLED_PACKETS: usize = 16;

/// The right to answer the one poll. Dropping it unanswered (the client went away) ends the
/// session.
pub(crate) struct PollTicket {
    session: Arc<Session>,
    answered: bool,
    /// It came when the probe had been answered, where clients should have stopped polling.
    late: bool,
    hurry: bool,
}

impl PollTicket {
    pub(super) fn new(session: Arc<Session>, late: bool) -> Self {
        Self {
            session,
            answered: false,
            late,
            hurry: false,
        }
    }

    /// From now on an upgrade under way is a reason for a noop.
    pub(crate) fn hurry(&mut self) {
        self.hurry = true;
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> task::Poll<Poll> {
        let mut state = self.session.state.lock();
        let answer = if state.life == Life::Closed {
            match state.end.as_ref().map(|(_, farewell)| *farewell) {
                Some(Farewell::Noop) => Poll::Noop,
                Some(Farewell::ClosePacket) => Poll::ClosePacket,
                _ => Poll::Refuse,
            }
        } else if state.transport == TransportType::Websocket {
            if self.late { Poll::Refuse } else { Poll::Noop }
        } else if !state.queue.is_empty() {
            let taken = state.queue.len().min(POLLED_PACKETS);
            let rest = state.queue.drain(taken..).collect();
            let frames = std::mem::replace(&mut state.queue, rest);
            // The next poll, which is to take the rest, has as long to come as this one had.
            let stalls = (!state.queue.is_empty())
                .then(|| Instant::now() + self.session.control.limits().write_timeout);
            state.stall_at = stalls;
            if stalls.is_some() {
                self.session.arm(&mut state);
            }
            Poll::Frames(frames)
        } else if matches!(state.upgrade, Upgrade::Probed(_)) {
            if !self.hurry {
                return task::Poll::Ready(Poll::Probed);
            }
            Poll::Noop
        } else {
            state.poll_waker = Some(cx.waker().clone());
            return task::Poll::Pending;
        };
        state.polling = false;
        state.poll_waker = None;
        drop(state);
        self.answered = true;
        task::Poll::Ready(answer)
    }
}

impl Drop for PollTicket {
    fn drop(&mut self) {
        if !self.answered {
            self.session
                .close(DisconnectReason::TransportClose, Farewell::Refuse);
        }
    }
}

/// The right to the one POST.
pub(crate) struct PostTicket(Arc<Session>);

impl PostTicket {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self(session)
    }
}

impl Drop for PostTicket {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.state.lock();
            state.posting = false;
            // The WebSocket that took over meanwhile may wait for this.
            (state.transport == TransportType::Websocket)
                .then(|| state.socket_waker.take())
                .flatten()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
