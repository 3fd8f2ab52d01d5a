//! Replays: each brings one member to where the feed is, from the room's tail, or from pages of the log that all who
//! wait share.
//!
//! Who can be served takes turns, so that nobody's replay delays a live message. Who can't waits for the outlet, the feed,
//! or [`super::reading`].

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::super::SharedEvent;
use super::super::worker::Context;
use super::members::Stage;
use super::reading::{Page, Reading};
use super::tail::{Tail, keepable};
use super::{FeedEvent, RoomFeed};
use crate::backplane::Entry;
use crate::domain::{ConnId, Head};

/// How many messages one page takes, and how many a member gets in one turn.
pub(super) const PAGE: usize = 128;
/// How many messages all members together get before whatever waits in the worker's queue has its turn.
const TURN: usize = 512;
/// What a member's turn costs besides its messages.
const TURN_COST: usize = 4;
/// How long a joiner whose answer was ahead of the feed waits for the bus before the log is read.
const AHEAD: Duration = Duration::from_millis(100);

/// What the replays of a room share.
#[derive(Default)]
pub(super) struct Replays {
    pub tail: Option<Tail>,
    pub page: Option<Page>,
    /// The read under way.
    pub reading: Option<Reading>,
    /// Who needs more of the log, with the ticket of the wait; the longest wait comes first.
    pub waiting: VecDeque<(ConnId, u64)>,
    /// Who can be served; a turn is then under way.
    pub ready: VecDeque<ConnId>,
    /// Who is where the feed is, but was promised more: the bus is about to bring it.
    ahead: Vec<ConnId>,
    ahead_due: Option<Instant>,
}

impl Replays {
    /// The tail, if the feed stands where it ends. Any other is of no more use.
    pub fn tail_at(&mut self, at: &Head) -> Option<&mut Tail> {
        self.tail = self.tail.take().filter(|tail| tail.ends_at(at));
        self.tail.as_mut()
    }

    /// The message as it is to be handed on: one to be kept must not hold more memory than its own.
    pub fn own(&self, entry: Entry) -> Entry {
        if self.tail.is_some() {
            keepable(entry)
        } else {
            entry
        }
    }

    /// The feed hands on its next message.
    pub fn push(&mut self, head: &Head, shared: &SharedEvent) {
        self.tail = self
            .tail
            .take()
            .and_then(|mut tail| tail.push(head, shared).then_some(tail));
    }
}

impl RoomFeed {
    /// Takes the member's replay on by at most a page; how many messages it got.
    pub(super) fn advance(&mut self, context: &mut Context, conn: &ConnId) -> usize {
        let Some(at) = self.log.at.clone() else {
            return 0;
        };
        let Some(member) = self.members.get_mut(conn) else {
            return 0;
        };
        if member.replay.is_some() && member.outlet.is_closed() {
            // Whoever waits for its replay goes on.
            self.leave(context, conn);
            return 0;
        }
        let Some(replay) = member
            .replay
            .as_mut()
            .filter(|_| member.outlet.has_capacity())
        else {
            self.rest(context, conn, &at, false);
            return 0;
        };
        let same = replay.epoch == at.epoch;
        let tail = self.replays.tail_at(&at).filter(|_| same);
        let (sent, overflowed) =
            if let Some(entries) = tail.and_then(|tail| tail.after(member.position, PAGE)) {
                member.take(&entries, true)
            } else if let Some(page) = &self.replays.page
                && let Some(entries) = page.after(&replay.epoch, member.position)
            {
                replay.epoch = page.span.head.epoch.clone();
                // A page is so small that an outlet with room can take it.
                member.take(entries, false)
            } else {
                (0, false)
            };
        context.counters.delivered.add(sent as u64);
        if overflowed {
            self.want_roster(context, true);
        }
        self.rest(context, conn, &at, sent > 0);
        sent
    }

    /// Where the member goes from here: live, on with its next turn, or to what it has to wait for.
    fn rest(&mut self, context: &mut Context, conn: &ConnId, at: &Head, went_on: bool) {
        let Some(member) = self.members.get_mut(conn) else {
            return;
        };
        let overflowed = member.open_if_due();
        let arrived = member.position >= at.seq;
        if let Some(replay) = member.replay.as_mut() {
            // Who comes while live members are still to be told of a loss must not be told with them.
            let same = replay.epoch == at.epoch && !self.log.has_to_tell();
            if same && arrived && replay.opening.is_none() {
                member.replay = None;
            } else if !member.outlet.has_capacity() {
                replay.stage = Stage::Full;
                member.outlet.when_writable(
                    context.waker(&self.room, FeedEvent::Writable(conn.clone(), member.ticket)),
                );
            } else if went_on {
                self.make_ready(context, conn);
            } else if !same {
                // One of the two hasn't seen the other's epoch yet. The feed looks first, then the member.
                replay.stage = Stage::Parked;
                self.catch_up(context);
            } else if arrived {
                self.await_feed(context, conn);
            } else {
                self.await_log(context, conn);
            }
        }
        if overflowed {
            self.want_roster(context, true);
        }
    }

    pub(super) fn make_ready(&mut self, context: &Context, conn: &ConnId) {
        self.members.set_stage(conn, Stage::Ready);
        if self.replays.ready.is_empty() {
            context.ask_room(&self.room, async { FeedEvent::Turn });
        }
        self.replays.ready.push_back(conn.clone());
    }

    /// Serves members in turn, but not for long: what waits in the worker's queue comes in between.
    pub(super) fn on_turn(&mut self, context: &mut Context) {
        let mut left = TURN;
        // Whoever is ready again is served after the others; `ready` isn't empty meanwhile, so that no second turn begins.
        for _ in 0..self.replays.ready.len() {
            let Some(conn) = self.replays.ready.front().cloned().filter(|_| left > 0) else {
                break;
            };
            if self.members.stage(&conn) == Some(Stage::Ready) {
                left = left.saturating_sub(TURN_COST + self.advance(context, &conn));
            }
            self.replays.ready.pop_front();
        }
        if self.replays.ready.is_empty() {
            self.read_on(context);
        } else {
            context.ask_room(&self.room, async { FeedEvent::Turn });
        }
    }

    pub(super) fn on_writable(&mut self, context: &mut Context, conn: &ConnId, ticket: u64) {
        let same_join = self
            .members
            .get_mut(conn)
            .is_some_and(|member| member.ticket == ticket);
        if same_join && self.members.stage(conn) == Some(Stage::Full) {
            self.advance(context, conn);
        }
    }

    /// The member's answer was ahead of the feed.
    fn await_feed(&mut self, context: &mut Context, conn: &ConnId) {
        if !matches!(self.members.stage(conn), Some(Stage::Ahead(_))) {
            self.members.set_stage(conn, Stage::Ahead(context.ticket()));
        }
        self.keep_tail(context);
        self.replays.ahead.push(conn.clone());
        if self.replays.ahead_due.is_none() {
            let due = Instant::now() + AHEAD;
            self.replays.ahead_due = Some(due);
            context.call_at(due, &self.room);
        }
    }

    /// The feed has gone on: who was ahead of it looks again.
    pub(super) fn meet(&mut self, context: &mut Context) {
        for conn in std::mem::take(&mut self.replays.ahead) {
            if matches!(self.members.stage(&conn), Some(Stage::Ahead(_))) {
                self.advance(context, &conn);
            }
        }
    }

    /// The feed has caught up, by that read of the log: members that waited for that look for themselves.
    pub(super) fn unpark(&mut self, context: &mut Context, read: u64) {
        let Some(at) = self.log.at.clone() else {
            return;
        };
        self.replays.ahead.clear();
        for conn in self.members.parked() {
            let Some(member) = self.members.get(&conn) else {
                continue;
            };
            let Some(replay) = &member.replay else {
                continue;
            };
            // The feed has seen all that there is, and not what the member was promised.
            let overdue = member.position >= at.seq
                && matches!(replay.stage, Stage::Ahead(asked) if asked < read);
            if replay.epoch != at.epoch || overdue {
                self.await_log(context, &conn);
            } else {
                self.advance(context, &conn);
            }
        }
    }

    pub(super) fn on_replays_due(&mut self, context: &mut Context, now: Instant) {
        if self.replays.ahead_due.is_some_and(|due| due <= now) {
            self.replays.ahead_due = None;
            if self
                .replays
                .ahead
                .iter()
                .any(|conn| matches!(self.members.stage(conn), Some(Stage::Ahead(_))))
            {
                self.catch_up(context);
            }
        }
        if let Some(tail) = self.replays.tail.as_mut().filter(|tail| tail.due <= now) {
            if tail.is_used(now) {
                context.call_at(tail.due, &self.room);
            } else {
                self.replays.tail = None;
            }
        }
    }
}
