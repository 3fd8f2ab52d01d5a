//! What one connection is and where it is in: owned by whoever handles the connection's requests, one after another.

use std::sync::Arc;

use ahash::{HashMap, HashSet};

use crate::delivery::Outlet;
use crate::domain::policy::{
    self, Joining, Listening, Permit, Reading, Relation, RoomScope, Sending,
};
use crate::domain::{Code, ConnId, Refusal, RoomId, UserId, Username};

/// Makes the outlet of a connection once its user is known.
pub type MakeOutlet = Box<dyn Fn(&UserId) -> Arc<dyn Outlet> + Send + Sync>;

/// A connection's user.
#[derive(Clone)]
pub struct AuthenticatedUser {
    /// Who.
    pub user: UserId,
    /// Under which name.
    pub username: Username,
    /// In which rooms this connection may be.
    pub reach: RoomScope,
    /// The way out to the connection.
    pub outlet: Arc<dyn Outlet>,
}

/// One connection.
pub struct ConnectionState {
    pub(super) conn: ConnId,
    pub(super) member: Option<AuthenticatedUser>,
    /// Rooms that the backplane may count this connection in; true for those it surely is in.
    pub(super) rooms: HashMap<RoomId, bool>,
    pub(super) watched: HashSet<UserId>,
    /// Whether it may hear broadcasts.
    pub(super) listens: bool,
    make_outlet: MakeOutlet,
}

impl ConnectionState {
    /// A connection that hasn't said who it is.
    #[must_use]
    pub fn new(conn: ConnId, make_outlet: MakeOutlet) -> Self {
        Self {
            conn,
            member: None,
            rooms: HashMap::default(),
            watched: HashSet::default(),
            listens: false,
            make_outlet,
        }
    }

    /// In place of a session that was taken away.
    #[must_use]
    pub fn placeholder() -> Self {
        Self::new(
            ConnId::trusted("nobody"),
            Box::new(|_| unreachable!("a session of nobody is never bound")),
        )
    }

    /// Which connection.
    #[must_use]
    pub fn conn(&self) -> &ConnId {
        &self.conn
    }

    /// Its user.
    ///
    /// # Errors
    /// `unauthorized` before `authenticate`.
    pub fn authenticated(&self) -> Result<&AuthenticatedUser, Refusal> {
        self.member
            .as_ref()
            .ok_or_else(|| Refusal::new(Code::Unauthorized, "authenticate first"))
    }

    /// May the session enter the room?
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`.
    pub fn may_join(&self, room: &RoomId) -> Result<Permit<Joining>, Refusal> {
        policy::may_join(&self.authenticated()?.reach, room)
    }

    /// May the session see what was said there?
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`, `not_in_room`.
    pub fn may_read(&self, room: &RoomId) -> Result<Permit<Reading>, Refusal> {
        policy::may_read(&self.authenticated()?.reach, self.standing(room), room)
    }

    /// May the session say something there?
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`, `not_in_room`.
    pub fn may_send(&self, room: &RoomId) -> Result<Permit<Sending>, Refusal> {
        policy::may_send(&self.authenticated()?.reach, self.standing(room), room)
    }

    /// May the session hear broadcasts?
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`.
    pub fn may_listen(&self) -> Result<Permit<Listening>, Refusal> {
        policy::may_listen(&self.authenticated()?.reach)
    }

    /// A user whom REST takes for a service is one of many over a socket.
    fn standing(&self, room: &RoomId) -> Relation {
        if self.rooms.get(room) == Some(&true) {
            Relation::Occupant
        } else {
            Relation::Stranger
        }
    }

    /// The rooms it may be in, as far as `reach` doesn't cover them.
    pub(super) fn beyond(&self, reach: &RoomScope) -> Vec<RoomId> {
        self.rooms
            .keys()
            .filter(|room| !reach.covers(room))
            .cloned()
            .collect()
    }

    pub(super) fn bind(&mut self, user: UserId, username: Username, reach: RoomScope) {
        let outlet = match self.member.take() {
            Some(member) => member.outlet,
            None => (self.make_outlet)(&user),
        };
        self.member = Some(AuthenticatedUser {
            user,
            username,
            reach,
            outlet,
        });
    }
}
