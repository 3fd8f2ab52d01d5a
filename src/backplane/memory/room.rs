//! One room of the embedded backplane: its log, members and changes. Locking and publishing are done
//! by the caller.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use ahash::HashMap;
use bytes::Bytes;
use tokio::time::Instant;

use super::CHANGES_KEPT;
use crate::backplane::{
    Appended, BackplaneLimits, Changes, Entry, EntryKind, OccupantPage, Roster, Slice, Window,
};
use crate::domain::{
    ChangeKind, ConnId, Epoch, Head, LogSpan, NewMessage, RoomChange, Timestamp, UserId, Username,
};

/// Identifies a send: its user and the user's key.
type SendKey = (UserId, Box<str>);

#[derive(Debug)]
struct Occupant {
    username: Username,
    /// Live connections in this room.
    connections: usize,
    /// While set, the user is a member even without a connection.
    grace_until: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Room {
    epoch: Epoch,
    seq: u64,
    /// The last entries, without a hole, ending at `seq`.
    log: VecDeque<Entry>,
    last_message: Instant,
    last_use: Instant,
    sends: HashMap<SendKey, Appended>,
    /// The keys of `sends` in the order in which they expire.
    send_order: VecDeque<(Instant, SendKey)>,
    members: BTreeMap<UserId, Occupant>,
    connections: HashMap<ConnId, UserId>,
    version: u64,
    changes: VecDeque<RoomChange>,
}

impl Room {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            epoch: Epoch::fresh(),
            seq: 0,
            log: VecDeque::new(),
            last_message: now,
            last_use: now,
            sends: HashMap::default(),
            send_order: VecDeque::new(),
            members: BTreeMap::new(),
            connections: HashMap::default(),
            version: 0,
            changes: VecDeque::new(),
        }
    }

    /// Records that the room is used now, and removes entries and send keys whose retention is over.
    /// Called before every use, so that no caller sees expired data.
    pub(super) fn forget_expired(&mut self, limits: &BackplaneLimits) {
        let now = Instant::now();
        self.last_use = now;
        if !self.log.is_empty() && now.duration_since(self.last_message) >= limits.history_ttl {
            self.log.clear();
        }
        while self
            .send_order
            .front()
            .is_some_and(|(expires, _)| *expires <= now)
        {
            if let Some((_, key)) = self.send_order.pop_front() {
                self.sends.remove(&key);
            }
        }
    }

    pub(super) fn is_expired(&self, now: Instant, ttl: Duration) -> bool {
        self.members.is_empty() && now.duration_since(self.last_use) >= ttl
    }

    /// Appends the message, or finds the send that it repeats. Returns its position, and the new
    /// entry unless it is a repeat.
    pub(super) fn append(
        &mut self,
        message: &NewMessage,
        key: Option<&str>,
        record: Bytes,
        limits: &BackplaneLimits,
    ) -> (Appended, Option<Entry>) {
        let key: Option<SendKey> = key.map(|key| (message.user.clone(), key.into()));
        if let Some(first) = key.as_ref().and_then(|key| self.sends.get(key)) {
            return (
                Appended {
                    duplicate: true,
                    ..first.clone()
                },
                None,
            );
        }
        self.seq += 1;
        let entry = Entry {
            seq: self.seq,
            epoch: self.epoch.clone(),
            at: Timestamp::now(),
            kind: EntryKind::Message,
            record,
        };
        let appended = Appended {
            id: message.id,
            seq: entry.seq,
            epoch: entry.epoch.clone(),
            at: entry.at,
            duplicate: false,
        };
        self.log.push_back(entry.clone());
        while self.log.len() > limits.history_size {
            self.log.pop_front();
        }
        self.last_message = self.last_use;
        if let Some(key) = key {
            self.sends.insert(key.clone(), appended.clone());
            self.send_order
                .push_back((self.last_message + limits.dedupe_ttl, key));
        }
        (appended, Some(entry))
    }

    pub(super) fn span(&self) -> LogSpan {
        let oldest = self.log.front().map_or(self.seq + 1, |entry| entry.seq);
        let head = Head {
            epoch: self.epoch.clone(),
            seq: self.seq,
        };
        LogSpan::of_log(head, oldest, Vec::new())
    }

    pub(super) fn read(&self, window: Window, limit: usize, max_bytes: usize) -> Slice {
        let oldest = self.span().oldest;
        // The log has no hole, so the index of a seq is its distance from the oldest.
        let index_of = |seq: u64| {
            usize::try_from(seq.saturating_sub(oldest))
                .unwrap_or(usize::MAX)
                .min(self.log.len())
        };
        let before = |end: usize| {
            let mut entries = take_within(self.log.range(..end).rev(), limit, max_bytes);
            entries.reverse();
            entries
        };
        let entries = match window {
            Window::After(seq) => {
                let start = index_of(seq.saturating_add(1));
                take_within(self.log.range(start..), limit, max_bytes)
            }
            Window::Before(seq) => before(index_of(seq)),
            Window::Newest => before(self.log.len()),
        };
        Slice {
            entries,
            span: self.span(),
        }
    }

    fn change(&mut self, kind: ChangeKind, user: &UserId, username: Username) -> RoomChange {
        let previous = self.version;
        self.version = (previous + 1).max(Timestamp::now().0);
        let total = self.members.len() as u64;
        let change = RoomChange {
            version: self.version,
            previous,
            kind,
            user: user.clone(),
            username,
            total,
        };
        self.changes.push_back(change.clone());
        if self.changes.len() > CHANGES_KEPT {
            self.changes.pop_front();
        }
        change
    }

    pub(super) fn join(
        &mut self,
        conn: &ConnId,
        user: &UserId,
        username: &Username,
    ) -> Option<RoomChange> {
        let new_connection = self
            .connections
            .insert(conn.clone(), user.clone())
            .is_none();
        let known = self.members.contains_key(user);
        let member = self
            .members
            .entry(user.clone())
            .or_insert_with(|| Occupant {
                username: username.clone(),
                connections: 0,
                grace_until: None,
            });
        member.username = username.clone();
        member.grace_until = None;
        member.connections += usize::from(new_connection);
        if known {
            None
        } else {
            Some(self.change(ChangeKind::Joined, user, username.clone()))
        }
    }

    pub(super) fn leave(&mut self, conn: &ConnId) -> Option<RoomChange> {
        let user = self.connections.remove(conn)?;
        let member = self.members.get_mut(&user)?;
        member.connections -= 1;
        if member.connections == 0 && member.grace_until.is_none() {
            self.remove_member(&user)
        } else {
            None
        }
    }

    /// Removes a lost connection. Returns true if this began or prolonged the user's grace.
    pub(super) fn connection_lost(&mut self, conn: &ConnId, until: Instant) -> bool {
        let Some(user) = self.connections.remove(conn) else {
            return false;
        };
        let Some(member) = self.members.get_mut(&user) else {
            return false;
        };
        member.connections -= 1;
        member.grace_until = Some(until);
        true
    }

    pub(super) fn end_grace(&mut self, user: &UserId, now: Instant) -> Option<RoomChange> {
        let member = self.members.get_mut(user)?;
        if member.grace_until.is_none_or(|until| until > now) {
            return None;
        }
        member.grace_until = None;
        if member.connections == 0 {
            self.remove_member(user)
        } else {
            None
        }
    }

    fn remove_member(&mut self, user: &UserId) -> Option<RoomChange> {
        let member = self.members.remove(user)?;
        Some(self.change(ChangeKind::Left, user, member.username))
    }

    pub(super) fn roster(&self, limit: usize, including: Option<&UserId>) -> Roster {
        let mut users: Vec<UserId> = self.members.keys().take(limit).cloned().collect();
        if let Some(joiner) = including
            && self.members.len() > limit
            && !users.contains(joiner)
        {
            users.pop();
            users.push(joiner.clone());
        }
        Roster {
            users,
            total: self.members.len() as u64,
            version: self.version,
        }
    }

    pub(super) fn members(&self, after: Option<&UserId>, limit: usize) -> OccupantPage {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.members.range((from, Bound::Unbounded));
        let page: Vec<_> = rest
            .by_ref()
            .take(limit)
            .map(|(id, member)| (id.clone(), member.username.clone()))
            .collect();
        let next = match page.last() {
            Some((id, _)) if rest.next().is_some() => Some(id.clone()),
            _ => None,
        };
        OccupantPage {
            members: page,
            total: self.members.len() as u64,
            next,
        }
    }

    pub(super) fn is_occupant(&self, user: &UserId) -> bool {
        self.members.contains_key(user)
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn changes_after(&self, version: u64) -> Changes<RoomChange> {
        super::user::changes_after(&self.changes, self.version, version, |change| {
            (change.previous, change.version)
        })
    }
}

/// The first entries: at most `limit`, with at most `max_bytes` bytes of records, but always one.
fn take_within<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    limit: usize,
    max_bytes: usize,
) -> Vec<Entry> {
    let mut taken = Vec::new();
    let mut bytes = 0;
    for entry in entries.take(limit) {
        bytes += entry.record.len();
        if !taken.is_empty() && bytes > max_bytes {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}
