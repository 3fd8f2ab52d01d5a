//! An event for many outlets: encoded by the first outlet that needs it, and shared by all.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use crate::backplane::{Entry, ReadReceipt, Typing};
use crate::domain::{Head, OnlineStatus, RoomChange, RoomId, UserId};

/// The events that outlets receive.
#[derive(Debug, Clone)]
pub enum Event {
    /// A message of a room.
    Message(Entry),
    /// The occupants of a room, or only their number.
    RoomUsers {
        /// The room.
        room: RoomId,
        /// At most `Limits::ROSTER` ids; empty when only the number is published.
        users: Vec<UserId>,
        /// The number of occupants.
        total: u64,
    },
    /// A user entered or left the room.
    RoomChanged(RoomId, RoomChange),
    /// A user in the room began or stopped typing.
    Typing(Typing),
    /// A user in the room has read it up to a number.
    Receipt(ReadReceipt),
    /// The status of a watched user.
    OnlineStatus {
        /// The status.
        status: OnlineStatus,
        /// True for the first status after the watch began.
        initial: bool,
    },
    /// The room's sequence of messages is interrupted here.
    RoomReset {
        /// The room.
        room: RoomId,
        /// The position after which the sequence goes on.
        head: Head,
        /// The first `seq` of the old numbering that may be lost.
        lost_from: Option<u64>,
    },
}

/// The number of encoded forms that an event keeps: one for Socket.IO, one for plain WebSockets.
const FORMS: usize = 2;

/// An event with its encoded forms. Cheap to clone: all clones share one event.
#[derive(Clone)]
pub struct SharedEvent(Arc<Inner>);

struct Inner {
    event: Event,
    encoded: [OnceLock<Box<dyn Any + Send + Sync>>; FORMS],
}

impl SharedEvent {
    /// An event that is not encoded yet.
    #[must_use]
    pub fn new(event: Event) -> Self {
        Self(Arc::new(Inner {
            event,
            encoded: Default::default(),
        }))
    }

    /// The event itself.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.0.event
    }

    /// The encoded form of type `T`, made by the first caller. `None` when the event keeps as many
    /// forms of other types as it can: the caller then has to encode it by itself.
    pub fn encoded<T: Any + Send + Sync>(&self, encode: impl Fn(&Event) -> T) -> Option<&T> {
        let existing = || {
            self.0
                .encoded
                .iter()
                .find_map(|form| form.get()?.downcast_ref())
        };
        // Every caller but the first finds the existing form.
        existing().or_else(|| {
            let unused = || self.0.encoded.iter().find(|form| form.get().is_none());
            // Another thread may fill the unused slot first; then the next one is tried.
            (0..FORMS).find_map(|_| {
                unused()?.get_or_init(|| Box::new(encode(&self.0.event)));
                existing()
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_encoded_once_and_at_most_two_are_kept() {
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
