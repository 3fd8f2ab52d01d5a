//! Joining and leaving a room.

use std::time::Duration;

use tokio::time::Instant;

use super::connection_state::InRoom;
use super::{AuthenticatedUser, ConnectionState, Messaging};
use crate::delivery::{Gate, JoinOutcome, OnJoined, ReplayFrom};
use crate::domain::policy::{Action, Joining, Permit};
use crate::domain::{Code, Head, Refusal, RoomId, RoomKind};

/// The longest wait for a chat's feed to deliver everything up to a join.
const FEED_TIMEOUT: Duration = Duration::from_millis(500);
const FEED_POLL_INTERVAL: Duration = Duration::from_millis(5);

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
        if room.kind() == RoomKind::Chat {
            let joining = self.join_chat(connection, room, authenticated, start, on_joined);
            // From the heap: it is larger than the join of an open room.
            return Box::pin(joining).await;
        }
        let on_joined = self.recording(&authenticated, &room, on_joined);
        self.delivery
            .join(
                room.clone(),
                authenticated.outlet,
                authenticated.username,
                start,
                on_joined,
            )
            .await?;
        self.entered(connection, room);
        Ok(())
    }

    /// Records the position of a user's first join of an open room, which has read everything before it.
    fn recording(&self, user: &AuthenticatedUser, room: &RoomId, on_joined: OnJoined) -> OnJoined {
        let Some(messages) = self.messages.clone() else {
            return on_joined;
        };
        let (by, room) = (user.reading(), room.clone());
        Box::new(move |outcome| {
            on_joined(outcome);
            messages.first_joins.record(&by, &room, outcome.head.seq);
        })
    }

    /// Joins the room of a chat. Nothing of the room reaches the connection before its membership is
    /// checked.
    async fn join_chat(
        &self,
        connection: &mut ConnectionState,
        room: RoomId,
        authenticated: AuthenticatedUser,
        start: ReplayFrom,
        on_joined: OnJoined,
    ) -> Result<(), Refusal> {
        let gate = Gate::default();
        let AuthenticatedUser {
            outlet, username, ..
        } = authenticated;
        let (outcome, replay_end) = self
            .delivery
            .join_behind(&gate, room.clone(), outlet, Some(username), start)
            .await?;
        if let Err(refusal) = self.check_still_member(connection, &room, &outcome).await {
            self.remove_from(connection, &room).await;
            return Err(refusal);
        }
        self.entered(connection, room);
        on_joined(&outcome);
        gate.open();
        // An error means that the outlet closed before the end of the replay.
        let _ = replay_end.await;
        Ok(())
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
    pub(super) fn entered(&self, connection: &mut ConnectionState, room: RoomId) {
        self.counters.joins.add(1);
        connection.rooms.insert(room, InRoom::Confirmed);
    }

    /// Checks the membership of a connection that is attached to the room of a chat: a removal before that
    /// did not find it there, and every later one does. Succeeds for other rooms.
    ///
    /// # Errors
    /// `forbidden`, `unavailable`: the join has to be undone.
    pub(super) async fn check_still_member(
        &self,
        connection: &ConnectionState,
        room: &RoomId,
        outcome: &JoinOutcome,
    ) -> Result<(), Refusal> {
        if room.kind() != RoomKind::Chat {
            return Ok(());
        }
        let authenticated = connection.authenticated()?;
        let member = if authenticated.has_account {
            // A removal that the feed has still to deliver would not find the connection either. So the
            // feed must have delivered everything up to the join where it replaces the store.
            let trusts_feed = !outcome.is_ahead || self.await_feed(room, &outcome.head).await;
            self.stored_membership_of(&authenticated.user, room, trusts_feed)
                .await?
        } else {
            None
        };
        match member {
            Some(_) => Ok(()),
            None => Err(Refusal::new(
                Code::Forbidden,
                "the user was removed from the chat",
            )),
        }
    }

    /// Waits a moment until the room's feed has delivered everything up to `head`. Returns whether it
    /// has: the bus is often one message behind the log.
    async fn await_feed(&self, room: &RoomId, head: &Head) -> bool {
        let deadline = Instant::now() + FEED_TIMEOUT;
        while !self.delivery.has_reached(room, head).await {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(FEED_POLL_INTERVAL).await;
        }
        true
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
