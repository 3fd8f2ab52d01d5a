//! A room under load: its next message, and the checks of the messages that its members receive.

mod delivery_check;
mod outgoing;
mod stamp;
#[cfg(test)]
mod tests;

use crate::findings::Findings;
use delivery_check::DeliveryCheck;
use outgoing::Outgoing;
pub(crate) use stamp::STAMP_BYTES;

/// One room.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) name: String,
    /// The client at each member index. The first ones send, in turn.
    members: Vec<usize>,
    outgoing: Outgoing,
    check: DeliveryCheck,
}

impl Room {
    /// A room whose first `senders` members send messages with `content_bytes` bytes of content, at
    /// least [`STAMP_BYTES`]. No member has joined yet.
    pub(crate) fn new(
        name: String,
        members: Vec<usize>,
        senders: usize,
        content_bytes: usize,
    ) -> Self {
        let senders = senders.clamp(1, members.len().max(1));
        Self {
            outgoing: Outgoing::new(&name, senders, content_bytes),
            check: DeliveryCheck::new(members.len(), senders),
            name,
            members,
        }
    }

    /// A member has joined. `seq` is the number of the room's newest message, if the server numbers
    /// messages. The first call decides how deliveries are checked.
    pub(crate) fn member_joined(&mut self, seq: Option<u64>) {
        self.check.start(seq);
    }

    /// Whether the server numbers this room's messages.
    pub(crate) fn is_numbered(&self) -> bool {
        self.check.is_numbered()
    }

    /// The next message: the client that sends it, and its WebSocket frame. The message counts as
    /// sent at `due_us`, in microseconds of the generator's clock.
    pub(crate) fn next_message(&mut self, due_us: u64) -> (usize, &[u8]) {
        let (sender, frame) = self.outgoing.next(due_us);
        (self.members[sender], frame)
    }

    /// Checks a message that a member has received.
    ///
    /// `last_seq` is the last number that this member received; it is used and updated if the
    /// server numbers messages. Returns the time at which the message was due, or `None` if it does
    /// not count as a delivery (unreadable, or a repeat).
    pub(crate) fn receive(
        &mut self,
        member: usize,
        last_seq: &mut u64,
        packet: &[u8],
        findings: &mut Findings,
    ) -> Option<u64> {
        self.check.receive(member, last_seq, packet, findings)
    }

    /// Messages sent.
    pub(crate) fn sent(&self) -> u64 {
        self.outgoing.sent()
    }

    /// Messages sent that not every member has received yet.
    pub(crate) fn in_flight(&self) -> u64 {
        self.sent().saturating_sub(self.check.fully_delivered())
    }

    /// Whether every member has received every message.
    pub(crate) fn is_drained(&self) -> bool {
        self.check.delivered() >= self.expected_deliveries()
    }

    /// Adds the messages that were sent and not received by all members to the findings.
    pub(crate) fn count_undelivered(&self, findings: &mut Findings) {
        self.check
            .count_undelivered(self.expected_deliveries(), findings);
    }

    /// One delivery per message and member.
    fn expected_deliveries(&self) -> u64 {
        self.sent() * self.members.len() as u64
    }
}
