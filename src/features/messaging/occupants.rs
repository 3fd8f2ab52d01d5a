//! The occupants of a room.

use super::{Messaging, OccupantPage};
use crate::domain::policy::{Permit, Reading};
use crate::domain::{Refusal, RoomId, UserId};

impl Messaging {
    /// A page of a room's occupants with ids greater than `after`, in the order of their ids.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn members(
        &self,
        permit: &Permit<Reading>,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<OccupantPage, Refusal> {
        self.ready()?;
        Ok(self
            .backplane
            .presence
            .members(permit.room(), after, limit)
            .await?)
    }

    /// The number of a room's occupants.
    pub(in crate::features) async fn occupant_count(&self, room: &RoomId) -> Result<u64, Refusal> {
        self.ready()?;
        Ok(self.backplane.presence.members(room, None, 1).await?.total)
    }

    /// Returns whether the user is in the room now.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn is_occupant(&self, room: &RoomId, user: &UserId) -> Result<bool, Refusal> {
        self.ready()?;
        Ok(self.backplane.presence.is_occupant(room, user).await?)
    }
}
