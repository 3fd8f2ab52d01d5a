//! The order of a room's joins and leaves, and the `room_users` that replace them in a large room.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::super::context::Context;
use super::super::feed::Cursor;
use super::super::{Event, SharedEvent};
use super::roster::{RosterDetail, RosterPurpose, ScheduledRoster};
use super::{FeedEvent, RoomFeed};
use crate::backplane::{Changes, Result, Roster};
use crate::domain::{ChangeKind, RoomChange, UserId};

/// The most changes to hold while the feed reads.
const MAX_HELD_CHANGES: usize = 1024;
/// The most changes to remember for joining occupants.
const MAX_RECENT_CHANGES: usize = 128;

/// The feed's position in the changes of occupants.
pub(super) struct ChangeCursor {
    /// The version of the last change delivered. The first join makes it known.
    pub cursor: Cursor<u64, RoomChange>,
    /// The version after which the last catch-up began to read.
    pub read_from: u64,
    /// The last changes delivered, for joining occupants with an older list.
    pub recent: VecDeque<RoomChange>,
    pub total: u64,
    /// The room has more occupants than `ROOM_EVENTS_LIMIT`: only their number is published.
    pub is_large: bool,
    pub last_roster: Option<Instant>,
    pub scheduled: Option<ScheduledRoster>,
}

/// The changes that are newer than a joining occupant's list.
pub(super) struct MissedChanges {
    pub changes: Vec<SharedEvent>,
    /// True when some of them are no longer remembered.
    pub is_incomplete: bool,
}

impl Default for ChangeCursor {
    fn default() -> Self {
        Self {
            cursor: Cursor::new(MAX_HELD_CHANGES),
            read_from: 0,
            recent: VecDeque::new(),
            total: 0,
            is_large: false,
            last_roster: None,
            scheduled: None,
        }
    }
}

impl ChangeCursor {
    pub fn version(&self) -> Option<u64> {
        self.cursor.position().copied()
    }

    /// True when a change after that version has been delivered.
    pub fn has_passed(&self, version: u64) -> bool {
        self.version().is_some_and(|delivered| delivered > version)
    }

    pub fn set_total(&mut self, context: &Context, total: u64) {
        self.total = total;
        self.is_large = total > context.room_events;
    }
}

impl RoomFeed {
    /// Begins with the state that the first join has read.
    pub(super) fn begin_changes(&mut self, context: &mut Context, roster: &Roster) {
        self.changes.cursor.set_position(roster.version);
        self.changes.set_total(context, roster.total);
    }

    /// The changes delivered after that version, except the user's own.
    pub(super) fn changes_since(&self, version: u64, user: &UserId) -> MissedChanges {
        if self.changes.is_large || !self.changes.has_passed(version) {
            return MissedChanges {
                changes: Vec::new(),
                is_incomplete: false,
            };
        }
        let (changes, reached) = changes_in_a_row(&self.changes.recent, version);
        let others = changes.into_iter().filter(|change| change.user != *user);
        let event = |change: &RoomChange| Event::RoomChanged(self.room.clone(), change.clone());
        MissedChanges {
            changes: others.map(event).map(SharedEvent::new).collect(),
            is_incomplete: self.changes.version() != Some(reached),
        }
    }

    pub fn on_change(&mut self, context: &mut Context, change: RoomChange) {
        let Some(version) = self.changes.cursor.ready().copied() else {
            self.changes.cursor.hold(change);
            return;
        };
        if change.version > version && change.previous != version {
            self.changes.cursor.hold(change);
            self.catch_up_changes(context);
            return;
        }
        self.apply_change(context, change);
    }

    /// Delivers a change that follows the last one, and ignores one that was delivered before.
    fn apply_change(&mut self, context: &mut Context, change: RoomChange) {
        if self
            .changes
            .version()
            .is_some_and(|delivered| change.version <= delivered)
        {
            return;
        }
        let changes = &mut self.changes;
        changes.cursor.set_position(change.version);
        changes.recent.push_back(change.clone());
        if changes.recent.len() > MAX_RECENT_CHANGES {
            changes.recent.pop_front();
        }
        let was_large = changes.is_large;
        changes.set_total(context, change.total);
        if changes.is_large {
            return self.schedule_roster(context, RosterDetail::Number);
        }
        let needs_list = was_large || change.kind == ChangeKind::Restored;
        if needs_list || self.deliver_change(change) {
            self.schedule_full_roster(context);
        }
    }

    /// Delivers the change to other users' occupants, unless their list contains it. Returns true if
    /// the user joins and has an occupant already: presence had lost it, and its own list may lack it.
    fn deliver_change(&mut self, change: RoomChange) -> bool {
        let (user, version) = (change.user.clone(), change.version);
        let is_join = change.kind == ChangeKind::Joined;
        let mut is_back = false;
        let shared = SharedEvent::new(Event::RoomChanged(self.room.clone(), change));
        for occupant in self.occupants.iter_mut() {
            if occupant.changes_from >= version {
                continue;
            }
            if *occupant.outlet.user() == user {
                is_back |= is_join;
            } else {
                occupant.deliver_change(&shared);
            }
        }
        is_back
    }

    /// Reads the changes after the last one delivered.
    pub fn catch_up_changes(&mut self, context: &mut Context) {
        let Some((ticket, version)) = self.changes.cursor.begin_read(context) else {
            return;
        };
        self.changes.read_from = version;
        let (presence, room) = (context.backplane.presence.clone(), self.room.clone());
        context.read(&self.room, async move {
            FeedEvent::Changes(ticket, presence.room_changes(&room, version).await)
        });
    }

    pub(super) fn retry_changes(&mut self, context: &mut Context, ticket: u64) {
        if self.changes.cursor.awaits(ticket) {
            self.changes.cursor.finish_read();
            self.catch_up_changes(context);
        }
    }

    pub(super) fn on_changes(
        &mut self,
        context: &mut Context,
        ticket: u64,
        changes: Result<Changes<RoomChange>>,
    ) {
        if !self.changes.cursor.awaits(ticket) {
            return;
        }
        match changes {
            Ok(Changes::Since(changes)) => {
                for change in changes {
                    self.apply_change(context, change);
                }
                self.changes.cursor.finish_read();
                self.apply_held_changes(context);
            }
            // The catch-up lasts until the list has been read.
            Ok(Changes::TooOld) => self.read_roster(context, RosterPurpose::CatchUp(ticket)),
            Err(_) => context.retry(&self.room, FeedEvent::RetryChanges(ticket)),
        }
    }

    pub(super) fn apply_held_changes(&mut self, context: &mut Context) {
        for change in self.changes.cursor.take_held().events {
            self.on_change(context, change);
        }
        if self.changes.cursor.take_read_again() {
            self.catch_up_changes(context);
        }
    }
}

/// The changes that follow `version` without a hole, and the version that they reach. A list of
/// occupants that was read anew raises the feed's version without the changes between, so the
/// remembered changes may have a hole.
fn changes_in_a_row(recent: &VecDeque<RoomChange>, version: u64) -> (Vec<&RoomChange>, u64) {
    let mut reached = version;
    let mut changes = Vec::new();
    for change in recent {
        if change.previous == reached {
            reached = change.version;
            changes.push(change);
        }
    }
    (changes, reached)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Username;

    fn change(previous: u64, version: u64) -> RoomChange {
        RoomChange {
            version,
            previous,
            kind: ChangeKind::Joined,
            user: UserId::trusted("ann"),
            username: Username::trusted("ann"),
            total: 1,
        }
    }

    #[test]
    fn changes_are_complete_only_if_they_follow_each_other_without_a_hole() {
        // The change 5 → 7 is not remembered: a list of occupants of version 7 was read instead.
        let recent = VecDeque::from([change(1, 3), change(3, 5), change(7, 8), change(8, 9)]);
        let reached = |version| changes_in_a_row(&recent, version).1;
        assert_eq!((reached(7), reached(8), reached(9)), (9, 9, 9));
        assert_eq!((reached(1), reached(3)), (5, 5), "ends before the hole");
        assert_eq!(
            (reached(5), reached(0), reached(2)),
            (5, 0, 2),
            "no successor is remembered"
        );
        assert_eq!(changes_in_a_row(&recent, 7).0.len(), 2);
    }
}
