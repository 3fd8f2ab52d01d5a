//! What each client was told of each room's messages: order, holes, repeats, and the answers to its joins.

use std::collections::{BTreeMap, HashMap};

use super::epochs::Epochs;
use super::faults::{Faults, Kind};
use super::figures::Figures;
use super::names::{Name, Names};
use super::story::Client;
use super::walk::{Entry, Misstep, Stand, Walk};
use crate::history::{Fact, Position, Record};

/// What all clients' ways come to.
#[derive(Default)]
pub(super) struct Ways {
    /// By room, each client's way through it.
    pub rooms: BTreeMap<Name, Vec<Way>>,
    /// By room.
    pub epochs: BTreeMap<Name, Epochs>,
}

pub(super) struct Way {
    pub who: Name,
    pub walk: Walk,
    /// Nothing more is owed: the client left or ended.
    pub over: bool,
}

/// What may be announced as lost.
#[derive(Clone, Copy)]
pub(super) struct Allowed {
    /// A loss in an epoch that goes on may, of what lies further back than so many messages.
    pub gaps: Option<u64>,
    /// A loss with a new epoch may.
    pub data_loss: bool,
}

/// Reads one client's records after another.
pub(super) struct Reader<'r, 'a> {
    pub names: &'r mut Names<'a>,
    pub faults: &'r mut Faults,
    pub figures: &'r mut Figures,
    pub allowed: Allowed,
    pub ways: &'r mut Ways,
}

/// An ack of `join`.
struct Answer<'a> {
    since: Option<&'a Position>,
    epoch: &'a str,
    seq: u64,
    recovered: bool,
    gap: bool,
    replayed: u64,
}

impl<'a> Reader<'_, 'a> {
    pub fn read(&mut self, client: &Client<'a>) {
        let who = self.names.name(client.who);
        let mut walks: HashMap<&str, Walk> = HashMap::new();
        for record in &client.records {
            match &record.fact {
                Fact::Joined {
                    room,
                    since,
                    epoch,
                    seq,
                    recovered,
                    gap,
                    replayed,
                } => {
                    let (recovered, gap, replayed, seq) = (*recovered, *gap, *replayed, *seq);
                    let answer = Answer {
                        since: since.as_ref(),
                        epoch,
                        seq,
                        recovered,
                        gap,
                        replayed,
                    };
                    self.joined(walks.entry(room).or_default(), room, record, &answer);
                }
                Fact::Got {
                    room, epoch, seq, ..
                } => {
                    self.got(walks.entry(room).or_default(), room, record, epoch, *seq);
                }
                Fact::Reset {
                    room,
                    epoch,
                    seq,
                    lost_from,
                } => {
                    self.reset(
                        walks.entry(room).or_default(),
                        room,
                        record,
                        epoch,
                        *seq,
                        *lost_from,
                    );
                }
                Fact::Roster { room, .. } => {
                    self.opened(walks.entry(room).or_default(), room, record)
                }
                Fact::Left { room } => {
                    let walk = walks.entry(room).or_default();
                    if !walk.joined {
                        self.faults.add(Kind::Malformed, record.at, || {
                            format!("{} left {room} unjoined", record.who)
                        });
                    }
                    (walk.joined, walk.left) = (false, true);
                }
                Fact::Closed => walks
                    .values_mut()
                    .for_each(|walk| (walk.joined, walk.opening) = (false, None)),
                _ => {}
            }
        }
        for (room, mut walk) in walks.into_iter().filter(|(_, walk)| walk.at.is_some()) {
            walk.settle();
            let over = walk.left || client.ended;
            self.ways
                .rooms
                .entry(self.names.name(room))
                .or_default()
                .push(Way { who, walk, over });
        }
    }

    fn joined(&mut self, walk: &mut Walk, room: &'a str, record: &'a Record, answer: &Answer<'a>) {
        let (epoch, at) = (self.names.name(answer.epoch), walk.at);
        (walk.joined, walk.left, walk.opening) = (true, false, Some(answer.seq));
        self.come_to(room, at, epoch, record);
        if let Some(why) = impossible(answer) {
            self.complain(Kind::Answer, record, room, walk, || {
                format!("was answered {:?}: {why}", record.fact)
            });
        }
        let Some(since) = answer.since else {
            let after = answer.seq.saturating_sub(answer.replayed);
            walk.begin(Entry::Fresh, epoch, after, answer.seq);
            return;
        };
        let asked = self.names.name(&since.epoch);
        let stood = walk.stands_at(asked, since.seq);
        if !stood {
            let text = || format!("resumed from {}/{}", since.epoch, since.seq);
            self.complain(Kind::Resume, record, room, walk, text);
        }
        if answer.recovered {
            self.figures.resumes += 1;
            if !stood {
                walk.jump(
                    Entry::Faulted,
                    Stand {
                        epoch: asked,
                        seq: since.seq,
                    },
                );
            }
            walk.resume(epoch, answer.seq);
            return;
        }
        self.figures.gaps += 1;
        let from = Stand {
            epoch: asked,
            seq: since.seq,
        };
        self.announced(
            walk,
            room,
            record,
            from,
            Stand {
                epoch,
                seq: answer.seq,
            },
        );
        let behind = answer.seq.checked_sub(since.seq).filter(|_| asked == epoch);
        if let (Some(behind), Some(kept)) = (behind, self.allowed.gaps) {
            if answer.replayed < kept.min(answer.seq) {
                let text = || {
                    format!(
                        "was shown {} messages, and {kept} are kept",
                        answer.replayed
                    )
                };
                self.complain(Kind::Missing, record, room, walk, text);
            }
            if behind <= kept {
                let text = || format!("was told of a loss, and was only {behind} messages behind");
                self.complain(Kind::Announced, record, room, walk, text);
            }
        }
        walk.begin(
            Entry::Announced,
            epoch,
            answer.seq.saturating_sub(answer.replayed),
            answer.seq,
        );
    }

    fn reset(
        &mut self,
        walk: &mut Walk,
        room: &'a str,
        record: &'a Record,
        epoch: &'a str,
        seq: u64,
        lost_from: Option<u64>,
    ) {
        self.figures.resets += 1;
        let to = Stand {
            epoch: self.names.name(epoch),
            seq,
        };
        let Some(at) = walk.at.filter(|_| walk.joined) else {
            self.complain(Kind::Uninvited, record, room, walk, || {
                format!("was told of a reset to {epoch}/{seq}")
            });
            return;
        };
        self.come_to(room, Some(at), to.epoch, record);
        self.announced(walk, room, record, at, to);
        let empty = seq == at.seq || lost_from.is_some_and(|from| from != at.seq + 1);
        if at.epoch == to.epoch && empty {
            let text = || format!("was told of a loss that is none: {:?}", record.fact);
            self.complain(Kind::Announced, record, room, walk, text);
        }
        walk.opening = None;
        walk.jump(Entry::Announced, to);
    }

    /// A loss was announced to who stood at `from`; the numbering stands, or goes on, at `to`.
    fn announced(
        &mut self,
        walk: &Walk,
        room: &'a str,
        record: &'a Record,
        from: Stand,
        to: Stand,
    ) {
        let renamed = from.epoch != to.epoch;
        if !(self.allowed.gaps.is_some() || self.allowed.data_loss && renamed) {
            self.complain(Kind::Announced, record, room, walk, || {
                format!("was told of a loss: {:?}", record.fact)
            });
        }
        if !renamed && to.seq < from.seq {
            let text = || {
                format!(
                    "had {}, and numbers went back to {} in the same epoch",
                    from.seq, to.seq
                )
            };
            self.complain(Kind::Epochs, record, room, walk, text);
        }
    }

    fn got(
        &mut self,
        walk: &mut Walk,
        room: &'a str,
        record: &'a Record,
        epoch: &'a str,
        seq: u64,
    ) {
        let (name, stood) = (self.names.name(epoch), walk.at);
        let step = walk.step(name, seq);
        self.figures.shown_again += u64::from(step.shown_again);
        if let Some(from) = step.from {
            let who = self.names.name(&record.who);
            let epochs = self.epochs(room);
            epochs.see(name, record.at);
            epochs.hop(from, name, who, record.at);
        }
        if step.misstep.is_none() && walk.opening.is_some_and(|until| seq > until) {
            let text = || format!("got {epoch}/{seq} before the room_users of its join");
            self.complain(Kind::Opening, record, room, walk, text);
            walk.opening = None;
        }
        if let Some(misstep) = step.misstep {
            self.misstep(misstep, room, record, epoch, seq, stood);
        }
        if stood.is_none_or(|stood| stood.epoch != name) {
            self.epochs(room).see(name, record.at);
        }
    }

    fn misstep(
        &mut self,
        what: Misstep,
        room: &str,
        record: &Record,
        epoch: &str,
        seq: u64,
        stood: Option<Stand>,
    ) {
        let (who, stood) = (&record.who, self.tell(stood));
        let (kind, why) = match what {
            Misstep::Uninvited => (Kind::Uninvited, "and isn't in the room"),
            Misstep::Repeat => (Kind::Repeat, "and had it"),
            Misstep::Disorder => (Kind::Disorder, "which comes before that"),
            Misstep::LeftEpoch => (Kind::Disorder, "of an epoch that it had left"),
            Misstep::Hole => (Kind::Hole, "so that what lies between never came"),
        };
        self.faults.add(kind, record.at, || {
            format!("{who} in {room}, {stood}, got {epoch}/{seq}, {why}")
        });
    }

    /// `room_users` came: after the replayed messages.
    fn opened(&mut self, walk: &mut Walk, room: &'a str, record: &'a Record) {
        let Some(until) = walk.opening.take() else {
            return;
        };
        if walk.at.is_none_or(|at| at.seq < until) {
            let text = || format!("got room_users before the replay had come to {until}");
            self.complain(Kind::Opening, record, room, walk, text);
        }
    }

    /// An answer or a reset named the epoch.
    fn come_to(&mut self, room: &'a str, from: Option<Stand>, epoch: Name, record: &'a Record) {
        let who = self.names.name(&record.who);
        let epochs = self.epochs(room);
        epochs.see(epoch, record.at);
        if let Some(from) = from {
            epochs.hop(from.epoch, epoch, who, record.at);
        }
    }

    fn epochs(&mut self, room: &'a str) -> &mut Epochs {
        self.ways.epochs.entry(self.names.name(room)).or_default()
    }

    fn complain(
        &mut self,
        kind: Kind,
        record: &Record,
        room: &str,
        walk: &Walk,
        text: impl FnOnce() -> String,
    ) {
        let stood = self.tell(walk.at);
        self.faults.add(kind, record.at, || {
            format!("{} in {room}, {stood}, {}", record.who, text())
        });
    }

    fn tell(&self, stand: Option<Stand>) -> String {
        stand.map_or("new".to_owned(), |at| {
            format!("at {}/{}", self.names.text(at.epoch), at.seq)
        })
    }
}

/// Why an answer to `join` can't be true, whatever happened.
fn impossible(answer: &Answer<'_>) -> Option<&'static str> {
    if answer.replayed > answer.seq {
        return Some("more replayed than there is");
    }
    match answer.since {
        None if answer.recovered || answer.gap => Some("nothing was to be continued"),
        Some(_) if answer.recovered == answer.gap => Some("either it goes on, or it doesn't"),
        Some(since)
            if answer.recovered && answer.seq.checked_sub(since.seq) != Some(answer.replayed) =>
        {
            Some("what is replayed must be what is missing")
        }
        _ => None,
    }
}
