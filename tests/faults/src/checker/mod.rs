//! Judges a history: whether what clients saw is what hubbub promises. Knows the promises, and nothing of how they are kept.
//!
//! # What is verified
//!
//! - **One meaning** (`ledger`): a place (room, epoch, seq) has one message, id and sender for everybody, acks included; an
//!   id and a message have one place. Where data was lost a message may have one place in each epoch. No message comes
//!   that nobody sent. No place is acknowledged as new twice. In the end every message is acknowledged, but for those of
//!   clients that ended.
//! - **Order** (`walk`, `rooms`): every message is the one after where the client stands, over all its connections. An
//!   epoch may change at the next number only; one that was left never returns. A join that isn't a resume (`since` left
//!   out, or `gap`) may show again what the client had, up to its answer's `seq` and no further. Nothing comes to who
//!   isn't in the room. After a join the replay comes first, then `room_users`, then live messages.
//! - **Joins**: a client resumes from where it stands; `recovered` and `gap` fit what was asked; `replayed` is what is
//!   missing. `gap` and `room_reset` are faults unless allowed; in an epoch that goes on they announce what lies further
//!   back than the log reaches, and nothing else. Numbers never go back in an epoch.
//! - **Epochs** (`epochs`): they come in one order to everybody. Without loss of data numbers go on from one to the next.
//! - **Completeness** (`complete`): every message that was acknowledged, or came to anybody, came to every client that was
//!   in the room, from its first join on, unless its loss was announced to that client, or the client had asked for no
//!   more, left or ended. Where data was lost, messages of an epoch that is over may be missing to who was behind; they
//!   are counted, and none of them was acknowledged before the lab saved the data. In the end every client stands at the room's `head`, and no ack is beyond it.
//! - **Status** (`status`): a version means the same to everybody; changes rise in version, for each watcher over its whole
//!   life; a state that was asked for isn't older than what the watcher knew (but after loss of data); in the end each
//!   watcher knows the true state. Calm watchers were told of exactly the changes that the lab caused. Every version newer
//!   than what a calm watcher of the target knew at first is one that it heard of: so the others may be told of fewer
//!   changes (the newest state for several), but of none that wasn't.
//! - **Rooms' users** (`members`): nobody comes who is in, or goes who isn't; nobody is told of itself; the list of a join
//!   has the joiner in it and is whole; in the end each member knows the true members. To a calm member a user comes and
//!   goes no more often than the lab took it on- and offline (and comes once more, if it wasn't in at first).
//! - **Form** (`story`): clients connect before they are told things, and end once; only the lab writes what is the lab's.
//!
//! # What is not
//!
//! - Time: how late anything came. `at` is only used to place what clients wrote among the lab's records.
//! - What was lost of what a client had not been told when it left or ended, or just before a `room_reset`.
//! - Whether what was announced as lost with data was lost, but for what was saved before. Messages' content.
//! - That a member was told of each single coming and going: a list may stand for several. Users who left a room by
//!   themselves may come and go there as often as they like. Lists of more than 1000 users, or without any, are not
//!   compared with anything.
//! - Calm watchers' targets, and calm members' rooms, that were watched or joined after they became calm: only as others'.
//! - `user_typing`.
//!
//! # What the lab and the clients must do
//!
//! - A client keeps where it stands as the protocol says (section 10), writes each event when it comes, and joins a room
//!   once on a connection. It writes all kinds of events that it gets, and nothing after `ended`.
//! - When the lab writes `calm`, nothing is on its way to that client. A `change` that the lab causes stands after it.
//! - When all has come to rest the lab writes `head`, `members` and `state`. What clients close, leave or end after the
//!   first of these is clearing up, and excuses nothing.

mod absence;
mod complete;
mod epochs;
mod faults;
mod figures;
mod ledger;
mod members;
mod names;
mod rooms;
mod status;
mod story;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use self::complete::Judge;
use self::faults::{Faults, Kind};
pub use self::figures::Figures;
use self::ledger::Ledger;
use self::members::Memberships;
use self::names::Names;
use self::rooms::{Allowed, Reader, Ways};
use self::status::Statuses;
use self::story::Story;
use crate::history::Record;

/// What a scenario allows. The default allows nothing: no loss, no gap, each change of presence told once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promises {
    /// Acknowledged messages may be lost with a new epoch. Also set by a record `data_lost`.
    pub data_loss: bool,
    /// Losses may be announced in an epoch that goes on, since the log is so short: of what lies further back than these last
    /// messages. (With a new epoch: `data_loss`.)
    pub gaps: Option<u64>,
    /// How exactly presence is told.
    pub presence: Presence,
    /// Nobody may be told of anyone that they are offline, or went from a room, calm or not, who wasn't away for longer than
    /// this grace, in milliseconds: on a slow machine clients are now and then.
    pub nobody_gone_within: Option<u64>,
}

/// How exactly presence is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// Calm clients are told of each change once, and everybody only of what was.
    #[default]
    Exact,
    /// Everybody knows the truth in the end. On the way there may be changes that the lab didn't cause, and users may come
    /// who were in already. Versions rise nevertheless.
    FinalState,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Verdict {
    /// Breaches of a promise, each told so that a person can find it in the history. None: all is well.
    pub faults: Vec<String>,
    /// What the history amounts to.
    pub figures: Figures,
}

/// Judges.
pub fn check(history: &[Record], promises: &Promises) -> Verdict {
    let (mut names, mut faults, mut figures) =
        (Names::default(), Faults::default(), Figures::default());
    let story = Story::of(history, &mut faults);
    figures.clients = story.clients.len();
    let data_loss = promises.data_loss || story.data_lost;
    let exact = promises.presence == Presence::Exact;

    let ledger = Ledger::of(&story, data_loss, &mut names, &mut faults, &mut figures);
    let mut ways = Ways::default();
    let allowed = Allowed {
        gaps: promises.gaps,
        data_loss,
    };
    let mut reader = Reader {
        names: &mut names,
        faults: &mut faults,
        figures: &mut figures,
        allowed,
        ways: &mut ways,
    };
    story.clients.iter().for_each(|client| reader.read(client));
    let mut judge = Judge {
        names: &mut names,
        faults: &mut faults,
        figures: &mut figures,
        data_loss,
        losses: &story.losses,
    };
    judge.judge(&story, &ledger, ways);

    let (told, counted) = (&mut faults, &mut figures);
    Statuses {
        story: &story,
        faults: told,
        figures: counted,
        exact,
        data_loss,
        meanings: HashMap::new(),
    }
    .judge();
    if let Some(grace) = promises.nobody_gone_within {
        absence::nobody_gone(&story, grace, &mut faults);
    }
    Memberships {
        story: &story,
        faults: &mut faults,
        figures: &mut figures,
        exact,
    }
    .judge();

    figures.repeats = faults.count(Kind::Repeat);
    figures.holes = faults.count(Kind::Hole);
    figures.disorder = faults.count(Kind::Disorder);
    Verdict {
        faults: faults.into_texts(),
        figures,
    }
}
