//! The user of a change, with the rights that count when the change is made.

use super::{Messages, no_such_message};
use crate::domain::policy::{Relation, RoomRights, RoomScope};
use crate::domain::{Membership, Refusal, RoomId, UserId};

/// A user that changes messages of a room, by whichever door.
#[derive(Debug, Clone)]
pub struct ChangingUser {
    /// The user.
    pub user: UserId,
    /// The room.
    pub room: RoomId,
    scope: RoomScope,
    is_admin: bool,
    relation: Relation,
    member: Option<Membership>,
}

impl ChangingUser {
    /// The user with these rights.
    #[must_use]
    pub fn new(user: &UserId, rights: &RoomRights<'_>) -> Self {
        Self {
            user: user.clone(),
            room: rights.room.clone(),
            scope: rights.scope.clone(),
            is_admin: rights.is_admin,
            relation: rights.relation,
            member: rights.member,
        }
    }

    /// The rights of the user.
    #[must_use]
    pub fn rights(&self) -> RoomRights<'_> {
        RoomRights {
            scope: &self.scope,
            is_admin: self.is_admin,
            relation: self.relation,
            room: &self.room,
            member: self.member,
        }
    }
}

impl Messages {
    /// Reads the rights of a member again: they may have changed since the change was requested. That the
    /// user has left the room meanwhile does not count, as the request came before.
    pub(super) async fn refresh(&self, by: &mut ChangingUser) -> Result<(), Refusal> {
        if by.member.is_none() {
            return Ok(());
        }
        by.member = self.messaging.membership_of(&by.user, &by.room).await?;
        if by.member.is_none() && !by.is_admin {
            return Err(no_such_message());
        }
        Ok(())
    }
}
