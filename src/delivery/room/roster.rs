//! The lists of occupants that a room's connections receive as `room_users`: in a large room
//! instead of each join and leave, and wherever changes are no longer known.

use std::time::Duration;

use tokio::time::Instant;

use super::super::context::Context;
use super::super::{Event, SharedEvent};
use super::{FeedEvent, RoomFeed};
use crate::backplane::{Result, Roster};
use crate::domain::{Limits, UserId};

/// The least time between two `room_users` of a large room, or after occupants were restored.
const ROSTER_INTERVAL: Duration = Duration::from_secs(1);

/// A `room_users` that is to be sent.
#[derive(Clone, Copy)]
pub(super) struct ScheduledRoster {
    at: Instant,
    detail: RosterDetail,
}

/// The content of a `room_users`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RosterDetail {
    /// Only the number of occupants.
    Number,
    /// Their ids too.
    Ids,
}

/// The reason for which the list of occupants is read.
#[derive(Clone, Copy)]
pub(crate) enum RosterPurpose {
    /// To send a scheduled `room_users`.
    Scheduled,
    /// To replace changes that the backplane no longer keeps, for the catch-up of that ticket.
    CatchUp(u64),
}

impl RoomFeed {
    /// In a large room, the number that a joining occupant got may be older than the one that was
    /// published: publishes it again.
    pub(super) fn republish_number(&mut self, context: &mut Context, version: u64) {
        if self.changes.is_large && self.changes.has_passed(version) {
            self.schedule_roster(context, RosterDetail::Number);
        }
    }

    /// Schedules a `room_users` with the occupants' ids.
    pub(super) fn schedule_full_roster(&mut self, context: &mut Context) {
        self.schedule_roster(context, RosterDetail::Ids);
    }

    /// Schedules a `room_users`, at least [`ROSTER_INTERVAL`] after the last one. Of several
    /// requests until then, the most detailed counts.
    pub(super) fn schedule_roster(&mut self, context: &mut Context, detail: RosterDetail) {
        if let Some(scheduled) = &mut self.changes.scheduled {
            scheduled.detail = scheduled.detail.max(detail);
            return;
        }
        let at = match self.changes.last_roster {
            Some(last) => last + ROSTER_INTERVAL,
            None => Instant::now(),
        };
        self.changes.scheduled = Some(ScheduledRoster { at, detail });
        context.call_at(at, &self.room);
    }

    pub(super) fn on_roster_timer(&mut self, context: &mut Context, now: Instant) {
        let Some(scheduled) = self.changes.scheduled else {
            return;
        };
        if scheduled.at > now {
            return;
        }
        self.changes.scheduled = None;
        self.changes.last_roster = Some(now);
        if scheduled.detail == RosterDetail::Ids && !self.changes.is_large {
            self.read_roster(context, RosterPurpose::Scheduled);
            return;
        }
        let shared = self.room_users(Vec::new());
        for occupant in self.occupants.iter_mut() {
            occupant.deliver_change(&shared);
        }
    }

    fn room_users(&self, users: Vec<UserId>) -> SharedEvent {
        SharedEvent::new(Event::RoomUsers {
            room: self.room.clone(),
            users,
            total: self.changes.total,
        })
    }

    pub(super) fn read_roster(&self, context: &Context, purpose: RosterPurpose) {
        let (presence, room) = (context.backplane.presence.clone(), self.room.clone());
        context.read(&self.room, async move {
            FeedEvent::Roster(purpose, presence.roster(&room, Limits::ROSTER).await)
        });
    }

    pub(super) fn on_roster(
        &mut self,
        context: &mut Context,
        purpose: RosterPurpose,
        roster: Result<Roster>,
    ) {
        match purpose {
            RosterPurpose::Scheduled => self.on_scheduled_roster(context, roster),
            RosterPurpose::CatchUp(ticket) => self.on_catch_up_roster(context, ticket, roster),
        }
    }

    fn on_scheduled_roster(&mut self, context: &mut Context, roster: Result<Roster>) {
        match roster {
            // Occupants may have received newer changes while it was read; then it is read again.
            Ok(roster) if !self.changes.has_passed(roster.version) => {
                self.deliver_roster(context, roster);
            }
            Ok(_) => self.schedule_full_roster(context),
            Err(_) => {
                self.changes.last_roster = Some(Instant::now());
                self.schedule_full_roster(context);
            }
        }
    }

    fn on_catch_up_roster(&mut self, context: &mut Context, ticket: u64, roster: Result<Roster>) {
        if !self.changes.cursor.awaits(ticket) {
            return;
        }
        let Ok(roster) = roster else {
            context.retry(&self.room, FeedEvent::RetryChanges(ticket));
            return;
        };
        if roster.version < self.changes.read_from {
            // The backplane has lost changes that occupants have received. Its own state counts,
            // and later changes follow that one.
            self.changes.cursor.set_position(roster.version);
            self.changes.recent.clear();
            for occupant in self.occupants.iter_mut() {
                occupant.changes_from = 0;
            }
        }
        self.deliver_roster(context, roster);
        self.changes.cursor.finish_read();
        self.apply_held_changes(context);
    }

    /// Delivers the list to every occupant that doesn't have it, or a newer one, already.
    fn deliver_roster(&mut self, context: &Context, roster: Roster) {
        let version = roster.version;
        if !self.changes.has_passed(version) {
            self.changes.cursor.set_position(version);
        }
        self.changes.set_total(context, roster.total);
        let users = if self.changes.is_large {
            Vec::new()
        } else {
            roster.users
        };
        let shared = self.room_users(users);
        for occupant in self.occupants.iter_mut() {
            if occupant.changes_from < version {
                occupant.changes_from = version;
                occupant.deliver_change(&shared);
            }
        }
    }
}
