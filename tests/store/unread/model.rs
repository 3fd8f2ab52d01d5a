//! A simple model of rooms and positions: lists that are counted.

use std::collections::{BTreeMap, BTreeSet};

use hubbub::domain::UserId;
use hubbub::store::{ReadPosition, RoomUnread, ThreadState, UNREAD_CAP, Unread};
use uuid::Uuid;

use crate::fixture::room;

/// An entry of a room.
#[derive(Debug, Clone)]
pub struct ModelEntry {
    pub id: Uuid,
    pub author: String,
    /// Whether it is a message that is not deleted.
    pub is_live: bool,
    pub root: Option<u64>,
    pub mentions: Vec<String>,
}

/// How a room treats users that come later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    Open,
    /// A chat whose new members can read everything.
    All,
    /// A chat whose new members can read what comes after joining.
    Joined,
}

#[derive(Debug)]
pub struct ModelRoom {
    pub name: String,
    pub kind: ModelKind,
    pub entries: BTreeMap<u64, ModelEntry>,
    /// The highest number that was ever assigned.
    pub last: u64,
    /// Numbers that were assigned, whose entries are not committed yet.
    pub withheld: BTreeSet<u64>,
    pub cut: u64,
    pub positions: BTreeMap<String, u64>,
    /// The members of a chat, with the head when they joined.
    pub members: BTreeMap<String, u64>,
}

impl ModelRoom {
    pub fn new(name: &str, kind: ModelKind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            entries: BTreeMap::new(),
            last: 0,
            withheld: BTreeSet::new(),
            cut: 0,
            positions: BTreeMap::new(),
            members: BTreeMap::new(),
        }
    }

    /// The head of the archive.
    pub fn head(&self) -> u64 {
        let last = self.entries.keys().next_back().copied();
        last.unwrap_or(0).max(self.cut)
    }

    /// The number up to which entries are hidden from a user.
    pub fn hidden(&self, user: &str) -> u64 {
        match self.kind {
            ModelKind::Joined => self.members.get(user).copied().unwrap_or(0),
            ModelKind::Open | ModelKind::All => 0,
        }
    }

    /// The position of a user; `None` if the room is not one of the user's.
    pub fn position(&self, user: &str) -> Option<u64> {
        let stored = self.positions.get(user).copied();
        if self.kind == ModelKind::Open {
            return stored;
        }
        let joined = self.members.get(user).copied()?;
        Some(stored.unwrap_or(joined).max(self.hidden(user)))
    }

    pub fn unread_at(&self, user: &str, position: u64) -> Unread {
        let mut count = 0;
        for entry in self.after(position) {
            if entry.is_live && entry.root.is_none() && entry.author != user {
                count += 1;
            }
            if count > UNREAD_CAP {
                break;
            }
        }
        Unread {
            count: count.min(UNREAD_CAP),
            is_capped: count > UNREAD_CAP,
        }
    }

    fn after(&self, position: u64) -> impl Iterator<Item = &ModelEntry> {
        self.entries.range(position + 1..).map(|(_, entry)| entry)
    }

    pub fn unread(&self, user: &str) -> Option<RoomUnread> {
        let position = self.position(user)?;
        let mentions = self.after(position).filter(|entry| {
            let is_mentioned = |name: &String| name == user || name == "@channel";
            entry.is_live && entry.author != user && entry.mentions.iter().any(is_mentioned)
        });
        Some(RoomUnread {
            room: room(&self.name),
            last_read_seq: position,
            unread: self.unread_at(user, position),
            mentions: mentions.count() as u64,
        })
    }

    /// The live replies of each thread, by the number of its root.
    pub fn threads(&self) -> BTreeMap<u64, Vec<(u64, &ModelEntry)>> {
        let mut threads: BTreeMap<u64, Vec<(u64, &ModelEntry)>> = BTreeMap::new();
        for (seq, entry) in self.entries.iter().filter(|(_, entry)| entry.is_live) {
            if let Some(root) = entry.root.filter(|root| self.entries.contains_key(root)) {
                threads.entry(root).or_default().push((*seq, entry));
            }
        }
        threads
    }

    /// What `states` has of the threads.
    pub fn thread_states(&self) -> Vec<(u64, ThreadState)> {
        let threads = self.threads().into_iter();
        let state = |(root, replies): (u64, Vec<(u64, &ModelEntry)>)| {
            let mut participants: Vec<UserId> = Vec::new();
            for (_, reply) in &replies {
                let author = UserId::trusted(&reply.author);
                if participants.len() < 5 && !participants.contains(&author) {
                    participants.push(author);
                }
            }
            let last_seq = replies.last().map_or(0, |(seq, _)| *seq);
            let replies = replies.len() as u64;
            let state = ThreadState {
                replies,
                last_seq,
                participants,
            };
            (root, state)
        };
        threads.map(state).collect()
    }

    /// The threads of a user: the number of the root, of the last reply, and unread replies.
    pub fn user_threads(&self, user: &str) -> Vec<(u64, u64, u64)> {
        if self.kind != ModelKind::Open && !self.members.contains_key(user) {
            return Vec::new();
        }
        let hidden = self.hidden(user);
        let mut found = Vec::new();
        for (root, replies) in self.threads() {
            let is_author = self.entries[&root].author == user;
            let has_replied = replies.iter().any(|(_, reply)| reply.author == user);
            let last = replies.last().map_or(0, |(seq, _)| *seq);
            if (is_author || has_replied) && last > hidden {
                let is_unread =
                    |(seq, reply): &&(u64, &ModelEntry)| *seq > hidden && reply.author != user;
                let unread = replies.iter().filter(is_unread).count() as u64;
                found.push((root, last, unread.min(UNREAD_CAP)));
            }
        }
        found
    }

    /// Moves a position, as a call of the store does.
    pub fn move_to(&mut self, user: &str, seq: u64, only_up: bool) -> ReadPosition {
        let hidden = self.hidden(user);
        let joined = self.members.get(user).copied().unwrap_or(0);
        let stored = self.positions.get(user).copied();
        let present = stored.unwrap_or(joined).max(hidden);
        let wanted = if only_up {
            seq.max(present)
        } else {
            seq.max(hidden)
        };
        if wanted != present {
            self.positions.insert(user.to_owned(), wanted);
        }
        ReadPosition {
            last_read_seq: wanted,
            unread: self.unread_at(user, wanted),
            has_moved: wanted != present,
        }
    }
}
