//! The members of a room on this node, and the replay that brings each to where the feed is.
//!
//! A replay is a state of its member: pages of the log are asked for while the outlet can take them, and when the member
//! has reached the feed's cursor it is live. On the wire: ack, replayed messages, `room_users`, live messages.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::worker::Context;
use super::super::{CloseReason, Event, JoinOutcome, JoinRequest, Outlet, Shared, Start};
use super::{Answer, RETRY, RoomFeed};
use crate::backplane::{Joined, Result, Slice, Window};
use crate::domain::{ConnId, Continuity, Epoch, Head, LogSpan};

/// How many messages one page of a replay takes.
const PAGE: usize = 128;
/// Changes of membership held for one joiner; more are made up for by a fresh `room_users`.
const HELD_CHANGES: usize = 256;

pub(super) struct Member {
    pub outlet: Arc<dyn Outlet>,
    /// Nothing up to this `seq` is sent any more.
    pub position: u64,
    /// Changes up to this one are in the `room_users` that the member got.
    pub changes_from: u64,
    /// Which of the connection's joins this is.
    ticket: u64,
    replay: Option<Replay>,
}

/// What stands between a member and the live feed.
struct Replay {
    /// The epoch in which the position counts.
    epoch: Epoch,
    /// Until then the member hasn't had its `room_users`.
    opening: Option<Opening>,
    /// Waits until the feed has seen the member's epoch.
    parked: bool,
    /// A page, or room for one, has been asked for: one at a time.
    asked: bool,
}

struct Opening {
    /// The `seq` of the ack.
    until: u64,
    room_users: Shared,
    held: Vec<Shared>,
    /// More changes came than are held.
    overflowed: bool,
    done: oneshot::Sender<()>,
}

impl Member {
    /// A change of membership: at once, or after the `room_users` that is still to come.
    pub fn deliver_change(&mut self, shared: &Shared) {
        match self.replay.as_mut().and_then(|replay| replay.opening.as_mut()) {
            Some(opening) if opening.held.len() >= HELD_CHANGES => opening.overflowed = true,
            Some(opening) => opening.held.push(shared.clone()),
            None => self.outlet.deliver(shared),
        }
    }

    /// Sends `room_users` and what was held for after it. True when that isn't all: a fresh `room_users` must follow.
    fn open(&mut self) -> bool {
        let Some(opening) = self.replay.as_mut().and_then(|replay| replay.opening.take()) else { return false };
        self.outlet.deliver(&opening.room_users);
        opening.held.iter().for_each(|shared| self.outlet.deliver(shared));
        let _ = opening.done.send(());
        opening.overflowed
    }

    fn opens_at(&self) -> Option<u64> {
        Some(self.replay.as_ref()?.opening.as_ref()?.until)
    }
}

/// Members, for fan-out in a row and found by connection.
#[derive(Default)]
pub(super) struct Members {
    list: Vec<Member>,
    places: HashMap<ConnId, usize>,
}

impl Members {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn live(&self) -> impl Iterator<Item = &Member> {
        self.list.iter().filter(|member| member.replay.is_none())
    }

    pub fn live_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.list.iter_mut().filter(|member| member.replay.is_none())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.list.iter_mut()
    }

    fn get_mut(&mut self, conn: &ConnId) -> Option<&mut Member> {
        self.places.get(conn).map(|place| &mut self.list[*place])
    }

    fn insert(&mut self, member: Member) {
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
fn plan(start: &Start, span: &LogSpan, total: u64) -> (u64, JoinOutcome) {
    let head = span.head.seq;
    let start_of_log = span.oldest.saturating_sub(1).min(head);
    let (position, recovered, gap) = match start {
        Start::Live => (head, false, false),
        Start::Last(count) => (head.saturating_sub(*count).max(start_of_log), false, false),
        Start::Since { seq, epoch } => match span.continuity(epoch.as_ref(), *seq) {
            Continuity::Clean => (*seq, true, false),
            Continuity::Trimmed | Continuity::Lost { .. } => (start_of_log, false, true),
        },
    };
    (position, JoinOutcome { total, head: span.head.clone(), recovered, gap, replayed: head.saturating_sub(position) })
}

impl RoomFeed {
    pub(super) fn attach(&mut self, context: &mut Context, request: JoinRequest, joined: Joined) {
        let Joined { span, roster } = joined;
        let JoinRequest { outlet, start, reply, done, .. } = request;
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
        if let (Start::Live, Some(at), Some(member)) = (&start, &self.log.at, self.members.get_mut(outlet.conn()))
            && member.opens_at().is_none()
        {
            let replay = member.replay.as_ref();
            position = replay.map_or_else(|| member.position.max(at.seq), |_| member.position);
            epoch = replay.map_or(&at.epoch, |replay| &replay.epoch).clone();
            until = position;
        }
        let room_users =
            Shared::new(Event::RoomUsers { room: self.room.clone(), users: roster.users, total: roster.total });
        let conn = outlet.conn().clone();
        reply(Ok(outcome));
        let (held, overflowed) = self.changes_since(roster.version, outlet.user());
        let opening = Opening { until, room_users, held, overflowed, done };
        self.members.insert(Member {
            outlet,
            position,
            changes_from: roster.version,
            ticket: context.ticket(),
            replay: Some(Replay { epoch, opening: Some(opening), parked: false, asked: false }),
        });
        self.advance(context, &conn);
        if first {
            // The new member is among those who get what was held meanwhile.
            self.merge_held_changes(context);
            self.merge_held(context);
            self.advance(context, &conn);
        }
        self.recount(context, roster.version);
    }

    /// Live members who can't take more now are replayed to from `at` on: a catch-up must not overrun them.
    pub(super) fn demote_full(&mut self, context: &mut Context, at: &Head) {
        self.demote(context, at, |member| !member.outlet.has_room());
    }

    /// Live members who are beyond `at`, where the feed leaves its numbering: what they have seen of it may be lost.
    pub(super) fn demote_ahead(&mut self, context: &mut Context, at: &Head) {
        self.demote(context, at, |member| member.position > at.seq);
    }

    fn demote(&mut self, context: &mut Context, at: &Head, which: impl Fn(&Member) -> bool) {
        for member in self.members.live_mut().filter(|member| which(member)) {
            member.position = member.position.max(at.seq);
            member.ticket = context.ticket();
            member.replay = Some(Replay { epoch: at.epoch.clone(), opening: None, parked: true, asked: false });
        }
    }

    /// Takes the member's replay as far as it goes now.
    fn advance(&mut self, context: &mut Context, conn: &ConnId) {
        let Some(member) = self.members.get_mut(conn) else { return };
        if member.opens_at().is_some_and(|until| member.position >= until) && member.open() {
            self.want_roster(context, true);
        }
        let Some(member) = self.members.get_mut(conn) else { return };
        let Some(replay) = member.replay.as_mut() else { return };
        if replay.opening.is_none()
            && let Some(at) = &self.log.at
        {
            if replay.epoch != at.epoch {
                // One of the two hasn't seen the other's epoch yet. The feed looks first, then the member.
                replay.parked = true;
                self.catch_up(context);
                return;
            }
            if member.position >= at.seq {
                member.replay = None;
                return;
            }
        }
        self.ask_page(context, conn);
    }

    fn ask_page(&mut self, context: &Context, conn: &ConnId) {
        let Some(member) = self.members.get_mut(conn) else { return };
        let Some(replay) = member.replay.as_mut().filter(|replay| !replay.asked) else { return };
        replay.asked = true;
        let ticket = member.ticket;
        if !member.outlet.has_room() {
            let wake = context.waker(&self.room, Answer::Roomy(conn.clone(), ticket));
            member.outlet.when_roomy(wake);
            return;
        }
        context.counters.replays.add(1);
        let (log, room, after, conn) =
            (context.backplane.log.clone(), self.room.clone(), member.position, conn.clone());
        let page_bytes = context.page_bytes;
        context.read_room(&self.room, async move {
            Answer::Page(conn, ticket, log.read(&room, Window::After(after), PAGE, page_bytes).await)
        });
    }

    pub(super) fn on_roomy(&mut self, context: &mut Context, conn: &ConnId, ticket: u64) {
        let Some(member) = self.members.get_mut(conn).filter(|member| member.ticket == ticket) else { return };
        if member.outlet.is_closed() {
            self.leave(context, conn);
            return;
        }
        if let Some(replay) = member.replay.as_mut() {
            replay.asked = false;
            self.ask_page(context, conn);
        }
    }

    pub(super) fn on_page(&mut self, context: &mut Context, conn: &ConnId, ticket: u64, slice: Result<Slice>) {
        let Some(member) = self.members.get_mut(conn).filter(|member| member.ticket == ticket) else { return };
        if member.outlet.is_closed() {
            // Whoever waits for its replay goes on.
            self.leave(context, conn);
            return;
        }
        let Ok(Slice { entries, span }) = slice else {
            let conn = conn.clone();
            context.ask_room(&self.room, async move {
                tokio::time::sleep(RETRY).await;
                Answer::Roomy(conn, ticket)
            });
            return;
        };
        let Some(replay) = member.replay.as_mut() else { return };
        replay.asked = false;
        let clean = span.continuity(Some(&replay.epoch), member.position) == Continuity::Clean;
        let stuck =
            entries.is_empty() && replay.opening.as_ref().is_some_and(|opening| member.position < opening.until);
        if !clean || stuck {
            // The client resumes at its own position, and is then told `gap`.
            member.outlet.close(CloseReason::ReplayOutrun);
            self.leave(context, conn);
            return;
        }
        replay.epoch = span.head.epoch;
        let (mut delivered, mut overflowed) = (0, false);
        for entry in entries {
            if member.opens_at().is_some_and(|until| member.position >= until) {
                overflowed |= member.open();
            }
            member.position = entry.seq;
            member.outlet.deliver(&Shared::new(Event::Message(entry)));
            delivered += 1;
        }
        context.counters.delivered.add(delivered);
        if overflowed {
            self.want_roster(context, true);
        }
        self.advance(context, conn);
    }

    /// The feed has caught up: members that waited for that look for themselves.
    pub(super) fn unpark(&mut self, context: &mut Context) {
        let parked = |member: &mut Member| {
            let replay = member.replay.as_mut()?;
            std::mem::take(&mut replay.parked).then(|| (member.outlet.conn().clone(), replay.epoch.clone()))
        };
        let woken: Vec<_> = self.members.iter_mut().filter_map(parked).collect();
        for (conn, epoch) in woken {
            if self.log.at.as_ref().is_some_and(|at| at.epoch == epoch) {
                self.advance(context, &conn);
            } else {
                self.ask_page(context, &conn);
            }
        }
    }
}
