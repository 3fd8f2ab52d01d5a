//! Replays: each brings one occupant to the feed's position, from the room's tail, or from pages of
//! the log that all waiting occupants share.
//!
//! Replays that can be served take turns, in slices, so that none of them delays a live message.
//! The others wait for their outlet, for the feed, or for [`super::replay_reads`].

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::super::SharedEvent;
use super::super::context::Context;
use super::changes_during_read::ChangesDuringRead;
use super::occupants::{Sent, Stage};
use super::replay_reads::{Page, ReplayRead, Waiting};
use super::tail::{Tail, with_own_record};
use super::{FeedEvent, RoomFeed};
use crate::backplane::{AppliedChange, Entry};
use crate::domain::{ConnId, Head};

/// The most messages of one page of the log, and the most that one occupant gets in one turn.
pub(super) const REPLAY_PAGE: usize = 128;
/// The most messages that all occupants of a room get in one slice. Then the commands in the
/// worker's queue come first.
const REPLAY_SLICE: usize = 512;
/// The cost of one occupant's turn besides its messages, in messages.
const TURN_COST: usize = 4;
/// How long an occupant that is ahead of the feed waits for the bus before the feed reads the log.
const BUS_WAIT: Duration = Duration::from_millis(100);

/// The state that the replays of a room share.
#[derive(Default)]
pub(super) struct Replays {
    pub tail: Option<Tail>,
    pub page: Option<Page>,
    /// The read that is under way.
    pub read: Option<ReplayRead>,
    /// Announcements of changes of messages that were delivered since that read began.
    pub changes_during_read: ChangesDuringRead,
    /// The occupants that need more of the log, in the order in which the waits began.
    pub waiting: VecDeque<Waiting>,
    /// Those whose reads have failed and will be repeated soon. Reads for others go on meanwhile.
    pub failed: Vec<Waiting>,
    /// The occupants that can be served. While there are any, a slice is scheduled.
    pub queue: VecDeque<ConnId>,
    /// The occupants that are at the feed's position, and were promised messages that the bus is
    /// about to bring.
    awaiting_bus: Vec<ConnId>,
    bus_deadline: Option<Instant>,
}

impl Replays {
    /// The tail, if it ends at the feed's position. A tail that doesn't is dropped, as it is of no
    /// further use.
    pub fn tail_at(&mut self, at: &Head) -> Option<&mut Tail> {
        if let Some(tail) = &self.tail
            && !tail.ends_at(at)
        {
            self.tail = None;
        }
        self.tail.as_mut()
    }

    /// Prepares a message for delivery. One that the tail will keep gets memory of its own, so that
    /// it doesn't keep a larger buffer alive.
    pub fn prepare(&self, entry: Entry) -> Entry {
        if self.tail.is_some() {
            with_own_record(entry)
        } else {
            entry
        }
    }

    /// A change was delivered: if it is one of a message, no replay sends the message's earlier form any
    /// more.
    pub fn apply(&mut self, entry: &Entry) {
        let Some(change) = AppliedChange::of(entry) else {
            return;
        };
        if let Some(tail) = &mut self.tail
            && !tail.apply(&change)
        {
            self.tail = None;
        }
        if let Some(page) = &mut self.page {
            page.apply(&change);
        }
        if self.read.is_some() {
            self.changes_during_read.add(&change, entry);
        }
    }

    /// The feed has passed over changes: messages that were read before must be read again.
    pub fn discard_reads(&mut self) {
        self.page = None;
        if self.read.is_some() {
            self.changes_during_read.discard();
        }
    }

    /// Adds the feed's next message to the tail. A tail that can't take it is dropped.
    pub fn push(&mut self, head: &Head, shared: &SharedEvent) {
        if let Some(tail) = &mut self.tail
            && !tail.push(head, shared)
        {
            self.tail = None;
        }
    }
}

impl RoomFeed {
    /// Sends the next part of the occupant's replay, at most a page. Returns the number of messages
    /// sent.
    pub(super) fn advance(&mut self, context: &mut Context, conn: &ConnId) -> usize {
        let Some(at) = self.log.position().cloned() else {
            return 0;
        };
        let Some(occupant) = self.occupants.get(conn) else {
            return 0;
        };
        if occupant.replay.is_some() && occupant.outlet.is_closed() {
            // This also ends the call that waits for the end of the replay.
            self.leave(context, conn);
            return 0;
        }
        let sent = self.send_next(conn, &at);
        context.counters.delivered.add(sent.delivered as u64);
        if sent.needs_roster {
            self.schedule_full_roster(context);
        }
        self.set_next_stage(context, conn, &at, sent.entries);
        sent.entries
    }

    /// Sends messages from the tail or from the page, whichever has the occupant's next one.
    fn send_next(&mut self, conn: &ConnId, at: &Head) -> Sent {
        let Some(occupant) = self.occupants.get_mut(conn) else {
            return Sent::default();
        };
        let Some(replay) = &mut occupant.replay else {
            return Sent::default();
        };
        if !occupant.outlet.has_capacity() {
            return Sent::default();
        }
        let tail = self.replays.tail_at(at);
        if replay.epoch == at.epoch
            && let Some(tail) = tail
            && let Some(messages) = tail.after(occupant.position, REPLAY_PAGE)
        {
            return occupant.send_while_capacity(&messages);
        }
        if let Some(page) = &self.replays.page
            && let Some(messages) = page.after(&replay.epoch, occupant.position)
        {
            replay.epoch = page.span.head.epoch.clone();
            // A page is small enough for any outlet that has capacity.
            return occupant.send_all(messages);
        }
        Sent::default()
    }

    /// Decides how the replay goes on after `sent` messages: the occupant is live, or waits for its
    /// next turn, or for something else.
    fn set_next_stage(&mut self, context: &mut Context, conn: &ConnId, at: &Head, sent: usize) {
        let Some(occupant) = self.occupants.get_mut(conn) else {
            return;
        };
        let needs_roster = occupant.open_if_due();
        let is_at_feed = occupant.position >= at.seq;
        if let Some(replay) = &mut occupant.replay {
            // While live occupants are still to be notified of a loss, a new one must not become
            // live and be notified too.
            let is_same_epoch = replay.epoch == at.epoch && !self.log.has_unreported_loss();
            if is_same_epoch && is_at_feed && replay.opening.is_none() {
                occupant.replay = None;
            } else if !occupant.outlet.has_capacity() {
                replay.stage = Stage::AwaitingCapacity;
                let event = FeedEvent::Writable(conn.clone(), occupant.ticket);
                let waker = context.waker(&self.room, event);
                occupant.outlet.when_writable(waker);
            } else if sent > 0 {
                self.enqueue(context, conn);
            } else if !is_same_epoch {
                // The feed or the occupant doesn't know the other's epoch yet. The feed reads the
                // log first.
                replay.stage = Stage::AwaitingCatchUp;
                self.catch_up(context);
            } else if is_at_feed {
                self.await_bus(context, conn);
            } else {
                self.await_read(context, conn);
            }
        }
        if needs_roster {
            self.schedule_full_roster(context);
        }
    }

    /// Queues the replay for its next turn.
    pub(super) fn enqueue(&mut self, context: &Context, conn: &ConnId) {
        self.occupants.set_stage(conn, Stage::Queued);
        if self.replays.queue.is_empty() {
            self.schedule_slice(context);
        }
        self.replays.queue.push_back(conn.clone());
    }

    /// The next slice comes after the commands that are in the worker's queue now.
    fn schedule_slice(&self, context: &Context) {
        context.spawn(&self.room, async { FeedEvent::NextSlice });
    }

    /// Gives each queued replay a turn, until the slice is used up.
    pub(super) fn replay_slice(&mut self, context: &mut Context) {
        let mut left = REPLAY_SLICE;
        // A replay that is queued again gets its next turn in the next slice. The first entry is
        // removed after its turn only, so the queue is never empty here and no second slice is
        // scheduled.
        for _ in 0..self.replays.queue.len() {
            if left == 0 {
                break;
            }
            let Some(conn) = self.replays.queue.front().cloned() else {
                break;
            };
            if self.occupants.stage(&conn) == Some(Stage::Queued) {
                left = left.saturating_sub(TURN_COST + self.advance(context, &conn));
            }
            self.replays.queue.pop_front();
        }
        if self.replays.queue.is_empty() {
            self.start_next_read(context);
        } else {
            self.schedule_slice(context);
        }
    }

    pub(super) fn on_writable(&mut self, context: &mut Context, conn: &ConnId, ticket: u64) {
        let Some(occupant) = self.occupants.get(conn) else {
            return;
        };
        let is_same_join = occupant.ticket == ticket;
        if is_same_join && self.occupants.stage(conn) == Some(Stage::AwaitingCapacity) {
            self.advance(context, conn);
        }
    }

    /// The occupant's acknowledgement was ahead of the feed: waits for the bus.
    fn await_bus(&mut self, context: &mut Context, conn: &ConnId) {
        if !self.is_awaiting_bus(conn) {
            let stage = Stage::AwaitingBus(context.ticket());
            self.occupants.set_stage(conn, stage);
        }
        self.keep_tail(context);
        self.replays.awaiting_bus.push(conn.clone());
        if self.replays.bus_deadline.is_none() {
            let deadline = Instant::now() + BUS_WAIT;
            self.replays.bus_deadline = Some(deadline);
            context.call_at(deadline, &self.room);
        }
    }

    fn is_awaiting_bus(&self, conn: &ConnId) -> bool {
        matches!(self.occupants.stage(conn), Some(Stage::AwaitingBus(_)))
    }

    /// The feed has moved on: advances the occupants that were ahead of it.
    pub(super) fn advance_awaiting_bus(&mut self, context: &mut Context) {
        for conn in std::mem::take(&mut self.replays.awaiting_bus) {
            if self.is_awaiting_bus(&conn) {
                self.advance(context, &conn);
            }
        }
    }

    /// The feed has caught up with the read of that ticket: resumes the occupants that waited for
    /// it.
    pub(super) fn resume_after_catch_up(&mut self, context: &mut Context, read: u64) {
        let Some(at) = self.log.position().cloned() else {
            return;
        };
        self.replays.awaiting_bus.clear();
        for conn in self.occupants.awaiting_feed() {
            let Some(occupant) = self.occupants.get(&conn) else {
                continue;
            };
            let Some(replay) = &occupant.replay else {
                continue;
            };
            // The read began after the occupant was promised messages, and the log doesn't have
            // them.
            let is_overdue = occupant.position >= at.seq
                && matches!(replay.stage, Stage::AwaitingBus(since) if since < read);
            if replay.epoch != at.epoch || is_overdue {
                self.await_read(context, &conn);
            } else {
                self.advance(context, &conn);
            }
        }
    }

    pub(super) fn on_replay_timer(&mut self, context: &mut Context, now: Instant) {
        if let Some(deadline) = self.replays.bus_deadline
            && deadline <= now
        {
            self.replays.bus_deadline = None;
            let mut awaiting = self.replays.awaiting_bus.iter();
            if awaiting.any(|conn| self.is_awaiting_bus(conn)) {
                self.catch_up(context);
            }
        }
        if let Some(tail) = &mut self.replays.tail
            && tail.check_at <= now
        {
            if tail.is_in_use(now) {
                context.call_at(tail.check_at, &self.room);
            } else {
                self.replays.tail = None;
            }
        }
    }
}
