//! One client's cursor in one room: each message must be the successor of the one before, unless a
//! loss was announced.

use super::interner::Symbol;

/// A position of a cursor: the client received everything up to `seq`, or was notified that it
/// won't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CursorPosition {
    pub epoch: Symbol,
    pub seq: u64,
}

/// The reason why a segment begins where it does. It decides how messages between the segment
/// before and this one are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentStart {
    /// The client joined without resuming: it need not receive the messages in between.
    JoinedAnew,
    /// The client was notified that the messages in between are lost.
    LossAnnounced,
    /// Another epoch continues at the next number: there must be no messages in between.
    Continued,
    /// A fault that was already reported.
    FaultReported,
}

/// Messages that the client received one after another without a hole: those of `epoch` above
/// `after`, up to `until`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub epoch: Symbol,
    pub after: u64,
    pub until: u64,
    pub start: SegmentStart,
}

/// A reason why a message should not have been delivered at this point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeliveryFault {
    /// The client isn't in the room.
    NotInRoom,
    /// The client had already received it.
    Repeat,
    /// It lies before the client's position.
    OutOfOrder,
    /// The client had already left its epoch for another one.
    AbandonedEpoch,
    /// Messages between the client's position and this one were skipped.
    Hole,
}

/// The judgement of one delivery.
#[derive(Default)]
pub(super) struct Delivery {
    pub fault: Option<DeliveryFault>,
    /// The client had already received the message, and asked for it again.
    pub replayed_again: bool,
    /// The epoch of the message before, if it was another one.
    pub previous_epoch: Option<Symbol>,
}

/// The client's membership in the room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Membership {
    /// It has not joined on the present connection.
    #[default]
    NotJoined,
    Joined,
    /// It left the room, and has not joined it again since.
    Left,
}

/// The replay that a join announced: until its end, messages that the client already has may come
/// again.
#[derive(Clone, Copy)]
struct Replay {
    until: u64,
    start: SegmentStart,
}

#[derive(Default)]
pub(super) struct Cursor {
    /// Kept across connections, and after leaving. `None` until the first join.
    pub position: Option<CursorPosition>,
    pub membership: Membership,
    /// After a join, the `seq` up to which messages precede `room_users`. `None` once that event
    /// came.
    pub replay_end: Option<u64>,
    pub segments: Vec<Segment>,
    /// The name that the epoch of `position` had before the last resume.
    former_epoch: Option<Symbol>,
    /// The start of the segment that the next message opens, at `position`.
    pending_start: Option<SegmentStart>,
    replay: Option<Replay>,
    /// The epoch of the last message since the last join that wasn't a resume.
    last_epoch: Option<Symbol>,
    /// The epochs before `last_epoch`, since the same join.
    abandoned_epochs: Vec<Symbol>,
    /// The greatest number received of each epoch.
    highest: Vec<(Symbol, u64)>,
}

impl Cursor {
    /// The client resumes at its position, and is sent everything up to `until`; the epoch may have
    /// a new name. If an earlier replay broke off before its end, the client is sent the rest of
    /// that replay.
    pub fn resume(&mut self, epoch: Symbol, until: u64) {
        let Some(position) = &mut self.position else {
            return;
        };
        let start = match self.replay {
            Some(broken_off) if position.seq < broken_off.until => broken_off.start,
            _ => SegmentStart::Continued,
        };
        self.replay = Some(Replay { until, start });
        self.former_epoch = Some(std::mem::replace(&mut position.epoch, epoch));
    }

    /// The client joins without resuming: its position is `after`, and it is sent everything up to
    /// `until`.
    pub fn join_anew(&mut self, start: SegmentStart, after: CursorPosition, until: u64) {
        self.move_to(start, after);
        self.replay = Some(Replay { until, start });
        self.last_epoch = None;
        self.abandoned_epochs.clear();
    }

    /// The greatest number received, in any epoch.
    pub fn highest(&self) -> u64 {
        let numbers = self.highest.iter().map(|(_, seq)| *seq);
        numbers.max().unwrap_or(0)
    }

    /// Epochs that the client left may return.
    pub fn forget_abandoned_epochs(&mut self) {
        self.abandoned_epochs.clear();
    }

    /// The client's position changes without a message.
    pub fn move_to(&mut self, start: SegmentStart, position: CursorPosition) {
        self.finish_segment();
        self.pending_start = Some(start);
        self.replay = None;
        self.former_epoch = None;
        self.position = Some(position);
    }

    /// Adds the pending segment, if there is one, even though it has no message.
    pub fn finish_segment(&mut self) {
        if let (Some(start), Some(position)) = (self.pending_start.take(), self.position) {
            self.segments.push(Segment {
                epoch: position.epoch,
                after: position.seq,
                until: position.seq,
                start,
            });
        }
    }

    /// Whether the client may name this as its position. After a resume it may use the epoch's
    /// former name as well as the one in the answer.
    pub fn is_at(&self, epoch: Symbol, seq: u64) -> bool {
        self.position.is_some_and(|position| {
            position.seq == seq && (position.epoch == epoch || self.former_epoch == Some(epoch))
        })
    }

    /// Judges the delivery of a message, and moves the cursor to it.
    pub fn receive(&mut self, epoch: Symbol, seq: u64) -> Delivery {
        let position = match self.position {
            Some(position) if self.membership == Membership::Joined => position,
            _ => return Delivery::with_fault(DeliveryFault::NotInRoom),
        };
        let replay = self.replay.filter(|replay| seq <= replay.until);
        let was_passed = self.highest_in(epoch) >= seq;
        // A replay may send it again, but only in ascending order.
        let is_stale = was_passed && (replay.is_none() || seq <= position.seq);
        let fault = if is_stale && self.has_received(epoch, seq) {
            Some(DeliveryFault::Repeat)
        } else if is_stale {
            Some(DeliveryFault::OutOfOrder)
        } else if self.abandoned_epochs.contains(&epoch) {
            Some(DeliveryFault::AbandonedEpoch)
        } else if seq > position.seq + 1 {
            Some(DeliveryFault::Hole)
        } else if seq <= position.seq {
            Some(DeliveryFault::OutOfOrder)
        } else {
            None
        };
        // A message that the client already passed, or of an epoch that it left, does not move the
        // cursor.
        if let Some(fault) = fault
            && (is_stale || fault == DeliveryFault::AbandonedEpoch)
        {
            return Delivery::with_fault(fault);
        }
        let replayed_again = fault.is_none() && was_passed && self.has_received(epoch, seq);
        let previous_epoch = self.last_epoch.replace(epoch);
        let previous_epoch = previous_epoch.filter(|previous| *previous != epoch);
        self.abandoned_epochs.extend(previous_epoch);
        if fault.is_some() {
            self.finish_segment();
            self.advance(epoch, seq, SegmentStart::FaultReported);
            return Delivery {
                fault,
                ..Delivery::default()
            };
        }
        let start = replay.map_or(SegmentStart::Continued, |replay| replay.start);
        self.advance(epoch, seq, start);
        Delivery {
            fault: None,
            replayed_again,
            previous_epoch,
        }
    }

    /// Moves the cursor to a message that was received. If it doesn't extend the last segment, it
    /// opens a new one: with the pending start, else with this one.
    fn advance(&mut self, epoch: Symbol, seq: u64, start: SegmentStart) {
        let pending_start = self.pending_start.take();
        match self.segments.last_mut() {
            Some(last)
                if pending_start.is_none() && last.epoch == epoch && last.until + 1 == seq =>
            {
                last.until = seq;
            }
            _ => self.segments.push(Segment {
                epoch,
                after: seq.saturating_sub(1),
                until: seq,
                start: pending_start.unwrap_or(start),
            }),
        }
        self.former_epoch = None;
        self.position = Some(CursorPosition { epoch, seq });
        match self.highest.iter_mut().find(|(known, _)| *known == epoch) {
            Some((_, highest)) => *highest = seq.max(*highest),
            None => self.highest.push((epoch, seq)),
        }
    }

    fn highest_in(&self, epoch: Symbol) -> u64 {
        let found = self.highest.iter().find(|(known, _)| *known == epoch);
        found.map_or(0, |(_, highest)| *highest)
    }

    /// Whether the client received this message.
    pub fn has_received(&self, epoch: Symbol, seq: u64) -> bool {
        self.segments
            .iter()
            .any(|segment| segment.epoch == epoch && segment.after < seq && seq <= segment.until)
    }
}

impl Delivery {
    fn with_fault(fault: DeliveryFault) -> Self {
        Self {
            fault: Some(fault),
            ..Self::default()
        }
    }
}
