//! What a socket has sent and nobody has taken up yet: in order, bounded in number and bytes, and rated.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socketioxide::adapter::LocalAdapter;
use socketioxide::handler::MessageHandler;
use socketioxide::socket::Socket;
use socketioxide_core::{Str, Value};

use super::connection::Connection;
use crate::domain::{Code, Limits, Refusal};

/// The least number of events that an inbox holds; a larger burst raises it.
const EVENTS: usize = 1024;
/// How much an inbox holds, or one packet if that is more.
const BYTES: usize = 4 << 20;

/// An event that arrived.
pub(super) struct Arrived {
    /// The packet's JSON array, its name first.
    pub json: Str,
    pub ack: Option<i64>,
    /// With attachments, which no event takes.
    pub binary: bool,
}

/// How far an inbox is.
#[derive(PartialEq, Eq)]
enum Phase {
    /// CONNECT isn't answered yet: events wait.
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
    /// Events that may be sent at once.
    tokens: f64,
    counted: Instant,
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
    Start,
    /// Say why not.
    Refused(Refusal),
    /// Nobody listens any more.
    Ignored,
}

impl Inbox {
    pub fn new(limits: &Limits) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            phase: Phase::Closed,
            tokens: f64::from(limits.events_burst),
            counted: Instant::now(),
        }
    }

    pub fn put(&mut self, arrived: Arrived, limits: &Limits) -> Put {
        if matches!(self.phase, Phase::Ending | Phase::Ended) {
            return Put::Ignored;
        }
        if let Err(wait) = self.take_token(limits) {
            return Put::Refused(Refusal::new(Code::RateLimited, "too many events").retry_after(wait));
        }
        let most = EVENTS.max(limits.events_burst as usize);
        let full = self.bytes > 0 && self.bytes + arrived.json.len() > BYTES;
        if self.queue.len() >= most || full {
            return Put::Refused(Refusal::new(Code::Overloaded, "too many events wait to be handled"));
        }
        self.bytes += arrived.json.len();
        self.queue.push_back(arrived);
        if self.phase == Phase::Idle {
            self.phase = Phase::Running;
            Put::Start
        } else {
            Put::Queued
        }
    }

    /// One event's worth of the rate, or how long until there is one.
    fn take_token(&mut self, limits: &Limits) -> Result<(), Duration> {
        let rate = f64::from(limits.events_per_sec);
        let now = Instant::now();
        let gained = now.duration_since(self.counted).as_secs_f64() * rate;
        self.counted = now;
        self.tokens = (self.tokens + gained).min(f64::from(limits.events_burst));
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::try_from_secs_f64((1.0 - self.tokens) / rate)
            .unwrap_or(Duration::MAX)
            .max(Duration::from_millis(1)))
    }

    /// CONNECT is answered. True: start taking up what waits.
    pub fn open(&mut self) -> bool {
        if self.phase != Phase::Closed {
            return false;
        }
        self.phase = if self.queue.is_empty() { Phase::Idle } else { Phase::Running };
        self.phase == Phase::Running
    }

    /// What to do next, for the one task that does it.
    pub fn next(&mut self) -> Next {
        if let Some(arrived) = self.queue.pop_front() {
            self.bytes -= arrived.json.len();
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
            self.bytes = 0;
        }
        start
    }

    /// Whether nothing is taken in any more.
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending | Phase::Ended)
    }
}

/// Takes in every event of a socket, in the order of its packets: the call is made by the session's own task.
pub(super) struct Receiver(pub Arc<Connection>);

/// Sets this handler apart from those that socketioxide makes of closures, which it would spawn.
pub(super) struct InOrder;

impl MessageHandler<LocalAdapter, InOrder> for Receiver {
    fn call(&self, _: Arc<Socket<LocalAdapter>>, value: Value, ack: Option<i64>) {
        // Text is all that the JSON parser gives.
        if let Value::Str(json, attachments) = value {
            let binary = attachments.is_some_and(|attachments| !attachments.is_empty());
            self.0.receive(Arrived { json, ack, binary });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(text: &str) -> Arrived {
        Arrived { json: text.to_owned().into(), ack: None, binary: false }
    }

    #[test]
    fn events_wait_for_the_start_and_keep_their_order() {
        let limits = Limits::default();
        let mut inbox = Inbox::new(&limits);
        assert!(matches!(inbox.put(arrived("1"), &limits), Put::Queued));
        assert!(inbox.open());
        assert!(matches!(inbox.put(arrived("2"), &limits), Put::Queued));
        assert!(matches!(inbox.next(), Next::Event(event) if event.json.as_str() == "1"));
        assert!(matches!(inbox.next(), Next::Event(event) if event.json.as_str() == "2"));
        assert!(matches!(inbox.next(), Next::Nothing));
        assert!(matches!(inbox.put(arrived("3"), &limits), Put::Start));
    }

    #[test]
    fn what_was_sent_before_the_end_is_taken_up_and_then_the_loss_once() {
        let limits = Limits::default();
        let mut inbox = Inbox::new(&limits);
        inbox.open();
        assert!(matches!(inbox.put(arrived("1"), &limits), Put::Start));
        assert!(!inbox.end(false), "its task runs already");
        assert!(matches!(inbox.put(arrived("2"), &limits), Put::Ignored));
        assert!(matches!(inbox.next(), Next::Event(_)));
        assert!(matches!(inbox.next(), Next::Loss));
        assert!(matches!(inbox.next(), Next::Nothing));
        assert!(!inbox.end(true) && matches!(inbox.next(), Next::Nothing));
        let mut idle = Inbox::new(&limits);
        idle.put(arrived("1"), &limits);
        assert!(idle.end(true), "nobody else would tell of the loss");
        assert!(matches!(idle.next(), Next::Loss));
    }

    #[test]
    fn a_burst_is_taken_and_what_exceeds_it_refused_with_a_hint() {
        let limits = Limits { events_burst: 3, events_per_sec: 1, ..Limits::default() };
        let mut inbox = Inbox::new(&limits);
        for _ in 0..3 {
            assert!(matches!(inbox.put(arrived("1"), &limits), Put::Queued));
        }
        let Put::Refused(refusal) = inbox.put(arrived("1"), &limits) else { panic!("taken") };
        assert_eq!(refusal.code, Code::RateLimited);
        assert!(refusal.retry_after.unwrap() <= Duration::from_secs(1));
    }

    #[test]
    fn a_full_inbox_says_so() {
        let limits = Limits { events_burst: 100_000, ..Limits::default() };
        let mut inbox = Inbox::new(&limits);
        let large = "x".repeat(1 << 20);
        for _ in 0..4 {
            assert!(matches!(inbox.put(arrived(&large), &limits), Put::Queued));
        }
        assert!(matches!(inbox.put(arrived(&large), &limits), Put::Refused(Refusal { code: Code::Overloaded, .. })));
    }
}
