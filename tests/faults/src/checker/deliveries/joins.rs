//! The answers to joins, and announced losses.

use super::DeliveryCheck;
use crate::checker::cursor::{Cursor, CursorPosition, Membership, SegmentStart};
use crate::checker::faults::FaultKind;
use crate::history::{Fact, Position, Record};

/// A positive answer to `join`.
struct JoinAnswer<'a> {
    since: Option<&'a Position>,
    epoch: &'a str,
    seq: u64,
    recovered: bool,
    gap: bool,
    replayed: u64,
}

impl<'a> DeliveryCheck<'_, 'a> {
    pub(super) fn check_join(&mut self, cursor: &mut Cursor, room: &'a str, record: &'a Record) {
        let Some(answer) = JoinAnswer::from_fact(&record.fact) else {
            return;
        };
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
        if let Some(reason) = answer.reason_why_impossible() {
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
        self.check_gap(cursor, room, record, &answer, asked, head);
        cursor.join_anew(SegmentStart::LossAnnounced, replay_start, head.seq);
    }

    /// Checks a `gap` within an epoch: all messages that are kept are replayed, and at least one
    /// that isn't kept is missing.
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

    pub(super) fn check_reset(&mut self, cursor: &mut Cursor, room: &'a str, record: &'a Record) {
        let Fact::Reset {
            epoch,
            seq,
            lost_from,
            ..
        } = &record.fact
        else {
            return;
        };
        self.stats.resets += 1;
        let to = CursorPosition {
            epoch: self.interner.intern(epoch),
            seq: *seq,
        };
        let from = match cursor.position {
            Some(position) if cursor.membership == Membership::Joined => position,
            _ => {
                self.report(FaultKind::NotSubscribed, record, room, cursor, || {
                    format!("got a reset to {epoch}/{seq}")
                });
                return;
            }
        };
        self.observe_epoch(room, Some(from), to.epoch, record);
        self.check_announced_loss(cursor, room, record, from, to);
        let wrong_start = lost_from.is_some_and(|first| first != from.seq + 1);
        if from.epoch == to.epoch && (to.seq == from.seq || wrong_start) {
            self.report(FaultKind::UnexpectedLoss, record, room, cursor, || {
                format!("was notified of a loss that is none: {:?}", record.fact)
            });
        }
        cursor.replay_end = None;
        if self.allowed.reset_to_archive {
            let until = cursor.highest();
            cursor.join_anew(SegmentStart::LossAnnounced, to, until);
        } else {
            cursor.move_to(SegmentStart::LossAnnounced, to);
        }
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
        let is_allowed = self.allowed.gaps.is_some()
            || self.allowed.data_loss && is_new_epoch
            || self.allowed.ends_with_recorded(room, from.seq, to.seq);
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
}

impl<'a> JoinAnswer<'a> {
    fn from_fact(fact: &'a Fact) -> Option<Self> {
        match fact {
            Fact::Joined {
                since,
                epoch,
                seq,
                recovered,
                gap,
                replayed,
                ..
            } => Some(Self {
                since: since.as_ref(),
                epoch,
                seq: *seq,
                recovered: *recovered,
                gap: *gap,
                replayed: *replayed,
            }),
            _ => None,
        }
    }

    /// The reason why the answer can't be true in any situation, if there is one.
    fn reason_why_impossible(&self) -> Option<&'static str> {
        if self.replayed > self.seq {
            return Some("more messages are replayed than there are");
        }
        match self.since {
            None if self.recovered || self.gap => {
                Some("recovered and gap must be false for a join that doesn't resume")
            }
            Some(_) if self.recovered == self.gap => {
                Some("exactly one of recovered and gap must be true")
            }
            Some(since)
                if self.recovered && self.seq.checked_sub(since.seq) != Some(self.replayed) =>
            {
                Some("the number of replayed messages must be the number of missing ones")
            }
            _ => None,
        }
    }
}
