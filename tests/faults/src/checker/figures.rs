//! What a history amounts to, in numbers.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Counted from the history alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Clients that wrote anything.
    pub clients: usize,
    /// Rooms in which anything was said or that anybody joined.
    pub rooms: usize,
    /// Distinct messages that were tried to be sent.
    pub sent: u64,
    /// Attempts to send.
    pub attempts: u64,
    /// Distinct messages with a positive ack.
    pub acknowledged: u64,
    /// Negative acks.
    pub refused: u64,
    /// Distinct messages that never had a positive ack.
    pub unanswered: u64,
    /// Messages that came, to all clients together.
    pub delivered: u64,
    /// Of these, those that a client had had, and was shown again because it joined anew. No faults.
    pub shown_again: u64,
    /// Of these, those that came again for no reason.
    pub repeats: u64,
    /// Places at which numbers were skipped.
    pub holes: u64,
    /// Messages below the last one.
    pub disorder: u64,
    /// Joins that were answered with `recovered`.
    pub resumes: u64,
    /// Joins that were answered with `gap`.
    pub gaps: u64,
    /// `room_reset`s.
    pub resets: u64,
    /// By client: the acknowledged messages that it never got, and whose loss was announced to it.
    pub announced_lost: BTreeMap<String, u64>,
    /// Acknowledged messages that were lost with Redis's data to clients that were behind, counted for each client.
    pub lost_with_data: u64,
    /// Numberings, over all rooms.
    pub epochs: usize,
    /// Changes of status that calm watchers were owed, all together.
    pub presence_expected: u64,
    /// Changes of status that they were told.
    pub presence_seen: u64,
    /// Changes of status that anybody was told, initial ones left out.
    pub statuses: u64,
    /// `user_joined`s.
    pub entered: u64,
    /// `user_left`s.
    pub went: u64,
    /// `room_users`.
    pub rosters: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let announced: u64 = self.announced_lost.values().sum();
        write!(
            to,
            "{} clients, {} rooms, {} epochs; {} messages in {} attempts: {} acknowledged, {} refusals, {} unanswered; \
             {} delivered, {} repeats, {} holes, {} out of order, {} shown again\n\
             {} resumes, {} gaps, {} resets: {announced} messages announced as lost, {} lost with the data; \
             presence: {} of {} changes told to calm watchers, {} statuses, {} entered, {} went, {} lists",
            self.clients,
            self.rooms,
            self.epochs,
            self.sent,
            self.attempts,
            self.acknowledged,
            self.refused,
            self.unanswered,
            self.delivered,
            self.repeats,
            self.holes,
            self.disorder,
            self.shown_again,
            self.resumes,
            self.gaps,
            self.resets,
            self.lost_with_data,
            self.presence_seen,
            self.presence_expected,
            self.statuses,
            self.entered,
            self.went,
            self.rosters,
        )
    }
}
