//! The messages that a room's members send.

use memchr::memmem;

use super::stamp::{ALL_DIGITS, PREFIX, STAMP_BYTES, Stamp};
use crate::acks::ID_DIGITS;
use crate::digits::write_digits;
use crate::frame;

/// The beginning of an event's packet; the ack id follows.
const EVENT: &str = "42";

/// Produces the messages of one room.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The WebSocket frame of a message. It is built once; afterwards only the digits of the stamp
    /// and of the ack id change, so sending allocates nothing.
    frame: Vec<u8>,
    /// Index of the ack id's first digit in the frame; `None` if no acknowledgement is requested.
    ack_id_at: Option<usize>,
    /// Index of the stamp's first digit in the frame.
    digits_at: usize,
    next_sender: usize,
    /// The number of messages that each sender has sent.
    counters: Vec<u64>,
    /// The number of messages that all have sent.
    sent: u64,
}

impl Outgoing {
    pub(super) fn new(room: &str, senders: usize, content_bytes: usize, with_acks: bool) -> Self {
        let filler = "x".repeat(content_bytes.saturating_sub(STAMP_BYTES));
        let digits = "0".repeat(ALL_DIGITS);
        let ack_id = if with_acks {
            "0".repeat(ID_DIGITS)
        } else {
            String::new()
        };
        let packet = format!(
            "{EVENT}{ack_id}[\"message\",{{\"room_id\":\"{room}\",\"content\":\"~hb{digits}{filler}\"}}]"
        );
        let mut frame = Vec::new();
        frame::encode(frame::TEXT, packet.as_bytes(), &mut frame);
        let payload_at = frame.len() - packet.len();
        let ack_id_at = if with_acks {
            Some(payload_at + EVENT.len())
        } else {
            None
        };
        let digits_at = memmem::find(&frame, PREFIX).map_or(0, |at| at + PREFIX.len());
        Self {
            frame,
            ack_id_at,
            digits_at,
            next_sender: 0,
            counters: vec![0; senders],
            sent: 0,
        }
    }

    /// Number of members that send.
    pub(super) fn senders(&self) -> usize {
        self.counters.len()
    }

    /// The member index of the sender whose turn it is; the next call returns the next one.
    pub(super) fn next_sender(&mut self) -> usize {
        let sender = self.next_sender;
        self.next_sender = (sender + 1) % self.counters.len();
        sender
    }

    /// The frame of a sender's next message. It requests an acknowledgement with this id, if the
    /// room's messages request any.
    pub(super) fn message_of(&mut self, sender: usize, due_us: u64, ack_id: u64) -> &[u8] {
        self.sent += 1;
        self.counters[sender] += 1;
        let stamp = Stamp {
            sender,
            counter: self.counters[sender],
            due_us,
        };
        stamp.write(&mut self.frame[self.digits_at..self.digits_at + ALL_DIGITS]);
        if let Some(at) = self.ack_id_at {
            write_digits(ack_id, &mut self.frame[at..at + ID_DIGITS]);
        }
        &self.frame
    }

    /// Messages sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }
}
