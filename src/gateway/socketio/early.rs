//! Events of clients that don't wait for the answer to their CONNECT.
//!
//! In Socket.IO protocol 4 clients are connected to `/` without asking, and some (Python 4) send
//! events as soon as the transport is open. socketioxide closes the session for an event that
//! comes before it has accepted the connection.

use std::sync::{Arc, Weak};

use engineioxide::{Intercept, Str};
use parking_lot::Mutex;

use super::packet;
use crate::gateway::connections::{ReservedBytes, WaitingBytes};

/// The events that a session keeps. One more closes the session, as every early event would without
/// this file.
const MAX_EARLY_EVENTS: usize = 64;
/// The bytes of the events that a session keeps.
const MAX_EARLY_BYTES: usize = 128 * 1024;

/// Keeps the events of a session until its connection is accepted or refused.
pub(super) struct EarlyEvents {
    state: Mutex<State>,
    /// Bounds the bytes that all sessions of the node keep.
    waiting_bytes: WaitingBytes,
}

enum State {
    Undecided {
        kept: Vec<(Str, ReservedBytes)>,
        kept_bytes: usize,
    },
    /// The receiver of the connection's events. Weak, because it owns the session that owns this
    /// object.
    Accepted(Weak<dyn Intercept>),
    Refused,
}

impl EarlyEvents {
    pub fn new(waiting_bytes: WaitingBytes) -> Self {
        Self {
            state: Mutex::new(State::Undecided {
                kept: Vec::new(),
                kept_bytes: 0,
            }),
            waiting_bytes,
        }
    }

    /// Passes the kept events to the receiver, and later ones that still come here.
    pub fn pass_to(&self, receiver: &Arc<dyn Intercept>) {
        let mut state = self.state.lock();
        let accepted = State::Accepted(Arc::downgrade(receiver));
        if let State::Undecided { kept, .. } = std::mem::replace(&mut *state, accepted) {
            for (text, _) in kept {
                // The receiver takes every event of the namespace, and nothing else was kept.
                drop(receiver.text(text));
            }
        }
    }

    /// Drops the kept events. An event that comes now closes the session.
    pub fn refuse(&self) {
        *self.state.lock() = State::Refused;
    }
}

impl Intercept for EarlyEvents {
    fn text(&self, text: Str) -> Result<(), Str> {
        match &mut *self.state.lock() {
            State::Undecided { kept, kept_bytes } => {
                let bytes = *kept_bytes + text.len();
                if packet::event(&text).is_none()
                    || kept.len() == MAX_EARLY_EVENTS
                    || bytes > MAX_EARLY_BYTES
                {
                    return Err(text);
                }
                let Some(reserved) = self.waiting_bytes.reserve(text.len()) else {
                    return Err(text);
                };
                *kept_bytes = bytes;
                kept.push((text, reserved));
                Ok(())
            }
            State::Accepted(receiver) => match receiver.upgrade() {
                Some(receiver) => receiver.text(text),
                None => Err(text),
            },
            State::Refused => Err(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Received(Mutex<Vec<Str>>);

    impl Intercept for Received {
        fn text(&self, text: Str) -> Result<(), Str> {
            self.0.lock().push(text);
            Ok(())
        }
    }

    #[test]
    fn events_are_kept_in_their_order_and_then_passed_on() {
        let early = EarlyEvents::new(WaitingBytes::default());
        assert!(early.text(r#"20["first"]"#.into()).is_ok());
        assert!(early.text(r#"2["second"]"#.into()).is_ok());
        for unkept in ["0/admin", r#"2/admin,["x"]"#, r#"51-["x"]"#, "1"] {
            assert!(early.text(unkept.into()).is_err(), "{unkept}");
        }
        let received = Arc::new(Received::default());
        let receiver: Arc<dyn Intercept> = received.clone();
        early.pass_to(&receiver);
        assert!(early.text(r#"2["third"]"#.into()).is_ok());
        let texts = received.0.lock();
        assert_eq!(
            *texts,
            [r#"20["first"]"#, r#"2["second"]"#, r#"2["third"]"#]
        );
    }

    #[test]
    fn the_kept_bytes_are_bounded() {
        let early = EarlyEvents::new(WaitingBytes::default());
        let half = format!(r#"2["{}"]"#, "x".repeat(MAX_EARLY_BYTES / 2));
        assert!(early.text(half.clone().into()).is_ok());
        assert!(early.text(half.into()).is_err());
    }

    #[test]
    fn the_kept_events_are_bounded() {
        let early = EarlyEvents::new(WaitingBytes::default());
        for _ in 0..MAX_EARLY_EVENTS {
            assert!(early.text("2[".into()).is_ok());
        }
        assert!(early.text("2[".into()).is_err());
    }

    #[test]
    fn a_refusal_drops_the_kept_events_and_keeps_no_more() {
        let early = EarlyEvents::new(WaitingBytes::default());
        assert!(early.text(r#"2["first"]"#.into()).is_ok());
        early.refuse();
        assert!(early.text(r#"2["second"]"#.into()).is_err());
        let received = Arc::new(Received::default());
        let receiver: Arc<dyn Intercept> = received.clone();
        early.pass_to(&receiver);
        assert!(received.0.lock().is_empty());
    }
}
