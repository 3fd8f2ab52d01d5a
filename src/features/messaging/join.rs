//! Joining and leaving a room.

use super::connection_state::InRoom;
use super::{AuthenticatedUser, ConnectionState, Messaging};
use crate::delivery::{OnJoined, ReplayFrom};
use crate::domain::policy::{Action, Joining, Permit};
use crate::domain::{Code, Refusal, RoomId, RoomKind};

impl Messaging {
    /// Puts the connection into the room, as [`Delivery::join`](crate::delivery::Delivery::join);
    /// returns when the replay is over.
    ///
    /// # Errors
    /// `unauthorized`, `too_many_rooms`, `forbidden`, `unavailable`, `overloaded`, `internal`;
    /// `on_joined` is not called then.
    pub async fn join(
        &self,
        connection: &mut ConnectionState,
        permit: Permit<Joining>,
        start: ReplayFrom,
        on_joined: OnJoined,
    ) -> Result<(), Refusal> {
        let start = start.above(permit.hidden_seq());
        let room = permit.into_room();
        let authenticated = self.begin_join(connection, &room, 0).await?;
        self.delivery
            .join(
                room.clone(),
                authenticated.outlet,
                authenticated.username,
                start,
                on_joined,
            )
            .await?;
        self.confirm_join(connection, room).await
    }

    /// Checks whether the connection may enter the room beside so many others that it is entering, and
    /// remembers that it tries to.
    pub(super) async fn begin_join(
        &self,
        connection: &mut ConnectionState,
        room: &RoomId,
        entering: usize,
    ) -> Result<AuthenticatedUser, Refusal> {
        self.ready()?;
        let authenticated = connection.authenticated()?.clone();
        self.check_number_of_rooms(connection, room, entering)?;
        self.authorize(Action::Join, &authenticated.user, room)
            .await?;
        // Until the answer is known, the backplane may or may not count this connection in the
        // room: so it has to be told when the connection is lost.
        connection
            .rooms
            .entry(room.clone())
            .or_insert(InRoom::Possibly);
        Ok(authenticated)
    }

    /// The connection has entered the room.
    ///
    /// # Errors
    /// `forbidden` if its user was removed from the chat meanwhile, `unavailable`: the connection is out
    /// of the room then.
    pub(super) async fn confirm_join(
        &self,
        connection: &mut ConnectionState,
        room: RoomId,
    ) -> Result<(), Refusal> {
        self.counters.joins.add(1);
        connection.rooms.insert(room.clone(), InRoom::Confirmed);
        if room.kind() == RoomKind::Chat {
            self.check_still_member(connection, &room).await?;
        }
        Ok(())
    }

    /// Takes the connection out of a chat that its user was removed from while it joined: the removal did
    /// not find it there.
    async fn check_still_member(
        &self,
        connection: &mut ConnectionState,
        room: &RoomId,
    ) -> Result<(), Refusal> {
        let refusal = match self.stored_membership(connection, room).await {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => Refusal::new(Code::Forbidden, "the user was removed from the chat"),
            Err(refusal) => refusal,
        };
        // First, so that no further event arrives even when the backplane can't be reached.
        self.delivery.leave(room, &connection.conn).await;
        self.leave(connection, room).await?;
        Err(refusal)
    }

    /// A connection may join `rooms_per_socket` rooms. Failed joins are remembered too, so that the
    /// backplane can be told of the connection's loss; the memory for them is bounded by four times
    /// that number.
    fn check_number_of_rooms(
        &self,
        connection: &ConnectionState,
        room: &RoomId,
        entering: usize,
    ) -> Result<(), Refusal> {
        if connection.is_in(room) {
            return Ok(());
        }
        let limit = self.limits.rooms_per_socket;
        let confirmed = connection
            .rooms
            .values()
            .filter(|in_room| **in_room == InRoom::Confirmed)
            .count();
        if confirmed + entering >= limit || connection.rooms.len() >= 4 * limit {
            let text = format!("a connection may be in at most {limit} rooms");
            return Err(Refusal::new(Code::TooManyRooms, text));
        }
        Ok(())
    }

    /// Takes the connection out of the room. No event of the room reaches it after the call.
    ///
    /// # Errors
    /// `not_in_room`; `unavailable`: it is still in the room then.
    pub async fn leave(
        &self,
        connection: &mut ConnectionState,
        room: &RoomId,
    ) -> Result<(), Refusal> {
        let user = connection.authenticated()?.user.clone();
        // A join that failed without an answer may have happened, so that room can be left too.
        if !connection.rooms.contains_key(room) {
            return Err(Refusal::new(Code::NotInRoom, "join the room first"));
        }
        self.ready()?;
        self.backplane
            .presence
            .leave(&connection.conn, &user, room)
            .await?;
        self.delivery.leave(room, &connection.conn).await;
        connection.rooms.remove(room);
        Ok(())
    }
}
