//! The order of a room's comings and goings, and what a room too large for them gets instead.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::super::worker::Context;
use super::super::{Event, SharedEvent};
use super::{FeedEvent, RETRY, RoomFeed};
use crate::backplane::{Changes, Result, Roster};
use crate::domain::{ChangeKind, Limits, RoomChange, UserId};

/// Changes held while others are read; more are dropped, as the backplane has them.
const HELD: usize = 1024;
/// Changes remembered for joiners.
const RECENT: usize = 128;
/// The least time between two `room_users` of a large room, or after membership was restored.
const ROSTER_PACE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct ChangeCursor {
    /// The last change handed on. `None` until the first join tells.
    pub version: Option<u64>,
    held: Vec<RoomChange>,
    /// The ticket of the read of changes that is under way, or waits to be tried again.
    reading: Option<u64>,
    /// The last change handed on when that read was begun.
    read_from: u64,
    again: bool,
    /// The last changes handed on, for joiners whose list is older.
    recent: VecDeque<RoomChange>,
    total: u64,
    /// More members than `ROOM_EVENTS_LIMIT`: only their number is told.
    large: bool,
    last_roster: Option<Instant>,
    due: Option<Due>,
}

/// A `room_users` to come.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Due {
    at: Instant,
    /// With ids, not only the number.
    full: bool,
}

impl RoomFeed {
    /// The first join has told how things stand.
    pub(super) fn begin_changes(&mut self, context: &mut Context, roster: &Roster) {
        self.changes.version = Some(roster.version);
        self.changes.total = roster.total;
        self.changes.large = roster.total > context.room_events;
    }

    /// The changes that were handed on after `version`, but for the user's own, and whether some of them are forgotten.
    pub(super) fn changes_since(&self, version: u64, user: &UserId) -> (Vec<SharedEvent>, bool) {
        if self.changes.large || self.changes.version.is_none_or(|seen| seen <= version) {
            return (Vec::new(), false);
        }
        let whole = self
            .changes
            .recent
            .iter()
            .any(|change| change.previous == version);
        let missed = self
            .changes
            .recent
            .iter()
            .filter(|change| change.version > version && change.user != *user);
        let events = missed
            .map(|change| SharedEvent::new(Event::RoomChanged(self.room.clone(), change.clone())))
            .collect();
        (events, !whole)
    }

    /// In a large room a joiner's number may be older than what the others were told: it is told again.
    pub(super) fn recount(&mut self, context: &mut Context, version: u64) {
        if self.changes.large && self.changes.version.is_some_and(|seen| seen > version) {
            self.want_roster(context, false);
        }
    }

    pub fn on_change(&mut self, context: &mut Context, change: RoomChange) {
        let held = self.changes.version.is_none() || self.changes.reading.is_some();
        if held
            || self
                .changes
                .version
                .is_some_and(|version| change.version > version && change.previous != version)
        {
            if self.changes.held.len() < HELD {
                self.changes.held.push(change);
            } else {
                self.changes.again = true;
            }
            if !held {
                self.catch_up_changes(context);
            }
            return;
        }
        self.apply(context, change);
    }

    /// Hands on a change that follows the last one; one already handed on is ignored.
    fn apply(&mut self, context: &mut Context, change: RoomChange) {
        if self
            .changes
            .version
            .is_some_and(|version| change.version <= version)
        {
            return;
        }
        self.changes.version = Some(change.version);
        self.changes.total = change.total;
        self.changes.recent.push_back(change.clone());
        if self.changes.recent.len() > RECENT {
            self.changes.recent.pop_front();
        }
        let was_large =
            std::mem::replace(&mut self.changes.large, change.total > context.room_events);
        if self.changes.large {
            self.want_roster(context, false);
        } else if was_large || change.kind == ChangeKind::Restored {
            self.want_roster(context, true);
        } else {
            let (user, version) = (change.user.clone(), change.version);
            let shared = SharedEvent::new(Event::RoomChanged(self.room.clone(), change));
            let others = |member: &&mut super::members::Occupant| *member.outlet.user() != user;
            for member in self
                .members
                .iter_mut()
                .filter(others)
                .filter(|member| member.changes_from < version)
            {
                member.deliver_change(&shared);
            }
        }
    }

    pub(super) fn want_roster(&mut self, context: &mut Context, full: bool) {
        let earliest = self
            .changes
            .last_roster
            .map_or_else(Instant::now, |last| last + ROSTER_PACE);
        let full = full || self.changes.due.is_some_and(|due| due.full);
        let due = Due {
            at: self.changes.due.map_or(earliest, |due| due.at),
            full,
        };
        if self.changes.due.is_none() {
            context.call_at(due.at, &self.room);
        }
        self.changes.due = Some(due);
    }

    pub(super) fn on_roster_due(&mut self, context: &mut Context, now: Instant) {
        let Some(due) = self.changes.due.filter(|due| due.at <= now) else {
            return;
        };
        self.changes.due = None;
        self.changes.last_roster = Some(now);
        if due.full && !self.changes.large {
            self.read_roster(context, None);
        } else {
            let total = self.changes.total;
            let shared = SharedEvent::new(Event::RoomUsers {
                room: self.room.clone(),
                users: Vec::new(),
                total,
            });
            self.members
                .iter_mut()
                .for_each(|member| member.deliver_change(&shared));
        }
    }

    /// `instead`: the read of changes that it stands for.
    fn read_roster(&self, context: &Context, instead: Option<u64>) {
        let (presence, room) = (context.backplane.presence.clone(), self.room.clone());
        context.read_room(&self.room, async move {
            FeedEvent::Roster(instead, presence.roster(&room, Limits::ROSTER).await)
        });
    }

    /// Everyone gets the newest state once, but for who had it, or newer, already.
    pub(super) fn on_roster(
        &mut self,
        context: &mut Context,
        instead: Option<u64>,
        roster: Result<Roster>,
    ) {
        if instead.is_some() && instead != self.changes.reading {
            return;
        }
        let Ok(roster) = roster else {
            match instead {
                Some(ticket) => self.read_changes_again(context, ticket),
                None => {
                    self.changes.last_roster = Some(Instant::now());
                    self.want_roster(context, true);
                }
            }
            return;
        };
        let version = roster.version;
        if instead.is_none() && self.changes.version.is_some_and(|seen| seen > version) {
            // Members were told of newer changes while it was read.
            self.want_roster(context, true);
            return;
        }
        if instead.is_some() && version < self.changes.read_from {
            // The backplane has lost changes that members were told of: what it knows counts, and what comes follows it.
            self.changes.version = None;
            self.changes.recent.clear();
            self.members
                .iter_mut()
                .for_each(|member| member.changes_from = 0);
        }
        self.changes.version = self.changes.version.max(Some(version));
        self.changes.total = roster.total;
        self.changes.large = roster.total > context.room_events;
        let users = if self.changes.large {
            Vec::new()
        } else {
            roster.users
        };
        let shared = SharedEvent::new(Event::RoomUsers {
            room: self.room.clone(),
            users,
            total: roster.total,
        });
        for member in self
            .members
            .iter_mut()
            .filter(|member| member.changes_from < version)
        {
            member.changes_from = version;
            member.deliver_change(&shared);
        }
        if instead.is_some() {
            self.changes.reading = None;
            self.merge_held_changes(context);
        }
    }

    /// Reads the changes after the last one.
    pub fn catch_up_changes(&mut self, context: &mut Context) {
        let Some(version) = self
            .changes
            .version
            .filter(|_| self.changes.reading.is_none())
        else {
            self.changes.again = true;
            return;
        };
        let ticket = context.ticket();
        self.changes.reading = Some(ticket);
        self.changes.read_from = version;
        self.changes.again = false;
        let (presence, room) = (context.backplane.presence.clone(), self.room.clone());
        context.read_room(&self.room, async move {
            FeedEvent::Changed(ticket, presence.room_changes(&room, version).await)
        });
    }

    pub(super) fn on_changes_again(&mut self, context: &mut Context, ticket: u64) {
        if self.changes.reading == Some(ticket) {
            self.changes.reading = None;
            self.catch_up_changes(context);
        }
    }

    pub(super) fn on_changes(
        &mut self,
        context: &mut Context,
        ticket: u64,
        changes: Result<Changes<RoomChange>>,
    ) {
        if self.changes.reading != Some(ticket) {
            return;
        }
        match changes {
            Err(_) => self.read_changes_again(context, ticket),
            // `reading` stays set until the newest state is there.
            Ok(Changes::TooOld) => self.read_roster(context, Some(ticket)),
            Ok(Changes::Since(changes)) => {
                changes
                    .into_iter()
                    .for_each(|change| self.apply(context, change));
                self.changes.reading = None;
                self.merge_held_changes(context);
            }
        }
    }

    /// After a pause; `reading` stays set meanwhile.
    fn read_changes_again(&self, context: &Context, ticket: u64) {
        context.ask_room(&self.room, async move {
            tokio::time::sleep(RETRY).await;
            FeedEvent::ChangesAgain(ticket)
        });
    }

    pub(super) fn merge_held_changes(&mut self, context: &mut Context) {
        for change in std::mem::take(&mut self.changes.held) {
            self.on_change(context, change);
        }
        if std::mem::take(&mut self.changes.again) {
            self.catch_up_changes(context);
        }
    }
}
