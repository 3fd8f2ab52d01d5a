//! Acknowledgements of messages (`--acks`): matches each one with the send that it answers.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

/// The ack id of a client's first message; the following ones count up. Joins have lower ids, so an
/// id of [`ID_DIGITS`] digits belongs to a message.
const FIRST_ID: u64 = 1_000_000_000;

/// Number of digits of a message's ack id.
pub(crate) const ID_DIGITS: usize = 10;

/// A message that was sent and not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SentMessage {
    pub(crate) room: usize,
    /// The sender's member index in the room.
    pub(crate) member: usize,
    /// When the message was due, in microseconds of the generator's clock.
    pub(crate) due_us: u64,
}

/// An answer to a message: the server acknowledged or refused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AckOutcome {
    pub(crate) room: usize,
    /// The sender's member index in the room.
    pub(crate) member: usize,
    pub(crate) is_accepted: bool,
}

/// The messages of all clients that wait for an answer, and the answers so far.
#[derive(Debug)]
pub(crate) struct AckTracker {
    /// By client.
    clients: Vec<UnansweredSends>,
    /// Number of messages without an answer.
    unanswered: u64,
    /// Number of messages that the server acknowledged.
    pub(crate) accepted: u64,
    /// Number of messages that the server refused.
    pub(crate) refused: u64,
    /// The time from the moment at which a message was due until its sender had the
    /// acknowledgement, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// The answers since the last [`take_answers`](Self::take_answers).
    answers: Vec<AckOutcome>,
    /// Whether a refusal is an expected result and not a finding.
    pub(crate) allows_refusals: bool,
}

/// The messages of one client without an answer, in the order of their ids.
#[derive(Debug)]
struct UnansweredSends {
    first_id: u64,
    /// `None`: answered, while an earlier one is not.
    sends: VecDeque<Option<SentMessage>>,
}

impl AckTracker {
    /// # Errors
    /// If `max_recorded_us` is no valid maximum of a histogram.
    pub(crate) fn new(
        clients: usize,
        allows_refusals: bool,
        max_recorded_us: u64,
    ) -> anyhow::Result<Self> {
        let no_sends = || UnansweredSends {
            first_id: FIRST_ID,
            sends: VecDeque::new(),
        };
        Ok(Self {
            clients: std::iter::repeat_with(no_sends).take(clients).collect(),
            unanswered: 0,
            accepted: 0,
            refused: 0,
            latency: Histogram::new_with_max(max_recorded_us, 3)?,
            answers: Vec::new(),
            allows_refusals,
        })
    }

    /// A client sends a message. Returns the ack id to send it with.
    pub(crate) fn begin(&mut self, client: usize, message: SentMessage) -> u64 {
        let UnansweredSends { first_id, sends } = &mut self.clients[client];
        let id = *first_id + sends.len() as u64;
        sends.push_back(Some(message));
        self.unanswered += 1;
        id
    }

    /// The message with this ack id was answered. Returns it, or `None` if no such message waits.
    pub(crate) fn finish(&mut self, client: usize, id: u64) -> Option<SentMessage> {
        let UnansweredSends { first_id, sends } = &mut self.clients[client];
        let index = usize::try_from(id.checked_sub(*first_id)?).ok()?;
        let message = sends.get_mut(index)?.take()?;
        while let Some(None) = sends.front() {
            sends.pop_front();
            *first_id += 1;
        }
        self.unanswered -= 1;
        Some(message)
    }

    /// Counts an answer.
    pub(crate) fn record(&mut self, message: SentMessage, is_accepted: bool) {
        if is_accepted {
            self.accepted += 1;
        } else {
            self.refused += 1;
        }
        self.answers.push(AckOutcome {
            room: message.room,
            member: message.member,
            is_accepted,
        });
    }

    /// Moves the answers since the last call into `answers`, and clears it before.
    pub(crate) fn take_answers(&mut self, answers: &mut Vec<AckOutcome>) {
        answers.clear();
        answers.append(&mut self.answers);
    }

    /// Forgets the answers since the last [`take_answers`](Self::take_answers).
    pub(crate) fn discard_answers(&mut self) {
        self.answers.clear();
    }

    /// Number of messages without an answer.
    pub(crate) fn unanswered(&self) -> u64 {
        self.unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(due_us: u64) -> SentMessage {
        SentMessage {
            room: 3,
            member: 1,
            due_us,
        }
    }

    fn tracker() -> AckTracker {
        AckTracker::new(2, false, 60_000_000).unwrap()
    }

    #[test]
    fn answers_in_any_order_are_matched_with_their_messages() {
        let mut tracker = tracker();
        let ids: Vec<_> = (0..4).map(|due| tracker.begin(0, message(due))).collect();
        assert!(ids.iter().all(|id| id.to_string().len() == ID_DIGITS));
        for index in [1, 0, 3] {
            assert_eq!(
                tracker.finish(0, ids[index]),
                Some(message(index as u64)),
                "message {index}"
            );
        }
        assert_eq!(tracker.unanswered(), 1);
        let next = tracker.begin(0, message(9));
        assert_eq!(next, ids[3] + 1, "ids are not reused");
        assert_eq!(tracker.finish(0, ids[2]), Some(message(2)));
        assert_eq!(tracker.finish(0, next), Some(message(9)));
        assert_eq!(
            (tracker.unanswered(), tracker.clients[0].sends.len()),
            (0, 0)
        );
    }

    #[test]
    fn a_second_answer_and_an_unknown_id_match_no_message() {
        let mut tracker = tracker();
        let id = tracker.begin(0, message(1));
        let other = tracker.begin(0, message(2));
        assert!(tracker.finish(0, other).is_some());
        for wrong in [other, id + 2, id - 1, 1] {
            assert_eq!(tracker.finish(0, wrong), None, "{wrong}");
        }
        assert_eq!(tracker.finish(1, id), None, "another client's message");
        assert!(tracker.finish(0, id).is_some());
        assert_eq!(tracker.finish(0, id), None);
    }
}
