//! The members of a room on this node: how one joins, and what it is told in which order.
//!
//! On the wire: ack, replayed messages, `room_users`, live messages. What is between a member and the live feed is its
//! [`Replay`], a state that [`super::replay`] takes further.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::worker::Context;
use super::super::{Event, JoinOutcome, JoinRequest, Outlet, ReplayFrom, SharedEvent};
use super::RoomFeed;
use crate::backplane::Joined;
use crate::domain::{ConnId, Continuity, Epoch, Head, LogSpan};

/// Changes of membership held for one joiner; more are made up for by a fresh `room_users`.
const HELD_CHANGES: usize = 256;

pub(super) struct Occupant {
    pub outlet: Arc<dyn Outlet>,
    /// Nothing up to this `seq` is sent any more.
    pub position: u64,
    /// Changes up to this one are in the `room_users` that the member got.
    pub changes_from: u64,
    /// Which of the connection's joins this is.
    pub ticket: u64,
    /// Boxed, as most have none: so the members of a room lie close to each other.
    pub replay: Option<Box<Replay>>,
}

/// What stands between a member and the live feed.
pub(super) struct Replay {
    /// The epoch in which the position counts.
    pub epoch: Epoch,
    /// Until then the member hasn't had its `room_users`.
    pub opening: Option<Opening>,
    pub stage: Stage,
}

/// What a replay waits for: one thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing yet.
    Begun,
    /// Its turn.
    Ready,
    /// Room in the outlet.
    Full,
    /// A read of the log, since that ticket.
    Unread(u64),
    /// The feed: what the member was promised is about to arrive, since that ticket.
    Ahead(u64),
    /// The feed: it looks whether it has missed another epoch.
    Parked,
}

pub(super) struct Opening {
    /// The `seq` of the ack.
    pub until: u64,
    /// None for who only listens.
    room_users: Option<SharedEvent>,
    held: Vec<SharedEvent>,
    /// More changes came than are held.
    overflowed: bool,
    done: oneshot::Sender<()>,
}

impl Occupant {
    /// From `at` on it is no longer live, unless it is beyond that.
    fn fall_behind(&mut self, at: Head, ticket: u64, stage: Stage) {
        self.position = self.position.max(at.seq);
        self.ticket = ticket;
        self.replay = Some(Box::new(Replay {
            epoch: at.epoch,
            opening: None,
            stage,
        }));
    }

    /// A change of membership: at once, or after the `room_users` that is still to come.
    pub fn deliver_change(&mut self, shared: &SharedEvent) {
        match self
            .replay
            .as_mut()
            .and_then(|replay| replay.opening.as_mut())
        {
            Some(opening) if opening.held.len() >= HELD_CHANGES => opening.overflowed = true,
            Some(opening) => opening.held.push(shared.clone()),
            None => self.outlet.deliver(shared),
        }
    }

    /// Sends `room_users` and what was held for after it. True when that isn't all: a fresh `room_users` must follow.
    fn open(&mut self) -> bool {
        let Some(opening) = self
            .replay
            .as_mut()
            .and_then(|replay| replay.opening.take())
        else {
            return false;
        };
        opening
            .room_users
            .iter()
            .for_each(|shared| self.outlet.deliver(shared));
        opening
            .held
            .iter()
            .for_each(|shared| self.outlet.deliver(shared));
        let _ = opening.done.send(());
        opening.overflowed
    }

    /// As `open`, if the member has had what its answer promised.
    pub fn open_if_due(&mut self) -> bool {
        let until = self
            .replay
            .as_ref()
            .and_then(|replay| Some(replay.opening.as_ref()?.until));
        until.is_some_and(|until| self.position >= until) && self.open()
    }

    /// Sends what follows, paced: only while there is room. How many messages that were, and whether a fresh
    /// `room_users` must follow.
    pub fn take(&mut self, messages: &[SharedEvent], paced: bool) -> (usize, bool) {
        let (mut sent, mut overflowed) = (0, false);
        for shared in messages {
            let Event::Message(entry) = shared.event() else {
                continue;
            };
            if paced && !self.outlet.has_capacity() {
                break;
            }
            overflowed |= self.open_if_due();
            self.position = entry.seq;
            self.outlet.deliver(shared);
            sent += 1;
        }
        (sent, overflowed)
    }
}

/// Members, for fan-out in a row and found by connection.
#[derive(Default)]
pub(super) struct Members {
    list: Vec<Occupant>,
    places: HashMap<ConnId, usize>,
}

impl Members {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn live(&self) -> impl Iterator<Item = &Occupant> {
        self.list.iter().filter(|member| member.replay.is_none())
    }

    pub fn live_mut(&mut self) -> impl Iterator<Item = &mut Occupant> {
        self.list
            .iter_mut()
            .filter(|member| member.replay.is_none())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Occupant> {
        self.list.iter_mut()
    }

    pub fn get(&self, conn: &ConnId) -> Option<&Occupant> {
        self.places.get(conn).map(|place| &self.list[*place])
    }

    pub fn get_mut(&mut self, conn: &ConnId) -> Option<&mut Occupant> {
        self.places.get(conn).map(|place| &mut self.list[*place])
    }

    /// What the member's replay waits for; `None` without a replay.
    pub fn stage(&self, conn: &ConnId) -> Option<Stage> {
        Some(self.get(conn)?.replay.as_ref()?.stage)
    }

    pub fn set_stage(&mut self, conn: &ConnId, stage: Stage) {
        if let Some(replay) = self.get_mut(conn).and_then(|member| member.replay.as_mut()) {
            replay.stage = stage;
        }
    }

    /// Who waits for the feed.
    pub fn parked(&self) -> Vec<ConnId> {
        let parked = |member: &&Occupant| {
            member
                .replay
                .as_ref()
                .is_some_and(|replay| matches!(replay.stage, Stage::Parked | Stage::Ahead(_)))
        };
        self.list
            .iter()
            .filter(parked)
            .map(|member| member.outlet.conn().clone())
            .collect()
    }

    fn insert(&mut self, member: Occupant) {
        let conn = member.outlet.conn().clone();
        self.remove(&conn);
        self.places.insert(conn, self.list.len());
        self.list.push(member);
    }

    pub fn remove(&mut self, conn: &ConnId) {
        if let Some(place) = self.places.remove(conn) {
            self.list.swap_remove(place);
            if let Some(moved) = self.list.get(place) {
                self.places.insert(moved.outlet.conn().clone(), place);
            }
        }
    }
}

/// Where a replay begins, and what the joiner is told of it.
fn plan(start: &ReplayFrom, span: &LogSpan, total: u64) -> (u64, JoinOutcome) {
    let head = span.head.seq;
    let start_of_log = span.oldest.saturating_sub(1).min(head);
    let (position, recovered, gap) = match start {
        ReplayFrom::Live => (head, false, false),
        ReplayFrom::Last(count) => (head.saturating_sub(*count).max(start_of_log), false, false),
        ReplayFrom::Since { seq, epoch } => match span.continuity(epoch.as_ref(), *seq) {
            Continuity::Clean => (*seq, true, false),
            Continuity::Trimmed | Continuity::Lost { .. } => (start_of_log, false, true),
        },
    };
    (
        position,
        JoinOutcome {
            total,
            head: span.head.clone(),
            recovered,
            gap,
            replayed: head.saturating_sub(position),
        },
    )
}

impl RoomFeed {
    pub(super) fn attach(&mut self, context: &mut Context, request: JoinRequest, joined: Joined) {
        let Joined { span, roster } = joined;
        let JoinRequest {
            outlet,
            member,
            start,
            on_joined,
            accepted,
            ..
        } = request;
        let (mut position, outcome) = plan(&start, &span, roster.total);
        let head = span.head.clone();
        let first = self.log.at.is_none();
        if first {
            self.log.at = Some(head.clone());
            self.log.past.clone_from(&span.past);
            self.begin_changes(context, &roster);
        }
        let (mut until, mut epoch) = (head.seq, head.epoch);
        // Who is live already, and asks for nothing again, goes on from where it is, in the numbering in which it is there:
        // at the feed, or ahead of it, or behind, if it is slow.
        if let (ReplayFrom::Live, Some(at), Some(member)) =
            (&start, self.log.told(), self.members.get_mut(outlet.conn()))
            && member
                .replay
                .as_ref()
                .is_none_or(|replay| replay.opening.is_none())
        {
            let replay = member.replay.as_ref();
            position = replay.map_or_else(|| member.position.max(at.seq), |_| member.position);
            epoch = replay.map_or(&at.epoch, |replay| &replay.epoch).clone();
            until = position;
        }
        let room_users = member.map(|_| {
            SharedEvent::new(Event::RoomUsers {
                room: self.room.clone(),
                users: roster.users,
                total: roster.total,
            })
        });
        let conn = outlet.conn().clone();
        context.counters.replays.add(u64::from(position < until));
        on_joined(&outcome);
        let (done, replay_end) = oneshot::channel();
        let _ = accepted.send(Ok(replay_end));
        let (held, overflowed) = self.changes_since(roster.version, outlet.user());
        let opening = Opening {
            until,
            room_users,
            held,
            overflowed,
            done,
        };
        self.members.insert(Occupant {
            outlet,
            position,
            changes_from: roster.version,
            ticket: context.ticket(),
            replay: Some(Box::new(Replay {
                epoch,
                opening: Some(opening),
                stage: Stage::Begun,
            })),
        });
        self.advance(context, &conn);
        if first {
            // The new member is among those who get what was held meanwhile.
            self.merge_held_changes(context);
            self.merge_held(context);
        }
        self.recount(context, roster.version);
    }

    /// A live member can't take what follows `at` now: it is replayed to, once it has room.
    pub(super) fn fall_behind(&mut self, context: &mut Context, conn: &ConnId, at: Head) {
        let ticket = context.ticket();
        if let Some(member) = self.members.get_mut(conn) {
            member.fall_behind(at, ticket, Stage::Begun);
        }
        self.advance(context, conn);
    }

    /// Live members who are beyond `at`, where the feed leaves its numbering: what they have seen of it may be lost.
    pub(super) fn demote_ahead(&mut self, context: &mut Context, at: &Head) {
        for member in self
            .members
            .live_mut()
            .filter(|member| member.position > at.seq)
        {
            member.fall_behind(at.clone(), context.ticket(), Stage::Parked);
        }
    }
}
