//! The members of one room of the embedded backplane, and their changes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use ahash::HashMap;
use tokio::time::Instant;

use super::CHANGES_KEPT;
use super::user::changes_after;
use crate::backplane::{Changes, OccupantPage, Roster};
use crate::domain::{ChangeKind, ConnId, RoomChange, Timestamp, UserId, Username};

#[derive(Debug)]
struct Occupant {
    username: Username,
    /// Live connections in this room.
    connections: usize,
    /// While set, the user is a member even without a connection.
    grace_until: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Occupants {
    members: BTreeMap<UserId, Occupant>,
    connections: HashMap<ConnId, UserId>,
    version: u64,
    changes: VecDeque<RoomChange>,
}

impl Occupants {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn change(&mut self, kind: ChangeKind, user: &UserId, username: Username) -> RoomChange {
        let previous = self.version;
        self.version = (previous + 1).max(Timestamp::now().0);
        let total = self.members.len() as u64;
        let change = RoomChange {
            version: self.version,
            previous,
            kind,
            user: user.clone(),
            username,
            total,
        };
        self.changes.push_back(change.clone());
        if self.changes.len() > CHANGES_KEPT {
            self.changes.pop_front();
        }
        change
    }

    pub(super) fn join(
        &mut self,
        conn: &ConnId,
        user: &UserId,
        username: &Username,
    ) -> Option<RoomChange> {
        let new_connection = self
            .connections
            .insert(conn.clone(), user.clone())
            .is_none();
        let known = self.members.contains_key(user);
        let member = self
            .members
            .entry(user.clone())
            .or_insert_with(|| Occupant {
                username: username.clone(),
                connections: 0,
                grace_until: None,
            });
        member.username = username.clone();
        member.grace_until = None;
        member.connections += usize::from(new_connection);
        if known {
            None
        } else {
            Some(self.change(ChangeKind::Joined, user, username.clone()))
        }
    }

    pub(super) fn leave(&mut self, conn: &ConnId) -> Option<RoomChange> {
        let user = self.connections.remove(conn)?;
        let member = self.members.get_mut(&user)?;
        member.connections -= 1;
        if member.connections == 0 && member.grace_until.is_none() {
            self.remove_member(&user)
        } else {
            None
        }
    }

    /// Removes a lost connection. Returns true if this began or prolonged the user's grace.
    pub(super) fn connection_lost(&mut self, conn: &ConnId, until: Instant) -> bool {
        let Some(user) = self.connections.remove(conn) else {
            return false;
        };
        let Some(member) = self.members.get_mut(&user) else {
            return false;
        };
        member.connections -= 1;
        member.grace_until = Some(until);
        true
    }

    pub(super) fn end_grace(&mut self, user: &UserId, now: Instant) -> Option<RoomChange> {
        let member = self.members.get_mut(user)?;
        if member.grace_until.is_none_or(|until| until > now) {
            return None;
        }
        member.grace_until = None;
        if member.connections == 0 {
            self.remove_member(user)
        } else {
            None
        }
    }

    fn remove_member(&mut self, user: &UserId) -> Option<RoomChange> {
        let member = self.members.remove(user)?;
        Some(self.change(ChangeKind::Left, user, member.username))
    }

    pub(super) fn roster(&self, limit: usize, including: Option<&UserId>) -> Roster {
        let mut users: Vec<UserId> = self.members.keys().take(limit).cloned().collect();
        if let Some(joiner) = including
            && self.members.len() > limit
            && !users.contains(joiner)
        {
            users.pop();
            users.push(joiner.clone());
        }
        Roster {
            users,
            total: self.members.len() as u64,
            version: self.version,
        }
    }

    pub(super) fn members(&self, after: Option<&UserId>, limit: usize) -> OccupantPage {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.members.range((from, Bound::Unbounded));
        let page: Vec<_> = rest
            .by_ref()
            .take(limit)
            .map(|(id, member)| (id.clone(), member.username.clone()))
            .collect();
        let next = match page.last() {
            Some((id, _)) if rest.next().is_some() => Some(id.clone()),
            _ => None,
        };
        OccupantPage {
            members: page,
            total: self.members.len() as u64,
            next,
        }
    }

    pub(super) fn is_occupant(&self, user: &UserId) -> bool {
        self.members.contains_key(user)
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn changes_after(&self, version: u64) -> Changes<RoomChange> {
        changes_after(&self.changes, self.version, version, |change| {
            (change.previous, change.version)
        })
    }
}
