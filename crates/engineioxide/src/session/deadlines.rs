//! The deadlines of a session: heartbeats, stalls, drains and upgrades. The timer calls
//! [`Session::on_deadline`] for each.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::state::{Heartbeat, Phase, State, Upgrade};
use super::{CloseMode, Session};
use crate::control::AtomicCounters;
use crate::frame::Frame;
use crate::socket::DisconnectReason;

/// The action that is due at a deadline.
enum Due {
    Nothing,
    /// Engine.IO 4: the server's ping.
    SendPing,
    /// The client's heartbeat has stopped.
    HeartbeatTimeout,
    /// The outbox has made no progress for the write timeout.
    WriteTimeout,
    /// A draining session has reached its time limit.
    DrainTimeout,
}

impl Session {
    /// Makes sure that the timer calls [`Session::on_deadline`] no later than the next deadline.
    pub(super) fn arm(&self, state: &mut State) {
        let next = state.next_deadline();
        if state.armed.is_none_or(|armed| next < armed) {
            state.armed = Some(next);
            self.control.0.timer.arm(next, self.id);
        }
    }

    /// Sets the time by which the outbox must make its next progress.
    pub(super) fn begin_stall(&self, state: &mut State) {
        state.stall_at = Some(Instant::now() + self.control.limits().write_timeout);
        state.extended.stall = false;
        self.arm(state);
    }

    /// Records that the client is alive, and sets the next heartbeat deadline.
    pub(super) fn record_heartbeat(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.extended.heartbeat = false;
        state.heartbeat = match state.heartbeat {
            Heartbeat::SendPing(at) => Heartbeat::SendPing(at),
            Heartbeat::AwaitPong(_) => Heartbeat::SendPing(now + self.config.ping_interval),
            Heartbeat::AwaitAny(_) => {
                Heartbeat::AwaitAny(now + self.config.ping_interval + self.config.ping_timeout)
            }
        };
        // With a ping interval shorter than the ping timeout, the next ping may be due before the
        // armed deadline.
        if state.phase != Phase::Closed {
            self.arm(&mut state);
        }
    }

    /// Performs the action that is due at `now`. The timer calls this with its entry's time.
    pub(crate) fn on_deadline(self: &Arc<Self>, entry: Instant, now: Instant) {
        let (due, waker) = {
            let mut state = self.state.lock();
            if state.armed == Some(entry) {
                state.armed = None;
            }
            if state.phase == Phase::Closed {
                return;
            }
            let resumed_at = if state.next_deadline() <= now {
                self.control.0.pauses.resumed_at(now)
            } else {
                None
            };
            let pings_again = match resumed_at {
                Some(resumed_at) => self.extend_deadlines(&mut state, now, resumed_at),
                None => false,
            };
            let waker = match state.upgrade {
                Upgrade::Connected(at) | Upgrade::Probed(at) if at <= now => {
                    self.abandon_upgrade(&mut state)
                }
                _ => None,
            };
            let due = match self.take_due(&mut state, now, resumed_at) {
                Due::Nothing if pings_again => Due::SendPing,
                due => due,
            };
            self.arm(&mut state);
            (due, waker)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        match due {
            Due::Nothing => {}
            Due::SendPing => self.send_internal(Frame::packet("2")),
            Due::HeartbeatTimeout => {
                AtomicCounters::add(&self.control.0.counters.heartbeat_timeouts, 1);
                self.close(DisconnectReason::HeartbeatTimeout, CloseMode::Refuse);
            }
            Due::WriteTimeout => self.close_slow_consumer(),
            Due::DrainTimeout => self.close(DisconnectReason::TransportClose, CloseMode::Refuse),
        }
    }

    /// Extends a deadline that passed while this process was paused, once: see
    /// [`Extended`](super::state::Extended). The client has the whole time again since the end of
    /// the pause. Returns true if it must be pinged once more, because its pong may be lost.
    fn extend_deadlines(&self, state: &mut State, now: Instant, resumed_at: Instant) -> bool {
        let extend = |at: &mut Instant, time: Duration, extended: &mut bool| {
            let later = resumed_at + time;
            if *at > now || *at >= later || *extended {
                return false;
            }
            *at = later;
            *extended = true;
            true
        };
        let extended = &mut state.extended;
        if let Some(at) = &mut state.stall_at {
            extend(at, self.control.limits().write_timeout, &mut extended.stall);
        }
        if let Upgrade::Connected(at) | Upgrade::Probed(at) = &mut state.upgrade {
            extend(at, self.config.upgrade_timeout, &mut extended.upgrade);
        }
        let ping_timeout = self.config.ping_timeout;
        match &mut state.heartbeat {
            Heartbeat::SendPing(_) => false,
            Heartbeat::AwaitPong(at) => extend(at, ping_timeout, &mut extended.heartbeat),
            Heartbeat::AwaitAny(at) => {
                extend(at, ping_timeout, &mut extended.heartbeat);
                false
            }
        }
    }

    fn take_due(&self, state: &mut State, now: Instant, resumed_at: Option<Instant>) -> Due {
        let past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if past(state.drain_at) {
            return Due::DrainTimeout;
        }
        if past(state.stall_deadline()) {
            return Due::WriteTimeout;
        }
        match state.heartbeat {
            Heartbeat::SendPing(at) if at <= now => {
                // Counted from the time at which the ping was due: a late timer must not extend
                // the time that the client has for its pong, unless the process was paused.
                let since = at.max(resumed_at.unwrap_or(at));
                let pong_by = (since + self.config.ping_timeout).max(now);
                state.heartbeat = Heartbeat::AwaitPong(pong_by);
                Due::SendPing
            }
            Heartbeat::AwaitPong(at) | Heartbeat::AwaitAny(at) if at <= now => {
                Due::HeartbeatTimeout
            }
            _ => Due::Nothing,
        }
    }
}
