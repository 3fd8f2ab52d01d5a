//! The state of a room's messages, as a client makes it from the events that it receives.
//!
//! - `message` and `message_edited`: the message is kept if its version is larger than the known one.
//! - `message_deleted`: a tombstone, for good. Nothing that arrives later brings content back.
//! - `reactions_changed`: the largest `seq` wins. The same holds for pins and unpins.
//!
//! So the order of the events doesn't matter, nor how often each arrives.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::changes::{FinalMessage, FinalThread, Reactions};

/// A message as an event or a page of history shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub id: String,
    pub seq: u64,
    pub user: String,
    pub version: u64,
    pub content: String,
    pub edited_at: Option<String>,
    pub thread_id: Option<String>,
}

/// A deleted message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    pub id: String,
    pub seq: u64,
    pub user: String,
    pub version: u64,
    pub deleted_by: String,
    pub thread_id: Option<String>,
}

/// An event that changes the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `message`, or the `message` of a `message_edited`.
    Shown(Shown),
    Deleted(Tombstone),
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

impl Event {
    /// The number of the message.
    pub fn target(&self) -> u64 {
        match self {
            Self::Shown(shown) => shown.seq,
            Self::Deleted(tombstone) => tombstone.seq,
            Self::Reactions { target, .. } | Self::Pinned { target, .. } => *target,
        }
    }
}

/// A client's knowledge of one message. Reactions and pins may be known before the message is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub shown: Option<Shown>,
    pub deleted: Option<Tombstone>,
    /// The `seq` of the newest event, and its reactions.
    pub reactions: (u64, Reactions),
    pub pinned: (u64, bool),
}

/// The messages of a room by `seq`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room(pub BTreeMap<u64, Message>);

impl Room {
    pub fn apply(&mut self, event: Event) {
        let message = self.0.entry(event.target()).or_default();
        match event {
            Event::Shown(shown) => {
                let known = message.shown.as_ref().map_or(0, |known| known.version);
                if message.deleted.is_none() && shown.version > known {
                    message.shown = Some(shown);
                }
            }
            Event::Deleted(tombstone) => {
                message.shown = None;
                let known = message.deleted.as_ref().map_or(0, |known| known.version);
                if tombstone.version > known {
                    message.deleted = Some(tombstone);
                }
            }
            Event::Reactions { seq, reactions, .. } => {
                if seq > message.reactions.0 {
                    message.reactions = (seq, reactions);
                }
            }
            Event::Pinned { seq, on, .. } => {
                if seq > message.pinned.0 {
                    message.pinned = (seq, on);
                }
            }
        }
    }

    /// The messages that are not deleted.
    pub fn live(&self) -> impl DoubleEndedIterator<Item = &Shown> {
        self.0.values().filter_map(|message| message.shown.as_ref())
    }

    /// The thread below a root, if it has replies.
    fn thread(&self, root_id: &str) -> Option<FinalThread> {
        let is_reply = |reply: &&Shown| reply.thread_id.as_deref() == Some(root_id);
        let replies: Vec<&Shown> = self.live().filter(is_reply).collect();
        let participants: BTreeSet<String> =
            replies.iter().map(|reply| reply.user.clone()).collect();
        Some(FinalThread {
            replies: replies.len() as u64,
            last_seq: replies.last()?.seq,
            participants,
        })
    }

    /// The state as the checker compares it. A message of which only reactions or pins are known has no
    /// id: it equals none of a history.
    pub fn final_messages(&self) -> Vec<FinalMessage> {
        let messages = self.0.iter();
        messages
            .map(|(seq, message)| self.final_message(*seq, message))
            .collect()
    }

    fn final_message(&self, seq: u64, message: &Message) -> FinalMessage {
        if let Some(tombstone) = message.deleted.clone() {
            return FinalMessage {
                seq,
                id: tombstone.id,
                user: tombstone.user,
                version: tombstone.version,
                deleted_by: Some(tombstone.deleted_by),
                thread_id: tombstone.thread_id,
                ..FinalMessage::default()
            };
        }
        let number = |seq: u64| (seq > 0).then_some(seq);
        let mut last = FinalMessage {
            seq,
            pinned: message.pinned.1,
            pinned_seq: number(message.pinned.0),
            reactions: message.reactions.1.clone(),
            reactions_seq: number(message.reactions.0),
            ..FinalMessage::default()
        };
        if let Some(shown) = message.shown.clone() {
            last.thread = self.thread(&shown.id);
            last.id = shown.id;
            last.user = shown.user;
            last.version = shown.version;
            last.content = Some(shown.content);
            last.edited_at = shown.edited_at;
            last.thread_id = shown.thread_id;
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(seq: u64, version: u64, thread: Option<&str>) -> Event {
        Event::Shown(Shown {
            id: format!("i{seq}"),
            seq,
            user: format!("u{seq}"),
            version,
            content: format!("text {version}"),
            edited_at: None,
            thread_id: thread.map(str::to_owned),
        })
    }

    fn deleted(seq: u64, version: u64) -> Event {
        Event::Deleted(Tombstone {
            id: format!("i{seq}"),
            seq,
            user: format!("u{seq}"),
            version,
            deleted_by: "eve".into(),
            thread_id: None,
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

    fn pinned(seq: u64, on: bool) -> Event {
        Event::Pinned { seq, target: 1, on }
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
            pinned(5, true),
            pinned(6, false),
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
        let room = fold([
            deleted(1, 2),
            deleted(1, 1),
            shown(1, 1, None),
            shown(1, 3, None),
        ]);
        assert_eq!(room.0[&1].shown, None);
        assert_eq!(room.0[&1].deleted.as_ref().unwrap().version, 2);
    }

    #[test]
    fn only_live_replies_count() {
        let replies = [
            shown(1, 1, None),
            shown(2, 2, Some("i1")),
            shown(3, 3, Some("i1")),
            deleted(3, 4),
        ];
        let last = fold(replies).final_messages();
        let expected = FinalThread {
            replies: 1,
            last_seq: 2,
            participants: BTreeSet::from(["u2".to_owned()]),
        };
        assert_eq!(last[0].thread, Some(expected));
        assert_eq!(last[1].thread, None);
    }

    #[test]
    fn the_final_state_has_each_field() {
        let events = [
            shown(1, 5, Some("root")),
            reactions(3, "sue"),
            pinned(4, true),
            shown(2, 2, None),
            deleted(2, 6),
        ];
        let last = fold(events).final_messages();
        let live = FinalMessage {
            seq: 1,
            id: "i1".into(),
            user: "u1".into(),
            version: 5,
            content: Some("text 5".into()),
            thread_id: Some("root".into()),
            pinned: true,
            pinned_seq: Some(4),
            reactions: Reactions::from([("+1".into(), BTreeSet::from(["sue".into()]))]),
            reactions_seq: Some(3),
            ..FinalMessage::default()
        };
        let gone = FinalMessage {
            seq: 2,
            id: "i2".into(),
            user: "u2".into(),
            version: 6,
            deleted_by: Some("eve".into()),
            ..FinalMessage::default()
        };
        assert_eq!(last, [live, gone]);
        let unknown = fold([pinned(4, true)]).final_messages();
        assert_eq!((&*unknown[0].id, unknown[0].pinned), ("", true));
    }
}
