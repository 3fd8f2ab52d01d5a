//! Checks each client's deliveries in each room: order, holes, repeats, and the answers to its joins.

use std::collections::{BTreeMap, HashMap};

use super::cursor::{Cursor, CursorPosition, DeliveryFault, Membership, SegmentStart};
use super::epochs::Epochs;
use super::faults::{FaultKind, Faults};
use super::interner::{Interner, Symbol};
use super::parsed_history::ClientHistory;
use super::stats::Stats;
use crate::history::{Fact, Position, Record};

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
#[derive(Clone, Copy)]
pub(super) struct AllowedLosses {
    /// Losses within an epoch, but only of messages that are older than this many last messages.
    pub gaps: Option<u64>,
    /// Losses with a new epoch.
    pub data_loss: bool,
}

/// Reads the records of one client after another.
pub(super) struct DeliveryCheck<'r, 'a> {
    pub interner: &'r mut Interner<'a>,
    pub faults: &'r mut Faults,
    pub stats: &'r mut Stats,
    pub allowed: AllowedLosses,
    pub deliveries: &'r mut Deliveries,
}

/// A positive answer to `join`.
struct JoinAnswer<'a> {
    since: Option<&'a Position>,
    epoch: &'a str,
    seq: u64,
    recovered: bool,
    gap: bool,
    replayed: u64,
}

/// A `room_reset`.
struct RoomReset<'a> {
    epoch: &'a str,
    seq: u64,
    lost_from: Option<u64>,
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
            Fact::Joined {
                room,
                since,
                epoch,
                seq,
                recovered,
                gap,
                replayed,
            } => {
                let answer = JoinAnswer {
                    since: since.as_ref(),
                    epoch,
                    seq: *seq,
                    recovered: *recovered,
                    gap: *gap,
                    replayed: *replayed,
                };
                let cursor = cursors.entry(room).or_default();
                self.check_join(cursor, room, record, &answer);
            }
            Fact::Received {
                room, epoch, seq, ..
            } => {
                let cursor = cursors.entry(room).or_default();
                self.check_message(cursor, room, record, epoch, *seq);
            }
            Fact::Reset {
                room,
                epoch,
                seq,
                lost_from,
            } => {
                let reset = RoomReset {
                    epoch,
                    seq: *seq,
                    lost_from: *lost_from,
                };
                let cursor = cursors.entry(room).or_default();
                self.check_reset(cursor, room, record, &reset);
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

    fn check_join(
        &mut self,
        cursor: &mut Cursor,
        room: &'a str,
        record: &'a Record,
        answer: &JoinAnswer<'a>,
    ) {
        let head = CursorPosition {
            epoch: self.interner.intern(answer.epoch),
            seq: answer.seq,
        };
        let replay_start = CursorPosition {
            epoch: head.epoch,
            seq: answer.seq.saturating_sub(answer.replayed),
        };
        cursor.membership = Membership::Joined;
        cursor.replay_end = Some(answer.seq);
        self.observe_epoch(room, cursor.position, head.epoch, record);
        if let Some(reason) = reason_why_impossible(answer) {
            self.report(
                FaultKind::ImpossibleJoinAnswer,
                record,
                room,
                cursor,
                || format!("got the answer {:?}: {reason}", record.fact),
            );
        }
        let Some(since) = answer.since else {
            cursor.join_anew(SegmentStart::JoinedAnew, replay_start, head.seq);
            return;
        };
        let asked = CursorPosition {
            epoch: self.interner.intern(&since.epoch),
            seq: since.seq,
        };
        let asked_own_position = cursor.is_at(asked.epoch, asked.seq);
        if !asked_own_position {
            self.report(FaultKind::WrongResumePosition, record, room, cursor, || {
                format!("resumed from {}/{}", since.epoch, since.seq)
            });
        }
        if answer.recovered {
            self.stats.resumes += 1;
            if !asked_own_position {
                cursor.move_to(SegmentStart::FaultReported, asked);
            }
            cursor.resume(head.epoch, head.seq);
            return;
        }
        self.stats.gaps += 1;
        self.check_announced_loss(cursor, room, record, asked, head);
        self.check_gap(cursor, room, record, answer, asked, head);
        cursor.join_anew(SegmentStart::LossAnnounced, replay_start, head.seq);
    }

    /// Checks a `gap` within an epoch: all messages that are kept are replayed, and at least one that isn't kept is missing.
    fn check_gap(
        &mut self,
        cursor: &Cursor,
        room: &'a str,
        record: &'a Record,
        answer: &JoinAnswer<'a>,
        asked: CursorPosition,
        head: CursorPosition,
    ) {
        if asked.epoch != head.epoch {
            return;
        }
        let Some(kept) = self.allowed.gaps else {
            return;
        };
        let Some(behind) = head.seq.checked_sub(asked.seq) else {
            return;
        };
        if answer.replayed < kept.min(head.seq) {
            self.report(FaultKind::Missing, record, room, cursor, || {
                format!(
                    "was replayed {} messages, and {kept} are kept",
                    answer.replayed
                )
            });
        }
        if behind <= kept {
            self.report(FaultKind::UnexpectedLoss, record, room, cursor, || {
                format!("was notified of a loss, and was only {behind} messages behind")
            });
        }
    }

    fn check_reset(
        &mut self,
        cursor: &mut Cursor,
        room: &'a str,
        record: &'a Record,
        reset: &RoomReset<'a>,
    ) {
        self.stats.resets += 1;
        let to = CursorPosition {
            epoch: self.interner.intern(reset.epoch),
            seq: reset.seq,
        };
        let from = match cursor.position {
            Some(position) if cursor.membership == Membership::Joined => position,
            _ => {
                self.report(FaultKind::NotSubscribed, record, room, cursor, || {
                    format!("got a reset to {}/{}", reset.epoch, reset.seq)
                });
                return;
            }
        };
        self.observe_epoch(room, Some(from), to.epoch, record);
        self.check_announced_loss(cursor, room, record, from, to);
        let wrong_start = reset.lost_from.is_some_and(|first| first != from.seq + 1);
        if from.epoch == to.epoch && (to.seq == from.seq || wrong_start) {
            self.report(FaultKind::UnexpectedLoss, record, room, cursor, || {
                format!("was notified of a loss that is none: {:?}", record.fact)
            });
        }
        cursor.replay_end = None;
        cursor.move_to(SegmentStart::LossAnnounced, to);
    }

    /// A loss was announced to a client at `from`; the numbering is, or continues, at `to`.
    fn check_announced_loss(
        &mut self,
        cursor: &Cursor,
        room: &'a str,
        record: &'a Record,
        from: CursorPosition,
        to: CursorPosition,
    ) {
        let is_new_epoch = from.epoch != to.epoch;
        let is_allowed = self.allowed.gaps.is_some() || self.allowed.data_loss && is_new_epoch;
        if !is_allowed {
            self.report(FaultKind::UnexpectedLoss, record, room, cursor, || {
                format!("was notified of a loss: {:?}", record.fact)
            });
        }
        if !is_new_epoch && to.seq < from.seq {
            self.report(FaultKind::EpochOrder, record, room, cursor, || {
                format!(
                    "had {}, and the numbers went back to {} in the same epoch",
                    from.seq, to.seq
                )
            });
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

    /// An answer or a reset named an epoch to a client whose cursor is at `from`.
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

/// The reason why an answer to `join` can't be true in any situation, if there is one.
fn reason_why_impossible(answer: &JoinAnswer<'_>) -> Option<&'static str> {
    if answer.replayed > answer.seq {
        return Some("more messages are replayed than there are");
    }
    match answer.since {
        None if answer.recovered || answer.gap => {
            Some("recovered and gap must be false for a join that doesn't resume")
        }
        Some(_) if answer.recovered == answer.gap => {
            Some("exactly one of recovered and gap must be true")
        }
        Some(since)
            if answer.recovered && answer.seq.checked_sub(since.seq) != Some(answer.replayed) =>
        {
            Some("the number of replayed messages must be the number of missing ones")
        }
        _ => None,
    }
}
