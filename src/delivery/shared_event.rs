//! An event on its way to many outlets: encoded by the first that needs it, shared by all.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use crate::backplane::{Entry, Typing};
use crate::domain::{Head, OnlineStatus, RoomChange, RoomId, UserId};

/// What can reach an outlet.
#[derive(Debug, Clone)]
pub enum Event {
    /// A message of a room.
    Message(Entry),
    /// The room's members, or only their number.
    RoomUsers {
        /// Which room.
        room: RoomId,
        /// At most `Limits::ROSTER` ids; empty when only the number is told.
        users: Vec<UserId>,
        /// How many there are.
        total: u64,
    },
    /// Someone came or went.
    RoomChanged(RoomId, RoomChange),
    /// Someone types.
    Typing(Typing),
    /// A watched user's status.
    OnlineStatus {
        /// The state.
        status: OnlineStatus,
        /// True for the one that a new watcher gets first.
        initial: bool,
    },
    /// Continuity of the room can't be guaranteed past this point.
    RoomReset {
        /// Which room.
        room: RoomId,
        /// Where it goes on.
        head: Head,
        /// The first `seq` of the old numbering that may be lost.
        lost_from: Option<u64>,
    },
}

/// How many encoded forms of an event are kept: one for each door.
const FORMS: usize = 2;

/// An event and its encoded forms.
#[derive(Clone)]
pub struct SharedEvent(Arc<Inner>);

struct Inner {
    event: Event,
    encoded: [OnceLock<Box<dyn Any + Send + Sync>>; FORMS],
}

impl SharedEvent {
    /// Not yet encoded.
    #[must_use]
    pub fn new(event: Event) -> Self {
        Self(Arc::new(Inner {
            event,
            encoded: Default::default(),
        }))
    }

    /// What happened.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.0.event
    }

    /// The encoded form of that type, made by the first caller. `None` if there are as many others as are kept: encode it anew
    /// then.
    pub fn encoded<T: Any + Send + Sync>(&self, encode: impl Fn(&Event) -> T) -> Option<&T> {
        let made = || {
            self.0
                .encoded
                .iter()
                .find_map(|place| place.get()?.downcast_ref())
        };
        // All but the first find it made.
        made().or_else(|| {
            let free = || self.0.encoded.iter().find(|place| place.get().is_none());
            // Another may take a free place first: then it is looked again.
            (0..FORMS).find_map(|_| {
                free()?.get_or_init(|| Box::new(encode(&self.0.event)));
                made()
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_encoded_once() {
        let event = Event::RoomUsers {
            room: RoomId::trusted("a"),
            users: vec![],
            total: 1,
        };
        let shared = SharedEvent::new(event);
        assert_eq!(shared.encoded(|_| 1_u8), Some(&1));
        assert_eq!(shared.clone().encoded(|_| 2_u8), Some(&1));
        assert_eq!(
            shared.encoded(|_| "other"),
            Some(&"other"),
            "beside the first"
        );
        assert_eq!(shared.encoded(|_| "another"), Some(&"other"));
        assert_eq!(shared.encoded(|_| 'x'), None);
        assert_eq!(shared.encoded(|_| 3_u8), Some(&1));
    }
}
