//! Checks that each member of a room receives each message once, without a gap, and in the same
//! order as all other members.

use std::collections::{HashSet, VecDeque};
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::stamp::Stamp;
use crate::digits::number_after;
use crate::findings::Findings;

/// Maximum length of a room's window. If more messages than this follow one that a member has not
/// received, that one leaves the window and is checked by numbers alone, so that a lost message
/// does not keep all later ones in memory.
pub(super) const MAX_WINDOW: usize = 65_536;

/// Maximum number of skipped messages that are remembered per gap, to recognize them if they arrive
/// later.
const MAX_MISSING_PER_GAP: usize = 1000;

/// Checks the deliveries of one room.
///
/// Each message has a *position*: the room's messages are counted from 0, in the server's order, or
/// in the order in which they were sent if the server numbers nothing. The *window* holds the
/// messages that not every member has received yet.
#[derive(Debug)]
pub(super) struct DeliveryCheck {
    /// Number of members.
    members: usize,
    /// Number of members that send; they have the member indices below it.
    senders: usize,
    numbering: Numbering,
    /// Messages that members have received, all members together, without repeats.
    delivered: u64,
    /// Messages that every member has received.
    fully_delivered: u64,
    /// The messages in the window, by position.
    pub(super) window: VecDeque<WindowEntry>,
    /// The position of the window's first message.
    window_start: u64,
    /// Messages that were skipped and have not arrived since. Empty as long as all is well.
    missing: HashSet<MessageKey>,
}

/// How the messages of a room are numbered.
#[derive(Debug)]
enum Numbering {
    /// No member has joined yet.
    Unknown,
    /// The server numbers them; each member must receive each number once, in rising order.
    Server {
        /// The server's number before the first message of this run.
        base: u64,
        /// Per sender: the highest counter among messages that have left the window.
        last_counters: Vec<u64>,
    },
    /// The server numbers nothing; each sender's own counter is checked at each member.
    PerSender {
        /// The last counter that a member received from a sender, at
        /// `member * number of senders + sender`.
        last_counters: Vec<u64>,
    },
}

/// A message that not every member has received yet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WindowEntry {
    /// The counter in the message's stamp. 0, which no message has: no member has received it yet.
    counter: u64,
    /// The sender in the message's stamp.
    sender: usize,
    /// Number of members that have received the message.
    received_by: usize,
}

/// A message as one member knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct MessageKey {
    member: usize,
    /// The sender if each sender's counter is checked; else 0.
    stream: usize,
    /// The server's number, or the sender's counter.
    number: u64,
}

impl MessageKey {
    fn new(member: usize, stream: usize, number: u64) -> Self {
        Self {
            member,
            stream,
            number,
        }
    }
}

impl DeliveryCheck {
    pub(super) fn new(members: usize, senders: usize) -> Self {
        Self {
            members,
            senders,
            numbering: Numbering::Unknown,
            delivered: 0,
            fully_delivered: 0,
            window: VecDeque::new(),
            window_start: 0,
            missing: HashSet::new(),
        }
    }

    /// Starts to check, by the server's numbers after `seq` if there is one. Later calls have no
    /// effect.
    pub(super) fn start(&mut self, seq: Option<u64>) {
        if !matches!(self.numbering, Numbering::Unknown) {
            return;
        }
        self.numbering = match seq {
            Some(base) => Numbering::Server {
                base,
                last_counters: vec![0; self.senders],
            },
            None => Numbering::PerSender {
                last_counters: vec![0; self.senders * self.members],
            },
        };
    }

    pub(super) fn is_numbered(&self) -> bool {
        matches!(self.numbering, Numbering::Server { .. })
    }

    /// Messages that members have received, all members together, without repeats.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Messages that every member has received.
    pub(super) fn fully_delivered(&self) -> u64 {
        self.fully_delivered
    }

    /// See [`Room::receive`](super::Room::receive).
    pub(super) fn receive(
        &mut self,
        member: usize,
        last_seq: &mut u64,
        packet: &[u8],
        findings: &mut Findings,
    ) -> Option<u64> {
        let Some((stamp, head)) = Stamp::find(packet) else {
            findings.unreadable += 1;
            return None;
        };
        if stamp.sender >= self.senders || stamp.counter == 0 {
            findings.unreadable += 1;
            return None;
        }
        let (key, last, position) = match &mut self.numbering {
            Numbering::Unknown => return None,
            Numbering::Server { base, .. } => {
                let Some(number) = server_number(head) else {
                    findings.unreadable += 1;
                    return None;
                };
                let key = MessageKey::new(member, 0, number);
                (key, last_seq, number.checked_sub(*base + 1))
            }
            Numbering::PerSender { last_counters } => {
                let key = MessageKey::new(member, stamp.sender, stamp.counter);
                // The senders take turns, so a message's counter and sender tell its position.
                let position = (stamp.counter - 1)
                    .checked_mul(self.senders as u64)?
                    .checked_add(stamp.sender as u64);
                let last = last_counters.get_mut(member * self.senders + stamp.sender)?;
                (key, last, position)
            }
        };
        let is_new = check_number(key, last, &mut self.missing, findings);
        if let Some(position) = position {
            self.check_position(position, stamp, is_new, findings);
        }
        if !is_new {
            return None;
        }
        self.delivered += 1;
        Some(stamp.due_us)
    }

    /// Checks the message that a member has received at this position: the first member that
    /// receives it determines which message it is, and all others must receive the same one.
    fn check_position(
        &mut self,
        position: u64,
        stamp: Stamp,
        is_new: bool,
        findings: &mut Findings,
    ) {
        // A message before the window is late or a repeat: its number has shown that already.
        let Some(offset) = position.checked_sub(self.window_start) else {
            return;
        };
        // A number that jumps far ahead does not extend the window.
        let Ok(offset) = usize::try_from(offset) else {
            return;
        };
        if offset >= 2 * MAX_WINDOW {
            return;
        }
        if offset >= self.window.len() {
            self.window.resize(offset + 1, WindowEntry::default());
        }
        let entry = &mut self.window[offset];
        if entry.counter == 0 {
            entry.sender = stamp.sender;
            entry.counter = stamp.counter;
        } else if (entry.sender, entry.counter) != (stamp.sender, stamp.counter) {
            findings.two_orders += 1;
        }
        if is_new {
            entry.received_by += 1;
            self.fully_delivered += u64::from(entry.received_by == self.members);
        }
        self.advance_window(findings);
    }

    /// Removes messages from the front of the window: those that every member has received, and
    /// those above [`MAX_WINDOW`].
    fn advance_window(&mut self, findings: &mut Findings) {
        while let Some(entry) = self.window.front() {
            let is_fully_delivered = entry.received_by >= self.members;
            if !is_fully_delivered && self.window.len() <= MAX_WINDOW {
                break;
            }
            if let Numbering::Server { last_counters, .. } = &mut self.numbering
                && entry.counter > 0
            {
                // The messages of one sender keep their order, and none has two numbers.
                let last = &mut last_counters[entry.sender];
                findings.two_orders += u64::from(entry.counter <= *last);
                *last = entry.counter.max(*last);
            }
            self.window.pop_front();
            self.window_start += 1;
        }
    }

    /// Adds the deliveries that are missing at the end of the run to the findings.
    pub(super) fn count_undelivered(&self, expected: u64, findings: &mut Findings) {
        let undelivered = expected.saturating_sub(self.delivered);
        // The messages in `missing` are undelivered too, but were counted when they were skipped.
        findings.holes += undelivered.saturating_sub(self.missing.len() as u64);
    }
}

/// Compares a message's number with the last one that the member received in its stream, and
/// updates that one. Returns whether the member receives the message for the first time.
fn check_number(
    key: MessageKey,
    last: &mut u64,
    missing: &mut HashSet<MessageKey>,
    findings: &mut Findings,
) -> bool {
    if key.number == *last + 1 {
        *last = key.number;
        return true;
    }
    if key.number > *last {
        findings.holes += key.number - *last - 1;
        let skipped = (*last + 1..key.number).take(MAX_MISSING_PER_GAP);
        missing.extend(skipped.map(|number| MessageKey { number, ..key }));
        *last = key.number;
        return true;
    }
    if missing.remove(&key) {
        findings.holes -= 1;
        findings.disorder += 1;
        return true;
    }
    findings.repeats += 1;
    false
}

/// The server's number of a message: it follows on `"seq":` in the part of the packet before the
/// content.
fn server_number(head: &[u8]) -> Option<u64> {
    static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"seq\":"));
    number_after(&FINDER, head)
}
