//! Statistics of a history.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Counts that are taken from the history alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Clients that wrote at least one record.
    pub clients: usize,
    /// Rooms with a message, or that a client joined.
    pub rooms: usize,
    /// Lost connections, summed over all clients.
    pub disconnects: u64,
    /// Distinct messages that a client tried to send.
    pub sent: u64,
    /// Attempts to send.
    pub attempts: u64,
    /// Distinct messages with a positive acknowledgement.
    pub acknowledged: u64,
    /// Negative acknowledgements.
    pub refused: u64,
    /// Distinct messages without a positive acknowledgement.
    pub unacknowledged: u64,
    /// Deliveries of messages, summed over all clients.
    pub delivered: u64,
    /// Deliveries of messages that the client had already received, because it joined again without
    /// resuming. Not faults.
    pub replayed_again: u64,
    /// Deliveries of messages that the client had already received, without such a reason. Faults.
    pub repeats: u64,
    /// Points at which sequence numbers were skipped.
    pub holes: u64,
    /// Deliveries of messages below the client's last one.
    pub out_of_order: u64,
    /// Joins that were answered with `recovered`.
    pub resumes: u64,
    /// Joins that were answered with `gap`.
    pub gaps: u64,
    /// `room_reset` events.
    pub resets: u64,
    /// By client: acknowledged messages that it did not receive, and whose loss was announced to
    /// it.
    pub announced_lost: BTreeMap<String, u64>,
    /// Acknowledged messages that were lost with Redis's data before a client received them. A
    /// message counts once for each such client.
    pub lost_with_data: u64,
    /// Entries of the archive.
    pub archived: u64,
    /// Numbers that the archive has recorded as lost.
    pub archive_gaps: u64,
    /// Entries whose numbers had been recorded as lost before they came.
    pub archived_late: u64,
    /// Archived messages whose loss was announced to a client while there were two primaries. A
    /// message counts once for each such client.
    pub announced_but_archived: u64,
    /// Sends that became two messages, because the sender repeated them at the other one of two
    /// primaries.
    pub sent_to_both: u64,
    /// Acknowledged messages that are not in the archive, because Redis lost them before their
    /// commit.
    pub acked_not_archived: u64,
    /// Epochs, summed over all rooms.
    pub epochs: usize,
    /// Status changes that unaffected watchers should have been notified of, summed over these
    /// watchers.
    pub presence_expected: u64,
    /// Status changes that unaffected watchers were notified of.
    pub presence_seen: u64,
    /// Status changes that any watcher was notified of, without the initial states.
    pub statuses: u64,
    /// `user_joined` events.
    pub user_joined: u64,
    /// `user_left` events.
    pub user_left: u64,
    /// `room_users` events.
    pub room_users: u64,
    /// Changes of chats that were acknowledged.
    pub changes: u64,
    /// Attempts of changes without an answer that acknowledged or refused them.
    pub changes_repeated: u64,
    /// Announcements of changes in the archive: in rooms of chats, and in feeds.
    pub announced_in_rooms: u64,
    pub announced_in_feeds: u64,
    /// Refused requests for the messages of a chat, after the removal of the user.
    pub reads_refused: u64,
    /// Rights that nodes granted at the end, and that they refused.
    pub rights_granted: u64,
    pub rights_refused: u64,
    /// Acknowledged replies to messages, edits, deletions, changes of reactions, and changes of pins.
    pub replies: u64,
    pub edits: u64,
    pub deletions: u64,
    pub reactions: u64,
    pub pins: u64,
    /// Edits that were refused because the message had another version than they named.
    pub conflicts: u64,
    /// Attempts of changes of messages after the first one.
    pub message_changes_repeated: u64,
}

impl fmt::Display for Stats {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let announced: u64 = self.announced_lost.values().sum();
        writeln!(
            formatter,
            "{} clients, {} rooms, {} epochs; {} messages in {} attempts: {} acknowledged, \
             {} refusals, {} unacknowledged; {} delivered, {} repeats, {} holes, {} out of order, \
             {} replayed again",
            self.clients,
            self.rooms,
            self.epochs,
            self.sent,
            self.attempts,
            self.acknowledged,
            self.refused,
            self.unacknowledged,
            self.delivered,
            self.repeats,
            self.holes,
            self.out_of_order,
            self.replayed_again,
        )?;
        write!(
            formatter,
            "{} resumes, {} gaps, {} resets: {announced} messages announced as lost, \
             {} lost with the data; presence: unaffected watchers were notified of {} of {} \
             changes; {} status changes, {} user_joined, {} user_left, {} room_users",
            self.resumes,
            self.gaps,
            self.resets,
            self.lost_with_data,
            self.presence_seen,
            self.presence_expected,
            self.statuses,
            self.user_joined,
            self.user_left,
            self.room_users,
        )?;
        if self.archived > 0 {
            write!(
                formatter,
                "\narchive: {} messages, {} of them after their loss was recorded, {} numbers lost, \
                 {} acknowledged messages lost, {} announced as lost and archived, {} sent to both primaries",
                self.archived,
                self.archived_late,
                self.archive_gaps,
                self.acked_not_archived,
                self.announced_but_archived,
                self.sent_to_both,
            )?;
        }
        if self.changes > 0 {
            write!(
                formatter,
                "\nchats: {} changes, {} attempts repeated; announced in rooms: {}, in feeds: {}; \
                 {} reads refused after removals; at the end {} rights granted, {} refused",
                self.changes,
                self.changes_repeated,
                self.announced_in_rooms,
                self.announced_in_feeds,
                self.reads_refused,
                self.rights_granted,
                self.rights_refused,
            )?;
        }
        if self.edits > 0 {
            write!(
                formatter,
                "\nchanges of messages: {} edits and {} conflicts, {} deletions, {} reactions, {} pins, \
                 {} replies; {} attempts repeated",
                self.edits,
                self.conflicts,
                self.deletions,
                self.reactions,
                self.pins,
                self.replies,
                self.message_changes_repeated,
            )?;
        }
        Ok(())
    }
}
