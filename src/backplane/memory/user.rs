//! One user of the embedded backplane: connections, status and changes. Locking and publishing are
//! done by the caller.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::CHANGES_KEPT;
use crate::backplane::{BackplaneError, Changes, Result};
use crate::domain::{ConnId, OnlineStatus, Timestamp, UserId, Username};

#[derive(Debug)]
pub(super) struct User {
    username: Option<Username>,
    /// Sorted. Most users have one connection, and a vector of one takes the least memory.
    connections: Vec<ConnId>,
    grace_until: Option<Instant>,
    online: bool,
    last_offline: Option<Timestamp>,
    version: u64,
    previous: u64,
    changes: VecDeque<OnlineStatus>,
    last_use: Instant,
}

impl Default for User {
    fn default() -> Self {
        Self {
            username: None,
            connections: Vec::new(),
            grace_until: None,
            online: false,
            last_offline: None,
            version: 0,
            previous: 0,
            changes: VecDeque::new(),
            last_use: Instant::now(),
        }
    }
}

impl User {
    /// Registers a connection. Returns the change if the user goes online by it.
    pub(super) fn connect(
        &mut self,
        conn: &ConnId,
        user: &UserId,
        username: &Username,
        most: usize,
    ) -> Result<Option<OnlineStatus>> {
        if let Err(index) = self.connections.binary_search(conn) {
            if self.connections.len() >= most {
                return Err(BackplaneError::TooManyConnections);
            }
            if self.connections.is_empty() {
                self.connections.reserve_exact(1);
            }
            self.connections.insert(index, conn.clone());
        }
        self.last_use = Instant::now();
        self.username = Some(username.clone());
        self.grace_until = None;
        Ok(self.set_online(user, true))
    }

    pub(super) fn connections(&self) -> Vec<ConnId> {
        self.connections.clone()
    }

    /// Removes a lost connection. Returns true if this began or prolonged the user's grace.
    pub(super) fn connection_lost(&mut self, conn: &ConnId, until: Instant) -> bool {
        let Ok(index) = self.connections.binary_search(conn) else {
            return false;
        };
        self.connections.remove(index);
        self.grace_until = Some(until);
        true
    }

    pub(super) fn end_grace(&mut self, user: &UserId, now: Instant) -> Option<OnlineStatus> {
        if self.grace_until.is_none_or(|until| until > now) {
            return None;
        }
        self.grace_until = None;
        self.last_use = now;
        if self.connections.is_empty() {
            self.set_online(user, false)
        } else {
            None
        }
    }

    /// Sets the status; returns the change if there is one.
    fn set_online(&mut self, user: &UserId, online: bool) -> Option<OnlineStatus> {
        if self.online == online {
            return None;
        }
        self.online = online;
        let now = Timestamp::now();
        if !online {
            self.last_offline = Some(now);
        }
        self.previous = self.version;
        self.version = (self.version + 1).max(now.0);
        let status = self.status(user);
        if self.changes.is_empty() {
            self.changes.reserve_exact(1);
        }
        self.changes.push_back(status.clone());
        if self.changes.len() > CHANGES_KEPT {
            self.changes.pop_front();
        }
        Some(status)
    }

    pub(super) fn status(&self, user: &UserId) -> OnlineStatus {
        OnlineStatus {
            user: user.clone(),
            username: self.username.clone(),
            online: self.online,
            last_seen: if self.online {
                Some(Timestamp::now())
            } else {
                self.last_offline
            },
            version: self.version,
            previous: self.previous,
        }
    }

    pub(super) fn changes_after(&self, version: u64) -> Changes<OnlineStatus> {
        changes_after(&self.changes, self.version, version, |status| {
            (status.previous, status.version)
        })
    }

    pub(super) fn is_expired(&self, now: Instant, ttl: Duration) -> bool {
        !self.online && self.connections.is_empty() && now.duration_since(self.last_use) >= ttl
    }
}

/// The changes that follow `version`. `numbers` gives a change's previous version and its own;
/// `newest` is the version of the last change.
pub(super) fn changes_after<T: Clone>(
    changes: &VecDeque<T>,
    newest: u64,
    version: u64,
    numbers: impl Fn(&T) -> (u64, u64),
) -> Changes<T> {
    if version == newest {
        return Changes::Since(Vec::new());
    }
    match changes
        .iter()
        .position(|change| numbers(change).0 == version)
    {
        Some(first) => Changes::Since(changes.range(first..).cloned().collect()),
        None => Changes::TooOld,
    }
}
