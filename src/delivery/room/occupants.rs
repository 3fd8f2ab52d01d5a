//! The connections that are attached to a room's feed on this node.
//!
//! The order on the wire is: acknowledgement, replayed messages, `room_users`, live messages. An
//! occupant has a [`Replay`] until it is live; [`super::replay`] advances it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::context::Context;
use super::super::{Event, Outlet, SharedEvent};
use super::RoomFeed;
use crate::backplane::{AppliedChange, Entry};
use crate::domain::{ConnId, Epoch, Head, UserId};

/// The most changes of occupants to hold for one joining connection. If there are more, a new
/// `room_users` replaces them.
const MAX_HELD_CHANGES: usize = 256;

/// A connection that is attached to the room's feed: an occupant of the room, or a listener, which
/// presence doesn't know.
pub(super) struct Occupant {
    pub outlet: Arc<dyn Outlet>,
    /// Messages up to this `seq` are not sent to it any more.
    pub position: u64,
    /// Messages up to this `seq` are hidden from its user, who became a member of the chat later. Changes
    /// of them are not sent to it. 0 where none are.
    pub hidden_seq: u64,
    /// Changes up to this version are contained in the `room_users` that it has received.
    pub changes_from: u64,
    /// Tells this join of the connection from its other ones.
    pub ticket: u64,
    /// `None` while it is live. Boxed, because most occupants are live: so the occupants of a room
    /// lie close together in memory.
    pub replay: Option<Box<Replay>>,
}

/// The state of an occupant that is not live.
pub(super) struct Replay {
    /// The epoch in which the occupant's position counts.
    pub epoch: Epoch,
    /// `Some` until the occupant has received its `room_users`.
    pub opening: Option<Opening>,
    pub stage: Stage,
}

/// The one thing that a replay waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing: it has just begun.
    New,
    /// Its turn in the queue of replays that can be served.
    Queued,
    /// Capacity in the outlet.
    AwaitingCapacity,
    /// A read of the log; the ticket tells since when.
    AwaitingRead(u64),
    /// The bus: the acknowledgement was ahead of the feed, and promised messages that are about to
    /// arrive. The ticket tells since when.
    AwaitingBus(u64),
    /// The feed's catch-up, as the occupant and the feed are in different epochs.
    AwaitingCatchUp,
}

/// The end of a join: `room_users`, once the occupant has received the messages that its
/// acknowledgement promised.
pub(super) struct Opening {
    /// The `seq` of the acknowledgement.
    pub until: u64,
    /// `None` for a listener.
    pub room_users: Option<SharedEvent>,
    /// Changes that have to follow `room_users`.
    pub held: Vec<SharedEvent>,
    /// More changes came than are held.
    pub has_overflowed: bool,
    pub done: oneshot::Sender<()>,
}

impl Occupant {
    /// From `at` on the occupant is no longer live, unless it is beyond that position already.
    fn fall_behind(&mut self, at: Head, ticket: u64, stage: Stage) {
        self.position = self.position.max(at.seq);
        self.ticket = ticket;
        self.replay = Some(Box::new(Replay {
            epoch: at.epoch,
            opening: None,
            stage,
        }));
    }

    /// True while messages that the acknowledgement promised are still to be sent.
    pub fn is_promised_more(&self) -> bool {
        match self.opening() {
            Some(opening) => self.position < opening.until,
            None => false,
        }
    }

    /// Whether the entry is a change of a message that is hidden from the occupant.
    fn hides(&self, entry: &Entry) -> bool {
        if self.hidden_seq == 0 {
            return false;
        }
        let changed = AppliedChange::of(entry);
        changed.is_some_and(|change| change.target() <= self.hidden_seq)
    }

    fn opening(&self) -> Option<&Opening> {
        self.replay.as_ref()?.opening.as_ref()
    }

    /// Delivers a change of occupants: at once, or after the `room_users` that is still to be sent.
    pub fn deliver_change(&mut self, shared: &SharedEvent) {
        let opening = self
            .replay
            .as_mut()
            .and_then(|replay| replay.opening.as_mut());
        match opening {
            Some(opening) if opening.held.len() >= MAX_HELD_CHANGES => {
                opening.has_overflowed = true;
            }
            Some(opening) => opening.held.push(shared.clone()),
            None => self.outlet.deliver(shared),
        }
    }

    /// Sends `room_users`, and the changes held for after it, once every promised message is sent.
    /// Returns true when some changes were not held: a new `room_users` must follow.
    pub fn open_if_due(&mut self) -> bool {
        if self.is_promised_more() {
            return false;
        }
        let Some(opening) = self
            .replay
            .as_mut()
            .and_then(|replay| replay.opening.take())
        else {
            return false;
        };
        for shared in opening.room_users.iter().chain(&opening.held) {
            self.outlet.deliver(shared);
        }
        let _ = opening.done.send(());
        opening.has_overflowed
    }

    /// Sends the messages while the outlet has capacity.
    pub fn send_while_capacity(&mut self, messages: &[SharedEvent]) -> Sent {
        let mut sent = Sent::default();
        for shared in messages {
            if !self.outlet.has_capacity() {
                break;
            }
            self.send(shared, &mut sent);
        }
        sent
    }

    /// Sends all of the messages.
    pub fn send_all(&mut self, messages: &[SharedEvent]) -> Sent {
        let mut sent = Sent::default();
        for shared in messages {
            self.send(shared, &mut sent);
        }
        sent
    }

    fn send(&mut self, shared: &SharedEvent, sent: &mut Sent) {
        let Event::Message(entry) = shared.event() else {
            return;
        };
        sent.needs_roster |= self.open_if_due();
        self.position = entry.seq;
        // Clients don't receive an entry of a newer node, nor a change of a message that is hidden from
        // them; the replay moves past it all the same.
        if entry.kind.is_delivered() && !self.hides(entry) {
            self.outlet.deliver(shared);
            sent.delivered += 1;
        }
        sent.entries += 1;
    }
}

/// The result of one step of a replay.
#[derive(Default)]
pub(super) struct Sent {
    /// Entries that the replay has moved past.
    pub entries: usize,
    /// Messages among them, which the client receives.
    pub delivered: usize,
    /// A new `room_users` must follow.
    pub needs_roster: bool,
}

/// The occupants, in a row for the fan-out, and indexed by connection.
#[derive(Default)]
pub(super) struct Occupants {
    list: Vec<Occupant>,
    indexes: HashMap<ConnId, usize>,
}

impl Occupants {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn live(&self) -> impl Iterator<Item = &Occupant> {
        self.list
            .iter()
            .filter(|occupant| occupant.replay.is_none())
    }

    pub fn live_mut(&mut self) -> impl Iterator<Item = &mut Occupant> {
        self.list
            .iter_mut()
            .filter(|occupant| occupant.replay.is_none())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Occupant> {
        self.list.iter_mut()
    }

    /// The message of a change, if it may be hidden from one of the occupants.
    pub fn hidden_target(&self, entry: &Entry) -> Option<u64> {
        if self.list.iter().all(|occupant| occupant.hidden_seq == 0) {
            return None;
        }
        Some(AppliedChange::of(entry)?.target())
    }

    pub fn get(&self, conn: &ConnId) -> Option<&Occupant> {
        self.indexes.get(conn).map(|index| &self.list[*index])
    }

    pub fn get_mut(&mut self, conn: &ConnId) -> Option<&mut Occupant> {
        self.indexes.get(conn).map(|index| &mut self.list[*index])
    }

    /// The stage of the occupant's replay; `None` when it is live or not attached.
    pub fn stage(&self, conn: &ConnId) -> Option<Stage> {
        Some(self.get(conn)?.replay.as_ref()?.stage)
    }

    pub fn set_stage(&mut self, conn: &ConnId, stage: Stage) {
        if let Some(occupant) = self.get_mut(conn)
            && let Some(replay) = &mut occupant.replay
        {
            replay.stage = stage;
        }
    }

    /// The occupants with a replay that waits for the feed.
    pub fn awaiting_feed(&self) -> Vec<ConnId> {
        let awaits_feed = |occupant: &&Occupant| match &occupant.replay {
            Some(replay) => {
                matches!(replay.stage, Stage::AwaitingCatchUp | Stage::AwaitingBus(_))
            }
            None => false,
        };
        self.list
            .iter()
            .filter(awaits_feed)
            .map(|occupant| occupant.outlet.conn().clone())
            .collect()
    }

    /// All connections, with their users.
    pub fn attached(&self) -> Vec<(ConnId, UserId)> {
        let outlets = self.list.iter().map(|occupant| &occupant.outlet);
        outlets
            .map(|outlet| (outlet.conn().clone(), outlet.user().clone()))
            .collect()
    }

    /// The connections of a user that were attached before the entry `seq` was known to them. One whose
    /// acknowledgement was at or behind that entry has joined after it.
    pub fn of_user_before(&self, user: &UserId, seq: u64) -> Vec<ConnId> {
        let is_older = |occupant: &&Occupant| match occupant.opening() {
            Some(opening) => opening.until < seq,
            None => occupant.position < seq,
        };
        self.list
            .iter()
            .filter(|occupant| occupant.outlet.user() == user)
            .filter(is_older)
            .map(|occupant| occupant.outlet.conn().clone())
            .collect()
    }

    pub fn insert(&mut self, occupant: Occupant) {
        let conn = occupant.outlet.conn().clone();
        self.remove(&conn);
        self.indexes.insert(conn, self.list.len());
        self.list.push(occupant);
    }

    pub fn remove(&mut self, conn: &ConnId) {
        if let Some(index) = self.indexes.remove(conn) {
            self.list.swap_remove(index);
            if let Some(moved) = self.list.get(index) {
                self.indexes.insert(moved.outlet.conn().clone(), index);
            }
        }
    }
}

impl RoomFeed {
    /// A live occupant can't take the message after `at` now: it gets that one by a replay, once it
    /// has capacity.
    pub(super) fn fall_behind(&mut self, context: &mut Context, conn: &ConnId, at: Head) {
        let ticket = context.ticket();
        if let Some(occupant) = self.occupants.get_mut(conn) {
            occupant.fall_behind(at, ticket, Stage::New);
        }
        self.advance(context, conn);
    }

    /// The feed leaves its epoch at `at`. Live occupants that are beyond that position have
    /// received messages that the new epoch may not contain, so their replays check it.
    pub(super) fn demote_ahead(&mut self, context: &mut Context, at: &Head) {
        for occupant in self.occupants.live_mut() {
            if occupant.position > at.seq {
                occupant.fall_behind(at.clone(), context.ticket(), Stage::AwaitingCatchUp);
            }
        }
    }
}
