//! Every place (room, epoch, seq) has one message, and every message one place.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::faults::{Faults, Kind};
use super::figures::Figures;
use super::names::{Name, Names};
use super::story::Story;
use crate::history::{Fact, Record};

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub room: Name,
    pub epoch: Name,
    pub seq: u64,
}

/// What is known of the message at a place.
pub(super) struct Message {
    id: Name,
    msg: Option<Name>,
    /// `None` while only acks tell of it.
    user: Option<Name>,
    /// When it was acknowledged first.
    pub acked: Option<u64>,
    /// An ack said that it was new.
    new: bool,
    /// When it was heard of first.
    pub at: u64,
}

/// All places that anybody told of.
pub(super) struct Ledger {
    pub places: HashMap<Place, Message>,
    ids: HashMap<Name, Place>,
    /// By message, and by epoch where data was lost.
    msgs: HashMap<(Name, Option<Name>), Place>,
    data_loss: bool,
}

/// What was sent: by message, who sent it, and where.
type Sends<'a> = HashMap<&'a str, (&'a str, &'a str)>;

impl Ledger {
    /// Reads what all clients told, and counts.
    pub fn of<'a>(
        story: &Story<'a>,
        data_loss: bool,
        names: &mut Names<'a>,
        faults: &mut Faults,
        figures: &mut Figures,
    ) -> Self {
        let mut ledger = Self {
            places: HashMap::new(),
            ids: HashMap::new(),
            msgs: HashMap::new(),
            data_loss,
        };
        let sends = sends(story, faults, figures);
        let mut acked: HashSet<&str> = HashSet::new();
        for client in &story.clients {
            for record in &client.records {
                match &record.fact {
                    Fact::Acked { room, msg, .. } => {
                        if sends.get(msg.as_str()) != Some(&(client.who, room.as_str())) {
                            faults.add(Kind::Malformed, record.at, || {
                                format!(
                                    "{} got an ack for {msg} in {room}, which it never sent there",
                                    client.who
                                )
                            });
                        }
                        acked.insert(msg);
                        ledger.acked(record, names, faults);
                    }
                    Fact::Got { .. } => {
                        figures.delivered += 1;
                        ledger.got(record, &sends, names, faults);
                    }
                    _ => {}
                }
            }
        }
        unanswered(story, &sends, &acked, faults);
        figures.sent = sends.len() as u64;
        figures.acknowledged = acked.len() as u64;
        figures.unanswered = sends.keys().filter(|msg| !acked.contains(*msg)).count() as u64;
        ledger
    }

    fn acked<'a>(&mut self, record: &'a Record, names: &mut Names<'a>, faults: &mut Faults) {
        let Fact::Acked {
            room,
            msg,
            id,
            epoch,
            seq,
            duplicate,
        } = &record.fact
        else {
            return;
        };
        let place = Place {
            room: names.name(room),
            epoch: names.name(epoch),
            seq: *seq,
        };
        let message = self.enter(
            place,
            names.name(id),
            Some(names.name(msg)),
            None,
            record,
            names,
            faults,
        );
        message.acked = Some(
            message
                .acked
                .map_or(record.at, |first| first.min(record.at)),
        );
        if !duplicate && std::mem::replace(&mut message.new, true) {
            faults.add(Kind::NewTwice, record.at, || {
                format!(
                    "{} was told that {msg} at {epoch}/{seq} in {room} is new, and it was so once already",
                    record.who
                )
            });
        }
    }

    fn got<'a>(
        &mut self,
        record: &'a Record,
        sends: &Sends<'_>,
        names: &mut Names<'a>,
        faults: &mut Faults,
    ) {
        let Fact::Got {
            room,
            epoch,
            seq,
            id,
            msg,
            user,
        } = &record.fact
        else {
            return;
        };
        let place = Place {
            room: names.name(room),
            epoch: names.name(epoch),
            seq: *seq,
        };
        let (id, named, user) = (
            names.name(id),
            msg.as_ref().map(|msg| names.name(msg)),
            names.name(user),
        );
        let known = self.places.contains_key(&place);
        self.enter(place, id, named, Some(user), record, names, faults);
        if let Some(msg) = msg.as_ref().filter(|_| !known)
            && sends
                .get(msg.as_str())
                .is_none_or(|(_, sent_to)| sent_to != room)
        {
            faults.add(Kind::Meaning, record.at, || {
                format!(
                    "{} got {msg} at {epoch}/{seq} in {room}, and nobody sent that to this room",
                    record.who
                )
            });
        }
    }

    /// Enters a message at a place, and compares it with what is known of both.
    #[expect(
        clippy::too_many_arguments,
        reason = "one message as it was told, and where to complain"
    )]
    fn enter(
        &mut self,
        place: Place,
        id: Name,
        msg: Option<Name>,
        user: Option<Name>,
        record: &Record,
        names: &Names<'_>,
        faults: &mut Faults,
    ) -> &mut Message {
        let here = |place: &Place| {
            format!(
                "{}/{} in {}",
                names.text(place.epoch),
                place.seq,
                names.text(place.room)
            )
        };
        match self.places.entry(place) {
            Entry::Occupied(known) => {
                let known = known.into_mut();
                if known.id != id || differ(known.msg, msg) || differ(known.user, user) {
                    faults.add(Kind::Meaning, record.at, || {
                        let (old, new) = (
                            named(names, known.id, known.msg, known.user),
                            named(names, id, msg, user),
                        );
                        format!(
                            "{} was told that {} is {new}; before, it was {old}",
                            record.who,
                            here(&place)
                        )
                    });
                }
                (known.msg, known.user) = (known.msg.or(msg), known.user.or(user));
                known.at = known.at.min(record.at);
                known
            }
            Entry::Vacant(vacant) => {
                let other = self.ids.insert(id, place);
                let epoch = self.data_loss.then_some(place.epoch);
                let other = other.or(msg.and_then(|msg| self.msgs.insert((msg, epoch), place)));
                if let Some(other) = other {
                    faults.add(Kind::Meaning, record.at, || {
                        let what = named(names, id, msg, user);
                        format!(
                            "{} was told that {what} is at {}; it is at {}",
                            record.who,
                            here(&place),
                            here(&other)
                        )
                    });
                }
                vacant.insert(Message {
                    id,
                    msg,
                    user,
                    acked: None,
                    new: false,
                    at: record.at,
                })
            }
        }
    }
}

fn differ(one: Option<Name>, other: Option<Name>) -> bool {
    one.is_some() && other.is_some() && one != other
}

fn named(names: &Names<'_>, id: Name, msg: Option<Name>, user: Option<Name>) -> String {
    let [msg, user] = [msg, user].map(|name| name.map_or("?", |name| names.text(name)));
    format!("{msg} of {user} with id {}", names.text(id))
}

/// When all has come to rest nobody waits for an ack any more, or has given up: whatever stood in the way is over.
fn unanswered(story: &Story<'_>, sends: &Sends<'_>, acked: &HashSet<&str>, faults: &mut Faults) {
    let ended: HashSet<&str> = story
        .clients
        .iter()
        .filter(|client| client.ended)
        .map(|client| client.who)
        .collect();
    let mut left: Vec<_> = sends
        .iter()
        .filter(|(msg, (who, _))| !acked.contains(*msg) && !ended.contains(who))
        .collect();
    left.sort_unstable();
    for (msg, (who, room)) in left {
        if let Some((at, _, _)) = story.heads.get(room) {
            faults.add(Kind::Unanswered, *at, || {
                format!("{msg} of {who} to {room} was never acknowledged")
            });
        }
    }
}

/// What was sent. A message has one sender and one room.
fn sends<'a>(story: &Story<'a>, faults: &mut Faults, figures: &mut Figures) -> Sends<'a> {
    let mut sends = Sends::new();
    for client in &story.clients {
        for record in &client.records {
            match &record.fact {
                Fact::Sent { room, msg } => {
                    figures.attempts += 1;
                    if *sends.entry(msg).or_insert((client.who, room))
                        != (client.who, room.as_str())
                    {
                        faults.add(Kind::Malformed, record.at, || {
                            format!(
                                "{} sent {msg} to {room}, and it had another sender or room before",
                                client.who
                            )
                        });
                    }
                }
                Fact::Refused { room, msg, code } => {
                    figures.refused += 1;
                    if !sends.contains_key(msg.as_str()) {
                        faults.add(Kind::Malformed, record.at, || {
                            format!(
                                "{} was refused {msg} in {room} ({code}), which it never sent",
                                client.who
                            )
                        });
                    }
                }
                _ => {}
            }
        }
    }
    sends
}
