//! Builds histories in few words. The room is always [`ROOM`], and the sender of all messages is
//! the user `sue`. A position is written `e1/5` (epoch and number), consecutive positions
//! `e1/3..5`. A message has the name of its position.

use crate::checker::{Promises, Stats, check};
use crate::history::{Fact, KeptMessage, LAB, Position, Record};

#[derive(Default, Clone)]
pub struct HistoryBuilder {
    pub records: Vec<Record>,
    pub promises: Promises,
    at: u64,
}

pub const ROOM: &str = "lobby";

pub fn position(text: &str) -> Position {
    let (epoch, seq) = text.split_once('/').unwrap();
    Position {
        epoch: epoch.to_owned(),
        seq: seq.parse().unwrap(),
    }
}

fn positions(text: &str) -> impl Iterator<Item = Position> {
    let (epoch, range) = text.split_once('/').unwrap();
    let (from, to) = range.split_once("..").unwrap_or((range, range));
    let seqs = from.parse::<u64>().unwrap()..=to.parse().unwrap();
    seqs.map(move |seq| Position {
        epoch: epoch.to_owned(),
        seq,
    })
}

/// The delivery of the message at a position.
pub fn received(position: &Position) -> Fact {
    let name = format!("{}/{}", position.epoch, position.seq);
    Fact::Received {
        room: ROOM.into(),
        epoch: position.epoch.clone(),
        seq: position.seq,
        id: format!("i-{name}"),
        msg: Some(format!("m-{name}")),
        user: "sue".into(),
        content: None,
    }
}

/// The message at a position, as the archive has it.
pub fn kept(position: &Position) -> KeptMessage {
    let name = format!("{}/{}", position.epoch, position.seq);
    KeptMessage {
        room: ROOM.into(),
        seq: position.seq,
        epoch: position.epoch.clone(),
        id: format!("i-{name}"),
        msg: Some(format!("m-{name}")),
        user: "sue".into(),
        content: 7,
    }
}

impl HistoryBuilder {
    /// `sue` and `ann` are in an empty room.
    pub fn with_two_members() -> Self {
        let mut history = Self::default();
        history
            .connects_and_joins("sue", "e1/0")
            .connects_and_joins("ann", "e1/0");
        history
    }

    /// Adds a record, 10 ms after the one before.
    pub fn record(&mut self, source: &str, fact: Fact) -> &mut Self {
        self.at += 10;
        self.records.push(Record {
            at: self.at,
            source: source.into(),
            fact,
        });
        self
    }

    pub fn connects(&mut self, client: &str) -> &mut Self {
        let user = client.into();
        self.record(client, Fact::Connected { user })
    }

    pub fn disconnects(&mut self, client: &str) -> &mut Self {
        self.record(client, Fact::Disconnected)
    }

    pub fn ends(&mut self, client: &str) -> &mut Self {
        self.record(client, Fact::Ended)
    }

    /// Connects, and joins without a replay.
    pub fn connects_and_joins(&mut self, client: &str, head: &str) -> &mut Self {
        self.connects(client)
            .joined(client, None, head, false, false, 0)
            .gets_room_users(client, &[client])
    }

    /// Connects, and joins with a replay of the last messages.
    pub fn connects_and_joins_with_replay(
        &mut self,
        client: &str,
        head: &str,
        replay: &str,
    ) -> &mut Self {
        let replayed = positions(replay).count() as u64;
        self.connects(client)
            .joined(client, None, head, false, false, replayed)
            .receives(client, replay)
            .gets_room_users(client, &[client])
    }

    /// Connects, resumes, and receives the messages that it missed.
    pub fn connects_and_resumes(&mut self, client: &str, since: &str, head: &str) -> &mut Self {
        let from = position(since);
        let to = position(head);
        self.connects(client)
            .joined(client, Some(since), head, true, false, to.seq - from.seq);
        for seq in from.seq + 1..=to.seq {
            let missed = Position {
                epoch: to.epoch.clone(),
                seq,
            };
            self.record(client, received(&missed));
        }
        self.gets_room_users(client, &[client])
    }

    /// Connects, can't resume (`gap`), and receives the messages that are left.
    pub fn connects_with_gap(
        &mut self,
        client: &str,
        since: &str,
        head: &str,
        left: &[&str],
    ) -> &mut Self {
        let replayed = left.iter().flat_map(|range| positions(range)).count() as u64;
        self.connects(client)
            .joined(client, Some(since), head, false, true, replayed);
        for range in left {
            self.receives(client, range);
        }
        self.gets_room_users(client, &[client])
    }

    pub fn joined(
        &mut self,
        client: &str,
        since: Option<&str>,
        head: &str,
        recovered: bool,
        gap: bool,
        replayed: u64,
    ) -> &mut Self {
        let Position { epoch, seq } = position(head);
        let fact = Fact::Joined {
            room: ROOM.into(),
            since: since.map(position),
            epoch,
            seq,
            recovered,
            gap,
            replayed,
        };
        self.record(client, fact)
    }

    pub fn leaves(&mut self, client: &str) -> &mut Self {
        self.record(client, Fact::Left { room: ROOM.into() })
    }

    /// `sue` tries to send the message.
    pub fn sends(&mut self, message: &str) -> &mut Self {
        let fact = Fact::Sent {
            room: ROOM.into(),
            msg: format!("m-{message}"),
            content: None,
        };
        self.record("sue", fact)
    }

    pub fn acked(&mut self, message: &str, duplicate: bool) -> &mut Self {
        self.acked_at(message, message, duplicate)
    }

    /// An acknowledgement of the message with another position than its name says.
    pub fn acked_at(&mut self, message: &str, at: &str, duplicate: bool) -> &mut Self {
        let Position { epoch, seq } = position(at);
        let fact = Fact::Acked {
            room: ROOM.into(),
            msg: format!("m-{message}"),
            id: format!("i-{at}"),
            epoch,
            seq,
            duplicate,
        };
        self.record("sue", fact)
    }

    /// `sue` sends these messages, and gets their acknowledgements.
    pub fn sends_acked(&mut self, messages: &str) -> &mut Self {
        for Position { epoch, seq } in positions(messages) {
            let message = format!("{epoch}/{seq}");
            self.sends(&message).acked(&message, false);
        }
        self
    }

    pub fn receives(&mut self, client: &str, messages: &str) -> &mut Self {
        for position in positions(messages) {
            self.record(client, received(&position));
        }
        self
    }

    /// `sue` sends these messages, and both members receive them.
    pub fn sends_to_both(&mut self, messages: &str) -> &mut Self {
        self.sends_acked(messages)
            .receives("sue", messages)
            .receives("ann", messages)
    }

    pub fn is_reset(&mut self, client: &str, to: &str) -> &mut Self {
        let Position { epoch, seq } = position(to);
        let fact = Fact::Reset {
            room: ROOM.into(),
            epoch,
            seq,
            lost_from: None,
        };
        self.record(client, fact)
    }

    pub fn data_lost(&mut self) -> &mut Self {
        self.record(LAB, Fact::DataLost)
    }

    /// The end of a run with an archive: the head of the room, and the messages that archive and
    /// server have.
    pub fn ends_with_archive(&mut self, head: &str, messages: &[&str]) -> &mut Self {
        self.final_head(head).archive_read();
        for range in messages {
            self.archived(range).logged(range);
        }
        self
    }

    pub fn archive_read(&mut self) -> &mut Self {
        let room = ROOM.into();
        self.record(LAB, Fact::ArchiveRead)
            .record(LAB, Fact::ArchivedRoom { room, cut: 0 })
    }

    pub fn archived(&mut self, messages: &str) -> &mut Self {
        for position in positions(messages) {
            self.record(LAB, Fact::Archived(kept(&position)));
        }
        self
    }

    pub fn archived_gap(&mut self, first: u64, last: u64) -> &mut Self {
        let room = ROOM.into();
        self.record(LAB, Fact::ArchivedGap { room, first, last })
    }

    pub fn logged(&mut self, messages: &str) -> &mut Self {
        for position in positions(messages) {
            self.record(LAB, Fact::Logged(kept(&position)));
        }
        self
    }

    pub fn final_head(&mut self, at: &str) -> &mut Self {
        let Position { epoch, seq } = position(at);
        let room = ROOM.into();
        self.record(LAB, Fact::FinalHead { room, epoch, seq })
    }

    /// The client receives a complete `room_users`.
    pub fn gets_room_users(&mut self, client: &str, users: &[&str]) -> &mut Self {
        self.gets_room_users_of(client, users, users.len() as u64)
    }

    /// The client receives a `room_users` with this total.
    pub fn gets_room_users_of(&mut self, client: &str, users: &[&str], total: u64) -> &mut Self {
        let fact = Fact::RoomUsers {
            room: ROOM.into(),
            users: owned(users),
            total,
        };
        self.record(client, fact)
    }

    pub fn sees_join(&mut self, client: &str, user: &str) -> &mut Self {
        let fact = Fact::UserJoined {
            room: ROOM.into(),
            user: user.into(),
        };
        self.record(client, fact)
    }

    pub fn sees_leave(&mut self, client: &str, user: &str) -> &mut Self {
        let fact = Fact::UserLeft {
            room: ROOM.into(),
            user: user.into(),
        };
        self.record(client, fact)
    }

    pub fn final_members(&mut self, users: &[&str]) -> &mut Self {
        let fact = Fact::FinalMembers {
            room: ROOM.into(),
            users: owned(users),
        };
        self.record(LAB, fact)
    }

    /// The client watches `tim`, and receives his state.
    pub fn watches(&mut self, client: &str, online: bool, version: u64) -> &mut Self {
        let target = String::from("tim");
        let answer = Fact::Watching {
            target: target.clone(),
            online,
            version,
        };
        let state = Fact::Status {
            target,
            online,
            version,
            initial: true,
        };
        self.record(client, answer).record(client, state)
    }

    /// The client is notified of a change of `tim`.
    pub fn sees_status(&mut self, client: &str, online: bool, version: u64) -> &mut Self {
        let fact = Fact::Status {
            target: "tim".into(),
            online,
            version,
            initial: false,
        };
        self.record(client, fact)
    }

    pub fn unaffected(&mut self, client: &str) -> &mut Self {
        let client = client.into();
        self.record(LAB, Fact::Unaffected { client })
    }

    /// The lab takes a user online or offline.
    pub fn presence_changed(&mut self, user: &str, online: bool) -> &mut Self {
        let target = user.into();
        self.record(LAB, Fact::PresenceChanged { target, online })
    }

    pub fn final_status(&mut self, online: bool, version: u64) -> &mut Self {
        let fact = Fact::FinalStatus {
            target: "tim".into(),
            online,
            version,
        };
        self.record(LAB, fact)
    }

    pub fn faults(&self) -> Vec<String> {
        check(&self.records, &self.promises).faults
    }

    pub fn stats(&self) -> Stats {
        check(&self.records, &self.promises).stats
    }

    #[track_caller]
    pub fn assert_accepted(&self) {
        let faults = self.faults();
        assert!(faults.is_empty(), "{faults:#?}");
    }

    /// The checker finds faults of exactly these kinds, in this order.
    #[track_caller]
    pub fn assert_faults(&self, kinds: &[&str]) {
        let faults = self.faults();
        let mut found: Vec<_> = faults
            .iter()
            .filter_map(|fault| fault.split_once(": "))
            .map(|(kind, _)| kind)
            .collect();
        found.dedup();
        assert_eq!(found, kinds, "{faults:#?}");
    }
}

fn owned(users: &[&str]) -> Vec<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}
