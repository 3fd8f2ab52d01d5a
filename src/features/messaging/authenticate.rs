//! The beginning and the end of a connection's time as its user.

use super::connection_state::InRoom;
use super::{AuthenticatedUser, ConnectionState, Messaging, NewUser};
use crate::domain::{Code, ConnId, Refusal, RoomId, UserId};

impl Messaging {
    /// Binds the connection to its user, or, when it already is bound to that user, updates the
    /// name and the scope. Takes the connection out of the rooms that the scope no longer covers,
    /// and returns those rooms: none of their events reaches the connection after the call.
    ///
    /// # Errors
    /// `already_authenticated` for another user, `too_many_connections`, `unavailable`.
    pub async fn authenticate(
        &self,
        connection: &mut ConnectionState,
        new: NewUser,
    ) -> Result<Vec<RoomId>, Refusal> {
        let user = new.user.clone();
        if let Some(bound) = &connection.user
            && bound.user != user
        {
            return Err(Refusal::new(
                Code::AlreadyAuthenticated,
                "this connection belongs to another user",
            ));
        }
        self.ready()?;
        // Even when the name is the same: another connection may have renamed the user meanwhile.
        self.backplane
            .presence
            .connect(&connection.conn, &user, &new.username)
            .await?;
        let beyond = connection.rooms_beyond(&new);
        let read_feed = connection
            .user
            .as_ref()
            .map(AuthenticatedUser::may_read_feed);
        connection.bind(new);
        let mut left = Vec::new();
        for room in beyond {
            if self.leave_uncovered_room(connection, &user, &room).await {
                left.push(room);
            }
        }
        let authenticated = connection.authenticated()?;
        // With another right to read it, the feed is heard anew.
        let is_same_right = read_feed == Some(authenticated.may_read_feed());
        if !authenticated.has_account || !is_same_right {
            self.leave_personal_feed(connection).await;
        }
        if connection.listens && connection.may_listen().is_err() {
            left.extend(self.end_listening(connection).await);
        }
        Ok(left)
    }

    /// Takes the connection out of a room that its scope doesn't cover any more. Returns whether it
    /// had joined that room.
    async fn leave_uncovered_room(
        &self,
        connection: &mut ConnectionState,
        user: &UserId,
        room: &RoomId,
    ) -> bool {
        // First, so that no further event of the room arrives even when the backplane can't be
        // reached.
        self.delivery.leave(room, &connection.conn).await;
        let told = self
            .backplane
            .presence
            .leave(&connection.conn, user, room)
            .await;
        let before = match told {
            Ok(()) => connection.rooms.remove(room),
            // The backplane may still count the connection there, so it is told when the connection
            // is lost.
            Err(_) => connection.rooms.insert(room.clone(), InRoom::Possibly),
        };
        before == Some(InRoom::Confirmed)
    }

    /// Detaches a connection from the feed of a room that its user was removed from: none of its events
    /// reaches the connection after the call. [`remove_from`](Self::remove_from) has to follow, which
    /// needs the connection's state.
    pub async fn detach(&self, conn: &ConnId, room: &RoomId) {
        self.delivery.leave(room, conn).await;
    }

    /// Takes the connection out of a room that its user was removed from. Returns whether it was there.
    pub async fn remove_from(&self, connection: &mut ConnectionState, room: &RoomId) -> bool {
        let Ok(authenticated) = connection.authenticated() else {
            return false;
        };
        let user = authenticated.user.clone();
        self.leave_uncovered_room(connection, &user, room).await
    }

    /// The connection is lost: no event reaches it any more, and its grace periods begin.
    pub async fn lost(&self, connection: &mut ConnectionState) {
        let Some(authenticated) = connection.user.take() else {
            return;
        };
        self.end_listening(connection).await;
        self.leave_personal_feed(connection).await;
        for user in connection.watched.drain() {
            self.delivery.unwatch(&user, &connection.conn).await;
        }
        let rooms: Vec<RoomId> = connection.rooms.drain().map(|(room, _)| room).collect();
        for room in &rooms {
            self.delivery.leave(room, &connection.conn).await;
        }
        self.backplane
            .presence
            .connection_lost(&connection.conn, &authenticated.user, &rooms)
            .await;
    }
}
