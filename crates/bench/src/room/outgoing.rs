//! The messages that a room's members send.

use memchr::memmem;

use super::stamp::{ALL_DIGITS, PREFIX, STAMP_BYTES, Stamp};
use crate::frame;

/// Produces the messages of one room. The senders take turns.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The WebSocket frame of a message. It is built once; afterwards only the digits of the stamp
    /// change, so sending allocates nothing.
    frame: Vec<u8>,
    /// Index of the stamp's first digit in the frame.
    digits_at: usize,
    next_sender: usize,
    /// The number of messages that each sender has sent.
    counters: Vec<u64>,
    /// The number of messages that all have sent.
    sent: u64,
}

impl Outgoing {
    pub(super) fn new(room: &str, senders: usize, content_bytes: usize) -> Self {
        let filler = "x".repeat(content_bytes.saturating_sub(STAMP_BYTES));
        let digits = "0".repeat(ALL_DIGITS);
        let packet = format!(
            "42[\"message\",{{\"room_id\":\"{room}\",\"content\":\"~hb{digits}{filler}\"}}]"
        );
        let mut frame = Vec::new();
        frame::encode(frame::TEXT, packet.as_bytes(), &mut frame);
        let digits_at = memmem::find(&frame, PREFIX).map_or(0, |at| at + PREFIX.len());
        Self {
            frame,
            digits_at,
            next_sender: 0,
            counters: vec![0; senders],
            sent: 0,
        }
    }

    /// The next sender's member index, and the frame of its message.
    pub(super) fn next(&mut self, due_us: u64) -> (usize, &[u8]) {
        let sender = self.next_sender;
        self.next_sender = (sender + 1) % self.counters.len();
        self.sent += 1;
        self.counters[sender] += 1;
        let stamp = Stamp {
            sender,
            counter: self.counters[sender],
            due_us,
        };
        stamp.write(&mut self.frame[self.digits_at..self.digits_at + ALL_DIGITS]);
        (sender, &self.frame)
    }

    /// Messages sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }
}
