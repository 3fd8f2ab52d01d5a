//! Events of clients that don't wait for the answer to their CONNECT.
//!
//! In Socket.IO protocol 4 clients are connected to `/` without asking, and some (Python 4) send
//! events as soon as the transport is open. socketioxide closes the session for an event that
//! comes before it has accepted the connection.

use std::sync::{Arc, Weak};

use engineioxide::{Intercept, Str};
use parking_lot::Mutex;

use super::packet;

/// The events kept, in bytes. More than that closes the session, as any event did that came early.
const MAX_EARLY_BYTES: usize = 64 * 1024;

/// Keeps the events of a session until its connection receives them.
#[derive(Default)]
pub(super) struct EarlyEvents(Mutex<State>);

#[derive(Default)]
struct State {
    kept: Vec<Str>,
    kept_bytes: usize,
    /// Receives the events once the connection is accepted. Weak, because it owns the session that
    /// owns this object.
    receiver: Option<Weak<dyn Intercept>>,
}

impl EarlyEvents {
    /// Passes the kept events to the receiver, and later ones that still come here.
    pub fn pass_to(&self, receiver: &Arc<dyn Intercept>) {
        let mut state = self.0.lock();
        for text in std::mem::take(&mut state.kept) {
            // The receiver takes every event of the namespace, and nothing else was kept.
            drop(receiver.text(text));
        }
        state.receiver = Some(Arc::downgrade(receiver));
    }
}

impl Intercept for EarlyEvents {
    fn text(&self, text: Str) -> Result<(), Str> {
        let mut state = self.0.lock();
        if let Some(receiver) = &state.receiver {
            return match receiver.upgrade() {
                Some(receiver) => receiver.text(text),
                None => Err(text),
            };
        }
        let kept_bytes = state.kept_bytes + text.len();
        if packet::event(&text).is_none() || kept_bytes > MAX_EARLY_BYTES {
            return Err(text);
        }
        state.kept_bytes = kept_bytes;
        state.kept.push(text);
        Ok(())
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
        let early = EarlyEvents::default();
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
        let early = EarlyEvents::default();
        let half = format!(r#"2["{}"]"#, "x".repeat(MAX_EARLY_BYTES / 2));
        assert!(early.text(half.clone().into()).is_ok());
        assert!(early.text(half.into()).is_err());
    }
}
