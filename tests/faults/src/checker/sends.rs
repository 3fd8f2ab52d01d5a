//! Checks the attempts to send: each message has one sender and one room, and is acknowledged in the
//! end.

use std::collections::{HashMap, HashSet};

use super::faults::{FaultKind, Faults};
use super::parsed_history::ParsedHistory;
use super::stats::Stats;
use crate::history::Fact;

/// By `client_msg_id`: the client that sent the message, and the room.
pub(super) type Sends<'a> = HashMap<&'a str, (&'a str, &'a str)>;

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
                Fact::Sent { room, msg } => {
                    stats.attempts += 1;
                    let send = (name, room.as_str());
                    if *sends.entry(msg).or_insert(send) != send {
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
        .filter(|(msg, (sender, _))| !acked.contains(*msg) && !ended.contains(sender))
        .collect();
    unacknowledged.sort_unstable();
    for (msg, (sender, room)) in unacknowledged {
        if let Some(head) = history.final_heads.get(room) {
            faults.add(FaultKind::Unacknowledged, head.at, || {
                format!("{msg} of {sender} to {room} was never acknowledged")
            });
        }
    }
}
