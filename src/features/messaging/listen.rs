//! Receiving broadcasts.

use std::sync::Arc;

use super::{ConnectionState, Messaging};
use crate::delivery::{OnJoined, Outlet, ReplayFrom};
use crate::domain::policy::{Listening, Permit};
use crate::domain::{Refusal, RoomId};

impl Messaging {
    /// Attaches the outlet to broadcasts, as
    /// [`Delivery::listen`](crate::delivery::Delivery::listen); returns when the replay is over.
    /// The outlet receives broadcasts until the connection is lost, or a new token of it excludes
    /// them.
    ///
    /// # Errors
    /// `unavailable`, `overloaded`, `internal`; `on_joined` is not called then.
    pub async fn listen(
        &self,
        connection: &mut ConnectionState,
        permit: Permit<Listening>,
        outlet: Arc<dyn Outlet>,
        start: ReplayFrom,
        on_joined: OnJoined,
    ) -> Result<(), Refusal> {
        self.ready()?;
        connection.listens = true;
        self.delivery
            .listen(permit.into_room(), outlet, start, on_joined)
            .await?;
        Ok(())
    }

    /// Detaches the connection from broadcasts: none reaches it after the call. Returns their room,
    /// if it was attached.
    pub(super) async fn end_listening(&self, connection: &mut ConnectionState) -> Option<RoomId> {
        if !std::mem::take(&mut connection.listens) {
            return None;
        }
        let room = RoomId::broadcast();
        self.delivery.leave(&room, &connection.conn).await;
        Some(room)
    }
}
