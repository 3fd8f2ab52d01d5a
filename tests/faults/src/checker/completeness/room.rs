//! The messages of one room.

use std::collections::BTreeSet;

use crate::checker::epochs::EpochRanks;
use crate::checker::interner::{Interner, Symbol};

/// At most this many ranges of missing messages are listed for one client.
const MAX_LISTED_RANGES: usize = 10;

/// A message in the order of its room.
pub(super) struct RoomMessage {
    /// The index of its epoch in the order of the room's epochs.
    pub rank: usize,
    pub seq: u64,
    pub epoch: Symbol,
    /// A member of the room, or the lab, observed the epoch. Otherwise only an acknowledgement
    /// names it.
    pub epoch_observed: bool,
    /// The time of the first acknowledgement.
    pub acked: Option<u64>,
    /// The time of the first record about it.
    pub at: u64,
    /// The archive has it.
    pub archived: bool,
}

/// The messages of one room.
pub(super) struct Room<'s> {
    pub name: &'s str,
    /// In the room's order.
    pub messages: Vec<RoomMessage>,
    pub ranks: EpochRanks,
    pub head: Option<Head>,
}

/// The head of a room at the end of the run.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub epoch: Symbol,
    pub seq: u64,
    pub at: u64,
    /// The epoch has at least one message.
    pub epoch_has_messages: bool,
}

impl Room<'_> {
    /// The index of the first message after this position.
    pub fn index_after(&self, epoch: Symbol, seq: u64) -> usize {
        let rank = self.ranks.get(&epoch).copied().unwrap_or_default();
        self.messages
            .partition_point(|message| (message.rank, message.seq) <= (rank, seq))
    }

    /// Messages as a text: `e1/4..7, e2/9..9`.
    pub fn describe_ranges(&self, indices: &BTreeSet<usize>, interner: &Interner<'_>) -> String {
        let mut ranges: Vec<(Symbol, u64, u64)> = Vec::new();
        for index in indices {
            let message = &self.messages[*index];
            match ranges.last_mut() {
                Some((epoch, _, to)) if *epoch == message.epoch && *to + 1 == message.seq => {
                    *to = message.seq;
                }
                _ => ranges.push((message.epoch, message.seq, message.seq)),
            }
        }
        let listed: Vec<_> = ranges
            .iter()
            .take(MAX_LISTED_RANGES)
            .map(|(epoch, from, to)| format!("{}/{from}..{to}", interner.text(*epoch)))
            .collect();
        let text = listed.join(", ");
        match ranges.len() - listed.len() {
            0 => text,
            more => format!("{text} and {more} more ranges"),
        }
    }
}
