//! The attachment of a connection that joins the room or listens to it: its acknowledgement, and
//! the beginning of its replay.

use tokio::sync::oneshot;

use super::super::context::Context;
use super::super::requests::JoinRequest;
use super::super::{Event, JoinOutcome, ReplayFrom, SharedEvent};
use super::RoomFeed;
use super::occupants::{Occupant, Opening, Replay, Stage};
use crate::backplane::Joined;
use crate::domain::{ConnId, Continuity, Epoch, LogSpan};

/// The beginning of a replay: after `position`, and up to `until` before `room_users` is sent.
struct ReplayPlan {
    epoch: Epoch,
    position: u64,
    until: u64,
}

/// Plans the replay of a new occupant, and its acknowledgement.
fn plan(start: &ReplayFrom, span: &LogSpan, total: u64) -> (ReplayPlan, JoinOutcome) {
    let head = span.head.seq;
    let start_of_log = span.oldest.saturating_sub(1).min(head);
    let (position, recovered, gap) = match start {
        ReplayFrom::Live => (head, false, false),
        ReplayFrom::Last(count) => (head.saturating_sub(*count).max(start_of_log), false, false),
        ReplayFrom::Since { seq, epoch } => match span.continuity(epoch.as_ref(), *seq) {
            Continuity::Clean => (*seq, true, false),
            Continuity::Trimmed | Continuity::Unreadable | Continuity::Lost { .. } => {
                (start_of_log, false, true)
            }
        },
    };
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
    };
    (plan, outcome)
}

impl RoomFeed {
    pub(super) fn attach(&mut self, context: &mut Context, request: JoinRequest, joined: Joined) {
        let Joined { span, roster } = joined;
        let (mut plan, outcome) = plan(&request.start, &span, roster.total);
        let is_first = self.log.position().is_none();
        if is_first {
            self.log.begin(span.head, span.past);
            self.begin_changes(context, &roster);
        }
        if request.start == ReplayFrom::Live
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
        self.occupants.insert(Occupant {
            outlet,
            position: plan.position,
            changes_from: roster.version,
            ticket: context.ticket(),
            replay: Some(Box::new(Replay {
                epoch: plan.epoch,
                opening: Some(opening),
                stage: Stage::New,
            })),
        });
        self.advance(context, &conn);
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
