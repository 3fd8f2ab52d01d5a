//! The events of a connection that are not processed yet: in order, bounded in number and bytes,
//! and limited in rate.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use socketioxide_core::Str;

use crate::domain::{Code, Cost, Exceeded, Limiter, Limits, Rate, Rates, Refusal};

/// The number of events that an inbox holds; the burst of the connection's rate, if that is larger.
const MAX_EVENTS: usize = 1024;
/// The bytes that an inbox holds; a single event may be larger.
const MAX_BYTES: usize = 4 << 20;
/// The bytes that all inboxes of a node hold together.
const MAX_NODE_BYTES: usize = 256 << 20;

/// The bytes of the events that wait on a node, in all inboxes and in front of them.
#[derive(Clone, Default)]
pub struct WaitingBytes(Arc<AtomicUsize>);

impl WaitingBytes {
    /// Adds bytes; false, and adds nothing, if the node holds too many.
    fn add(&self, bytes: usize) -> bool {
        if self.0.fetch_add(bytes, Ordering::Relaxed) > MAX_NODE_BYTES {
            self.remove(bytes);
            return false;
        }
        true
    }

    fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Reserves bytes until the reservation is dropped; `None` if the node holds too many.
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> Option<ReservedBytes> {
        if !self.add(bytes) {
            return None;
        }
        Some(ReservedBytes {
            all: self.clone(),
            bytes,
        })
    }
}

/// A reservation of [`WaitingBytes`].
pub struct ReservedBytes {
    all: WaitingBytes,
    bytes: usize,
}

impl Drop for ReservedBytes {
    fn drop(&mut self) {
        self.all.remove(self.bytes);
    }
}

/// The text of an event as its transport received it, not decoded yet.
pub struct EventText {
    text: Str,
    /// The offset of the JSON. The text before it is kept, as cutting it off costs more than it
    /// saves.
    start: usize,
    ack: Option<i64>,
    has_attachments: bool,
}

impl EventText {
    /// An event with JSON from the byte `start` on, which must be a character boundary.
    #[must_use]
    pub fn new(text: Str, start: usize) -> Self {
        Self {
            text,
            start,
            ack: None,
            has_attachments: false,
        }
    }

    /// Sets the number of the Socket.IO acknowledgement that the client asked for, if any.
    #[must_use]
    pub fn with_ack(self, ack: Option<i64>) -> Self {
        Self { ack, ..self }
    }

    /// Sets whether binary attachments came with the event.
    #[must_use]
    pub fn with_attachments(self, has_attachments: bool) -> Self {
        Self {
            has_attachments,
            ..self
        }
    }

    /// The number of the Socket.IO acknowledgement that the client asked for.
    #[must_use]
    pub fn ack(&self) -> Option<i64> {
        self.ack
    }

    /// Whether binary attachments came with the event. No event accepts them.
    #[must_use]
    pub fn has_attachments(&self) -> bool {
        self.has_attachments
    }

    /// The JSON: the array of a Socket.IO packet, or the whole frame of a plain client.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.text[self.start..]
    }

    /// The bytes held in memory.
    fn bytes(&self) -> usize {
        self.text.len()
    }
}

/// The life of an inbox.
#[derive(PartialEq, Eq)]
enum Phase {
    /// The client is not admitted yet. Events wait.
    Unopened,
    /// Empty, and no task processes it.
    Idle,
    /// A task processes it, or is scheduled to.
    Running,
    /// The connection is lost or was ended, so nothing more is put in. A task processes the events
    /// that wait, and then the loss.
    Closing,
    /// The loss has been handed out.
    Closed,
}

/// The events of one connection that wait to be processed.
pub(super) struct Inbox {
    queue: VecDeque<EventText>,
    bytes: usize,
    phase: Phase,
    /// The bytes of all inboxes of the node.
    node_bytes: WaitingBytes,
    limiter: Limiter,
    /// Limits how often the connection may exceed its rate.
    refusal_limiter: Limiter,
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.node_bytes.remove(self.bytes);
    }
}

/// The next step of the task that processes an inbox.
pub(super) enum Next {
    /// Handle this event.
    Event(EventText),
    /// Handle the loss of the connection. Returned once.
    Loss,
    /// End: the inbox is empty.
    Nothing,
}

/// The caller's next step after an event was put into an inbox.
pub(super) enum Put {
    /// Nothing: a task will process the event, or the client is not admitted yet.
    Queued,
    /// Schedule the processing: nothing else does.
    StartProcessing,
    /// Send the refusal: the inbox is full.
    Refused(EventText, Refusal),
    /// Nothing: the connection is ending.
    Ignored,
}

impl Inbox {
    pub fn new(node_bytes: WaitingBytes) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            phase: Phase::Unopened,
            node_bytes,
            limiter: Limiter::default(),
            refusal_limiter: Limiter::default(),
        }
    }

    /// Appends an event.
    pub fn put(&mut self, event: EventText, limits: &Limits) -> Put {
        if self.is_closed() {
            return Put::Ignored;
        }
        let bytes = event.bytes();
        let burst = usize::try_from(limits.socket.events.burst).unwrap_or(usize::MAX);
        let is_too_large = self.bytes > 0 && self.bytes + bytes > MAX_BYTES;
        if self.queue.len() >= MAX_EVENTS.max(burst) || is_too_large {
            let text = "too many events wait to be handled";
            return Put::Refused(event, Refusal::new(Code::Overloaded, text));
        }
        if !self.node_bytes.add(bytes) {
            let text = "this node has too many events to handle";
            return Put::Refused(event, Refusal::new(Code::Overloaded, text));
        }
        self.bytes += bytes;
        self.queue.push_back(event);
        if self.phase == Phase::Idle {
            self.phase = Phase::Running;
            Put::StartProcessing
        } else {
            Put::Queued
        }
    }

    /// Charges the connection's rates.
    pub fn charge(&mut self, rates: &Rates, cost: Cost, now: Instant) -> Result<(), Exceeded> {
        self.limiter.spend(rates, cost, now)
    }

    /// Notes that a rate was exceeded. Returns true if that happened so often that the connection
    /// has to be closed.
    pub fn record_rate_refusal(&mut self, limits: &Limits, now: Instant) -> bool {
        if limits.refusals == 0 {
            return false;
        }
        let refusals = Rates {
            events: Rate {
                per_sec: limits.socket.events.per_sec.max(1),
                burst: limits.refusals,
            },
            ..Rates::default()
        };
        self.refusal_limiter
            .spend(&refusals, Cost::event(0), now)
            .is_err()
    }

    fn release(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.node_bytes.remove(bytes);
    }

    /// Admits the client. Returns true if the caller has to schedule the processing of events that
    /// wait already.
    pub fn open(&mut self) -> bool {
        if self.phase != Phase::Unopened {
            return false;
        }
        if self.queue.is_empty() {
            self.phase = Phase::Idle;
            false
        } else {
            self.phase = Phase::Running;
            true
        }
    }

    /// The next step of the one task that processes this inbox.
    pub fn next(&mut self) -> Next {
        if let Some(event) = self.queue.pop_front() {
            self.release(event.bytes());
            return Next::Event(event);
        }
        // An idle connection keeps no memory for events that it once had in its queue.
        self.queue = VecDeque::new();
        match self.phase {
            Phase::Closing => {
                self.phase = Phase::Closed;
                Next::Loss
            }
            Phase::Closed => Next::Nothing,
            Phase::Unopened | Phase::Idle | Phase::Running => {
                self.phase = Phase::Idle;
                Next::Nothing
            }
        }
    }

    /// Accepts no more events. The ones that wait are still processed, and then the loss. Returns
    /// true if the caller has to schedule that.
    pub fn close(&mut self) -> bool {
        let start = matches!(self.phase, Phase::Unopened | Phase::Idle);
        if self.phase != Phase::Closed {
            self.phase = Phase::Closing;
        }
        start
    }

    /// Like [`Inbox::close`], but discards the events that wait.
    pub fn close_and_discard(&mut self) -> bool {
        self.queue = VecDeque::new();
        self.release(self.bytes);
        self.close()
    }

    /// Whether no more events are accepted.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closing | Phase::Closed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn inbox() -> Inbox {
        Inbox::new(WaitingBytes::default())
    }

    fn event(text: &str) -> EventText {
        EventText::new(text.to_owned().into(), 0)
    }

    #[test]
    fn events_wait_until_the_inbox_is_opened_and_keep_their_order() {
        let limits = Limits::default();
        let mut inbox = inbox();
        assert!(matches!(inbox.put(event("1"), &limits), Put::Queued));
        assert!(inbox.open());
        assert!(matches!(inbox.put(event("2"), &limits), Put::Queued));
        assert!(matches!(inbox.next(), Next::Event(next) if next.json() == "1"));
        assert!(matches!(inbox.next(), Next::Event(next) if next.json() == "2"));
        assert!(matches!(inbox.next(), Next::Nothing));
        assert!(matches!(
            inbox.put(event("3"), &limits),
            Put::StartProcessing
        ));
    }

    #[test]
    fn events_received_before_the_end_are_processed_and_then_the_loss_once() {
        let limits = Limits::default();
        let mut inbox = inbox();
        inbox.open();
        assert!(matches!(
            inbox.put(event("1"), &limits),
            Put::StartProcessing
        ));
        assert!(!inbox.close(), "its task runs already");
        assert!(matches!(inbox.put(event("2"), &limits), Put::Ignored));
        assert!(matches!(inbox.next(), Next::Event(_)));
        assert!(matches!(inbox.next(), Next::Loss));
        assert!(matches!(inbox.next(), Next::Nothing));
        assert!(!inbox.close_and_discard() && matches!(inbox.next(), Next::Nothing));
        let mut idle = Inbox::new(WaitingBytes::default());
        idle.put(event("1"), &limits);
        assert!(idle.close_and_discard(), "no task would process the loss");
        assert!(matches!(idle.next(), Next::Loss));
    }

    #[test]
    fn events_above_the_burst_are_refused_with_a_retry_hint() {
        let socket = Rates {
            events: Rate {
                per_sec: 1,
                burst: 3,
            },
            ..Rates::default()
        };
        let limits = Limits {
            socket,
            refusals: 5,
            ..Limits::default()
        };
        let (mut inbox, now) = (inbox(), Instant::now());
        for _ in 0..3 {
            inbox.charge(&limits.socket, Cost::event(1), now).unwrap();
        }
        let refusal = Refusal::rate_limited(
            inbox
                .charge(&limits.socket, Cost::event(1), now)
                .unwrap_err(),
            "",
        );
        assert_eq!(
            (refusal.code, refusal.text.as_ref()),
            (Code::RateLimited, "too many events")
        );
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(1)));
        let tolerated = (0..100)
            .take_while(|_| !inbox.record_rate_refusal(&limits, now))
            .count();
        assert_eq!(tolerated, 5);
        let never = Limits {
            refusals: 0,
            ..limits.clone()
        };
        assert!(!inbox.record_rate_refusal(&never, now));
        assert!(
            !inbox.record_rate_refusal(&limits, now + Duration::from_secs(1)),
            "a refusal no longer counts after its rate has made up for it"
        );
    }

    #[test]
    fn all_inboxes_together_are_bounded_and_release_their_bytes() {
        let (limits, all) = (
            Limits::default(),
            WaitingBytes(Arc::new(AtomicUsize::new(MAX_NODE_BYTES))),
        );
        let large = "x".repeat(1 << 20);
        let (mut one, mut other) = (Inbox::new(all.clone()), Inbox::new(all.clone()));
        assert!(matches!(one.put(event(&large), &limits), Put::Queued));
        assert!(matches!(
            other.put(event("1"), &limits),
            Put::Refused(
                _,
                Refusal {
                    code: Code::Overloaded,
                    ..
                }
            )
        ));
        assert!(matches!(one.next(), Next::Event(_)));
        assert!(matches!(other.put(event("1"), &limits), Put::Queued));
        assert!(matches!(one.put(event(&large), &limits), Put::Refused(..)));
        other.close_and_discard();
        drop(one);
        assert_eq!(all.0.load(Ordering::Relaxed), MAX_NODE_BYTES);
    }

    #[test]
    fn events_that_do_not_fit_into_the_inbox_are_refused_as_overloaded() {
        let limits = Limits::default();
        let mut inbox = inbox();
        let large = "x".repeat(1 << 20);
        for _ in 0..4 {
            assert!(matches!(inbox.put(event(&large), &limits), Put::Queued));
        }
        assert!(matches!(
            inbox.put(event(&large), &limits),
            Put::Refused(
                _,
                Refusal {
                    code: Code::Overloaded,
                    ..
                }
            )
        ));
    }
}
