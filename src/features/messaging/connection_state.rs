//! The state of one connection: its user, its rooms and the users that it watches. Its owner is the
//! code that processes the connection's requests, one after another.

use std::sync::Arc;

use ahash::{HashMap, HashSet};

use crate::delivery::Outlet;
use crate::domain::policy::{
    self, Joining, Listening, Permit, Reading, Relation, RoomScope, Sending,
};
use crate::domain::{Code, ConnId, Refusal, RoomId, UserId, Username};

/// Creates the outlet of a connection once its user is known.
pub type MakeOutlet = Box<dyn Fn(&UserId) -> Arc<dyn Outlet> + Send + Sync>;

/// The user of an authenticated connection.
#[derive(Clone)]
pub struct AuthenticatedUser {
    /// The user's id.
    pub user: UserId,
    /// The user's name.
    pub username: Username,
    /// The rooms that this connection may enter.
    pub scope: RoomScope,
    /// The connection's outgoing side.
    pub outlet: Arc<dyn Outlet>,
}

/// Whether a connection is in a room, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InRoom {
    /// The backplane may count the connection there, because a call failed or its answer is still
    /// to come. So the backplane has to be told when the connection is lost.
    Possibly,
    /// The join has succeeded.
    Confirmed,
}

/// The state of one connection.
pub struct ConnectionState {
    pub(super) conn: ConnId,
    pub(super) user: Option<AuthenticatedUser>,
    /// Every room in which the backplane may count this connection.
    pub(super) rooms: HashMap<RoomId, InRoom>,
    pub(super) watched: HashSet<UserId>,
    /// True while its outlet may be attached to broadcasts.
    pub(super) listens: bool,
    /// The personal feed that its outlet may be attached to.
    pub(super) personal: Option<RoomId>,
    make_outlet: MakeOutlet,
}

impl ConnectionState {
    /// The state of a connection that is not authenticated yet.
    #[must_use]
    pub fn new(conn: ConnId, make_outlet: MakeOutlet) -> Self {
        Self {
            conn,
            user: None,
            rooms: HashMap::default(),
            watched: HashSet::default(),
            listens: false,
            personal: None,
            make_outlet,
        }
    }

    /// Takes the place of a state that was moved out of its connection.
    #[must_use]
    pub fn placeholder() -> Self {
        Self::new(
            ConnId::trusted("placeholder"),
            Box::new(|_| unreachable!("a placeholder is never bound to a user")),
        )
    }

    /// The connection's id.
    #[must_use]
    pub fn conn(&self) -> &ConnId {
        &self.conn
    }

    /// The connection's user.
    ///
    /// # Errors
    /// `unauthorized` before `authenticate`.
    pub fn authenticated(&self) -> Result<&AuthenticatedUser, Refusal> {
        self.user
            .as_ref()
            .ok_or_else(|| Refusal::new(Code::Unauthorized, "authenticate first"))
    }

    /// A permit to join the room.
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`.
    pub fn may_join(&self, room: &RoomId) -> Result<Permit<Joining>, Refusal> {
        policy::may_join(&self.authenticated()?.scope, room)
    }

    /// A permit to read the room's messages and occupants.
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`, `not_in_room`.
    pub fn may_read(&self, room: &RoomId) -> Result<Permit<Reading>, Refusal> {
        policy::may_read(&self.authenticated()?.scope, self.relation(room), room)
    }

    /// A permit to send to the room.
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`, `not_in_room`.
    pub fn may_send(&self, room: &RoomId) -> Result<Permit<Sending>, Refusal> {
        policy::may_send(&self.authenticated()?.scope, self.relation(room), room)
    }

    /// A permit to receive broadcasts.
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`.
    pub fn may_listen(&self) -> Result<Permit<Listening>, Refusal> {
        policy::may_listen(&self.authenticated()?.scope)
    }

    /// Never `Service`: over a connection, even a user that REST treats as a service has to join a
    /// room.
    fn relation(&self, room: &RoomId) -> Relation {
        if self.is_in(room) {
            Relation::Occupant
        } else {
            Relation::Stranger
        }
    }

    /// True when the connection has joined the room.
    pub(super) fn is_in(&self, room: &RoomId) -> bool {
        self.rooms.get(room) == Some(&InRoom::Confirmed)
    }

    /// The rooms of this connection that the scope doesn't cover.
    pub(super) fn rooms_beyond(&self, scope: &RoomScope) -> Vec<RoomId> {
        self.rooms
            .keys()
            .filter(|room| !scope.covers(room))
            .cloned()
            .collect()
    }

    /// Binds the connection to the user. A connection that was bound before keeps its outlet.
    pub(super) fn bind(&mut self, user: UserId, username: Username, scope: RoomScope) {
        let outlet = match self.user.take() {
            Some(bound) => bound.outlet,
            None => (self.make_outlet)(&user),
        };
        self.user = Some(AuthenticatedUser {
            user,
            username,
            scope,
            outlet,
        });
    }
}
