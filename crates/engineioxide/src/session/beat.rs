//! Deadlines: heartbeats, stalls, drains and upgrades, told by the clock.

use std::sync::Arc;

use tokio::time::Instant;

use super::state::{Beat, Life, State, Upgrade};
use super::{Farewell, Session};
use crate::control::Tally;
use crate::frame::Frame;
use crate::socket::DisconnectReason;

enum Due {
    Nothing,
    Ping,
    Silent,
    Stalled,
    Drained,
}

impl Session {
    /// Makes sure that the clock calls in time.
    pub(super) fn arm(&self, state: &mut State) {
        let next = state.next_deadline();
        if state.armed.is_none_or(|armed| next < armed) {
            state.armed = Some(next);
            self.control.0.clock.arm(next, self.id);
        }
    }

    /// The client lives.
    pub(super) fn heard(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.beat = match state.beat {
            Beat::Ping(at) => Beat::Ping(at),
            Beat::Pong(_) => Beat::Ping(now + self.config.ping_interval),
            Beat::Anything(_) => {
                Beat::Anything(now + self.config.ping_interval + self.config.ping_timeout)
            }
        };
        // With intervals shorter than what the clock is set to, the next ping comes sooner.
        if state.life != Life::Closed {
            self.arm(&mut state);
        }
    }

    /// The clock's call for the entry `entry`.
    pub(crate) fn on_deadline(self: &Arc<Self>, entry: Instant, now: Instant) {
        let (due, waker) = {
            let mut state = self.state.lock();
            if state.armed == Some(entry) {
                state.armed = None;
            }
            if state.life == Life::Closed {
                return;
            }
            let mut waker = None;
            match state.upgrade {
                Upgrade::Connected(at) | Upgrade::Probed(at) if at <= now => {
                    waker = self.end_upgrade(&mut state);
                }
                _ => {}
            }
            let past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            let due = if past(state.drain_at) {
                Due::Drained
            } else if past(state.stall_deadline()) {
                Due::Stalled
            } else {
                match state.beat {
                    Beat::Ping(at) if at <= now => {
                        // From the ping's own time: a late clock must not lengthen the wait.
                        state.beat = Beat::Pong((at + self.config.ping_timeout).max(now));
                        Due::Ping
                    }
                    Beat::Pong(at) | Beat::Anything(at) if at <= now => Due::Silent,
                    _ => Due::Nothing,
                }
            };
            self.arm(&mut state);
            (due, waker)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        match due {
            Due::Nothing => {}
            Due::Ping => self.send_internal(Frame::packet("2")),
            Due::Silent => {
                Tally::add(&self.control.0.counters.heartbeat_timeouts, 1);
                self.close(DisconnectReason::HeartbeatTimeout, Farewell::Refuse);
            }
            Due::Stalled => self.close_slow(),
            Due::Drained => self.close(DisconnectReason::TransportClose, Farewell::Refuse),
        }
    }
}
