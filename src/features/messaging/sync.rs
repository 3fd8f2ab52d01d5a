//! Resuming the personal feed and many rooms by one request.

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};

use super::{AuthenticatedUser, ConnectionState, Messaging};
use crate::delivery::{Gate, JoinOutcome, ReplayEnd, ReplayFrom};
use crate::domain::policy::{Joining, Permit};
use crate::domain::{Refusal, RoomId};

/// Rooms that one request enters at the same time.
const CONCURRENT_JOINS: usize = 16;

/// The position from which the personal feed is resumed, and the rooms to enter.
#[derive(Debug)]
pub struct SyncRequest {
    /// The feed's position.
    pub feed: ReplayFrom,
    /// The rooms, each with its position; or the reason why the connection may not enter it.
    pub rooms: Vec<(RoomId, ReplayFrom, Result<Permit<Joining>, Refusal>)>,
}

/// The result of a [`SyncRequest`].
#[derive(Debug)]
pub struct SyncOutcome {
    /// The personal feed; `None` for a user without an account.
    pub feed: Option<(RoomId, Result<JoinOutcome, Refusal>)>,
    /// The rooms, in the order of the request.
    pub rooms: Vec<(RoomId, Result<JoinOutcome, Refusal>)>,
}

/// The outcome of one room, and the end of its replay.
type Entered = Result<(JoinOutcome, ReplayEnd), Refusal>;

/// The reason why a connection is not in a room.
enum NotEntered {
    /// It is not attached.
    Refused(Refusal),
    /// It is attached, and not proved to be a member of the chat.
    NoMember(Refusal),
}

impl Messaging {
    /// Resumes the personal feed and enters the rooms. `on_synced` is called before any of their events
    /// reaches the connection; the call returns when all replays are over. A room that the connection
    /// can't enter doesn't affect the others.
    ///
    /// # Errors
    /// `unauthorized` before the connection has a user.
    pub async fn sync(
        &self,
        connection: &mut ConnectionState,
        request: SyncRequest,
        on_synced: impl FnOnce(&SyncOutcome),
    ) -> Result<(), Refusal> {
        connection.authenticated()?;
        let gate = Gate::default();
        let feed = self.resume_feed(connection, &gate, request.feed).await;
        let rooms = self.enter_rooms(connection, &gate, request.rooms).await;
        let mut replays = Vec::new();
        let mut split = |(room, entered): (RoomId, Entered)| {
            let outcome = entered.map(|(outcome, replay_end)| {
                replays.push(replay_end);
                outcome
            });
            (room, outcome)
        };
        let outcome = SyncOutcome {
            feed: feed.map(&mut split),
            rooms: rooms.into_iter().map(&mut split).collect(),
        };
        on_synced(&outcome);
        gate.open();
        // An error means that the outlet closed before the end of its replay.
        join_all(replays).await;
        Ok(())
    }

    async fn resume_feed(
        &self,
        connection: &ConnectionState,
        gate: &Gate,
        from: ReplayFrom,
    ) -> Option<(RoomId, Entered)> {
        let room = connection.personal.clone()?;
        let authenticated = connection.authenticated().ok()?;
        if !authenticated.may_read_feed() {
            return None;
        }
        let outlet = authenticated.outlet.clone();
        let attached = self
            .delivery
            .join_behind(gate, room.clone(), outlet, None, from)
            .await;
        Some((room, attached.map_err(Refusal::from)))
    }

    async fn enter_rooms(
        &self,
        connection: &mut ConnectionState,
        gate: &Gate,
        rooms: Vec<(RoomId, ReplayFrom, Result<Permit<Joining>, Refusal>)>,
    ) -> Vec<(RoomId, Entered)> {
        let (mut begun, mut entering) = (Vec::new(), 0);
        for (room, from, permit) in rooms {
            let (from, user) = match permit {
                Ok(permit) => {
                    let from = from.above(permit.hidden_seq());
                    let is_new = !connection.is_in(permit.room());
                    let user = self.begin_join(connection, permit.room(), entering).await;
                    entering += usize::from(is_new && user.is_ok());
                    (from, user)
                }
                Err(refusal) => (from, Err(refusal)),
            };
            begun.push((room, from, user));
        }
        let state = &*connection;
        let enter = |(room, from, user): (RoomId, ReplayFrom, Result<_, Refusal>)| async move {
            let user: AuthenticatedUser = match user {
                Ok(user) => user,
                Err(refusal) => return (room, Err(NotEntered::Refused(refusal))),
            };
            let attached = self.attach_behind(state, gate, &room, user, from).await;
            (room, attached)
        };
        let entered: Vec<_> = stream::iter(begun.into_iter().map(enter))
            .buffered(CONCURRENT_JOINS)
            .collect()
            .await;
        let mut outcomes = Vec::with_capacity(entered.len());
        for (room, attached) in entered {
            let outcome = match attached {
                Ok(entered) => {
                    self.entered(connection, room.clone());
                    Ok(entered)
                }
                Err(NotEntered::Refused(refusal)) => Err(refusal),
                Err(NotEntered::NoMember(refusal)) => {
                    self.remove_from(connection, &room).await;
                    Err(refusal)
                }
            };
            outcomes.push((room, outcome));
        }
        outcomes
    }

    /// Attaches the connection to the room, and checks its membership of a chat.
    async fn attach_behind(
        &self,
        connection: &ConnectionState,
        gate: &Gate,
        room: &RoomId,
        user: AuthenticatedUser,
        from: ReplayFrom,
    ) -> Result<(JoinOutcome, ReplayEnd), NotEntered> {
        let by = user.reading();
        let (outlet, name) = (user.outlet, Some(user.username));
        let attached = self
            .delivery
            .join_behind(gate, room.clone(), outlet, name, from)
            .await;
        let (outcome, replay_end) = attached.map_err(|error| NotEntered::Refused(error.into()))?;
        self.check_still_member(connection, room, &outcome)
            .await
            .map_err(NotEntered::NoMember)?;
        if let Some(messages) = &self.messages {
            messages.first_joins.record(&by, room, outcome.head.seq);
        }
        Ok((outcome, replay_end))
    }
}
