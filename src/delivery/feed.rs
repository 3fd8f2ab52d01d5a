//! The parts that the feeds of rooms and of users have in common: the subscription to the feed's
//! topic, and the position in its sequence of events, with the reads by which the feed catches up.

use super::context::Context;

/// A feed's subscription to its topic, and the requests that wait for it. A request is processed
/// only once the subscription is confirmed, so that no event can fall between the subscription and
/// the state that the request reads.
pub(super) enum Subscription<R> {
    /// Begun, but not confirmed yet.
    Pending(Vec<R>),
    /// Confirmed: every later event arrives, or the worker is told of an interruption.
    Live,
    /// The idle feed is ending it. Requests that have arrived since then need a new one.
    Ending(Vec<R>),
}

impl<R> Subscription<R> {
    /// Returns the request if it can be processed now. Otherwise keeps it until the subscription is
    /// confirmed.
    pub fn admit(&mut self, request: R) -> Option<R> {
        match self {
            Self::Live => Some(request),
            Self::Pending(waiting) | Self::Ending(waiting) => {
                waiting.push(request);
                None
            }
        }
    }

    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live)
    }

    /// The subscription is confirmed. Returns the requests that waited for it.
    pub fn confirm(&mut self) -> Vec<R> {
        match std::mem::replace(self, Self::Live) {
            Self::Live => Vec::new(),
            Self::Pending(waiting) | Self::Ending(waiting) => waiting,
        }
    }

    /// The feed is idle and ends its subscription.
    pub fn end(&mut self) {
        *self = Self::Ending(Vec::new());
    }

    /// The subscription has ended. Returns true when requests have arrived meanwhile: it is pending
    /// again then, and the feed has to subscribe anew.
    pub fn restart(&mut self) -> bool {
        let waiting = self.confirm();
        let is_needed = !waiting.is_empty();
        *self = Self::Pending(waiting);
        is_needed
    }
}

/// A feed's position in its sequence of events, and the read by which it catches up: at most one at
/// a time. Events that arrive while a read is under way, or before the position is known, are held
/// and applied afterwards.
pub(super) struct Cursor<P, E> {
    /// `None` until the first request has read it.
    position: Option<P>,
    /// The ticket of the read that is under way, or waits to be retried.
    reading: Option<u64>,
    /// Another read is needed after that one: an event was dropped, or a catch-up was requested,
    /// since it began.
    read_again: bool,
    held: Vec<E>,
    /// How many of the held events, counted from the front, had arrived before the last read began.
    covered: usize,
    /// The most events to hold. Further ones are dropped, because the backplane has them.
    max_held: usize,
}

/// Held events, in the order of their arrival.
pub(super) struct Held<E> {
    pub events: Vec<E>,
    /// This many of them, counted from the front, had arrived before the last read began.
    pub covered: usize,
}

impl<P: Clone, E> Cursor<P, E> {
    pub fn new(max_held: usize) -> Self {
        Self {
            position: None,
            reading: None,
            read_again: false,
            held: Vec::new(),
            covered: 0,
            max_held,
        }
    }

    pub fn position(&self) -> Option<&P> {
        self.position.as_ref()
    }

    pub fn position_mut(&mut self) -> Option<&mut P> {
        self.position.as_mut()
    }

    pub fn set_position(&mut self, position: P) {
        self.position = Some(position);
    }

    /// The position, if an event that follows it can be applied at once. `None`: the event has to
    /// be held.
    pub fn ready(&self) -> Option<&P> {
        if self.reading.is_some() {
            return None;
        }
        self.position.as_ref()
    }

    pub fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    pub fn hold(&mut self, event: E) {
        if self.held.len() < self.max_held {
            self.held.push(event);
        } else {
            self.read_again = true;
        }
    }

    /// Begins a read: returns its ticket, and the position after which to read. `None` when that
    /// isn't possible yet: a read will then follow the one that is under way, or the first request.
    pub fn begin_read(&mut self, context: &mut Context) -> Option<(u64, P)> {
        let Some(position) = self.ready().cloned() else {
            self.read_again = true;
            return None;
        };
        let ticket = context.ticket();
        self.reading = Some(ticket);
        self.read_again = false;
        self.covered = self.held.len();
        Some((ticket, position))
    }

    /// True for the read that the cursor waits for. A feed that has restarted may still get results
    /// of its predecessor's reads.
    pub fn awaits(&self, ticket: u64) -> bool {
        self.reading == Some(ticket)
    }

    /// The read has ended. The held events are to be applied next.
    pub fn finish_read(&mut self) {
        self.reading = None;
    }

    pub fn take_held(&mut self) -> Held<E> {
        Held {
            events: std::mem::take(&mut self.held),
            covered: std::mem::take(&mut self.covered),
        }
    }

    /// Puts back held events that couldn't be applied yet, none of them covered by a read that has
    /// ended.
    pub fn hold_again(&mut self, events: Vec<E>) {
        self.covered = if self.is_reading() { events.len() } else { 0 };
        self.held = events;
    }

    /// True, once, when another read is needed.
    pub fn take_read_again(&mut self) -> bool {
        std::mem::take(&mut self.read_again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_wait_until_the_subscription_is_confirmed() {
        let mut subscription = Subscription::Pending(Vec::new());
        assert_eq!(subscription.admit("first"), None);
        assert_eq!(subscription.admit("second"), None);
        assert!(!subscription.is_live());
        assert_eq!(subscription.confirm(), ["first", "second"]);
        assert!(subscription.is_live());
        assert_eq!(subscription.admit("third"), Some("third"));
    }

    #[test]
    fn an_ended_subscription_restarts_only_for_requests_that_arrived_meanwhile() {
        let mut subscription = Subscription::Live;
        subscription.end();
        assert_eq!(subscription.admit("late"), None);
        assert!(subscription.restart());
        assert_eq!(subscription.confirm(), ["late"]);
        subscription.end();
        assert!(!subscription.restart());
    }

    #[test]
    fn events_that_cannot_be_held_make_another_read_necessary() {
        let mut cursor = Cursor::<u64, &str>::new(2);
        for event in ["a", "b"] {
            cursor.hold(event);
            assert!(!cursor.take_read_again());
        }
        cursor.hold("c");
        assert!(cursor.take_read_again());
        assert!(!cursor.take_read_again(), "reported once");
        assert_eq!(cursor.take_held().events, ["a", "b"]);
    }
}
