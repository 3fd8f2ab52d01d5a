//! Exclusive rights of a transport on a session: to answer its poll, to read its POST, to upgrade
//! it. Dropping a guard gives the right up, so that no path can forget to.

use std::sync::Arc;
use std::task::{Context, Poll};

use engineioxide_core::TransportType;
use parking_lot::MutexGuard;

use super::state::{Phase, Queue, State, Upgrade};
use super::{CloseMode, Session};
use crate::socket::DisconnectReason;

/// Packets in one answer to a poll. python-engineio does not accept more and breaks the connection.
const PACKETS_PER_POLL: usize = 16;

/// The answer to a poll.
pub(crate) enum PollReply {
    Frames(Queue),
    Noop,
    ClosePacket,
    Refuse,
    /// The WebSocket of an upgrade has received the probe. The poll has to be answered with a noop
    /// soon, but the caller waits a little before, because the client's `5` may be on its way.
    Probed,
}

/// The right to upgrade a session from polling to a WebSocket. If it is dropped before (the
/// WebSocket is gone), the session stays on polling.
pub(crate) struct UpgradeGuard {
    session: Arc<Session>,
    round: u32,
}

impl UpgradeGuard {
    pub(super) fn new(session: Arc<Session>, round: u32) -> Self {
        Self { session, round }
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The session's state, while this upgrade is the current one.
    fn state(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.session.state.lock();
        if state.upgrade == Upgrade::None || state.upgrade_round != self.round {
            return None;
        }
        Some(state)
    }

    /// Registers the WebSocket's task before it sleeps. Returns false if the upgrade has timed out
    /// or the session is closed.
    pub(crate) fn park(&self, cx: &Context<'_>) -> bool {
        let Some(mut state) = self.state() else {
            return false;
        };
        state.park_until_output(cx.waker());
        true
    }

    /// The probe has arrived: from now on polls are answered at once.
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

    /// Makes the WebSocket the session's transport; it sends the queued frames. Returns false if
    /// the upgrade has timed out.
    pub(crate) fn finish(&self) -> bool {
        let waker = {
            let Some(mut state) = self.state() else {
                return false;
            };
            state.upgrade = Upgrade::None;
            state.transport = TransportType::Websocket;
            state.stall_at = None;
            state.output_signaled = true;
            self.session.control.upgraded(self.session.protocol);
            state.poll_waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

impl Drop for UpgradeGuard {
    fn drop(&mut self) {
        if let Some(mut state) = self.state() {
            drop(self.session.abandon_upgrade(&mut state));
        }
    }
}

/// The right to answer the session's one poll. Dropping it unanswered (the client went away) closes
/// the session.
pub(crate) struct PollGuard {
    session: Arc<Session>,
    answered: bool,
    /// The poll began after the probe was answered, when clients should have stopped polling.
    after_probe: bool,
    /// A probed upgrade is answered with a noop instead of [`PollReply::Probed`].
    probed_is_noop: bool,
}

impl PollGuard {
    pub(super) fn new(session: Arc<Session>, after_probe: bool) -> Self {
        Self {
            session,
            answered: false,
            after_probe,
            probed_is_noop: false,
        }
    }

    /// From now on a probed upgrade is answered with a noop.
    pub(crate) fn answer_probed_with_noop(&mut self) {
        self.probed_is_noop = true;
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<PollReply> {
        let mut state = self.session.state.lock();
        let reply = if state.phase == Phase::Closed {
            match state.closed_with {
                Some((_, CloseMode::Noop)) => PollReply::Noop,
                Some((_, CloseMode::ClosePacket)) => PollReply::ClosePacket,
                _ => PollReply::Refuse,
            }
        } else if state.transport == TransportType::Websocket {
            if self.after_probe {
                PollReply::Refuse
            } else {
                PollReply::Noop
            }
        } else if !state.queue.is_empty() {
            PollReply::Frames(self.take_frames(&mut state))
        } else if matches!(state.upgrade, Upgrade::Probed(_)) {
            if !self.probed_is_noop {
                return Poll::Ready(PollReply::Probed);
            }
            PollReply::Noop
        } else {
            state.poll_waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        state.polling = false;
        state.poll_waker = None;
        drop(state);
        self.answered = true;
        Poll::Ready(reply)
    }

    fn take_frames(&self, state: &mut State) -> Queue {
        let taken = state.queue.len().min(PACKETS_PER_POLL);
        let rest = state.queue.drain(taken..).collect();
        let frames = std::mem::replace(&mut state.queue, rest);
        if state.queue.is_empty() {
            state.stall_at = None;
        } else {
            // The next poll, which takes the rest, has as much time to arrive as this one had.
            self.session.begin_stall(state);
        }
        frames
    }
}

impl Drop for PollGuard {
    fn drop(&mut self) {
        if !self.answered {
            self.session
                .close(DisconnectReason::TransportClose, CloseMode::Refuse);
        }
    }
}

/// The right to read the session's one POST.
pub(crate) struct PostGuard(Arc<Session>);

impl PostGuard {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self(session)
    }
}

impl Drop for PostGuard {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.state.lock();
            state.posting = false;
            // A WebSocket that the session was upgraded to meanwhile may wait for the POST.
            if state.transport == TransportType::Websocket {
                state.socket_waker.take()
            } else {
                None
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
