//! A simple model of rooms: lists of messages that are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hubbub::store::UNREAD_CAP;
use serde_json::{Value, json};

/// After so long, every node is done with archiving a message that was acknowledged.
const SETTLING_TIME: Duration = Duration::from_secs(1);

/// A user, by its place in the list of users.
pub type UserIndex = usize;

/// A message.
#[derive(Debug, Clone)]
pub struct ModelMessage {
    pub id: String,
    pub author: UserIndex,
    pub is_live: bool,
    pub is_reply: bool,
    pub mentions: BTreeSet<UserIndex>,
}

/// The rooms of a user, and what a new member can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    Open,
    /// A chat whose new members can read everything.
    All,
    /// A chat whose new members can read what comes after joining.
    Joined,
}

/// How far a user has read.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    pub seq: u64,
    /// Whether it outlasts the membership: it was moved, or is that of an open room.
    pub is_stored: bool,
}

#[derive(Debug)]
pub struct ModelRoom {
    pub name: String,
    pub kind: ModelKind,
    pub messages: BTreeMap<u64, ModelMessage>,
    /// The greatest number that an answer had.
    pub last: u64,
    /// The greatest number some time ago: nothing up to it is being archived any more.
    pub settled: u64,
    /// When `settled` becomes `next_settled`.
    settles_at: Instant,
    next_settled: u64,
    pub positions: BTreeMap<UserIndex, Position>,
    /// In a chat of the kind `Joined`: the number up to which messages are hidden from a member.
    pub hidden: BTreeMap<UserIndex, u64>,
    /// The occupants of an open room, the members of a chat.
    pub present: BTreeSet<UserIndex>,
}

impl ModelRoom {
    pub fn new(name: String, kind: ModelKind) -> Self {
        Self {
            name,
            kind,
            messages: BTreeMap::new(),
            last: 0,
            settled: 0,
            settles_at: Instant::now() + SETTLING_TIME,
            next_settled: 0,
            positions: BTreeMap::new(),
            hidden: BTreeMap::new(),
            present: BTreeSet::new(),
        }
    }

    /// Notes that time has passed.
    pub fn settle(&mut self) {
        if Instant::now() > self.settles_at {
            self.settled = self.next_settled;
            self.next_settled = self.last;
            self.settles_at = Instant::now() + SETTLING_TIME;
        }
    }

    pub fn is_chat(&self) -> bool {
        self.kind != ModelKind::Open
    }

    pub fn chat_id(&self) -> &str {
        self.name.trim_start_matches("chat:")
    }

    pub fn hidden(&self, user: UserIndex) -> u64 {
        self.hidden.get(&user).copied().unwrap_or(0)
    }

    /// The position of a user; `None` if the room is not one of the user's.
    pub fn position(&self, user: UserIndex) -> Option<u64> {
        if self.is_chat() && !self.present.contains(&user) {
            return None;
        }
        let position = self.positions.get(&user)?;
        Some(position.seq.max(self.hidden(user)))
    }

    /// The user has entered the room, or has become a member: `GET /api/v1/me/unread` had this position.
    /// `is_exact`: the archive has everything that is acknowledged.
    pub fn enters(&mut self, user: UserIndex, found: u64, is_exact: bool) {
        self.present.insert(user);
        let stored = self.positions.get(&user).copied();
        let seq = stored.map_or(0, |position| position.seq);
        let is_at_head = self.kind == ModelKind::Joined || stored.is_none();
        if is_at_head && is_exact {
            assert!(found >= self.last, "{found} in {self:?}");
        }
        if !is_at_head {
            assert_eq!(found, seq, "{user} again in {self:?}");
        }
        if self.kind == ModelKind::Joined {
            self.hidden.insert(user, found);
        }
        let is_stored = !self.is_chat();
        let position = Position {
            seq: found,
            is_stored,
        };
        self.positions.entry(user).or_insert(position);
    }

    pub fn leaves(&mut self, user: UserIndex) {
        self.present.remove(&user);
        self.hidden.remove(&user);
        let is_lost = |position: &Position| !position.is_stored;
        if self.positions.get(&user).is_some_and(is_lost) {
            self.positions.remove(&user);
        }
    }

    /// The user reads up to a number; returns the new position.
    pub fn read(&mut self, user: UserIndex, seq: u64) -> u64 {
        let present = self.position(user).unwrap();
        self.move_to(user, seq.max(present))
    }

    /// The message with this number is the first one that the user has not read.
    pub fn mark_unread(&mut self, user: UserIndex, seq: u64) -> u64 {
        self.move_to(user, (seq - 1).max(self.hidden(user)))
    }

    fn move_to(&mut self, user: UserIndex, wanted: u64) -> u64 {
        if self.position(user) != Some(wanted) {
            let position = Position {
                seq: wanted,
                is_stored: true,
            };
            self.positions.insert(user, position);
        }
        wanted
    }

    /// What `GET /api/v1/me/unread` has for the user; `None` if the room is not one of the user's.
    pub fn unread(&self, user: UserIndex) -> Option<Value> {
        let position = self.position(user)?;
        let (mut count, mut mentions) = (0, 0);
        for message in self.messages.range(position + 1..).map(|(_, found)| found) {
            if message.is_live && message.author != user {
                count += u64::from(!message.is_reply);
                mentions += u64::from(message.mentions.contains(&user));
            }
        }
        let mut unread = json!({
            "room_id": self.name, "last_read_seq": position,
            "unread": count.min(UNREAD_CAP), "mentions": mentions,
        });
        if count > UNREAD_CAP {
            unread["capped"] = json!(true);
        }
        Some(unread)
    }
}
