//! Typing notifications.

use super::{ConnectionState, Messaging};
use crate::backplane::Typing;
use crate::domain::Refusal;
use crate::domain::policy::{Permit, Sending};

impl Messaging {
    /// Notifies the room's other occupants that the connection's user has begun or stopped typing.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn typing(
        &self,
        connection: &ConnectionState,
        permit: Permit<Sending>,
        typing: bool,
    ) -> Result<(), Refusal> {
        let authenticated = connection.authenticated()?;
        let typing = Typing {
            room: permit.into_room(),
            user: authenticated.user.clone(),
            username: authenticated.username.clone(),
            typing,
        };
        self.ready()?;
        self.backplane.bus.publish_typing(&typing).await?;
        Ok(())
    }
}
