//! The state of one connection: its user, its rooms and the users that it watches. Its owner is the
//! code that processes the connection's requests, one after another.

use std::sync::Arc;

use ahash::{HashMap, HashSet};

use crate::delivery::Outlet;
use crate::domain::policy::{self, Joining, Listening, Permit, Relation, RoomRights, RoomScope};
use crate::domain::{
    Code, ConnId, Membership, Refusal, RoomId, RoomKind, TokenScope, UserId, Username,
};
use crate::features::messages::ReadingUser;

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
    /// Whether the user is an account of this server, by its token. Only accounts have chats.
    pub has_account: bool,
    /// Whether the user has the rights of an admin.
    pub is_admin: bool,
    /// The connection's outgoing side.
    pub outlet: Arc<dyn Outlet>,
}

impl AuthenticatedUser {
    /// The user as one that reads.
    pub(super) fn reading(&self) -> ReadingUser {
        ReadingUser {
            user: self.user.clone(),
            has_account: self.has_account,
        }
    }
}

/// The user that a connection is to be bound to. The fields are those of [`AuthenticatedUser`].
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The user's id.
    pub user: UserId,
    /// The user's name.
    pub username: Username,
    /// The rooms that the connection may enter.
    pub scope: RoomScope,
    /// Whether the user is an account of this server.
    pub has_account: bool,
    /// Whether the user has the rights of an admin.
    pub is_admin: bool,
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

    /// A permit to join the room. `member`: the result of [`Messaging::membership`].
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`.
    ///
    /// [`Messaging::membership`]: super::Messaging::membership
    pub fn may_join(
        &self,
        room: &RoomId,
        member: Option<Membership>,
    ) -> Result<Permit<Joining>, Refusal> {
        policy::may_join(&self.authenticated()?.scope, room, member)
    }

    /// The user's rights in the room. `member`: as in [`may_join`](Self::may_join).
    ///
    /// # Errors
    /// `unauthorized`.
    pub fn rights<'a>(
        &'a self,
        room: &'a RoomId,
        member: Option<Membership>,
    ) -> Result<RoomRights<'a>, Refusal> {
        let user = self.authenticated()?;
        // Never that of a service: over a connection, even a user that REST treats as a service has to
        // join a room.
        let relation = if self.is_in(room) {
            Relation::Occupant
        } else {
            Relation::Stranger
        };
        Ok(RoomRights {
            scope: &user.scope,
            is_admin: user.is_admin,
            relation,
            room,
            member,
        })
    }

    /// A permit to receive broadcasts.
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`.
    pub fn may_listen(&self) -> Result<Permit<Listening>, Refusal> {
        policy::may_listen(&self.authenticated()?.scope)
    }

    /// True when the connection has joined the room.
    pub(super) fn is_in(&self, room: &RoomId) -> bool {
        self.rooms.get(room) == Some(&InRoom::Confirmed)
    }

    /// The rooms of this connection that its new identity doesn't reach.
    pub(super) fn rooms_beyond(&self, new: &NewUser) -> Vec<RoomId> {
        let is_beyond = |room: &&RoomId| {
            let needs_account = room.kind() == RoomKind::Chat;
            !new.scope.allows(TokenScope::Read)
                || !new.scope.covers(room)
                || (needs_account && !new.has_account)
        };
        self.rooms.keys().filter(is_beyond).cloned().collect()
    }

    /// Binds the connection to the user. A connection that was bound before keeps its outlet.
    pub(super) fn bind(&mut self, new: NewUser) {
        let outlet = match self.user.take() {
            Some(bound) => bound.outlet,
            None => (self.make_outlet)(&new.user),
        };
        self.user = Some(AuthenticatedUser {
            user: new.user,
            username: new.username,
            scope: new.scope,
            has_account: new.has_account,
            is_admin: new.is_admin,
            outlet,
        });
    }
}
