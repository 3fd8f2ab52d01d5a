//! Judges a history: decides whether the clients' observations fulfil hubbub's promises. The
//! checker knows the promises, and nothing about the implementation.
//!
//! # Verified
//!
//! - **Positions** ([`message_index`]): a position (room, epoch, seq) has the same message, id and
//!   sender for every client, also in acknowledgements; an id and a message have one position. If
//!   data was lost, a message may have one position in each epoch. Every delivered message was sent
//!   by a client. No position is acknowledged as new twice. At the end every message is
//!   acknowledged, except those of clients that ended.
//! - **Order** ([`cursor`], [`deliveries`]): every message is the successor of the client's
//!   position, across all its connections. The epoch may change only at the next number; an epoch
//!   that the client left never returns. A join that isn't a resume (`since` left out, or answered
//!   with `gap`) may replay messages that the client already has, up to the `seq` of the answer and
//!   no further. Nothing reaches a client that isn't in the room. After a join, the replay comes
//!   first, then `room_users`, then live messages.
//! - **Joins** ([`deliveries`]): a client resumes from its own position; `recovered` and `gap` fit
//!   the request; `replayed` is the number of missing messages. `gap` and `room_reset` are faults
//!   unless the scenario allows them; within an epoch they announce the messages that are too old
//!   for the log, and no others. Numbers never go down within an epoch.
//! - **Epochs** ([`epochs`]): their order is the same for every client. Without a loss of data,
//!   numbers continue from one epoch to the next.
//! - **Completeness** ([`completeness`]): every message that was acknowledged, or that reached any
//!   client, reached every client that was in the room, from its first join on. Excepted are
//!   messages whose loss was announced to the client, messages that the client did not ask for, and
//!   clients that left or ended. If data was lost, messages of an earlier epoch may be missing for
//!   clients that had not received them yet; these are counted, and none of them may have been
//!   acknowledged before the lab saved the data. At the end every client is at the room's head, and
//!   no acknowledgement is beyond it.
//! - **Archive** ([`archive`]), if there is one: every acknowledged message is in the archive, once,
//!   at its acknowledged position, with a content that its sender sent (if acknowledgements don't
//!   wait for the archive: unless Redis lost it). No number is missing that isn't recorded as lost,
//!   and none is recorded as lost unless data was. No id and no `client_msg_id` comes twice. The
//!   server returns exactly these messages, from the first one to the head. The archive counts as
//!   one more observer: its messages are those that clients received at these positions, its epochs
//!   have the order that clients saw, and a message that it has must not be missing at a client that
//!   was in the room, nor be announced as lost.
//! - **Status** ([`status`]): a version means the same to every client. For each watcher the
//!   versions of changes rise, over its whole life; a state that it asked for isn't older than the
//!   one that it knew (except after a loss of data). At the end each watcher knows the true status.
//!   Unaffected watchers were notified of exactly the changes that the lab caused. If a version is
//!   newer than the one that an unaffected watcher of the user knew at first, an unaffected watcher
//!   was notified of it. So other watchers may be notified of fewer changes (the newest state
//!   stands for several), but never of a change that did not happen.
//! - **Users of rooms** ([`room_users`]): no user joins while it is in the room, or leaves while it
//!   isn't; no client is notified of its own user; the list after a join contains the client's own
//!   user and is complete. At the end each member knows the true set of users. An unaffected member
//!   is notified that a user joins and leaves no more often than the lab took that user online and
//!   offline (plus one join, if the user wasn't in the room at first).
//! - **Departures** ([`departures`]): if the scenario says so, no client is notified that a user is
//!   offline or left a room unless the user was away for longer than the grace.
//! - **Chats** ([`chats`]), if there are any: each acknowledged change of a chat or of its members is
//!   announced exactly once in the room, and exactly once in the feed of each user concerned; one
//!   without an acknowledgement at most once. The order of the announcements is that of the changes of
//!   the same user in the same chat. The announcements, one after another, lead to the tables of chats
//!   and members. Clients receive the entries of the archive once each and without a hole; watchers
//!   all of them. No event after its `member_removed` reaches a user, unless its client joined the room
//!   after the next attempt to add the user began. A second after a removal no node returns messages to
//!   the user; at the end each node grants exactly the rights that the table says. Nothing is left in
//!   the outbox.
//! - **Changes of messages** ([`changes`]), if there are any: every node's history and every client's
//!   folded state are equal at the end, field by field, and have each acknowledged change, or a newer one.
//!   Of the edits that name one version at most one is acknowledged; a change is refused only for a
//!   conflict, a deletion, or too many pins. Each client receives each number of a room once and in order,
//!   over all its connections, and the same message at the same number as all others; an announced edit
//!   shows the message in a version that is at least as new. No request or connection that began after
//!   an acknowledged deletion shows the content. Reactions are those that were acknowledged last, and
//!   are announced about twice a second at most. Nothing is left in the outbox.
//! - **Form** ([`parsed_history`]): clients connect before they receive anything, and end once;
//!   only the lab writes the lab's facts.
//!
//! # Not verified
//!
//! - Time: the delay of deliveries. `at` only serves to order the clients' records relative to the
//!   lab's.
//! - Losses of messages that a client had not received when it left or ended, or directly before a
//!   `room_reset`.
//! - Whether messages whose loss with the data was announced were really lost, except for those
//!   saved before. The content of messages.
//! - That a member is notified of every single join and departure: a list may stand for several.
//!   Users that left a room by their own decision may join and leave it as often as they like.
//!   Lists of more than 1000 users, or without any, are not compared with anything.
//! - Users that an unaffected watcher began to watch, and rooms that an unaffected member joined,
//!   only after it was marked as unaffected: they are verified like those of other clients.
//! - `user_typing`.
//!
//! # Rules for the lab and the clients
//!
//! - A client keeps its position as the protocol says (docs/protocol.md, section 10), records each
//!   event when it arrives, and joins a room once per connection. It records every kind of event
//!   that it receives, and nothing after `ended`.
//! - When the lab records `unaffected`, no event is on its way to that client. A `presence_changed`
//!   that the lab causes comes after it.
//! - When all clients are idle at the end, the lab records `final_head`, `final_members` and
//!   `final_status`. Clients that disconnect, leave or end after the first of these records only
//!   clean up; this excuses nothing.

mod archive;
mod changes;
mod chats;
mod completeness;
mod cursor;
mod deliveries;
mod departures;
mod epochs;
mod faults;
mod interner;
mod message_index;
mod parsed_history;
mod room_users;
mod sends;
mod stats;
mod status;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use self::archive::ArchiveCheck;
use self::completeness::CompletenessCheck;
use self::deliveries::{AllowedLosses, Deliveries, DeliveryCheck};
use self::faults::{FaultKind, Faults};
use self::interner::Interner;
use self::message_index::MessageIndex;
use self::parsed_history::ParsedHistory;
use self::room_users::RoomUsersCheck;
pub use self::stats::Stats;
use self::status::StatusCheck;
use crate::history::Record;

/// The promises that a scenario expects the cluster to keep. The default is the strictest: no loss,
/// no gap, and exactly one event per change of presence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promises {
    /// Acknowledged messages may be lost with a new epoch. A record `data_lost` has the same
    /// effect.
    pub data_loss: bool,
    /// The log is so short that losses may be announced within an epoch, but only of messages that
    /// are older than this many last messages. (`data_loss` is about losses with a new epoch.)
    pub gaps: Option<u64>,
    /// An archive is behind the log. `None`: there is none, or it isn't verified.
    #[serde(default)]
    pub archive: Option<Archive>,
    /// Redis had two primaries at once, with an archive behind both: epochs may begin beside each
    /// other, so their order is not checked. The order of a room is that of its archived numbers, and
    /// messages that are not archived are lost. The loss of a message may be announced to a client
    /// that is archived all the same: the other primary's nodes may commit it late. A send that is
    /// repeated on the other side may become a second message.
    #[serde(default)]
    pub two_primaries: bool,
    pub presence: Presence,
    /// No client, unaffected or not, may be notified that a user is offline or left a room, unless
    /// the user was away for longer than this grace, in milliseconds. (On a slow machine, users
    /// sometimes are.)
    pub no_departure_within: Option<u64>,
}

/// The meaning of an acknowledgement in front of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Archive {
    /// `ACK_AFTER=log`: Redis may lose an acknowledged message before its commit, but only where
    /// Redis loses data.
    AckAfterLog,
    /// `ACK_AFTER=archive`: no acknowledged message is ever lost.
    AckAfterArchive,
}

/// The strictness of the checks of presence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// Unaffected clients are notified of each change once, and no client is notified of a change
    /// that did not happen.
    #[default]
    Exact,
    /// At the end every client knows the truth. Before that, there may be changes that the lab
    /// didn't cause, and `user_joined` of users that were in the room already. Versions must rise
    /// all the same.
    FinalState,
}

/// The result of a check.
#[derive(Debug, Default, Serialize)]
pub struct Verdict {
    /// Violations of the promises, each with the details that are needed to find it in the history.
    /// Empty if all promises were kept.
    pub faults: Vec<String>,
    pub stats: Stats,
}

/// Checks a history.
pub fn check(history: &[Record], promises: &Promises) -> Verdict {
    let mut interner = Interner::default();
    let mut faults = Faults::default();
    let mut stats = Stats::default();
    let records = history;
    let history = ParsedHistory::parse(records, &mut faults);
    stats.clients = history.clients.len();
    let data_loss = promises.data_loss || history.data_lost;
    let exact = promises.presence == Presence::Exact;

    let index = MessageIndex::build(&history, data_loss, &mut interner, &mut faults, &mut stats);
    let recorded = history.archive.iter();
    let recorded = recorded.map(|(name, room)| (*name, &room.gaps[..]));
    let mut deliveries = Deliveries::default();
    let mut delivery_check = DeliveryCheck {
        interner: &mut interner,
        faults: &mut faults,
        stats: &mut stats,
        allowed: AllowedLosses {
            gaps: promises.gaps,
            data_loss,
            reset_to_archive: promises.archive.is_some() && data_loss,
            any_epoch: promises.two_primaries,
            recorded: recorded.collect(),
        },
        deliveries: &mut deliveries,
    };
    for client in &history.clients {
        delivery_check.check_client(client);
    }
    CompletenessCheck {
        interner: &mut interner,
        faults: &mut faults,
        stats: &mut stats,
        data_loss,
        loss_windows: &history.loss_windows,
        is_archived: promises.archive.is_some(),
        two_primaries: promises.two_primaries,
    }
    .check(&history, &index, deliveries);

    if let Some(promise) = promises.archive {
        ArchiveCheck {
            history: &history,
            index: &index,
            interner: &interner,
            faults: &mut faults,
            stats: &mut stats,
            promise,
            data_loss,
            two_primaries: promises.two_primaries,
        }
        .check();
    }

    StatusCheck::new(&history, &mut faults, &mut stats, exact, data_loss).check();
    if let Some(grace) = promises.no_departure_within {
        departures::check(&history, grace, &mut faults);
    }
    RoomUsersCheck {
        history: &history,
        faults: &mut faults,
        stats: &mut stats,
        exact,
    }
    .check();
    chats::check(records, &mut faults, &mut stats);
    changes::check(records, &mut faults, &mut stats);

    stats.repeats = faults.count(FaultKind::Repeat);
    stats.holes = faults.count(FaultKind::Hole);
    stats.out_of_order = faults.count(FaultKind::OutOfOrder);
    Verdict {
        faults: faults.into_texts(),
        stats,
    }
}
