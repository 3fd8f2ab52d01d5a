//! When messages are sent.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::acks::AckOutcome;
use crate::generator::LoadGenerator;

/// Maximum of messages that are sent between two polls at a fixed rate, so that reading continues
/// even if more messages are due than can be written.
const SENDS_PER_POLL: usize = 256;

/// Maximum time that a schedule lets the generator wait for events.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Delay before a sender sends its next message after one was refused.
const REFUSAL_DELAY: Duration = Duration::from_millis(50);

/// Decides when the next message is sent.
pub(crate) enum SendSchedule {
    InFlight(InFlightSchedule),
    AckPaced(AckPacedSchedule),
    FixedRate(FixedRateSchedule),
}

/// Keeps a number of messages in flight in each room.
pub(crate) struct InFlightSchedule {
    limit: u64,
    /// Reused by each call.
    active_rooms: Vec<usize>,
}

/// Keeps a number of messages of each sender waiting for their acknowledgements.
pub(crate) struct AckPacedSchedule {
    limit: u64,
    /// Reused by each call.
    answers: Vec<AckOutcome>,
    /// When the senders whose messages were refused send again, earliest first.
    delayed: VecDeque<(Instant, AckOutcome)>,
}

/// Sends at a fixed rate, to all rooms in turn, regardless of whether the servers keep up.
pub(crate) struct FixedRateSchedule {
    per_sec: u64,
    start: Instant,
    /// Number of messages sent.
    sent: u64,
    /// The room that gets the next message.
    next_room: usize,
}

impl SendSchedule {
    pub(crate) fn in_flight(limit: u64) -> Self {
        Self::InFlight(InFlightSchedule {
            limit,
            active_rooms: Vec::new(),
        })
    }

    pub(crate) fn ack_paced(limit: u64) -> Self {
        Self::AckPaced(AckPacedSchedule {
            limit,
            answers: Vec::new(),
            delayed: VecDeque::new(),
        })
    }

    pub(crate) fn fixed_rate(per_sec: u64, start: Instant) -> Self {
        Self::FixedRate(FixedRateSchedule {
            per_sec,
            start,
            sent: 0,
            next_room: 0,
        })
    }

    /// Sends the first messages of the run.
    pub(crate) fn start(&mut self, generator: &mut LoadGenerator) {
        match self {
            Self::InFlight(schedule) => schedule.start(generator),
            Self::AckPaced(schedule) => schedule.start(generator),
            // Its messages become due later.
            Self::FixedRate(_) => {}
        }
    }

    /// Sends the messages that are due. Returns how long no further message becomes due, unless a
    /// delivery or an acknowledgement arrives.
    pub(crate) fn send_due(&mut self, generator: &mut LoadGenerator) -> Duration {
        match self {
            Self::InFlight(schedule) => schedule.send_due(generator),
            Self::AckPaced(schedule) => schedule.send_due(generator),
            Self::FixedRate(schedule) => schedule.send_due(generator),
        }
    }
}

impl InFlightSchedule {
    fn start(&self, generator: &mut LoadGenerator) {
        let mut room = 0;
        for _ in 0..generator.rooms.len() {
            for _ in 0..self.limit {
                let now_us = generator.now_us();
                generator.send_message(room, now_us);
            }
            room = generator.assignment.next_room(room);
        }
    }

    fn send_due(&mut self, generator: &mut LoadGenerator) -> Duration {
        generator.take_active_rooms(&mut self.active_rooms);
        for room in self.active_rooms.drain(..) {
            while generator.rooms[room].in_flight() < self.limit {
                let now_us = generator.now_us();
                generator.send_message(room, now_us);
            }
        }
        MAX_WAIT
    }
}

impl AckPacedSchedule {
    fn start(&self, generator: &mut LoadGenerator) {
        let mut room = 0;
        for _ in 0..generator.rooms.len() {
            for _ in 0..self.limit {
                for member in 0..generator.rooms[room].senders() {
                    let now_us = generator.now_us();
                    generator.send_message_of(room, member, now_us);
                }
            }
            room = generator.assignment.next_room(room);
        }
    }

    fn send_due(&mut self, generator: &mut LoadGenerator) -> Duration {
        generator.take_answers(&mut self.answers);
        for answer in self.answers.drain(..) {
            if answer.is_accepted {
                let now_us = generator.now_us();
                generator.send_message_of(answer.room, answer.member, now_us);
            } else {
                let at = Instant::now() + REFUSAL_DELAY;
                self.delayed.push_back((at, answer));
            }
        }
        while let Some((at, answer)) = self.delayed.front() {
            if let Some(left) = at.checked_duration_since(Instant::now()) {
                return left.min(MAX_WAIT);
            }
            let now_us = generator.now_us();
            generator.send_message_of(answer.room, answer.member, now_us);
            self.delayed.pop_front();
        }
        MAX_WAIT
    }
}

impl FixedRateSchedule {
    fn send_due(&mut self, generator: &mut LoadGenerator) -> Duration {
        generator.discard_activity();
        for _ in 0..SENDS_PER_POLL {
            let due = self.next_due();
            if let Some(left) = due.checked_duration_since(Instant::now()) {
                // The poll's timeout has a resolution of 1 ms. For a message that is due sooner the
                // generator polls without waiting.
                let whole_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                return Duration::from_millis(whole_ms).min(MAX_WAIT);
            }
            // The latency counts from this moment, even if the message is sent later: a server that
            // stalls cannot hide the stall by slowing the generator down.
            let due_us = generator.us_of(due);
            generator.send_message(self.next_room, due_us);
            self.sent += 1;
            self.next_room = generator.assignment.next_room(self.next_room);
        }
        // More messages are due; received bytes are processed first.
        Duration::ZERO
    }

    /// When the next message is due.
    fn next_due(&self) -> Instant {
        let nanoseconds = u128::from(self.sent) * 1_000_000_000 / u128::from(self.per_sec);
        self.start + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}
