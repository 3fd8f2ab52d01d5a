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
    /// The client at each member index. The first ones send.
    members: Vec<usize>,
    outgoing: Outgoing,
    check: DeliveryCheck,
    /// Messages that the server refused. It may have delivered some of them.
    refused: u64,
}

impl Room {
    /// A room whose first `senders` members send messages with `content_bytes` bytes of content, at
    /// least [`STAMP_BYTES`]. They request acknowledgements if `with_acks`. No member has joined yet.
    pub(crate) fn new(
        name: String,
        members: Vec<usize>,
        senders: usize,
        content_bytes: usize,
        with_acks: bool,
    ) -> Self {
        let senders = senders.clamp(1, members.len().max(1));
        Self {
            outgoing: Outgoing::new(&name, senders, content_bytes, with_acks),
            check: DeliveryCheck::new(members.len(), senders),
            refused: 0,
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

    /// Number of members that send. They have the member indices below it.
    pub(crate) fn senders(&self) -> usize {
        self.outgoing.senders()
    }

    /// The member index of the sender whose turn it is; the next call returns the next one.
    pub(crate) fn next_sender(&mut self) -> usize {
        self.outgoing.next_sender()
    }

    /// The client at a member index.
    pub(crate) fn client_of(&self, member: usize) -> usize {
        self.members[member]
    }

    /// The WebSocket frame of a sender's next message. The message counts as sent at `due_us`, in
    /// microseconds of the generator's clock. It requests an acknowledgement with `ack_id`, if the
    /// room's messages request any.
    pub(crate) fn message_of(&mut self, sender: usize, due_us: u64, ack_id: u64) -> &[u8] {
        self.outgoing.message_of(sender, due_us, ack_id)
    }

    /// The server refused a message: it need not be delivered.
    pub(crate) fn message_refused(&mut self) {
        self.refused += 1;
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

    /// Whether every member has received every message that was not refused.
    pub(crate) fn is_drained(&self) -> bool {
        self.check.delivered() >= self.expected_deliveries()
    }

    /// Adds the messages that were sent, not refused, and not received by all members to the
    /// findings.
    pub(crate) fn count_undelivered(&self, findings: &mut Findings) {
        self.check
            .count_undelivered(self.expected_deliveries(), findings);
    }

    /// One delivery per member of each message that was not refused.
    fn expected_deliveries(&self) -> u64 {
        (self.sent() - self.refused) * self.members.len() as u64
    }
}
