//! What a connection has sent and nobody has taken up yet: in order, bounded in number and bytes, and rated.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use socketioxide_core::Str;

use crate::domain::{Code, Cost, Exceeded, Limiter, Limits, Rate, Rates, Refusal};

/// The least number of events that an inbox holds; a larger burst raises it.
const EVENTS: usize = 1024;
/// How much an inbox holds, or one packet if that is more.
const BYTES: usize = 4 << 20;
/// How much all inboxes of a node hold together.
const ALL_BYTES: usize = 256 << 20;

/// A request that arrived, as its door got it.
pub struct Arrived {
    text: Str,
    /// Where its JSON begins: to cut off what is before it would cost more than it takes.
    start: usize,
    ack: Option<i64>,
    binary: bool,
}

impl Arrived {
    /// The text is its JSON from `start` on, which must be where a character begins.
    #[must_use]
    pub fn new(text: Str, start: usize) -> Self {
        Self {
            text,
            start,
            ack: None,
            binary: false,
        }
    }

    /// Wants the acknowledgement of that number, if any.
    #[must_use]
    pub fn with_ack(self, ack: Option<i64>) -> Self {
        Self { ack, ..self }
    }

    /// Came with attachments, or without.
    #[must_use]
    pub fn with_attachments(self, binary: bool) -> Self {
        Self { binary, ..self }
    }

    /// The number of the acknowledgement that Socket.IO wants.
    #[must_use]
    pub fn ack(&self) -> Option<i64> {
        self.ack
    }

    /// Whether it came with attachments, which no event takes.
    #[must_use]
    pub fn is_binary(&self) -> bool {
        self.binary
    }

    /// Its JSON: of Socket.IO the packet's array, of a plain client the whole frame.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.text[self.start..]
    }

    /// What it holds in memory, in bytes.
    fn bytes(&self) -> usize {
        self.text.len()
    }
}

/// How far an inbox is.
#[derive(PartialEq, Eq)]
enum Phase {
    /// The client isn't let in yet: events wait.
    Closed,
    /// Nothing to do, and no task that does it.
    Idle,
    /// A task takes up one event after another.
    Running,
    /// The connection is lost or was ended: nothing more is taken in. A task takes up what waits, and then the loss.
    Ending,
    /// And that is done.
    Ended,
}

pub(super) struct Inbox {
    queue: VecDeque<Arrived>,
    bytes: usize,
    phase: Phase,
    /// What all inboxes hold.
    all_bytes: Arc<AtomicUsize>,
    allowance: Limiter,
    /// How often it was refused for a rate, as an allowance of refusals.
    refusals: Limiter,
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.all_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What the task that takes up events does next.
pub(super) enum Next {
    /// Handle this.
    Event(Arrived),
    /// Tell of the loss, and end.
    Loss,
    /// End: there is nothing to do now.
    Nothing,
}

/// What to do with an event that was put in.
pub(super) enum Put {
    /// Nothing: someone takes it up.
    Queued,
    /// Start taking up.
    StartTask,
    /// Say why not.
    Refused(Arrived, Refusal),
    /// Nobody listens any more.
    Ignored,
}

impl Inbox {
    pub fn new(all_bytes: Arc<AtomicUsize>) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            phase: Phase::Closed,
            all_bytes,
            allowance: Limiter::default(),
            refusals: Limiter::default(),
        }
    }

    pub fn put(&mut self, arrived: Arrived, limits: &Limits) -> Put {
        if matches!(self.phase, Phase::Ending | Phase::Ended) {
            return Put::Ignored;
        }
        let bytes = arrived.bytes();
        let most = EVENTS.max(usize::try_from(limits.socket.events.burst).unwrap_or(usize::MAX));
        let full = self.bytes > 0 && self.bytes + bytes > BYTES;
        if self.queue.len() >= most || full {
            return Put::Refused(
                arrived,
                Refusal::new(Code::Overloaded, "too many events wait to be handled"),
            );
        }
        if self.all_bytes.fetch_add(bytes, Ordering::Relaxed) > ALL_BYTES {
            self.all_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Put::Refused(
                arrived,
                Refusal::new(Code::Overloaded, "this node has too many events to handle"),
            );
        }
        self.bytes += bytes;
        self.queue.push_back(arrived);
        if self.phase == Phase::Idle {
            self.phase = Phase::Running;
            Put::StartTask
        } else {
            Put::Queued
        }
    }

    /// Spends of the socket's allowance.
    pub fn spend(&mut self, rates: &Rates, cost: Cost, now: Instant) -> Result<(), Exceeded> {
        self.allowance.spend(rates, cost, now)
    }

    /// Notes that the socket was refused for a rate. True: it goes on in spite of that, and has to go.
    pub fn is_abusing_rate_limit(&mut self, limits: &Limits, now: Instant) -> bool {
        let events = Rate {
            per_sec: limits.socket.events.per_sec.max(1),
            burst: limits.refusals,
        };
        let patience = Rates {
            events,
            ..Rates::default()
        };
        limits.refusals > 0 && self.refusals.spend(&patience, Cost::event(0), now).is_err()
    }

    fn let_go(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.all_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The client is let in. True: start taking up what waits.
    pub fn open(&mut self) -> bool {
        if self.phase != Phase::Closed {
            return false;
        }
        self.phase = if self.queue.is_empty() {
            Phase::Idle
        } else {
            Phase::Running
        };
        self.phase == Phase::Running
    }

    /// What to do next, for the one task that does it.
    pub fn next(&mut self) -> Next {
        if let Some(arrived) = self.queue.pop_front() {
            self.let_go(arrived.bytes());
            return Next::Event(arrived);
        }
        // An idle socket keeps no memory for what it may once have queued.
        self.queue = VecDeque::new();
        match self.phase {
            Phase::Ending => {
                self.phase = Phase::Ended;
                Next::Loss
            }
            Phase::Ended => Next::Nothing,
            Phase::Closed | Phase::Idle | Phase::Running => {
                self.phase = Phase::Idle;
                Next::Nothing
            }
        }
    }

    /// Takes nothing more in; what waits is still taken up, unless it is to be `dropped`. True: start taking up.
    pub fn end(&mut self, dropped: bool) -> bool {
        let start = matches!(self.phase, Phase::Closed | Phase::Idle);
        if self.phase != Phase::Ended {
            self.phase = Phase::Ending;
        }
        if dropped {
            self.queue = VecDeque::new();
            self.let_go(self.bytes);
        }
        start
    }

    /// Whether nothing is taken in any more.
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending | Phase::Ended)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn inbox() -> Inbox {
        Inbox::new(Arc::default())
    }

    fn arrived(text: &str) -> Arrived {
        Arrived::new(text.to_owned().into(), 0)
    }

    #[test]
    fn events_wait_for_the_start_and_keep_their_order() {
        let limits = Limits::default();
        let mut inbox = inbox();
        assert!(matches!(inbox.put(arrived("1"), &limits), Put::Queued));
        assert!(inbox.open());
        assert!(matches!(inbox.put(arrived("2"), &limits), Put::Queued));
        assert!(matches!(inbox.next(), Next::Event(event) if event.json() == "1"));
        assert!(matches!(inbox.next(), Next::Event(event) if event.json() == "2"));
        assert!(matches!(inbox.next(), Next::Nothing));
        assert!(matches!(inbox.put(arrived("3"), &limits), Put::StartTask));
    }

    #[test]
    fn what_was_sent_before_the_end_is_taken_up_and_then_the_loss_once() {
        let limits = Limits::default();
        let mut inbox = inbox();
        inbox.open();
        assert!(matches!(inbox.put(arrived("1"), &limits), Put::StartTask));
        assert!(!inbox.end(false), "its task runs already");
        assert!(matches!(inbox.put(arrived("2"), &limits), Put::Ignored));
        assert!(matches!(inbox.next(), Next::Event(_)));
        assert!(matches!(inbox.next(), Next::Loss));
        assert!(matches!(inbox.next(), Next::Nothing));
        assert!(!inbox.end(true) && matches!(inbox.next(), Next::Nothing));
        let mut idle = Inbox::new(Arc::default());
        idle.put(arrived("1"), &limits);
        assert!(idle.end(true), "nobody else would tell of the loss");
        assert!(matches!(idle.next(), Next::Loss));
    }

    #[test]
    fn a_burst_is_taken_and_what_exceeds_it_refused_with_a_hint() {
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
            inbox.spend(&limits.socket, Cost::event(1), now).unwrap();
        }
        let refusal = Refusal::rate_limited(
            inbox
                .spend(&limits.socket, Cost::event(1), now)
                .unwrap_err(),
            "",
        );
        assert_eq!(
            (refusal.code, refusal.text.as_ref()),
            (Code::RateLimited, "too many events")
        );
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(1)));
        let patience = (0..100)
            .take_while(|_| !inbox.is_abusing_rate_limit(&limits, now))
            .count();
        assert_eq!(patience, 5);
        let never = Limits {
            refusals: 0,
            ..limits.clone()
        };
        assert!(!inbox.is_abusing_rate_limit(&never, now));
        assert!(
            !inbox.is_abusing_rate_limit(&limits, now + Duration::from_secs(1)),
            "forgiven in time"
        );
    }

    #[test]
    fn all_inboxes_together_are_bounded_and_give_back_what_they_held() {
        let (limits, all) = (Limits::default(), Arc::new(AtomicUsize::new(ALL_BYTES)));
        let large = "x".repeat(1 << 20);
        let (mut one, mut other) = (Inbox::new(all.clone()), Inbox::new(all.clone()));
        assert!(matches!(one.put(arrived(&large), &limits), Put::Queued));
        assert!(matches!(
            other.put(arrived("1"), &limits),
            Put::Refused(
                _,
                Refusal {
                    code: Code::Overloaded,
                    ..
                }
            )
        ));
        assert!(matches!(one.next(), Next::Event(_)));
        assert!(matches!(other.put(arrived("1"), &limits), Put::Queued));
        assert!(matches!(
            one.put(arrived(&large), &limits),
            Put::Refused(..)
        ));
        other.end(true);
        drop(one);
        assert_eq!(all.load(Ordering::Relaxed), ALL_BYTES);
    }

    #[test]
    fn a_full_inbox_says_so() {
        let limits = Limits::default();
        let mut inbox = inbox();
        let large = "x".repeat(1 << 20);
        for _ in 0..4 {
            assert!(matches!(inbox.put(arrived(&large), &limits), Put::Queued));
        }
        assert!(matches!(
            inbox.put(arrived(&large), &limits),
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
