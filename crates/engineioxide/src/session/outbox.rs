//! The outbox of a session: sending frames within its limits, and callbacks for free capacity.

use std::sync::Arc;
use std::time::Duration;

use engineioxide_core::TransportType;
use tokio::time::Instant;

use super::state::{Phase, State, Wakeup};
use super::{CloseMode, Session};
use crate::frame::Frame;
use crate::handle::SendOutcome;
use crate::socket::DisconnectReason;

impl Session {
    pub(crate) fn unwritten(&self) -> usize {
        self.state.lock().unwritten
    }

    /// Whether less than half of the outbox is in use.
    pub(crate) fn has_capacity(&self) -> bool {
        self.unwritten() < self.control.limits().outbox_bytes / 2
    }

    pub(crate) fn send(self: &Arc<Self>, frame: Frame) -> SendOutcome {
        self.close_on_overflow(self.send_if(|_| true, |state| self.enqueue(state, frame)))
    }

    /// Queues frames next to each other: all of them or none.
    pub(crate) fn send_all(
        self: &Arc<Self>,
        frames: impl IntoIterator<Item = Frame> + AsRef<[Frame]>,
    ) -> SendOutcome {
        self.close_on_overflow(self.send_if(|_| true, |state| self.enqueue_all(state, frames)))
    }

    fn close_on_overflow(self: &Arc<Self>, outcome: SendOutcome) -> SendOutcome {
        if outcome == SendOutcome::Overflow {
            self.close_slow_consumer();
        }
        outcome
    }

    /// As [`Self::send`], but only if fewer than `unwritten` bytes are unwritten and the frame
    /// fits. Otherwise the session is unaffected.
    pub(crate) fn send_below(self: &Arc<Self>, unwritten: usize, frame: &Frame) -> SendOutcome {
        match self.send_if(
            |state| state.unwritten < unwritten,
            |state| self.enqueue(state, frame.clone()),
        ) {
            SendOutcome::Overflow => SendOutcome::Busy,
            outcome => outcome,
        }
    }

    fn send_if(
        self: &Arc<Self>,
        condition: impl FnOnce(&State) -> bool,
        enqueue: impl FnOnce(&mut State) -> Option<Wakeup>,
    ) -> SendOutcome {
        let wakeup = {
            let mut state = self.state.lock();
            if !state.accepts_frames() {
                return SendOutcome::Closed;
            }
            if !condition(&state) {
                return SendOutcome::Busy;
            }
            match enqueue(&mut state) {
                Some(wakeup) => wakeup,
                None => return SendOutcome::Overflow,
            }
        };
        self.notify_reader(wakeup);
        SendOutcome::Queued
    }

    /// Queues a frame of the protocol itself, also while the session is draining.
    pub(crate) fn send_internal(self: &Arc<Self>, frame: Frame) {
        let wakeup = {
            let mut state = self.state.lock();
            if state.phase == Phase::Closed {
                return;
            }
            self.enqueue(&mut state, frame)
        };
        match wakeup {
            Some(wakeup) => self.notify_reader(wakeup),
            None => self.close_slow_consumer(),
        }
    }

    /// Queues a frame. Returns `None` if it does not fit.
    fn enqueue(&self, state: &mut State, frame: Frame) -> Option<Wakeup> {
        let bytes = frame.len();
        if !self.has_capacity_for(state, bytes, 1) {
            return None;
        }
        state.queue.push(frame);
        Some(self.count_queued(state, bytes))
    }

    /// As `enqueue`, for all frames or none.
    fn enqueue_all(
        &self,
        state: &mut State,
        frames: impl IntoIterator<Item = Frame> + AsRef<[Frame]>,
    ) -> Option<Wakeup> {
        let bytes = frames.as_ref().iter().map(Frame::len).sum::<usize>();
        if !self.has_capacity_for(state, bytes, frames.as_ref().len()) {
            return None;
        }
        state.queue.extend(frames);
        Some(self.count_queued(state, bytes))
    }

    fn has_capacity_for(&self, state: &State, bytes: usize, frames: usize) -> bool {
        let limits = self.control.limits();
        bytes <= limits.outbox_bytes.saturating_sub(state.unwritten)
            && frames <= limits.outbox_frames.saturating_sub(state.queue.len())
    }

    /// Counts queued bytes. Returns the reader to notify.
    fn count_queued(&self, state: &mut State, bytes: usize) -> Wakeup {
        state.unwritten += bytes;
        if state.transport == TransportType::Polling && state.stall_at.is_none() {
            self.begin_stall(state);
        }
        state.take_wakeup()
    }

    /// Notifies the reader of the queue. Must be called without the lock.
    fn notify_reader(self: &Arc<Self>, wakeup: Wakeup) {
        match wakeup {
            Wakeup::NotNeeded => {}
            Wakeup::Poll(waker) => waker.wake(),
            Wakeup::Scheduler => self.control.0.scheduler.schedule(self.clone()),
        }
    }

    pub(crate) fn when_below(self: &Arc<Self>, bytes: usize, then: Box<dyn FnOnce() + Send>) {
        {
            let mut state = self.state.lock();
            if state.phase != Phase::Closed && state.unwritten >= bytes {
                if state.low_water.is_empty() {
                    // Most sessions have exactly one callback, for their whole lifetime.
                    state.low_water.reserve_exact(1);
                }
                state.low_water.push((bytes, then));
                state.highest_threshold = state.highest_threshold.max(bytes);
                return;
            }
        }
        self.control.spawn(async move { then() });
    }

    pub(crate) fn close_after_flush(self: &Arc<Self>, limit: Duration) {
        {
            let mut state = self.state.lock();
            if state.phase == Phase::Closed {
                return;
            }
            if !state.is_flushed() {
                let at = Instant::now() + limit;
                state.drain_at = Some(state.drain_at.map_or(at, |before| before.min(at)));
                state.phase = Phase::Draining;
                self.arm(&mut state);
                return;
            }
        }
        self.close(DisconnectReason::TransportClose, CloseMode::Refuse);
    }

    pub(crate) fn hold(&self) {
        self.state.lock().held += 1;
    }

    pub(crate) fn release(self: &Arc<Self>) {
        let is_drained = {
            let mut state = self.state.lock();
            state.held = state.held.saturating_sub(1);
            state.is_drained()
        };
        if is_drained {
            self.close(DisconnectReason::TransportClose, CloseMode::Refuse);
        }
    }
}
