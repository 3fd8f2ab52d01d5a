//! Checks that no message is missing: every message in a room's numbering reached every member, or
//! its loss was announced.
//!
//! The messages of a room have one order: by epoch, then by number. The segments of a client's
//! cursor lie in this order. The messages between two of them were announced as lost, or the client
//! didn't ask for them, or they are missing. The messages after the last segment are missing,
//! unless the client left or ended.

mod omissions;
mod room;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use self::room::{Head, Room, RoomMessage};
use super::deliveries::Deliveries;
use super::faults::{FaultKind, Faults};
use super::interner::{Interner, Symbol};
use super::message_index::{ARCHIVE, MessageIndex};
use super::parsed_history::ParsedHistory;
use super::stats::Stats;

pub(super) struct CompletenessCheck<'r, 'a> {
    pub interner: &'r mut Interner<'a>,
    pub faults: &'r mut Faults,
    pub stats: &'r mut Stats,
    pub data_loss: bool,
    /// The times at which an acknowledged message may have been lost with Redis's data. Empty if
    /// they are unknown.
    pub loss_windows: &'r [RangeInclusive<u64>],
    /// The archive decides which messages survive.
    pub is_archived: bool,
    pub two_primaries: bool,
}

impl<'a> CompletenessCheck<'_, 'a> {
    /// Checks all rooms.
    pub fn check(
        &mut self,
        history: &ParsedHistory<'a>,
        index: &MessageIndex,
        mut deliveries: Deliveries,
    ) {
        let mut messages = collect_messages(index, &mut deliveries);
        self.add_archived_epochs(history, &mut deliveries);
        let heads = self.collect_heads(history, &mut deliveries);
        self.stats.rooms = deliveries.epochs.len();
        for (symbol, epochs) in &deliveries.epochs {
            let name = self.interner.text(*symbol);
            let ranks = if self.two_primaries {
                epochs.unordered()
            } else {
                epochs.rank(name, self.interner, self.faults)
            };
            let mut messages = messages.remove(symbol).unwrap_or_default();
            if self.two_primaries {
                messages.retain(|message| message.archived);
            }
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

    /// Adds the order in which the archive has the epochs of each room.
    fn add_archived_epochs(&mut self, history: &ParsedHistory<'a>, deliveries: &mut Deliveries) {
        let archive = self.interner.intern(ARCHIVE);
        for (name, room) in &history.archive {
            let symbol = self.interner.intern(name);
            let epochs = deliveries.epochs.entry(symbol).or_default();
            let mut last = None;
            for entry in &room.entries {
                let epoch = self.interner.intern(&entry.epoch);
                if last == Some(epoch) {
                    continue;
                }
                epochs.add_observed(epoch, room.at);
                if let Some(before) = last.replace(epoch) {
                    epochs.add_transition(before, epoch, archive, room.at);
                }
            }
        }
    }

    /// By room: the head. Adds the epochs of the heads to those of the rooms.
    fn collect_heads(
        &mut self,
        history: &ParsedHistory<'a>,
        deliveries: &mut Deliveries,
    ) -> BTreeMap<Symbol, Head> {
        let mut heads = BTreeMap::new();
        for (room, head) in &history.final_heads {
            let room = self.interner.intern(room);
            let epoch = self.interner.intern(head.epoch);
            let epochs = deliveries.epochs.entry(room).or_default();
            epochs.add_observed(epoch, head.at);
            let head = Head {
                epoch,
                seq: head.seq,
                at: head.at,
                epoch_has_messages: false,
            };
            heads.insert(room, head);
        }
        heads
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
}

/// By room: the messages, without an order. Adds their epochs to those of the rooms.
fn collect_messages(
    index: &MessageIndex,
    deliveries: &mut Deliveries,
) -> BTreeMap<Symbol, Vec<RoomMessage>> {
    let mut messages: BTreeMap<Symbol, Vec<RoomMessage>> = BTreeMap::new();
    for (position, message) in &index.messages {
        messages
            .entry(position.room)
            .or_default()
            .push(RoomMessage {
                rank: 0,
                seq: position.seq,
                epoch: position.epoch,
                epoch_observed: false,
                acked: message.acked,
                at: message.at,
                archived: message.archived,
            });
        let epochs = deliveries.epochs.entry(position.room).or_default();
        epochs.add(position.epoch, message.at);
    }
    messages
}
