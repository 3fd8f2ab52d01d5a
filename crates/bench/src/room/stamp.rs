//! The stamp at the beginning of each message's content. It is found and read without parsing the
//! packet's JSON.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::digits::{parse_digits, write_digits};

/// The first bytes of a stamp; digits follow.
pub(super) const PREFIX: &[u8] = b"~hb";
/// Number of digits of the sender, of its counter, and of the time.
const DIGITS: [usize; 3] = [6, 10, 15];
/// Number of all digits of a stamp.
pub(super) const ALL_DIGITS: usize = DIGITS[0] + DIGITS[1] + DIGITS[2];
/// Bytes of a stamp: no message's content may be shorter.
pub(crate) const STAMP_BYTES: usize = PREFIX.len() + ALL_DIGITS;

/// Identifies a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The sender's member index.
    pub(super) sender: usize,
    /// Counts the sender's messages, from 1.
    pub(super) counter: u64,
    /// The time at which the message was due to be sent, in microseconds of the generator's clock.
    pub(super) due_us: u64,
}

impl Stamp {
    /// The stamp in a packet, and the part of the packet before it.
    pub(super) fn find(packet: &[u8]) -> Option<(Self, &[u8])> {
        static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(PREFIX));
        let at = FINDER.find(packet)?;
        let mut rest = packet.get(at + PREFIX.len()..)?;
        let mut numbers = [0; 3];
        for (number, digits) in numbers.iter_mut().zip(DIGITS) {
            let text;
            (text, rest) = rest.split_at_checked(digits)?;
            *number = parse_digits(text)?;
        }
        let [sender, counter, due_us] = numbers;
        let stamp = Self {
            sender: usize::try_from(sender).ok()?,
            counter,
            due_us,
        };
        Some((stamp, &packet[..at]))
    }

    /// Writes the digits. `out` must hold [`ALL_DIGITS`] bytes.
    pub(super) fn write(self, mut out: &mut [u8]) {
        let numbers = [self.sender as u64, self.counter, self.due_us];
        for (number, digits) in numbers.into_iter().zip(DIGITS) {
            let (text, rest) = out.split_at_mut(digits);
            write_digits(number, text);
            out = rest;
        }
    }
}
