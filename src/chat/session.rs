//! What one connection is and where it is in: owned by whoever handles the connection's requests, one after another.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::delivery::Outlet;
use crate::domain::{Code, ConnId, Refusal, RoomId, UserId, Username};

/// Makes the outlet of a connection once its user is known.
pub type MakeOutlet = Box<dyn Fn(&UserId) -> Arc<dyn Outlet> + Send + Sync>;

/// A connection's user.
#[derive(Clone)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// Under which name.
    pub username: Username,
    /// The way out to the connection.
    pub outlet: Arc<dyn Outlet>,
}

/// One connection.
pub struct Session {
    pub(super) conn: ConnId,
    pub(super) member: Option<Member>,
    /// Rooms that the backplane may count this connection in; true for those it surely is in.
    pub(super) rooms: HashMap<RoomId, bool>,
    pub(super) watched: HashSet<UserId>,
    make_outlet: MakeOutlet,
}

/// Proof that a session is in a room.
pub struct Membership<'a>(&'a Member);

impl Membership<'_> {
    /// Who is in it.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.0.user
    }

    /// Under which name.
    #[must_use]
    pub fn username(&self) -> &Username {
        &self.0.username
    }
}

impl Session {
    /// A connection that hasn't said who it is.
    #[must_use]
    pub fn new(conn: ConnId, make_outlet: MakeOutlet) -> Self {
        Self { conn, member: None, rooms: HashMap::new(), watched: HashSet::new(), make_outlet }
    }

    /// In place of a session that was taken away.
    #[must_use]
    pub fn nobody() -> Self {
        Self::new(ConnId::trusted("nobody"), Box::new(|_| unreachable!("a session of nobody is never bound")))
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
    pub fn member(&self) -> Result<&Member, Refusal> {
        self.member.as_ref().ok_or_else(|| Refusal::new(Code::Unauthorized, "authenticate first"))
    }

    /// Proof of being in the room.
    ///
    /// # Errors
    /// `unauthorized`, `not_in_room`.
    pub fn member_of(&self, room: &RoomId) -> Result<Membership<'_>, Refusal> {
        let member = self.member()?;
        if self.rooms.get(room) == Some(&true) {
            Ok(Membership(member))
        } else {
            Err(Refusal::new(Code::NotInRoom, "join the room first"))
        }
    }

    pub(super) fn bind(&mut self, user: UserId, username: Username) {
        let outlet = match self.member.take() {
            Some(member) => member.outlet,
            None => (self.make_outlet)(&user),
        };
        self.member = Some(Member { user, username, outlet });
    }
}
