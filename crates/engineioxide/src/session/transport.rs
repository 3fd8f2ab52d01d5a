//! The operations of a transport on its session: taking the outbox, beginning polls, POSTs and
//! upgrades.

use std::sync::Arc;
use std::task::{Context, Waker};

use engineioxide_core::TransportType;
use tokio::time::Instant;

use super::guards::{PollGuard, PostGuard, UpgradeGuard};
use super::state::{Phase, Queue, State, Upgrade};
use super::{CloseMode, Session};
use crate::scheduler::Scheduled;
use crate::socket::DisconnectReason;

/// Upgrades that one session may begin. Clients try only once.
const MAX_UPGRADES: u32 = 10;

/// Writes a session's queue from the write scheduler, without waking the connection's task.
pub(crate) trait DirectWriter: Send + Sync {
    /// Writes all frames that the session has queued, for as long as the peer accepts them. Returns
    /// false if the connection's task must be woken to continue.
    fn write(&self, session: &Arc<Session>) -> bool;
}

/// The state of the queue that a WebSocket's task finds after writing.
pub(crate) enum NextBatch {
    /// There are more frames. They are in the batch that the caller passed.
    Frames,
    /// There is nothing to write until the task is woken.
    Idle,
    /// The session is closed.
    Closed,
}

impl Session {
    /// Begins a poll. Fails if the session is not on polling; a second poll at the same time closes
    /// the session.
    pub(crate) fn begin_poll(self: &Arc<Self>) -> Option<PollGuard> {
        let (duplicate, after_probe) = {
            let mut state = self.state.lock();
            if state.phase == Phase::Closed || state.transport != TransportType::Polling {
                return None;
            }
            let after_probe = matches!(state.upgrade, Upgrade::Probed(_));
            (std::mem::replace(&mut state.polling, true), after_probe)
        };
        if duplicate {
            self.close(
                DisconnectReason::MultipleHttpPollingError,
                CloseMode::ClosePacket,
            );
            return None;
        }
        Some(PollGuard::new(self.clone(), after_probe))
    }

    /// Begins a POST; a session reads one at a time.
    pub(crate) fn begin_post(self: &Arc<Self>) -> Option<PostGuard> {
        let mut state = self.state.lock();
        let refused = state.phase == Phase::Closed
            || state.transport != TransportType::Polling
            || state.posting;
        if refused {
            return None;
        }
        state.posting = true;
        Some(PostGuard::new(self.clone()))
    }

    /// Counts bytes as written, and closes a draining session that has written everything.
    pub(crate) fn record_written(self: &Arc<Self>, bytes: usize) {
        let (callbacks, drained) = {
            let mut state = self.state.lock();
            let callbacks = state.count_written(bytes);
            (callbacks, state.is_drained())
        };
        for then in callbacks {
            then();
        }
        if drained {
            self.close(DisconnectReason::TransportClose, CloseMode::Refuse);
        }
    }

    /// For a WebSocket's task that ends its slice: `bytes` were written since its last report.
    pub(crate) fn record_progress(self: &Arc<Self>, bytes: usize) {
        self.state.lock().stall_at = None;
        self.record_written(bytes);
    }

    /// For a WebSocket's task that has written its whole batch, of which `bytes` are not reported
    /// yet. Gives it the next batch or lets it sleep.
    pub(crate) fn next_batch(
        self: &Arc<Self>,
        bytes: usize,
        batch: &mut Queue,
        cx: &Context<'_>,
    ) -> NextBatch {
        debug_assert!(batch.is_empty());
        let (callbacks, drained, outcome) = {
            let mut state = self.state.lock();
            let callbacks = state.count_written(bytes);
            state.stall_at = None;
            let outcome = if state.phase == Phase::Closed {
                NextBatch::Closed
            } else if state.scheduled {
                // Input woke the task, not its slice. Writing now would jump the queue, and would
                // take two writes for frames that can share one.
                state.park(cx.waker());
                NextBatch::Idle
            } else if state.queue.is_empty() {
                state.park_until_output(cx.waker());
                NextBatch::Idle
            } else {
                std::mem::swap(&mut state.queue, batch);
                NextBatch::Frames
            };
            (callbacks, state.is_drained(), outcome)
        };
        for then in callbacks {
            then();
        }
        if drained {
            self.close(DisconnectReason::TransportClose, CloseMode::Refuse);
            return NextBatch::Closed;
        }
        outcome
    }

    /// For a WebSocket's task whose peer does not accept more data at the moment; `bytes` were
    /// written since its last report. The session wakes the task only for its close. Returns false
    /// if the session is closed.
    pub(crate) fn record_blocked(self: &Arc<Self>, bytes: usize, cx: &Context<'_>) -> bool {
        let callbacks = {
            let mut state = self.state.lock();
            if state.phase == Phase::Closed {
                return false;
            }
            if bytes > 0 || state.stall_at.is_none() {
                self.begin_stall(&mut state);
            }
            let callbacks = state.count_written(bytes);
            state.park(cx.waker());
            state.output_signaled = true;
            callbacks
        };
        for then in callbacks {
            then();
        }
        true
    }

    /// Begins an upgrade to a WebSocket: one at a time, only from polling, and at most
    /// [`MAX_UPGRADES`] in a session's lifetime. The number is limited because the stall deadline
    /// of polling does not apply during an upgrade.
    pub(crate) fn begin_upgrade(self: &Arc<Self>) -> Option<UpgradeGuard> {
        let mut state = self.state.lock();
        let possible = state.phase == Phase::Open
            && state.transport == TransportType::Polling
            && state.upgrade == Upgrade::None
            && state.upgrade_round < MAX_UPGRADES;
        if !possible {
            return None;
        }
        state.upgrade = Upgrade::Connected(Instant::now() + self.config.upgrade_timeout);
        state.upgrade_round += 1;
        state.extended.upgrade = false;
        self.arm(&mut state);
        Some(UpgradeGuard::new(self.clone(), state.upgrade_round))
    }

    /// Abandons the upgrade. The caller wakes the returned task of its WebSocket, or drops it.
    pub(super) fn abandon_upgrade(&self, state: &mut State) -> Option<Waker> {
        state.upgrade = Upgrade::None;
        if state.stall_at.is_some() {
            state.stall_at = Some(Instant::now() + self.control.limits().write_timeout);
        }
        state.socket_waker.take()
    }

    /// Whether a POST that began before the upgrade is still being read. If so, registers the task
    /// to be woken at its end: packets from the WebSocket must wait for the POST's packets, which
    /// were sent first.
    pub(crate) fn awaits_post(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        if state.posting {
            state.socket_waker = Some(cx.waker().clone());
        }
        state.posting
    }

    /// Lets the write scheduler write the session with `writer` until the session is closed.
    pub(crate) fn set_direct_writer(&self, writer: Arc<dyn DirectWriter>) {
        let mut state = self.state.lock();
        if state.phase != Phase::Closed {
            state.direct_writer = Some(writer);
        }
    }
}

impl Scheduled for Session {
    /// Writes the WebSocket at once on a single-threaded runtime. On several threads wakes its
    /// task, which can run on any of them.
    fn run_slice(self: Arc<Self>) {
        let writer = {
            let mut state = self.state.lock();
            state.scheduled = false;
            if self.control.0.scheduler.is_single_threaded() {
                state.direct_writer.clone()
            } else {
                None
            }
        };
        if let Some(writer) = writer
            && writer.write(&self)
        {
            return;
        }
        let waker = self.state.lock().socket_waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
