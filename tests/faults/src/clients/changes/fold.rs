//! The state of a room's messages, as a client makes it from the events that it receives.
//!
//! - `message` and `message_edited`: the message is kept if its version is larger than the known one.
//! - `message_deleted`: a tombstone, for good. Nothing that arrives later brings content back.
//! - `reactions_changed`: the largest `seq` wins. The same holds for pins and unpins.
//!
//! So the order of the events doesn't matter, nor how often each arrives.

use std::collections::{BTreeMap, BTreeSet};

/// A message as an event or a page of history shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub id: String,
    pub seq: u64,
    pub version: u64,
    pub content: String,
    pub edited_at: Option<String>,
    pub thread_id: Option<String>,
}

/// Users by emoji.
pub type Reactions = BTreeMap<String, BTreeSet<String>>;

/// An event that changes the state.
#[derive(Debug, Clone)]
pub enum Event {
    /// `message`, or the `message` of a `message_edited`.
    Shown(Shown),
    Deleted {
        target: u64,
        version: u64,
    },
    Reactions {
        seq: u64,
        target: u64,
        reactions: Reactions,
    },
    Pinned {
        seq: u64,
        target: u64,
        on: bool,
    },
}

/// What a client knows of one message. Reactions and pins may be known before the message is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub shown: Option<Shown>,
    /// The version of the tombstone.
    pub deleted: Option<u64>,
    /// The `seq` of the newest event, and its reactions.
    pub reactions: (u64, Reactions),
    pub pinned: (u64, bool),
}

/// The messages of a room by `seq`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room(pub BTreeMap<u64, Message>);

impl Room {
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Shown(shown) => {
                let message = self.0.entry(shown.seq).or_default();
                let known = message.shown.as_ref().map_or(0, |known| known.version);
                if message.deleted.is_none() && shown.version > known {
                    message.shown = Some(shown);
                }
            }
            Event::Deleted { target, version } => {
                let message = self.0.entry(target).or_default();
                message.shown = None;
                message.deleted = message.deleted.max(Some(version));
            }
            Event::Reactions {
                seq,
                target,
                reactions,
            } => {
                let message = self.0.entry(target).or_default();
                if seq > message.reactions.0 {
                    message.reactions = (seq, reactions);
                }
            }
            Event::Pinned { seq, target, on } => {
                let message = self.0.entry(target).or_default();
                if seq > message.pinned.0 {
                    message.pinned = (seq, on);
                }
            }
        }
    }

    /// The number of live replies to a root.
    pub fn replies(&self, root_id: &str) -> usize {
        let live = self.0.values().filter_map(|message| message.shown.as_ref());
        live.filter(|reply| reply.thread_id.as_deref() == Some(root_id))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(seq: u64, version: u64, thread: Option<&str>) -> Event {
        Event::Shown(Shown {
            id: format!("i{seq}"),
            seq,
            version,
            content: format!("text {version}"),
            edited_at: None,
            thread_id: thread.map(str::to_owned),
        })
    }

    fn reactions(seq: u64, user: &str) -> Event {
        let users = BTreeSet::from([user.to_owned()]);
        Event::Reactions {
            seq,
            target: 1,
            reactions: Reactions::from([("+1".to_owned(), users)]),
        }
    }

    fn fold(events: impl IntoIterator<Item = Event>) -> Room {
        let mut room = Room::default();
        events.into_iter().for_each(|event| room.apply(event));
        room
    }

    #[test]
    fn the_order_and_the_number_of_arrivals_do_not_matter() {
        let events = [
            shown(1, 1, None),
            shown(1, 2, None),
            reactions(3, "sue"),
            reactions(4, "ann"),
            Event::Pinned {
                seq: 5,
                target: 1,
                on: true,
            },
            Event::Pinned {
                seq: 6,
                target: 1,
                on: false,
            },
        ];
        let forward = fold(events.clone());
        let backward = fold(events.iter().rev().cloned());
        assert_eq!(forward, backward);
        assert_eq!(forward, fold(events.iter().chain(&events).cloned()));
        let message = &forward.0[&1];
        assert_eq!(message.shown.as_ref().unwrap().content, "text 2");
        assert!(message.reactions.1["+1"].contains("ann"));
        assert_eq!(message.pinned, (6, false));
    }

    #[test]
    fn a_deleted_message_stays_deleted() {
        let deleted = Event::Deleted {
            target: 1,
            version: 2,
        };
        let room = fold([deleted, shown(1, 1, None), shown(1, 3, None)]);
        assert_eq!(room.0[&1].shown, None);
        assert_eq!(room.0[&1].deleted, Some(2));
    }

    #[test]
    fn only_live_replies_count() {
        let deleted = Event::Deleted {
            target: 3,
            version: 4,
        };
        let replies = [shown(2, 2, Some("i1")), shown(3, 3, Some("i1")), deleted];
        assert_eq!(fold(replies).replies("i1"), 1);
    }
}
