//! The order of a room's comings and goings, and what a room too large for them gets instead.

use std::time::Duration;

use tokio::time::Instant;

use super::super::worker::Context;
use super::super::{Event, Shared};
use super::{Answer, RETRY, RoomFeed};
use crate::backplane::{Changes, Result, Roster};
use crate::domain::{ChangeKind, Limits, RoomChange};

/// Changes held while others are read; more are dropped, as the backplane has them.
const HELD: usize = 1024;
/// The least time between two `room_users` of a large room, or after membership was restored.
const ROSTER_PACE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct ChangeCursor {
    /// The last change handed on. `None` until the first join tells.
    pub version: Option<u64>,
    held: Vec<RoomChange>,
    reading: bool,
    again: bool,
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
        self.merge_held_changes(context);
    }

    pub fn on_change(&mut self, context: &mut Context, change: RoomChange) {
        let held = self.changes.version.is_none() || self.changes.reading;
        if held || self.changes.version.is_some_and(|version| change.version > version && change.previous != version) {
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
        if self.changes.version.is_some_and(|version| change.version <= version) {
            return;
        }
        self.changes.version = Some(change.version);
        self.changes.total = change.total;
        let was_large = std::mem::replace(&mut self.changes.large, change.total > context.room_events);
        if self.changes.large {
            self.want_roster(context, false);
        } else if was_large || change.kind == ChangeKind::Restored {
            self.want_roster(context, true);
        } else {
            let (user, version) = (change.user.clone(), change.version);
            let shared = Shared::new(Event::RoomChanged(self.room.clone(), change));
            let others = |member: &&mut super::members::Member| *member.outlet.user() != user;
            for member in self.members.iter_mut().filter(others).filter(|member| member.changes_from < version) {
                member.deliver_change(&shared);
            }
        }
    }

    pub(super) fn want_roster(&mut self, context: &mut Context, full: bool) {
        let earliest = self.changes.last_roster.map_or_else(Instant::now, |last| last + ROSTER_PACE);
        let full = full || self.changes.due.is_some_and(|due| due.full);
        let due = Due { at: self.changes.due.map_or(earliest, |due| due.at), full };
        if self.changes.due.is_none() {
            context.call_at(due.at, &self.room);
        }
        self.changes.due = Some(due);
    }

    pub(super) fn on_roster_due(&mut self, context: &mut Context, now: Instant) {
        let Some(due) = self.changes.due.filter(|due| due.at <= now) else { return };
        self.changes.due = None;
        self.changes.last_roster = Some(now);
        if due.full && !self.changes.large {
            self.read_roster(context);
        } else {
            let total = self.changes.total;
            let shared = Shared::new(Event::RoomUsers { room: self.room.clone(), users: Vec::new(), total });
            self.members.iter_mut().for_each(|member| member.deliver_change(&shared));
        }
    }

    fn read_roster(&self, context: &Context) {
        let (presence, room) = (context.backplane.presence.clone(), self.room.clone());
        context.read_room(&self.room, async move { Answer::Roster(presence.roster(&room, Limits::ROSTER).await) });
    }

    /// Everyone gets the newest state once, but for who had it, or newer, already.
    pub(super) fn on_roster(&mut self, context: &mut Context, roster: Result<Roster>) {
        let Ok(roster) = roster else {
            if self.changes.reading {
                self.read_changes_again(context);
            } else {
                self.changes.last_roster = Some(Instant::now());
                self.want_roster(context, true);
            }
            return;
        };
        let version = roster.version;
        if self.changes.version.is_some_and(|seen| seen < version) {
            self.changes.version = Some(version);
        }
        self.changes.total = roster.total;
        self.changes.large = roster.total > context.room_events;
        let users = if self.changes.large { Vec::new() } else { roster.users };
        let shared = Shared::new(Event::RoomUsers { room: self.room.clone(), users, total: roster.total });
        for member in self.members.iter_mut().filter(|member| member.changes_from < version) {
            member.changes_from = version;
            member.deliver_change(&shared);
        }
        self.changes.reading = false;
        self.merge_held_changes(context);
    }

    /// Reads the changes after the last one.
    pub fn catch_up_changes(&mut self, context: &mut Context) {
        let Some(version) = self.changes.version else { return };
        if self.changes.reading {
            self.changes.again = true;
            return;
        }
        self.changes.reading = true;
        self.changes.again = false;
        let (presence, room) = (context.backplane.presence.clone(), self.room.clone());
        context.read_room(&self.room, async move { Answer::Changed(presence.room_changes(&room, version).await) });
    }

    pub(super) fn on_changes_again(&mut self, context: &mut Context) {
        self.changes.reading = false;
        self.catch_up_changes(context);
    }

    pub(super) fn on_changes(&mut self, context: &mut Context, changes: Result<Changes<RoomChange>>) {
        match changes {
            Err(_) => self.read_changes_again(context),
            // `reading` stays set until the newest state is there.
            Ok(Changes::TooOld) => self.read_roster(context),
            Ok(Changes::Since(changes)) => {
                changes.into_iter().for_each(|change| self.apply(context, change));
                self.changes.reading = false;
                self.merge_held_changes(context);
            }
        }
    }

    /// After a pause; `reading` stays set meanwhile.
    fn read_changes_again(&self, context: &Context) {
        context.ask_room(&self.room, async {
            tokio::time::sleep(RETRY).await;
            Answer::ChangesAgain
        });
    }

    fn merge_held_changes(&mut self, context: &mut Context) {
        for change in std::mem::take(&mut self.changes.held) {
            self.on_change(context, change);
        }
        if std::mem::take(&mut self.changes.again) {
            self.catch_up_changes(context);
        }
    }
}
