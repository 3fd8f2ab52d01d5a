//! The personal feed: the room that the connections of an account hear without joining it.

use super::{ConnectionState, Messaging};
use crate::delivery::{OnChange, OnReset, ReplayFrom};
use crate::domain::{Refusal, RoomId};

impl Messaging {
    /// Attaches the connection to its user's personal feed. Every change that is announced after the
    /// call reaches the connection, until it is lost. A second call has no effect.
    ///
    /// # Errors
    /// `unauthorized` before the connection has a user; `unavailable`, `overloaded`, `internal`.
    pub async fn hear_personal_feed(
        &self,
        connection: &mut ConnectionState,
    ) -> Result<(), Refusal> {
        if connection.personal.is_some() {
            return Ok(());
        }
        let authenticated = connection.authenticated()?;
        let room = RoomId::personal(&authenticated.user);
        let outlet = authenticated.outlet.clone();
        // Before the call: it may attach the outlet also when it fails.
        connection.personal = Some(room.clone());
        let listening = self
            .delivery
            .listen(room, outlet, ReplayFrom::Live, Box::new(|_| {}))
            .await;
        if let Err(error) = listening {
            self.leave_personal_feed(connection).await;
            return Err(error.into());
        }
        Ok(())
    }

    /// Detaches the connection from its user's personal feed.
    pub(super) async fn leave_personal_feed(&self, connection: &mut ConnectionState) {
        if let Some(room) = connection.personal.take() {
            self.delivery.leave(&room, &connection.conn).await;
        }
    }

    /// Sets the handler of resets of chats and personal feeds. Called once.
    pub fn on_reset(&self, on_reset: OnReset) {
        self.delivery.on_reset(on_reset);
    }

    /// Sets the handler of the changes that rooms with connections on this node reach. Called once.
    pub fn on_change(&self, on_change: OnChange) {
        self.delivery.on_change(on_change);
    }
}
