//! Checks that no message is missing: every message in a room's numbering reached every member, or its loss was announced.
//!
//! The messages of a room have one order: by epoch, then by number. The segments of a client's cursor lie in this order.
//! The messages between two of them were announced as lost, or the client didn't ask for them, or they are missing. The
//! messages after the last segment are missing, unless the client left or ended.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::cursor::{Segment, SegmentStart};
use super::deliveries::{ClientCursor, Deliveries};
use super::epochs::EpochRanks;
use super::faults::{FaultKind, Faults};
use super::interner::{Interner, Symbol};
use super::message_index::MessageIndex;
use super::parsed_history::ParsedHistory;
use super::stats::Stats;

/// At most this many ranges of missing messages are listed for one client.
const MAX_LISTED_RANGES: usize = 10;

/// A message in the order of its room.
struct RoomMessage {
    /// The index of its epoch in the order of the room's epochs.
    rank: usize,
    seq: u64,
    epoch: Symbol,
    /// A member of the room, or the lab, observed the epoch. Otherwise only an acknowledgement names it.
    epoch_observed: bool,
    /// The time of the first acknowledgement.
    acked: Option<u64>,
    /// The time of the first record about it.
    at: u64,
}

/// The messages of one room.
struct Room<'s> {
    name: &'s str,
    /// In the room's order.
    messages: Vec<RoomMessage>,
    ranks: EpochRanks,
    head: Option<Head>,
}

/// The head of a room at the end of the run.
#[derive(Clone, Copy)]
struct Head {
    epoch: Symbol,
    seq: u64,
    at: u64,
    /// The epoch has at least one message.
    epoch_has_messages: bool,
}

/// The reason why a client did not receive a message. A client that joins anew may pass over a message twice: then the
/// first reason counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Omission {
    /// The message did not have to reach the client.
    NotExpected,
    /// Its loss was announced.
    Announced,
    LostWithData,
    Missing,
}

/// By index of the message in its room.
type Omissions = BTreeMap<usize, Omission>;

pub(super) struct CompletenessCheck<'r, 'a> {
    pub interner: &'r mut Interner<'a>,
    pub faults: &'r mut Faults,
    pub stats: &'r mut Stats,
    pub data_loss: bool,
    /// The times at which an acknowledged message may have been lost with Redis's data. Empty if they are unknown.
    pub loss_windows: &'r [RangeInclusive<u64>],
}

impl<'a> CompletenessCheck<'_, 'a> {
    /// Checks all rooms.
    pub fn check(
        &mut self,
        history: &ParsedHistory<'a>,
        index: &MessageIndex,
        mut deliveries: Deliveries,
    ) {
        let mut messages_by_room: BTreeMap<Symbol, Vec<RoomMessage>> = BTreeMap::new();
        for (position, message) in &index.messages {
            messages_by_room
                .entry(position.room)
                .or_default()
                .push(RoomMessage {
                    rank: 0,
                    seq: position.seq,
                    epoch: position.epoch,
                    epoch_observed: false,
                    acked: message.acked,
                    at: message.at,
                });
            deliveries
                .epochs
                .entry(position.room)
                .or_default()
                .add(position.epoch, message.at);
        }
        let mut heads = BTreeMap::new();
        for (room, head) in &history.final_heads {
            let room = self.interner.intern(room);
            let epoch = self.interner.intern(head.epoch);
            deliveries
                .epochs
                .entry(room)
                .or_default()
                .add_observed(epoch, head.at);
            let head = Head {
                epoch,
                seq: head.seq,
                at: head.at,
                epoch_has_messages: false,
            };
            heads.insert(room, head);
        }
        self.stats.rooms = deliveries.epochs.len();
        for (symbol, epochs) in &deliveries.epochs {
            let name = self.interner.text(*symbol);
            let ranks = epochs.rank(name, self.interner, self.faults);
            let mut messages = messages_by_room.remove(symbol).unwrap_or_default();
            for message in &mut messages {
                message.epoch_observed = epochs.is_observed(message.epoch);
                message.rank = ranks.get(&message.epoch).copied().unwrap_or_default();
            }
            messages.sort_by_key(|message| (message.rank, message.seq));
            let mut head = heads.get(symbol).copied();
            if let Some(head) = &mut head {
                let is_in_epoch = |message: &RoomMessage| message.epoch == head.epoch;
                head.epoch_has_messages = messages.iter().any(is_in_epoch);
            }
            let room = Room {
                name,
                messages,
                ranks,
                head,
            };
            self.stats.epochs += epochs.len();
            self.check_acks(&room);
            for client in deliveries.cursors.get(symbol).into_iter().flatten() {
                self.check_client(&room, client);
            }
        }
    }

    /// Checks that every acknowledged message is in the log, and that numbers go on across epochs.
    fn check_acks(&mut self, room: &Room<'_>) {
        let name = room.name;
        for message in &room.messages {
            let Some(at) = message.acked else { continue };
            let seq = message.seq;
            let epoch = self.interner.text(message.epoch);
            if !message.epoch_observed && !self.data_loss {
                self.faults.add(FaultKind::FalseAck, at, || {
                    format!("{epoch}/{seq} in {name}, and no member observed that epoch")
                });
                continue;
            }
            let Some(head) = room.head else { continue };
            let may_be_lost = self.data_loss && head.epoch != message.epoch;
            if seq > head.seq && !may_be_lost {
                let end = self.interner.text(head.epoch);
                self.faults.add(FaultKind::FalseAck, at, || {
                    format!("{epoch}/{seq} in {name}, whose head is {end}/{}", head.seq)
                });
            }
        }
        if self.data_loss {
            return;
        }
        for pair in room.messages.windows(2) {
            let [last, next] = pair else { continue };
            if last.rank < next.rank && last.seq >= next.seq {
                let last_epoch = self.interner.text(last.epoch);
                let next_epoch = self.interner.text(next.epoch);
                self.faults.add(FaultKind::EpochOrder, next.at, || {
                    format!(
                        "{name} has {last_epoch}/{}, and then {next_epoch}/{}",
                        last.seq, next.seq
                    )
                });
            }
        }
    }

    fn check_client(&mut self, room: &Room<'_>, client: &ClientCursor) {
        let segments = &client.cursor.segments;
        let mut omissions = Omissions::new();
        for pair in segments.windows(2) {
            let [before, next] = pair else { continue };
            let from = room.index_after(before.epoch, before.until);
            let to = room.index_after(next.epoch, next.after);
            for index in from..to {
                omissions
                    .entry(index)
                    .or_insert_with(|| self.omission_before(next, &room.messages[index]));
            }
        }
        let must_be_at_head = !client.finished;
        if must_be_at_head
            && self.check_final_position(room, client)
            && let Some(last) = segments.last()
        {
            for index in room.index_after(last.epoch, last.until)..room.messages.len() {
                omissions
                    .entry(index)
                    .or_insert_with(|| self.omission_at_end(room, &room.messages[index]));
            }
        }
        omissions.retain(|index, _| {
            let message = &room.messages[*index];
            !client.cursor.has_received(message.epoch, message.seq)
        });
        self.report_saved_but_lost(room, client, &omissions);
        self.report_missing(room, client, &omissions);
        self.count_losses(room, client, &omissions);
    }

    /// Judges a message between a segment and the one before it.
    fn omission_before(&self, next: &Segment, message: &RoomMessage) -> Omission {
        match next.start {
            SegmentStart::JoinedAnew | SegmentStart::FaultReported => Omission::NotExpected,
            SegmentStart::LossAnnounced => Omission::Announced,
            // The data went back to a point before this message, so its number, or a later one, belongs to another
            // message now. All messages below that point are kept.
            SegmentStart::Continued
                if self.data_loss && (message.seq > next.after || !message.epoch_observed) =>
            {
                Omission::LostWithData
            }
            SegmentStart::Continued => Omission::Missing,
        }
    }

    /// Judges a message after the last segment of a client that is still in the room.
    fn omission_at_end(&self, room: &Room<'_>, message: &RoomMessage) -> Omission {
        match room.head {
            // Reported as a false ack, or by the client that received the message.
            Some(head) if message.seq > head.seq && head.epoch == message.epoch => {
                Omission::NotExpected
            }
            Some(head) if message.seq > head.seq && self.data_loss => Omission::LostWithData,
            Some(_) if self.data_loss && !message.epoch_observed => Omission::LostWithData,
            _ => Omission::Missing,
        }
    }

    /// Whether a client that is still in the room has reached the room's head. If not, this is reported.
    fn check_final_position(&mut self, room: &Room<'_>, client: &ClientCursor) -> bool {
        let (Some(head), Some(position)) = (room.head, client.cursor.position) else {
            return true;
        };
        let same_epoch = position.epoch == head.epoch || !head.epoch_has_messages;
        if position.seq == head.seq && same_epoch {
            return true;
        }
        let client = self.interner.text(client.client);
        let epoch = self.interner.text(position.epoch);
        let head_epoch = self.interner.text(head.epoch);
        self.faults.add(FaultKind::Missing, head.at, || {
            let positions = format!(
                "{client} in {} is at {epoch}/{}, and the head of the room is {head_epoch}/{}",
                room.name, position.seq, head.seq
            );
            if position.seq < head.seq {
                let first = position.seq + 1;
                format!("{positions}: {first}..{} never came", head.seq)
            } else {
                positions
            }
        });
        false
    }

    /// Reports messages that were lost although they had been acknowledged at a time when the loss of data could not
    /// affect them.
    fn report_saved_but_lost(
        &mut self,
        room: &Room<'_>,
        client: &ClientCursor,
        omissions: &Omissions,
    ) {
        if !self.data_loss || self.loss_windows.is_empty() {
            return;
        }
        let client = self.interner.text(client.client);
        for (index, omission) in omissions {
            let is_lost = matches!(omission, Omission::LostWithData | Omission::Announced);
            let message = &room.messages[*index];
            let Some(acked) = message.acked else { continue };
            let may_be_lost = self
                .loss_windows
                .iter()
                .any(|window| window.contains(&acked));
            if is_lost && !may_be_lost {
                let epoch = self.interner.text(message.epoch);
                self.faults.add(FaultKind::Missing, acked, || {
                    format!(
                        "{client} in {} did not receive {epoch}/{}, which had been saved",
                        room.name, message.seq
                    )
                });
            }
        }
    }

    fn report_missing(&mut self, room: &Room<'_>, client: &ClientCursor, omissions: &Omissions) {
        let missing: BTreeSet<usize> = omissions
            .iter()
            .filter(|(_, omission)| **omission == Omission::Missing)
            .map(|(index, _)| *index)
            .collect();
        let Some(first) = missing.first() else { return };
        let client = self.interner.text(client.client);
        let at = room.messages[*first].at;
        self.faults.add(FaultKind::Missing, at, || {
            let acked = missing
                .iter()
                .filter(|index| room.messages[**index].acked.is_some())
                .count();
            format!(
                "{client} in {} did not receive {} ({} messages, {acked} of them acknowledged)",
                room.name,
                room.describe_ranges(&missing, self.interner),
                missing.len()
            )
        });
    }

    fn count_losses(&mut self, room: &Room<'_>, client: &ClientCursor, omissions: &Omissions) {
        let acked_with = |wanted: Omission| {
            omissions
                .iter()
                .filter(|(index, omission)| {
                    **omission == wanted && room.messages[**index].acked.is_some()
                })
                .count() as u64
        };
        let announced = acked_with(Omission::Announced);
        if announced > 0 {
            let client = self.interner.text(client.client).to_owned();
            *self.stats.announced_lost.entry(client).or_default() += announced;
        }
        self.stats.lost_with_data += acked_with(Omission::LostWithData);
    }
}

impl Room<'_> {
    /// The index of the first message after this position.
    fn index_after(&self, epoch: Symbol, seq: u64) -> usize {
        let rank = self.ranks.get(&epoch).copied().unwrap_or_default();
        self.messages
            .partition_point(|message| (message.rank, message.seq) <= (rank, seq))
    }

    /// Messages as a text: `e1/4..7, e2/9..9`.
    fn describe_ranges(&self, indices: &BTreeSet<usize>, interner: &Interner<'_>) -> String {
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
