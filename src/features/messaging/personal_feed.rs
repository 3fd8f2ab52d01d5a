//! The personal feed: the room that the connections of an account hear without joining it.

use std::sync::Arc;

use super::connection_state::AuthenticatedUser;
use super::{ConnectionState, Messaging};
use crate::delivery::{CloseReason, OnChange, OnReset, Outlet, ReplayFrom, SharedEvent};
use crate::domain::{ConnId, Refusal, RoomId, TokenScope, UserId};

/// The outlet of a connection that may not read its user's feed: the feed is attached all the same, so
/// that this node learns of the session's end.
struct Muted(Arc<dyn Outlet>);

impl Outlet for Muted {
    fn conn(&self) -> &ConnId {
        self.0.conn()
    }

    fn user(&self) -> &UserId {
        self.0.user()
    }

    fn deliver(&self, _: &SharedEvent) {}

    fn has_capacity(&self) -> bool {
        true
    }

    fn when_writable(&self, wake: Box<dyn FnOnce() + Send>) {
        wake();
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&self, _: CloseReason) {}
}

impl AuthenticatedUser {
    /// Whether the connection's token may read the personal feed.
    pub(super) fn may_read_feed(&self) -> bool {
        self.scope.require(TokenScope::Read).is_ok()
    }
}

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
        let outlet: Arc<dyn Outlet> = match authenticated.may_read_feed() {
            true => authenticated.outlet.clone(),
            false => Arc::new(Muted(authenticated.outlet.clone())),
        };
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
