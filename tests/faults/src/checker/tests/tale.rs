//! Histories told in few words. The room is `lobby`; a place is written `e1/5`, places in a row `e1/3..5`; the message at
//! a place is named after it, and is `sue`'s.

use crate::checker::{Promises, check};
use crate::history::{Fact, Position, Record};

#[derive(Default, Clone)]
pub struct Tale {
    pub records: Vec<Record>,
    pub promises: Promises,
    at: u64,
}

pub const ROOM: &str = "lobby";

pub fn place(text: &str) -> Position {
    let (epoch, seq) = text.split_once('/').unwrap();
    Position {
        epoch: epoch.to_owned(),
        seq: seq.parse().unwrap(),
    }
}

fn places(text: &str) -> impl Iterator<Item = Position> {
    let (epoch, range) = text.split_once('/').unwrap();
    let (from, to) = range.split_once("..").unwrap_or((range, range));
    let seqs = from.parse::<u64>().unwrap()..=to.parse().unwrap();
    seqs.map(move |seq| Position {
        epoch: epoch.to_owned(),
        seq,
    })
}

pub fn got(at: &Position) -> Fact {
    let name = format!("{}/{}", at.epoch, at.seq);
    let (room, epoch, msg) = (ROOM.into(), at.epoch.clone(), Some(format!("m-{name}")));
    Fact::Got {
        room,
        epoch,
        seq: at.seq,
        id: format!("i-{name}"),
        msg,
        user: "sue".into(),
    }
}

impl Tale {
    /// `sue` and `ann` are in an empty room.
    pub fn of_two() -> Self {
        let mut tale = Self::default();
        tale.enters("sue", "e1/0").enters("ann", "e1/0");
        tale
    }

    pub fn tell(&mut self, who: &str, fact: Fact) -> &mut Self {
        self.at += 10;
        self.records.push(Record {
            at: self.at,
            who: who.into(),
            fact,
        });
        self
    }

    pub fn opens(&mut self, who: &str) -> &mut Self {
        self.tell(who, Fact::Opened { user: who.into() })
    }

    pub fn closes(&mut self, who: &str) -> &mut Self {
        self.tell(who, Fact::Closed)
    }

    pub fn ends(&mut self, who: &str) -> &mut Self {
        self.tell(who, Fact::Ended)
    }

    /// Opens, and joins without asking for anything.
    pub fn enters(&mut self, who: &str, head: &str) -> &mut Self {
        self.opens(who)
            .joined(who, None, head, false, false, 0)
            .lists(who, &[who])
    }

    /// Opens, and joins with the last few messages.
    pub fn enters_with(&mut self, who: &str, head: &str, last: &str) -> &mut Self {
        let replayed = places(last).count() as u64;
        self.opens(who)
            .joined(who, None, head, false, false, replayed)
            .gets(who, last)
            .lists(who, &[who])
    }

    /// Opens, resumes, and gets what it lacked.
    pub fn resumes(&mut self, who: &str, since: &str, head: &str) -> &mut Self {
        let (from, to) = (place(since), place(head));
        self.opens(who)
            .joined(who, Some(since), head, true, false, to.seq - from.seq);
        for seq in from.seq + 1..=to.seq {
            self.tell(
                who,
                got(&Position {
                    epoch: to.epoch.clone(),
                    seq,
                }),
            );
        }
        self.lists(who, &[who])
    }

    /// Opens, can't resume, and gets what there is.
    pub fn misses(&mut self, who: &str, since: &str, head: &str, left: &[&str]) -> &mut Self {
        let replayed = left.iter().flat_map(|left| places(left)).count() as u64;
        self.opens(who)
            .joined(who, Some(since), head, false, true, replayed);
        for left in left {
            self.gets(who, left);
        }
        self.lists(who, &[who])
    }

    pub fn joined(
        &mut self,
        who: &str,
        since: Option<&str>,
        head: &str,
        recovered: bool,
        gap: bool,
        replayed: u64,
    ) -> &mut Self {
        let (Position { epoch, seq }, since) = (place(head), since.map(place));
        self.tell(
            who,
            Fact::Joined {
                room: ROOM.into(),
                since,
                epoch,
                seq,
                recovered,
                gap,
                replayed,
            },
        )
    }

    pub fn leaves(&mut self, who: &str) -> &mut Self {
        self.tell(who, Fact::Left { room: ROOM.into() })
    }

    pub fn sends(&mut self, at: &str) -> &mut Self {
        self.tell(
            "sue",
            Fact::Sent {
                room: ROOM.into(),
                msg: format!("m-{at}"),
            },
        )
    }

    pub fn acked(&mut self, at: &str, duplicate: bool) -> &mut Self {
        self.acked_at(at, at, duplicate)
    }

    /// An ack for the message named after `of`, at another place.
    pub fn acked_at(&mut self, of: &str, at: &str, duplicate: bool) -> &mut Self {
        let (Position { epoch, seq }, id) = (place(at), format!("i-{at}"));
        self.tell(
            "sue",
            Fact::Acked {
                room: ROOM.into(),
                msg: format!("m-{of}"),
                id,
                epoch,
                seq,
                duplicate,
            },
        )
    }

    /// `sue` sends these, with acks.
    pub fn says(&mut self, text: &str) -> &mut Self {
        for Position { epoch, seq } in places(text) {
            let at = format!("{epoch}/{seq}");
            self.sends(&at).acked(&at, false);
        }
        self
    }

    pub fn gets(&mut self, who: &str, text: &str) -> &mut Self {
        for at in places(text) {
            self.tell(who, got(&at));
        }
        self
    }

    /// `sue` says them, and both get them.
    pub fn talk(&mut self, text: &str) -> &mut Self {
        self.says(text).gets("sue", text).gets("ann", text)
    }

    pub fn is_reset(&mut self, who: &str, to: &str) -> &mut Self {
        let Position { epoch, seq } = place(to);
        self.tell(
            who,
            Fact::Reset {
                room: ROOM.into(),
                epoch,
                seq,
                lost_from: None,
            },
        )
    }

    pub fn data_lost(&mut self) -> &mut Self {
        self.tell("lab", Fact::DataLost)
    }

    pub fn head(&mut self, at: &str) -> &mut Self {
        let Position { epoch, seq } = place(at);
        self.tell(
            "lab",
            Fact::Head {
                room: ROOM.into(),
                epoch,
                seq,
            },
        )
    }

    pub fn lists(&mut self, who: &str, users: &[&str]) -> &mut Self {
        self.lists_of(who, users, users.len() as u64)
    }

    pub fn lists_of(&mut self, who: &str, users: &[&str], total: u64) -> &mut Self {
        let users = users.iter().map(|user| (*user).to_owned()).collect();
        self.tell(
            who,
            Fact::Roster {
                room: ROOM.into(),
                users,
                total,
            },
        )
    }

    pub fn sees_enter(&mut self, who: &str, user: &str) -> &mut Self {
        self.tell(
            who,
            Fact::Entered {
                room: ROOM.into(),
                user: user.into(),
            },
        )
    }

    pub fn sees_go(&mut self, who: &str, user: &str) -> &mut Self {
        self.tell(
            who,
            Fact::Went {
                room: ROOM.into(),
                user: user.into(),
            },
        )
    }

    pub fn members(&mut self, users: &[&str]) -> &mut Self {
        let users = users.iter().map(|user| (*user).to_owned()).collect();
        self.tell(
            "lab",
            Fact::Members {
                room: ROOM.into(),
                users,
            },
        )
    }

    /// `who` watches `tim`, and is told his state.
    pub fn watches(&mut self, who: &str, online: bool, version: u64) -> &mut Self {
        self.tell(
            who,
            Fact::Watching {
                target: "tim".into(),
                online,
                version,
            },
        );
        self.tell(
            who,
            Fact::Status {
                target: "tim".into(),
                online,
                version,
                initial: true,
            },
        )
    }

    pub fn is_told(&mut self, who: &str, online: bool, version: u64) -> &mut Self {
        self.tell(
            who,
            Fact::Status {
                target: "tim".into(),
                online,
                version,
                initial: false,
            },
        )
    }

    pub fn calm(&mut self, who: &str) -> &mut Self {
        self.tell("lab", Fact::Calm { client: who.into() })
    }

    /// The lab takes a user on- or offline.
    pub fn change(&mut self, user: &str, online: bool) -> &mut Self {
        self.tell(
            "lab",
            Fact::Change {
                target: user.into(),
                online,
            },
        )
    }

    pub fn state(&mut self, online: bool, version: u64) -> &mut Self {
        self.tell(
            "lab",
            Fact::State {
                target: "tim".into(),
                online,
                version,
            },
        )
    }

    pub fn faults(&self) -> Vec<String> {
        check(&self.records, &self.promises).faults
    }

    pub fn figures(&self) -> crate::checker::Figures {
        check(&self.records, &self.promises).figures
    }

    #[track_caller]
    pub fn is_fine(&self) {
        let faults = self.faults();
        assert!(faults.is_empty(), "{faults:#?}");
    }

    /// There are faults, and all are of these kinds.
    #[track_caller]
    pub fn is_wrong(&self, kinds: &[&str]) {
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
