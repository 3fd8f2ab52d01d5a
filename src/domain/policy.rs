//! Who may join a room, read it and send to it: the one place that decides, by nothing but what it is told.
//!
//! What it allows it gives a [`Permit`] for, which nobody else can make. The use cases ask for one, so that none of them can be
//! called before it was asked here, whichever door a request came in by.

use std::marker::PhantomData;
use std::sync::Arc;

use super::id::RoomId;
use super::refusal::{Code, Refusal};

/// The rooms that someone's token is good for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RoomScope {
    /// All of them.
    #[default]
    Everywhere,
    /// Those that one of the patterns names: exactly, or as a prefix when it ends in `*`. None at all, where there is no pattern.
    Only(Arc<[Box<str>]>),
}

impl RoomScope {
    /// Those rooms only.
    #[must_use]
    pub fn only<T: Into<Box<str>>>(patterns: impl IntoIterator<Item = T>) -> Self {
        Self::Only(patterns.into_iter().map(Into::into).collect())
    }

    /// Whether the room is among them.
    #[must_use]
    pub fn covers(&self, room: &RoomId) -> bool {
        let names = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => room.as_str().starts_with(prefix),
            None => room.as_str() == pattern,
        };
        match self {
            Self::Everywhere => true,
            Self::Only(patterns) => patterns.iter().any(|pattern| names(pattern)),
        }
    }
}

/// The room that broadcasts live in. It has listeners, and no members: nobody joins it, and it is sent to and heard by a way of
/// its own.
pub const BROADCAST: &str = "broadcast";

/// How one stands to a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// A trusted service: need not be in it.
    Service,
    /// Is in it.
    Occupant,
    /// Is not.
    Stranger,
}

/// What somebody outside may be asked about, beside this policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Entering a room.
    Join,
    /// Sending a message.
    Send,
}

/// Entering a room.
#[derive(Debug)]
pub struct Joining;
/// Seeing what was said, and who is there.
#[derive(Debug)]
pub struct Reading;
/// Saying something that the others will see: messages, and that one types.
#[derive(Debug)]
pub struct Sending;
/// Hearing what is said, without being a member.
#[derive(Debug)]
pub struct Listening;

/// Proof that someone may do `A` in a room.
#[must_use]
#[derive(Debug)]
pub struct Permit<A> {
    room: RoomId,
    action: PhantomData<A>,
}

impl<A> Permit<A> {
    /// Where.
    #[must_use]
    pub fn room(&self) -> &RoomId {
        &self.room
    }

    /// Where, when the permit is used up.
    #[must_use]
    pub fn into_room(self) -> RoomId {
        self.room
    }
}

fn permit<A>(reach: &RoomScope, allowed: bool, room: &RoomId) -> Result<Permit<A>, Refusal> {
    if room.as_str() == BROADCAST {
        return Err(Refusal::new(
            Code::Forbidden,
            "this room is kept for broadcasts",
        ));
    }
    if !reach.covers(room) {
        return Err(Refusal::new(
            Code::Forbidden,
            "the token doesn't reach this room",
        ));
    }
    if !allowed {
        return Err(Refusal::new(Code::NotInRoom, "join the room first"));
    }
    Ok(Permit {
        room: room.clone(),
        action: PhantomData,
    })
}

/// Anyone may join what the token reaches.
///
/// # Errors
/// `forbidden`.
pub fn may_join(reach: &RoomScope, room: &RoomId) -> Result<Permit<Joining>, Refusal> {
    permit(reach, true, room)
}

/// Members and services may read.
///
/// # Errors
/// `forbidden`, `not_in_room`.
pub fn may_read(
    reach: &RoomScope,
    standing: Relation,
    room: &RoomId,
) -> Result<Permit<Reading>, Refusal> {
    permit(reach, standing != Relation::Stranger, room)
}

/// Members and services may send.
///
/// # Errors
/// `forbidden`, `not_in_room`.
pub fn may_send(
    reach: &RoomScope,
    standing: Relation,
    room: &RoomId,
) -> Result<Permit<Sending>, Refusal> {
    permit(reach, standing != Relation::Stranger, room)
}

fn broadcast<A>(reach: &RoomScope) -> Result<Permit<A>, Refusal> {
    let room = RoomId::trusted(BROADCAST);
    if !reach.covers(&room) {
        return Err(Refusal::new(
            Code::Forbidden,
            "the token doesn't reach broadcasts",
        ));
    }
    Ok(Permit {
        room,
        action: PhantomData,
    })
}

/// Whoever the token lets may hear broadcasts.
///
/// # Errors
/// `forbidden`.
pub fn may_listen(reach: &RoomScope) -> Result<Permit<Listening>, Refusal> {
    broadcast(reach)
}

/// May whoever was found to be a broadcaster broadcast?
///
/// # Errors
/// `forbidden`.
pub fn may_broadcast(reach: &RoomScope) -> Result<Permit<Sending>, Refusal> {
    broadcast(reach)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            // Only the last star means anything.
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
    fn the_whole_policy() {
        let here = room("here");
        let (all, only, none) = (
            RoomScope::Everywhere,
            RoomScope::only(["he*"]),
            RoomScope::only(["there"]),
        );
        for reach in [&all, &only] {
            assert_eq!(may_join(reach, &here).unwrap().room(), &here);
            for (standing, allowed) in [
                (Relation::Service, true),
                (Relation::Occupant, true),
                (Relation::Stranger, false),
            ] {
                let refused = (!allowed).then_some(Code::NotInRoom);
                assert_eq!(
                    may_read(reach, standing, &here)
                        .err()
                        .map(|refusal| refusal.code),
                    refused
                );
                assert_eq!(
                    may_send(reach, standing, &here)
                        .err()
                        .map(|refusal| refusal.code),
                    refused
                );
            }
        }
        assert_eq!(may_join(&none, &here).unwrap_err().code, Code::Forbidden);
        for standing in [Relation::Service, Relation::Occupant, Relation::Stranger] {
            assert_eq!(
                may_read(&none, standing, &here).unwrap_err().code,
                Code::Forbidden
            );
            assert_eq!(
                may_send(&none, standing, &here).unwrap_err().code,
                Code::Forbidden
            );
        }
    }

    #[test]
    fn the_room_of_broadcasts_is_closed_to_everyone_else() {
        let (all, kept) = (RoomScope::Everywhere, room(BROADCAST));
        assert_eq!(may_join(&all, &kept).unwrap_err().code, Code::Forbidden);
        for standing in [Relation::Service, Relation::Occupant, Relation::Stranger] {
            assert_eq!(
                may_read(&all, standing, &kept).unwrap_err().code,
                Code::Forbidden
            );
            assert_eq!(
                may_send(&all, standing, &kept).unwrap_err().code,
                Code::Forbidden
            );
        }
        assert!(may_join(&all, &room("broadcasts")).is_ok());
        for (reach, reached) in [
            (all, true),
            (RoomScope::only(["broad*"]), true),
            (RoomScope::only(["lobby"]), false),
        ] {
            assert_eq!(
                (may_listen(&reach).is_ok(), may_broadcast(&reach).is_ok()),
                (reached, reached)
            );
        }
        assert_eq!(may_listen(&RoomScope::Everywhere).unwrap().room(), &kept);
    }
}
