//! Checks the attempts to send: each message has one sender and one room, and is acknowledged in the
//! end.

use std::collections::{HashMap, HashSet};

use super::faults::{FaultKind, Faults};
use super::parsed_history::ParsedHistory;
use super::stats::Stats;
use crate::history::{ContentDigest, Fact};

/// By `client_msg_id`.
pub(super) type Sends<'a> = HashMap<&'a str, Send<'a>>;

/// All attempts to send one message.
pub(super) struct Send<'a> {
    /// The client.
    pub sender: &'a str,
    pub room: &'a str,
    /// The contents of the attempts, as far as the client recorded them.
    contents: Vec<ContentDigest>,
}

impl Send<'_> {
    /// Whether an attempt may have had this content.
    pub fn may_contain(&self, content: Option<ContentDigest>) -> bool {
        self.contents.is_empty() || content.is_none_or(|content| self.contents.contains(&content))
    }
}

/// Collects the messages that were sent. Each has one sender and one room.
pub(super) fn collect_sends<'a>(
    history: &ParsedHistory<'a>,
    faults: &mut Faults,
    stats: &mut Stats,
) -> Sends<'a> {
    let mut sends = Sends::new();
    for client in &history.clients {
        let name = client.name;
        for record in &client.records {
            match &record.fact {
                Fact::Sent { room, msg, content } => {
                    stats.attempts += 1;
                    let send = sends.entry(msg).or_insert_with(|| Send {
                        sender: name,
                        room,
                        contents: Vec::new(),
                    });
                    send.contents.extend(content);
                    if send.sender != name || send.room != room {
                        faults.add(FaultKind::Malformed, record.at, || {
                            format!(
                                "{name} sent {msg} to {room}, and it had another sender or room \
                                 before"
                            )
                        });
                    }
                }
                Fact::Refused { room, msg, code } => {
                    stats.refused += 1;
                    if !sends.contains_key(msg.as_str()) {
                        faults.add(FaultKind::Malformed, record.at, || {
                            format!(
                                "{name} was refused {msg} in {room} ({code}), which it never sent"
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

/// At the end of the run every fault is repaired, so every message must have been acknowledged by
/// then. Clients that ended are excepted.
pub(super) fn report_unacknowledged(
    history: &ParsedHistory<'_>,
    sends: &Sends<'_>,
    acked: &HashSet<&str>,
    faults: &mut Faults,
) {
    let ended: HashSet<&str> = history
        .clients
        .iter()
        .filter(|client| client.ended)
        .map(|client| client.name)
        .collect();
    let mut unacknowledged: Vec<_> = sends
        .iter()
        .filter(|(msg, send)| !acked.contains(*msg) && !ended.contains(send.sender))
        .collect();
    unacknowledged.sort_unstable_by_key(|(msg, _)| **msg);
    for (msg, send) in unacknowledged {
        if let Some(head) = history.final_heads.get(send.room) {
            faults.add(FaultKind::Unacknowledged, head.at, || {
                let Send { sender, room, .. } = send;
                format!("{msg} of {sender} to {room} was never acknowledged")
            });
        }
    }
}
