//! Presence in memory: each step changes one room or one user, behind one lock.

use async_trait::async_trait;
use tokio::time::Instant;

use super::Memory;
use crate::backplane::{BusTopic, Changes, Joined, OccupantPage, Presence, Result, Roster};
use crate::domain::{ConnId, Limits, OnlineStatus, RoomChange, RoomId, UserId, Username};

#[async_trait]
impl Presence for Memory {
    async fn connect(&self, conn: &ConnId, user: &UserId, username: &Username) -> Result<()> {
        let mut shard = self.users.of(user).lock();
        let entry = shard.entries.entry(user.clone()).or_default();
        let status = entry.connect(conn, user, username, self.limits.sockets_per_user)?;
        self.publish_status(status);
        Ok(())
    }

    async fn join(
        &self,
        conn: &ConnId,
        user: &UserId,
        username: &Username,
        room: &RoomId,
    ) -> Result<Joined> {
        loop {
            let joined = self.with_room(room, |entry| {
                let change = entry.occupants.join(conn, user, username);
                self.publish_change(room, change);
                Joined {
                    span: entry.span(&self.limits),
                    roster: entry.occupants.roster(Limits::ROSTER, Some(user)),
                }
            })?;
            if let Some(joined) = joined {
                return Ok(joined);
            }
            self.restored(room).await?;
        }
    }

    async fn leave(&self, conn: &ConnId, _user: &UserId, room: &RoomId) -> Result<()> {
        self.with_known_room(room, |entry| {
            let change = entry.occupants.leave(conn);
            self.publish_change(room, change);
        });
        Ok(())
    }

    async fn connection_lost(&self, conn: &ConnId, user: &UserId, rooms: &[RoomId]) {
        let until = Instant::now() + self.limits.presence_grace;
        for room in rooms {
            let mut shard = self.rooms.of(room).lock();
            if shard
                .entries
                .get_mut(room)
                .is_some_and(|entry| entry.occupants.connection_lost(conn, until))
            {
                shard.graces.push((until, room.clone(), user.clone()));
            }
        }
        let mut shard = self.users.of(user).lock();
        if shard
            .entries
            .get_mut(user)
            .is_some_and(|entry| entry.connection_lost(conn, until))
        {
            shard.graces.push((until, user.clone(), user.clone()));
        }
    }

    async fn roster(&self, room: &RoomId, limit: usize) -> Result<Roster> {
        let roster = self.with_known_room(room, |entry| entry.occupants.roster(limit, None));
        Ok(roster.unwrap_or_else(Roster::empty))
    }

    async fn members(
        &self,
        room: &RoomId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<OccupantPage> {
        let page = self.with_known_room(room, |entry| entry.occupants.members(after, limit));
        Ok(page.unwrap_or(OccupantPage {
            members: Vec::new(),
            total: 0,
            next: None,
        }))
    }

    async fn is_occupant(&self, room: &RoomId, user: &UserId) -> Result<bool> {
        let is_occupant = self.with_known_room(room, |entry| entry.occupants.is_occupant(user));
        Ok(is_occupant.unwrap_or(false))
    }

    async fn room_changes(&self, room: &RoomId, version: u64) -> Result<Changes<RoomChange>> {
        let changes = self.with_known_room(room, |entry| entry.occupants.changes_after(version));
        Ok(changes.unwrap_or_else(|| changes_of_unknown(version)))
    }

    async fn connections(&self, user: &UserId) -> Result<Vec<ConnId>> {
        let shard = self.users.of(user).lock();
        Ok(shard
            .entries
            .get(user)
            .map(|entry| entry.connections())
            .unwrap_or_default())
    }

    async fn status(&self, user: &UserId) -> Result<OnlineStatus> {
        let shard = self.users.of(user).lock();
        let known = shard.entries.get(user).map(|entry| entry.status(user));
        Ok(known.unwrap_or_else(|| OnlineStatus::never_seen(user.clone())))
    }

    async fn status_changes(&self, user: &UserId, version: u64) -> Result<Changes<OnlineStatus>> {
        let shard = self.users.of(user).lock();
        let known = shard
            .entries
            .get(user)
            .map(|entry| entry.changes_after(version));
        Ok(known.unwrap_or_else(|| changes_of_unknown(version)))
    }

    async fn versions(&self, topics: &[BusTopic]) -> Result<Vec<u64>> {
        let version = |topic: &BusTopic| match topic {
            BusTopic::Room(room) => self.with_known_room(room, |entry| entry.occupants.version()),
            BusTopic::User(user) => self
                .users
                .of(user)
                .lock()
                .entries
                .get(user)
                .map(|entry| entry.status(user).version),
            BusTopic::Nodes => None,
        };
        Ok(topics
            .iter()
            .map(|topic| version(topic).unwrap_or(0))
            .collect())
    }
}

/// The changes after `version` of a room or user that isn't known: version 0 is its state.
fn changes_of_unknown<T>(version: u64) -> Changes<T> {
    if version == 0 {
        Changes::Since(Vec::new())
    } else {
        Changes::TooOld
    }
}
