//! The attachment of a connection that joins the room or listens to it: its acknowledgement, and
//! the beginning of its replay.

use tokio::sync::oneshot;

use super::super::context::Context;
use super::super::requests::JoinRequest;
use super::super::{Event, JoinOutcome, ReplayFrom, SharedEvent};
use super::occupants::{Occupant, Opening, Replay, Stage};
use super::{FeedEvent, RoomFeed};
use crate::backplane::{BackplaneError, Joined, Result};
use crate::domain::{ConnId, Continuity, Epoch, LogSpan};

/// The beginning of a replay: after `position`, and up to `until` before `room_users` is sent.
struct ReplayPlan {
    epoch: Epoch,
    position: u64,
    until: u64,
}

/// Whether a join needs the extent of the archive, because the log alone lacks the start of the
/// replay. Few joins do: so most work without the archive's database.
pub(super) fn needs_archive(start: &ReplayFrom, span: &LogSpan) -> bool {
    match &start.resolved(span.head.seq).0 {
        ReplayFrom::Live | ReplayFrom::Above { .. } => false,
        ReplayFrom::Last(count) => span.head.seq.saturating_sub(*count) + 1 < span.oldest,
        ReplayFrom::Since { seq, epoch, .. } => {
            span.continuity(epoch.as_ref(), *seq) != Continuity::Clean
        }
    }
}

/// Plans the replay of a new occupant, and its acknowledgement.
///
/// # Errors
/// `Unavailable` if the archive has to be read for it and can't be.
fn plan(start: &ReplayFrom, span: &LogSpan, total: u64) -> Result<(ReplayPlan, JoinOutcome)> {
    let head = span.head.seq;
    let (start, floor) = start.resolved(head);
    let (position, recovered, gap) = match &start {
        ReplayFrom::Live | ReplayFrom::Above { .. } => (head, false, false),
        ReplayFrom::Last(count) => (last(span, *count)?, false, false),
        ReplayFrom::Since { seq, epoch, limit } => {
            let continuity = span.continuity(epoch.as_ref(), *seq);
            match position_since(span, continuity, *seq, *limit)? {
                Some(position) => (position, false, true),
                None => (*seq, true, false),
            }
        }
    };
    let position = position.max(floor);
    let plan = ReplayPlan {
        epoch: span.head.epoch.clone(),
        position,
        until: head,
    };
    let outcome = JoinOutcome {
        total,
        head: span.head.clone(),
        recovered,
        gap,
        replayed: head.saturating_sub(position),
        is_ahead: false,
    };
    Ok((plan, outcome))
}

/// Where the replay begins for a client that has seen everything up to `seq`: at its position
/// (`None`), or after a gap.
fn position_since(
    span: &LogSpan,
    continuity: Continuity,
    seq: u64,
    limit: Option<u64>,
) -> Result<Option<u64>> {
    let head = span.head.seq;
    let has_missed_more = limit.is_some_and(|limit| head.saturating_sub(seq) > limit);
    let is_empty = span.oldest > head;
    match (continuity, limit) {
        (Continuity::Clean, _) if !has_missed_more => Ok(None),
        // All messages that the client accepts may be readable all the same.
        (_, Some(limit)) => last(span, limit).map(Some),
        (Continuity::Unreadable, None) => Err(cut_off()),
        (Continuity::Lost { .. }, None) if span.is_cut_off && is_empty => Err(cut_off()),
        (_, None) => Ok(Some(before(span, span.recent))),
    }
}

/// The position before the last `count` messages, or before all that are kept.
///
/// # Errors
/// `Unavailable` if there may be more of them than can be read now.
fn last(span: &LogSpan, count: u64) -> Result<u64> {
    let position = span.head.seq.saturating_sub(count);
    let readable = before(span, span.oldest);
    if span.is_cut_off && position < readable {
        return Err(cut_off());
    }
    Ok(position.max(readable))
}

fn cut_off() -> BackplaneError {
    BackplaneError::Unavailable("the archive can't be read".to_owned())
}

/// The position before the message `first`.
fn before(span: &LogSpan, first: u64) -> u64 {
    first.saturating_sub(1).min(span.head.seq)
}

impl RoomFeed {
    pub(super) fn attach(&mut self, context: &mut Context, request: JoinRequest, joined: Joined) {
        let Joined { span, roster } = joined;
        let (mut plan, mut outcome) = match plan(&request.start, &span, roster.total) {
            Ok(planned) => planned,
            Err(error) => return drop(request.accepted.send(Err(error))),
        };
        let is_first = self.log.position().is_none();
        if is_first {
            self.log.begin(span.head, span.past);
            self.begin_changes(context, &roster);
            self.begin_chat_feed(context);
        }
        outcome.is_ahead = self.is_behind(&outcome.head);
        if request.start.is_live()
            && let Some(current) = self.plan_to_go_on(request.outlet.conn())
        {
            plan = current;
        }
        let room_users = request.username.map(|_| {
            SharedEvent::new(Event::RoomUsers {
                room: self.room.clone(),
                users: roster.users,
                total: roster.total,
            })
        });
        let outlet = request.outlet;
        let conn = outlet.conn().clone();
        if plan.position < plan.until {
            context.counters.replays.add(1);
        }
        (request.on_joined)(&outcome);
        let (done, replay_end) = oneshot::channel();
        let _ = request.accepted.send(Ok(replay_end));
        let missed = self.changes_since(roster.version, outlet.user());
        let opening = Opening {
            until: plan.until,
            room_users,
            held: missed.changes,
            has_overflowed: missed.is_incomplete,
            done,
        };
        let ticket = context.ticket();
        let stage = match &request.gate {
            None => Stage::New,
            Some(_) => Stage::AwaitingCapacity,
        };
        self.occupants.insert(Occupant {
            outlet,
            position: plan.position,
            hidden_seq: request.start.hidden_seq(),
            changes_from: roster.version,
            ticket,
            replay: Some(Box::new(Replay {
                epoch: plan.epoch,
                opening: Some(opening),
                stage,
            })),
        });
        match request.gate {
            None => drop(self.advance(context, &conn)),
            Some(gate) => {
                let event = FeedEvent::Writable(conn, ticket);
                gate.when_open(context.waker(&self.room, event));
            }
        }
        if is_first {
            // The new occupant is among those that receive the events held meanwhile.
            self.apply_held_changes(context);
            self.apply_held_messages(context);
        }
        self.republish_number(context, roster.version);
    }

    /// The plan for an occupant that joins again and requests no replay: it goes on from where it
    /// is, in the epoch in which it is there. It may be at the feed's position, ahead of it, or, if
    /// it is slow, behind it. `None` for any other connection.
    fn plan_to_go_on(&self, conn: &ConnId) -> Option<ReplayPlan> {
        let at = self.log.occupants_position()?;
        let occupant = self.occupants.get(conn)?;
        let (epoch, position) = match &occupant.replay {
            None => (&at.epoch, occupant.position.max(at.seq)),
            Some(replay) if replay.opening.is_none() => (&replay.epoch, occupant.position),
            Some(_) => return None,
        };
        Some(ReplayPlan {
            epoch: epoch.clone(),
            position,
            until: position,
        })
    }
}
