//! What the transports do with a session: take its outbox, answer polls, take over.

use std::sync::Arc;
use std::task::{Context, Waker};

use engineioxide_core::TransportType;
use tokio::time::Instant;

use super::state::{Life, Queue, State, Upgrade};
use super::ticket::{PollTicket, PostTicket, UpgradeTicket};
use super::{Farewell, Session};
use crate::rota::Waiting;
use crate::socket::DisconnectReason;

/// Upgrades that a session may begin. Clients try once.
const UPGRADES: u32 = 10;

/// What carries a session, for whoever gives it its turn to write.
pub(crate) trait Carrier: Send + Sync {
    /// Writes what the session has queued, for as long as the peer takes it. False: its task has to look.
    fn write(&self, session: &Arc<Session>) -> bool;
}

/// What a WebSocket's task finds after writing.
pub(crate) enum Written {
    /// There are more frames, in the batch that was given.
    More,
    /// Nothing to do until woken.
    Idle,
    Closed,
}

impl Session {
    /// Begins a poll. Fails if the session is not on polling; a second poll ends the session.
    pub(crate) fn begin_poll(self: &Arc<Self>) -> Option<PollTicket> {
        let (duplicate, late) = {
            let mut state = self.state.lock();
            if state.life == Life::Closed || state.transport != TransportType::Polling {
                return None;
            }
            let late = matches!(state.upgrade, Upgrade::Probed(_));
            (std::mem::replace(&mut state.polling, true), late)
        };
        if duplicate {
            self.close(
                DisconnectReason::MultipleHttpPollingError,
                Farewell::ClosePacket,
            );
            return None;
        }
        Some(PollTicket::new(self.clone(), late))
    }

    /// Begins a POST; one at a time.
    pub(crate) fn begin_post(self: &Arc<Self>) -> Option<PostTicket> {
        let mut state = self.state.lock();
        let possible = state.life != Life::Closed
            && state.transport == TransportType::Polling
            && !std::mem::replace(&mut state.posting, true);
        possible.then(|| PostTicket::new(self.clone()))
    }

    /// Counts bytes as written, and closes when that was the last of a flush.
    pub(crate) fn wrote(self: &Arc<Self>, bytes: usize) {
        let (callbacks, drained) = {
            let mut state = self.state.lock();
            let callbacks = state.written(bytes);
            (
                callbacks,
                state.life == Life::Draining && state.unwritten == 0,
            )
        };
        for then in callbacks {
            then();
        }
        if drained {
            self.close(DisconnectReason::TransportClose, Farewell::Refuse);
        }
    }

    /// For a WebSocket's task that lets others have their turn: `bytes` got through since it last said so.
    pub(crate) fn progressed(self: &Arc<Self>, bytes: usize) {
        self.state.lock().stall_at = None;
        self.wrote(bytes);
    }

    /// For a WebSocket's task whose batch is written (all `bytes` of it): the next batch, or
    /// sleep.
    pub(crate) fn next_batch(
        self: &Arc<Self>,
        bytes: usize,
        batch: &mut Queue,
        cx: &Context<'_>,
    ) -> Written {
        debug_assert!(batch.is_empty());
        let (callbacks, drained, outcome) = {
            let mut state = self.state.lock();
            let callbacks = state.written(bytes);
            state.stall_at = None;
            let outcome = if state.life == Life::Closed {
                Written::Closed
            } else if state.in_line {
                // What came in woke the task. To write now would be out of turn, and in two writes what may go in one.
                state.stay(cx.waker());
                Written::Idle
            } else if state.queue.is_empty() {
                state.sleep(cx.waker());
                Written::Idle
            } else {
                std::mem::swap(&mut state.queue, batch);
                Written::More
            };
            (
                callbacks,
                state.life == Life::Draining && state.unwritten == 0,
                outcome,
            )
        };
        for then in callbacks {
            then();
        }
        if drained {
            self.close(DisconnectReason::TransportClose, Farewell::Refuse);
            return Written::Closed;
        }
        outcome
    }

    /// For a WebSocket's task that the peer makes wait, `bytes` having got through since it last
    /// said so. Only the close wakes it for the session's sake. False: the session is closed.
    pub(crate) fn blocked(self: &Arc<Self>, bytes: usize, cx: &Context<'_>) -> bool {
        let callbacks = {
            let mut state = self.state.lock();
            if state.life == Life::Closed {
                return false;
            }
            if bytes > 0 || state.stall_at.is_none() {
                state.stall_at = Some(Instant::now() + self.control.limits().write_timeout);
                self.arm(&mut state);
            }
            let callbacks = state.written(bytes);
            state.stay(cx.waker());
            state.socket_awake = true;
            callbacks
        };
        for then in callbacks {
            then();
        }
        true
    }

    /// A WebSocket wants to take over. One at a time, only from polling, and not for ever: while an upgrade is under way
    /// nobody asks why polling stands still.
    pub(crate) fn begin_upgrade(self: &Arc<Self>) -> Option<UpgradeTicket> {
        let mut state = self.state.lock();
        let possible = state.life == Life::Open
            && state.transport == TransportType::Polling
            && state.upgrade == Upgrade::None
            && state.upgrade_round < UPGRADES;
        if !possible {
            return None;
        }
        state.upgrade = Upgrade::Connected(Instant::now() + self.config.upgrade_timeout);
        state.upgrade_round += 1;
        self.arm(&mut state);
        Some(UpgradeTicket::new(self.clone(), state.upgrade_round))
    }

    pub(super) fn end_upgrade(&self, state: &mut State) -> Option<Waker> {
        state.upgrade = Upgrade::None;
        if state.stall_at.is_some() {
            state.stall_at = Some(Instant::now() + self.control.limits().write_timeout);
        }
        state.socket_waker.take()
    }

    /// Whether a POST of the time before the upgrade is still being read: what comes by the
    /// WebSocket has to wait for it, or order would be lost. Registers the task if so.
    pub(crate) fn awaits_post(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        if state.posting {
            state.socket_waker = Some(cx.waker().clone());
        }
        state.posting
    }
}

impl Session {
    /// From now on, and until it is closed, the session is written by that, too.
    pub(crate) fn carried_by(&self, carrier: Arc<dyn Carrier>) {
        let mut state = self.state.lock();
        if state.life != Life::Closed {
            state.carrier = Some(carrier);
        }
    }
}

impl Waiting for Session {
    /// The WebSocket may be written: at once, where everything runs on one thread. With several its task is woken, which may
    /// run on any of them.
    fn begin_turn(self: Arc<Self>) {
        let carrier = {
            let mut state = self.state.lock();
            state.in_line = false;
            state
                .carrier
                .clone()
                .filter(|_| self.control.0.rota.is_alone())
        };
        if carrier.is_some_and(|carrier| carrier.write(&self)) {
            return;
        }
        let waker = self.state.lock().socket_waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    pub(super) fn sleep(&mut self, waker: &Waker) {
        self.socket_awake = false;
        self.stay(waker);
    }

    /// The WebSocket's task goes to sleep, and is told of output if it was going to be.
    fn stay(&mut self, waker: &Waker) {
        match &mut self.socket_waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}
