//! The rights to join a room, to read it, to send to it and to hear broadcasts. This is the one
//! place that decides them, and it decides by its arguments alone.
//!
//! A granted right is a [`Permit`], which only this file can make. The use cases take a permit, so
//! none of them can be called before the policy was asked, whether the request came over Socket.IO,
//! a plain WebSocket or REST. Changes of messages take the user's [`RoomRights`] instead, because they ask
//! the policy at each attempt.

use std::marker::PhantomData;
use std::sync::Arc;

use super::bot_token::{TokenScope, TokenScopes};
use super::chat::{ChatRole, Membership};
use super::id::RoomId;
use super::refusal::{Code, Refusal};
use super::room::RoomKind;

/// The rooms that a token is valid for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RoomScope {
    /// All rooms.
    #[default]
    Everywhere,
    /// The rooms that at least one pattern names: exactly, or by a prefix if the pattern ends in
    /// `*`. Without patterns no room is covered.
    Only(Arc<[Box<str>]>),
    /// All rooms, for the acts that the scopes of a bot's token name.
    Scoped(TokenScopes),
}

impl RoomScope {
    /// Only the rooms that these patterns name.
    #[must_use]
    pub fn only<T: Into<Box<str>>>(patterns: impl IntoIterator<Item = T>) -> Self {
        Self::Only(patterns.into_iter().map(Into::into).collect())
    }

    /// Whether the token is valid for acts of this scope.
    #[must_use]
    pub fn allows(&self, scope: TokenScope) -> bool {
        match self {
            Self::Everywhere | Self::Only(_) => true,
            Self::Scoped(scopes) => scopes.contains(scope),
        }
    }

    /// Checks that the token is valid for acts of this scope.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn require(&self, scope: TokenScope) -> Result<(), Refusal> {
        if self.allows(scope) {
            return Ok(());
        }
        let text = format!("the token does not have the scope {}", scope.as_str());
        Err(Refusal::new(Code::Forbidden, text))
    }

    /// Whether the token is valid for the room.
    #[must_use]
    pub fn covers(&self, room: &RoomId) -> bool {
        let names = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => room.as_str().starts_with(prefix),
            None => room.as_str() == pattern,
        };
        match self {
            Self::Everywhere | Self::Scoped(_) => true,
            Self::Only(patterns) => patterns.iter().any(|pattern| names(pattern)),
        }
    }
}

/// The relation of a caller to a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// A trusted service, which need not be in the room.
    Service,
    /// A user in the room.
    Occupant,
    /// A member of the room's chat, over REST: need not be in the room.
    Member,
    /// A user outside the room.
    Stranger,
}

/// An action that an outside service may also be asked to authorize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Joining a room.
    Join,
    /// Sending a message.
    Send,
}

/// Permits joining a room.
#[derive(Debug)]
pub struct Joining;
/// Permits reading a room's messages and its occupants.
#[derive(Debug)]
pub struct Reading;
/// Permits sending to the occupants: messages and typing notifications.
#[derive(Debug)]
pub struct Sending;
/// Permits deleting messages of a room: one's own, and as a moderator all.
#[derive(Debug)]
pub struct Deleting;
/// Permits hearing a room's messages without being in the room.
#[derive(Debug)]
pub struct Listening;

/// Proof that the caller may do `A` in a room.
#[must_use]
#[derive(Debug)]
pub struct Permit<A> {
    room: RoomId,
    hidden_seq: u64,
    is_moderator: bool,
    action: PhantomData<A>,
}

impl<A> Permit<A> {
    /// The room that the permit is for.
    #[must_use]
    pub fn room(&self) -> &RoomId {
        &self.room
    }

    /// Entries with this `seq` and lower ones are hidden from the caller; 0 where none are.
    #[must_use]
    pub fn hidden_seq(&self) -> u64 {
        self.hidden_seq
    }

    /// Whether the caller is an owner of the room's chat, or an admin that uses this right.
    #[must_use]
    pub fn is_moderator(&self) -> bool {
        self.is_moderator
    }

    /// The room that the permit is for; uses up the permit.
    #[must_use]
    pub fn into_room(self) -> RoomId {
        self.room
    }
}

/// `member`: the caller's rights in the room's chat. Other rooms have no members.
fn permit<A>(
    scope: &RoomScope,
    allowed: bool,
    room: &RoomId,
    member: Option<Membership>,
) -> Result<Permit<A>, Refusal> {
    let forbidden = |text| Err(Refusal::new(Code::Forbidden, text));
    let hidden_seq = match (room.kind(), member) {
        (RoomKind::Open, _) => 0,
        (RoomKind::Chat, Some(member)) => member.hidden_seq,
        (RoomKind::Chat, None) => return forbidden("only members may use the room of a chat"),
        (RoomKind::Broadcast, _) => return forbidden("this room is reserved for broadcasts"),
        (RoomKind::Personal, _) => return forbidden("this room is the feed of a user"),
    };
    if !scope.covers(room) {
        return forbidden("the token is not valid for this room");
    }
    if !allowed {
        return Err(Refusal::new(Code::NotInRoom, "join the room first"));
    }
    Ok(Permit {
        room: room.clone(),
        hidden_seq,
        is_moderator: member.is_some_and(|member| member.role == ChatRole::Owner),
        action: PhantomData,
    })
}

/// A caller may join every open room, and the room of every chat that it is a member of, if its token is
/// valid for the room.
///
/// # Errors
/// `forbidden`.
pub fn may_join(
    scope: &RoomScope,
    room: &RoomId,
    member: Option<Membership>,
) -> Result<Permit<Joining>, Refusal> {
    scope.require(TokenScope::Read)?;
    permit(scope, true, room, member)
}

/// Occupants and services may read a room; that of a chat only if they are members.
///
/// # Errors
/// `forbidden`, `not_in_room`.
pub fn may_read(
    scope: &RoomScope,
    relation: Relation,
    room: &RoomId,
    member: Option<Membership>,
) -> Result<Permit<Reading>, Refusal> {
    scope.require(TokenScope::Read)?;
    permit(scope, relation != Relation::Stranger, room, member)
}

/// Occupants and services may send to a room; to that of a chat only if they are members.
///
/// # Errors
/// `forbidden`, `not_in_room`.
pub fn may_send(
    scope: &RoomScope,
    relation: Relation,
    room: &RoomId,
    member: Option<Membership>,
) -> Result<Permit<Sending>, Refusal> {
    scope.require(TokenScope::Send)?;
    permit(scope, relation != Relation::Stranger, room, member)
}

/// The rights of a user in a room: the same ones by every door.
#[derive(Debug, Clone, Copy)]
pub struct RoomRights<'a> {
    /// The rooms and the acts that the user's token is valid for.
    pub scope: &'a RoomScope,
    /// Whether the user is an admin.
    pub is_admin: bool,
    /// The user's relation to the room.
    pub relation: Relation,
    /// The room.
    pub room: &'a RoomId,
    /// The user's rights in the room's chat. Other rooms have no members.
    pub member: Option<Membership>,
}

impl RoomRights<'_> {
    /// As [`may_read`].
    ///
    /// # Errors
    /// `forbidden`, `not_in_room`.
    pub fn may_read(&self) -> Result<Permit<Reading>, Refusal> {
        may_read(self.scope, self.relation, self.room, self.member)
    }

    /// As [`may_send`]. Admins moderate every room that they may send to.
    ///
    /// # Errors
    /// `forbidden`, `not_in_room`.
    pub fn may_send(&self) -> Result<Permit<Sending>, Refusal> {
        let permit = may_send(self.scope, self.relation, self.room, self.member)?;
        Ok(Permit {
            is_moderator: permit.is_moderator || self.is_admin,
            ..permit
        })
    }

    /// Users that may send to a room may delete their own messages there, and owners of its chat those of
    /// others. An admin deletes as an owner in every room, and need be neither an occupant nor a member.
    ///
    /// # Errors
    /// `forbidden`, `not_in_room`.
    pub fn may_delete(&self) -> Result<Permit<Deleting>, Refusal> {
        if self.is_admin {
            let owner = Membership {
                role: ChatRole::Owner,
                hidden_seq: 0,
            };
            return permit(self.scope, true, self.room, Some(owner));
        }
        self.scope.require(TokenScope::Send)?;
        let is_there = self.relation != Relation::Stranger;
        permit(self.scope, is_there, self.room, self.member)
    }
}

fn broadcast<A>(scope: &RoomScope) -> Result<Permit<A>, Refusal> {
    let room = RoomId::broadcast();
    if !scope.covers(&room) {
        return Err(Refusal::new(
            Code::Forbidden,
            "the token is not valid for broadcasts",
        ));
    }
    Ok(Permit {
        room,
        hidden_seq: 0,
        is_moderator: false,
        action: PhantomData,
    })
}

/// A caller may hear broadcasts if its token is valid for the room of broadcasts.
///
/// # Errors
/// `forbidden`.
pub fn may_listen(scope: &RoomScope) -> Result<Permit<Listening>, Refusal> {
    scope.require(TokenScope::Read)?;
    broadcast(scope)
}

/// A caller whose role allows broadcasts may send one if its token is valid for the room of
/// broadcasts.
///
/// # Errors
/// `forbidden`.
pub fn may_broadcast(scope: &RoomScope) -> Result<Permit<Sending>, Refusal> {
    scope.require(TokenScope::Publish)?;
    broadcast(scope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ChatRole;

    fn room(name: &str) -> RoomId {
        RoomId::trusted(name)
    }

    #[test]
    fn a_pattern_is_a_name_or_a_prefix() {
        let covers = |patterns: &[&str], name: &str| {
            RoomScope::only(patterns.iter().copied()).covers(&room(name))
        };
        for (patterns, name, covered) in [
            (&["lobby"][..], "lobby", true),
            (&["lobby"], "lobby2", false),
            (&["lobby"], "Lobby", false),
            (&["team-*"], "team-1", true),
            (&["team-*"], "team-", true),
            (&["team-*"], "team", false),
            (&["team-*"], "a-team-1", false),
            (&["a", "b*"], "bc", true),
            (&["*"], "anything", true),
            // Only a star at the end has a meaning.
            (&["a*b"], "axb", false),
            (&["a*b"], "a*b", true),
            (&["**"], "*x", true),
            (&["**"], "x", false),
            (&[""], "x", false),
            (&[], "x", false),
        ] {
            assert_eq!(covers(patterns, name), covered, "{patterns:?} {name}");
        }
        assert!(RoomScope::Everywhere.covers(&room("x")));
    }

    #[test]
    fn a_token_of_a_bot_is_valid_for_the_acts_of_its_scopes() {
        let here = room("here");
        for allowed in TokenScope::ALL {
            let scope = RoomScope::Scoped([allowed].into_iter().collect());
            let service = Relation::Service;
            for (needed, outcome) in [
                (TokenScope::Read, may_join(&scope, &here, None).map(drop)),
                (
                    TokenScope::Read,
                    may_read(&scope, service, &here, None).map(drop),
                ),
                (
                    TokenScope::Send,
                    may_send(&scope, service, &here, None).map(drop),
                ),
                (TokenScope::Read, may_listen(&scope).map(drop)),
                (TokenScope::Publish, may_broadcast(&scope).map(drop)),
            ] {
                let expected = (needed != allowed).then_some(Code::Forbidden);
                assert_eq!(outcome.err().map(|refusal| refusal.code), expected);
            }
        }
    }

    #[test]
    fn every_relation_and_scope_has_its_rights() {
        let here = room("here");
        let (all, only, none) = (
            RoomScope::Everywhere,
            RoomScope::only(["he*"]),
            RoomScope::only(["there"]),
        );
        for scope in [&all, &only] {
            assert_eq!(may_join(scope, &here, None).unwrap().room(), &here);
            for (relation, allowed) in [
                (Relation::Service, true),
                (Relation::Occupant, true),
                (Relation::Stranger, false),
            ] {
                let refused = (!allowed).then_some(Code::NotInRoom);
                assert_eq!(
                    may_read(scope, relation, &here, None)
                        .err()
                        .map(|refusal| refusal.code),
                    refused
                );
                assert_eq!(
                    may_send(scope, relation, &here, None)
                        .err()
                        .map(|refusal| refusal.code),
                    refused
                );
            }
        }
        assert_eq!(
            may_join(&none, &here, None).unwrap_err().code,
            Code::Forbidden
        );
        for relation in [Relation::Service, Relation::Occupant, Relation::Stranger] {
            assert_eq!(
                may_read(&none, relation, &here, None).unwrap_err().code,
                Code::Forbidden
            );
            assert_eq!(
                may_send(&none, relation, &here, None).unwrap_err().code,
                Code::Forbidden
            );
        }
    }

    #[test]
    fn the_room_of_broadcasts_allows_nothing_but_broadcasts() {
        let (all, kept) = (RoomScope::Everywhere, RoomId::broadcast());
        assert_eq!(
            may_join(&all, &kept, None).unwrap_err().code,
            Code::Forbidden
        );
        for relation in [Relation::Service, Relation::Occupant, Relation::Stranger] {
            assert_eq!(
                may_read(&all, relation, &kept, None).unwrap_err().code,
                Code::Forbidden
            );
            assert_eq!(
                may_send(&all, relation, &kept, None).unwrap_err().code,
                Code::Forbidden
            );
        }
        assert!(may_join(&all, &room("broadcasts"), None).is_ok());
        for (scope, reached) in [
            (all, true),
            (RoomScope::only(["broad*"]), true),
            (RoomScope::only(["lobby"]), false),
        ] {
            assert_eq!(
                (may_listen(&scope).is_ok(), may_broadcast(&scope).is_ok()),
                (reached, reached)
            );
        }
        assert_eq!(may_listen(&RoomScope::Everywhere).unwrap().room(), &kept);
    }

    #[test]
    fn the_room_of_a_chat_is_for_its_members_alone() {
        let chat = RoomId::chat(uuid::Uuid::nil());
        let member = Membership {
            role: ChatRole::Member,
            hidden_seq: 7,
        };
        let all = RoomScope::Everywhere;
        assert_eq!(
            may_join(&all, &chat, None).unwrap_err().code,
            Code::Forbidden
        );
        let joining = may_join(&all, &chat, Some(member)).unwrap();
        assert_eq!(joining.hidden_seq(), 7);
        for (relation, refused) in [
            (Relation::Service, None),
            (Relation::Member, None),
            (Relation::Occupant, None),
            (Relation::Stranger, Some(Code::NotInRoom)),
        ] {
            let read = may_read(&all, relation, &chat, Some(member));
            assert_eq!(read.err().map(|refusal| refusal.code), refused);
            let send = may_send(&all, relation, &chat, Some(member));
            assert_eq!(send.err().map(|refusal| refusal.code), refused);
            // Nothing else gives rights to a chat.
            let read = may_read(&all, relation, &chat, None).unwrap_err();
            let send = may_send(&all, relation, &chat, None).unwrap_err();
            assert_eq!((read.code, send.code), (Code::Forbidden, Code::Forbidden));
        }
        let elsewhere = RoomScope::only(["lobby"]);
        let refused = may_join(&elsewhere, &chat, Some(member)).unwrap_err();
        assert_eq!(refused.code, Code::Forbidden);
    }

    #[test]
    fn owners_and_admins_moderate_and_others_delete_their_own_messages() {
        let (open, chat) = (room("lobby"), RoomId::chat(uuid::Uuid::nil()));
        let all = RoomScope::Everywhere;
        let of = |role| {
            Some(Membership {
                role,
                hidden_seq: 7,
            })
        };
        let (owner, member) = (of(ChatRole::Owner), of(ChatRole::Member));
        let rights = RoomRights {
            scope: &all,
            is_admin: false,
            relation: Relation::Occupant,
            room: &open,
            member: None,
        };
        let in_chat = RoomRights {
            relation: Relation::Member,
            room: &chat,
            member,
            ..rights
        };
        let admin = |rights| RoomRights {
            is_admin: true,
            ..rights
        };
        let stranger = RoomRights {
            relation: Relation::Stranger,
            member: None,
            ..rights
        };
        let of_owner = RoomRights {
            member: owner,
            ..in_chat
        };
        let moderates = |rights: RoomRights<'_>| rights.may_delete().map(|it| it.is_moderator());
        assert_eq!(moderates(rights), Ok(false));
        assert_eq!(moderates(in_chat), Ok(false));
        assert_eq!(moderates(of_owner), Ok(true));
        // Admins, wherever they are.
        let stranger_to_chat = RoomRights {
            room: &chat,
            ..stranger
        };
        for rights in [rights, in_chat, stranger, stranger_to_chat] {
            let permit = admin(rights).may_delete().unwrap();
            assert_eq!((permit.is_moderator(), permit.hidden_seq()), (true, 0));
        }
        let refused = |rights| moderates(rights).unwrap_err().code;
        assert_eq!(refused(stranger), Code::NotInRoom);
        assert_eq!(refused(stranger_to_chat), Code::Forbidden);
        let broadcast = RoomId::broadcast();
        let of_broadcasts = RoomRights {
            room: &broadcast,
            ..rights
        };
        assert_eq!(refused(admin(of_broadcasts)), Code::Forbidden);
        let elsewhere = RoomScope::only(["lobby"]);
        let beyond = RoomRights {
            scope: &elsewhere,
            ..stranger_to_chat
        };
        assert_eq!(refused(admin(beyond)), Code::Forbidden);
        let reader = RoomScope::Scoped([TokenScope::Read].into_iter().collect());
        let reading = RoomRights {
            scope: &reader,
            ..rights
        };
        assert_eq!(refused(reading), Code::Forbidden);
        // In what they send, admins have the rights of owners only where they may send at all.
        let sends = |rights: RoomRights<'_>| rights.may_send().map(|it| it.is_moderator());
        assert_eq!(sends(rights), Ok(false));
        assert_eq!(sends(of_owner), Ok(true));
        assert_eq!(sends(admin(rights)), Ok(true));
        assert_eq!(sends(admin(stranger)).unwrap_err().code, Code::NotInRoom);
    }
}
