//! Checks each client's deliveries in each room: order, holes, repeats, and the answers to its
//! joins.

mod joins;

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use super::cursor::{Cursor, CursorPosition, DeliveryFault, Membership};
use super::epochs::Epochs;
use super::faults::{FaultKind, Faults};
use super::interner::{Interner, Symbol};
use super::parsed_history::ClientHistory;
use super::stats::Stats;
use crate::history::{Fact, Record};

/// The result of this check, for all clients together.
#[derive(Default)]
pub(super) struct Deliveries {
    /// By room: the final cursor of each client.
    pub cursors: BTreeMap<Symbol, Vec<ClientCursor>>,
    /// By room.
    pub epochs: BTreeMap<Symbol, Epochs>,
}

pub(super) struct ClientCursor {
    pub client: Symbol,
    pub cursor: Cursor,
    /// The client left or ended: no further message has to reach it.
    pub finished: bool,
}

/// The losses that may be announced.
#[derive(Clone)]
pub(super) struct AllowedLosses<'a> {
    /// Losses within an epoch, but only of messages that are older than this many last messages.
    pub gaps: Option<u64>,
    /// Losses with a new epoch.
    pub data_loss: bool,
    /// A reset may be followed by messages of earlier epochs, and by ones that the client has: those
    /// that the archive has after its position.
    pub reset_to_archive: bool,
    /// An epoch that a client left may return.
    pub any_epoch: bool,
    /// The numbers of each room that the archive has recorded as lost.
    pub recorded: HashMap<&'a str, &'a [RangeInclusive<u64>]>,
}

impl AllowedLosses<'_> {
    /// Whether a loss in one epoch, of numbers after `from` and up to `to`, ends with a loss that the
    /// archive has recorded.
    fn ends_with_recorded(&self, room: &str, from: u64, to: u64) -> bool {
        let recorded = self.recorded.get(room).copied().unwrap_or_default();
        let ends_here = |lost: &RangeInclusive<u64>| *lost.end() == to && *lost.start() > from;
        self.data_loss && recorded.iter().any(ends_here)
    }
}

/// Reads the records of one client after another.
pub(super) struct DeliveryCheck<'r, 'a> {
    pub interner: &'r mut Interner<'a>,
    pub faults: &'r mut Faults,
    pub stats: &'r mut Stats,
    pub allowed: AllowedLosses<'a>,
    pub deliveries: &'r mut Deliveries,
}

impl<'a> DeliveryCheck<'_, 'a> {
    pub fn check_client(&mut self, client: &ClientHistory<'a>) {
        let name = self.interner.intern(client.name);
        let mut cursors: HashMap<&str, Cursor> = HashMap::new();
        for record in &client.records {
            self.check_record(&mut cursors, record);
        }
        for (room, mut cursor) in cursors {
            if cursor.position.is_none() {
                continue;
            }
            cursor.finish_segment();
            let finished = cursor.membership == Membership::Left || client.ended;
            let room = self.interner.intern(room);
            self.deliveries
                .cursors
                .entry(room)
                .or_default()
                .push(ClientCursor {
                    client: name,
                    cursor,
                    finished,
                });
        }
    }

    fn check_record(&mut self, cursors: &mut HashMap<&'a str, Cursor>, record: &'a Record) {
        match &record.fact {
            Fact::Joined { room, .. } => {
                let cursor = cursors.entry(room).or_default();
                self.check_join(cursor, room, record);
            }
            Fact::Received {
                room, epoch, seq, ..
            } => {
                let cursor = cursors.entry(room).or_default();
                self.check_message(cursor, room, record, epoch, *seq);
            }
            Fact::Reset { room, .. } => {
                let cursor = cursors.entry(room).or_default();
                self.check_reset(cursor, room, record);
            }
            Fact::RoomUsers { room, .. } => {
                let cursor = cursors.entry(room).or_default();
                self.check_end_of_replay(cursor, room, record);
            }
            Fact::Left { room } => {
                let cursor = cursors.entry(room).or_default();
                if cursor.membership != Membership::Joined {
                    self.faults.add(FaultKind::Malformed, record.at, || {
                        format!("{} left {room} without having joined it", record.source)
                    });
                }
                cursor.membership = Membership::Left;
            }
            Fact::Disconnected => {
                self.stats.disconnects += 1;
                for cursor in cursors.values_mut() {
                    if cursor.membership == Membership::Joined {
                        cursor.membership = Membership::NotJoined;
                    }
                    cursor.replay_end = None;
                }
            }
            _ => {}
        }
    }

    fn check_message(
        &mut self,
        cursor: &mut Cursor,
        room: &'a str,
        record: &'a Record,
        epoch: &'a str,
        seq: u64,
    ) {
        let epoch_symbol = self.interner.intern(epoch);
        let before = cursor.position;
        if self.allowed.any_epoch {
            cursor.forget_abandoned_epochs();
        }
        let delivery = cursor.receive(epoch_symbol, seq);
        self.stats.replayed_again += u64::from(delivery.replayed_again);
        if let Some(from) = delivery.previous_epoch {
            let client = self.interner.intern(&record.source);
            let epochs = self.epochs(room);
            epochs.add_observed(epoch_symbol, record.at);
            epochs.add_transition(from, epoch_symbol, client, record.at);
        }
        let is_past_replay = cursor.replay_end.is_some_and(|end| seq > end);
        if delivery.fault.is_none() && is_past_replay {
            self.report(FaultKind::JoinSequence, record, room, cursor, || {
                format!("received {epoch}/{seq} before the room_users of its join")
            });
            cursor.replay_end = None;
        }
        if let Some(fault) = delivery.fault {
            self.report_delivery(fault, room, record, epoch, seq, before);
        }
        if before.is_none_or(|before| before.epoch != epoch_symbol) {
            self.epochs(room).add_observed(epoch_symbol, record.at);
        }
    }

    fn report_delivery(
        &mut self,
        fault: DeliveryFault,
        room: &str,
        record: &Record,
        epoch: &str,
        seq: u64,
        before: Option<CursorPosition>,
    ) {
        let (kind, explanation) = match fault {
            DeliveryFault::NotInRoom => (FaultKind::NotSubscribed, "and isn't in the room"),
            DeliveryFault::Repeat => (FaultKind::Repeat, "which it had already received"),
            DeliveryFault::OutOfOrder => (FaultKind::OutOfOrder, "which comes before that"),
            DeliveryFault::AbandonedEpoch => (
                FaultKind::OutOfOrder,
                "of an epoch that it had already left for another one",
            ),
            DeliveryFault::Hole => (
                FaultKind::Hole,
                "and did not receive the messages in between",
            ),
        };
        let before = self.describe(before);
        self.faults.add(kind, record.at, || {
            format!(
                "{} in {room}, {before}, received {epoch}/{seq}, {explanation}",
                record.source
            )
        });
    }

    /// `room_users` must come after the replayed messages.
    fn check_end_of_replay(&mut self, cursor: &mut Cursor, room: &'a str, record: &'a Record) {
        let Some(end) = cursor.replay_end.take() else {
            return;
        };
        if cursor.position.is_none_or(|position| position.seq < end) {
            self.report(FaultKind::JoinSequence, record, room, cursor, || {
                format!("received room_users before the replay had reached {end}")
            });
        }
    }

    /// An answer or a reset named an epoch to a client with its cursor at `from`.
    fn observe_epoch(
        &mut self,
        room: &'a str,
        from: Option<CursorPosition>,
        epoch: Symbol,
        record: &'a Record,
    ) {
        let client = self.interner.intern(&record.source);
        let epochs = self.epochs(room);
        epochs.add_observed(epoch, record.at);
        if let Some(from) = from {
            epochs.add_transition(from.epoch, epoch, client, record.at);
        }
    }

    fn epochs(&mut self, room: &'a str) -> &mut Epochs {
        let room = self.interner.intern(room);
        self.deliveries.epochs.entry(room).or_default()
    }

    fn report(
        &mut self,
        kind: FaultKind,
        record: &Record,
        room: &str,
        cursor: &Cursor,
        text: impl FnOnce() -> String,
    ) {
        let position = self.describe(cursor.position);
        self.faults.add(kind, record.at, || {
            format!("{} in {room}, {position}, {}", record.source, text())
        });
    }

    fn describe(&self, position: Option<CursorPosition>) -> String {
        match position {
            Some(CursorPosition { epoch, seq }) => {
                format!("at {}/{seq}", self.interner.text(epoch))
            }
            None => "new".to_owned(),
        }
    }
}
