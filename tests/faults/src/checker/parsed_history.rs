//! A history, sorted by source: the records of each client, and the facts that the lab recorded.
//! Records that contradict earlier ones become faults here.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use super::faults::{FaultKind, Faults};
use crate::history::{Fact, KeptMessage, LAB, Record};

/// The last acknowledgements from before a loss of data may be recorded up to this many
/// milliseconds after it.
const LATE_ACK_MS: u64 = 1000;

/// The history, sorted by source.
#[derive(Default)]
pub(super) struct ParsedHistory<'a> {
    pub clients: Vec<ClientHistory<'a>>,
    /// By user: the changes of presence that the lab caused, in order.
    pub presence_changes: HashMap<&'a str, Vec<PresenceChange>>,
    pub final_heads: BTreeMap<&'a str, FinalHead<'a>>,
    pub final_members: BTreeMap<&'a str, FinalMembers<'a>>,
    pub final_statuses: BTreeMap<&'a str, FinalStatus>,
    /// By room: the archive. Empty if it was not read.
    pub archive: BTreeMap<&'a str, ArchivedRoom<'a>>,
    /// The time at which the lab read the archive.
    pub archive_read: Option<u64>,
    pub data_lost: bool,
    /// The times (in milliseconds) at which an acknowledged message may have been lost with Redis's
    /// data.
    pub loss_windows: Vec<RangeInclusive<u64>>,
    unaffected: BTreeMap<&'a str, LabMark>,
}

/// The records of one client.
pub(super) struct ClientHistory<'a> {
    pub name: &'a str,
    /// `None` for a client that only sends over REST.
    pub user: Option<&'a str>,
    pub records: Vec<&'a Record>,
    /// The point from which the client is unaffected by faults.
    pub unaffected: Option<LabMark>,
    /// The client stopped by its own decision before the final records.
    pub ended: bool,
}

/// A change of a user's presence that the lab caused.
pub(super) struct PresenceChange {
    pub online: bool,
    /// The index of its record among the lab's records.
    pub lab_index: usize,
}

/// A point of the history that is given by a record of the lab.
#[derive(Clone, Copy)]
pub(super) struct LabMark {
    pub at: u64,
    /// The index of the record among the lab's records.
    pub lab_index: usize,
}

#[derive(Clone, Copy)]
pub(super) struct FinalHead<'a> {
    pub at: u64,
    pub epoch: &'a str,
    pub seq: u64,
}

#[derive(Clone, Copy)]
pub(super) struct FinalMembers<'a> {
    pub at: u64,
    pub users: &'a [String],
}

#[derive(Clone, Copy)]
pub(super) struct FinalStatus {
    pub at: u64,
    pub online: bool,
    pub version: u64,
}

/// A room as the archive and the log have it at the end of the run.
#[derive(Default)]
pub(super) struct ArchivedRoom<'a> {
    pub at: u64,
    /// Retention has deleted the entries up to this number.
    pub cut: u64,
    /// Ranges of numbers that are recorded as lost.
    pub gaps: Vec<RangeInclusive<u64>>,
    pub entries: Vec<&'a KeptMessage>,
    /// The messages that the server returns, page by page.
    pub logged: Vec<&'a KeptMessage>,
}

impl<'a> ParsedHistory<'a> {
    /// Sorts a history. Records that contradict earlier ones become faults and are left out.
    pub fn parse(history: &'a [Record], faults: &mut Faults) -> Self {
        let mut parsed = Self::default();
        parsed.parse_lab_records(history, faults);
        let final_phase = start_of_final_phase(history);
        let mut indices: HashMap<&str, usize> = HashMap::new();
        let mut clients: Vec<ClientParser<'a>> = Vec::new();
        for (number, record) in history.iter().enumerate() {
            // Those of chats have a check of their own.
            if is_lab_fact(&record.fact) || matches!(record.fact, Fact::Chat(_) | Fact::Change(_)) {
                continue;
            }
            let index = *indices.entry(&record.source).or_insert_with(|| {
                clients.push(ClientParser::new(&record.source));
                clients.len() - 1
            });
            let in_final_phase = final_phase.is_some_and(|start| (record.at, number) > start);
            clients[index].add(record, in_final_phase, faults);
        }
        for (name, mark) in std::mem::take(&mut parsed.unaffected) {
            match indices.get(name) {
                Some(index) => clients[*index].client.unaffected = Some(mark),
                None => faults.add(FaultKind::Malformed, mark.at, || {
                    format!("{name} is unaffected, and has no records")
                }),
            }
        }
        for client in clients {
            parsed.clients.push(client.finish(faults));
        }
        parsed
    }

    fn parse_lab_records(&mut self, history: &'a [Record], faults: &mut Faults) {
        let lab_records = history.iter().filter(|record| is_lab_fact(&record.fact));
        // Everything acknowledged up to this time survives the next loss of data.
        let mut saved_at = 0;
        for (lab_index, record) in lab_records.enumerate() {
            let at = record.at;
            if record.source != LAB {
                faults.add(FaultKind::Malformed, at, || {
                    format!(
                        "{} recorded {:?}, which only the lab may record",
                        record.source, record.fact
                    )
                });
                continue;
            }
            match &record.fact {
                Fact::DataSaved => saved_at = at,
                Fact::DataLost => {
                    self.data_lost = true;
                    self.loss_windows.push(saved_at..=at + LATE_ACK_MS);
                    saved_at = 0;
                }
                Fact::PresenceChanged { target, online } => {
                    let change = PresenceChange {
                        online: *online,
                        lab_index,
                    };
                    self.presence_changes
                        .entry(target)
                        .or_default()
                        .push(change);
                }
                Fact::Unaffected { client } => {
                    let mark = LabMark { at, lab_index };
                    self.unaffected.entry(client).or_insert(mark);
                }
                Fact::FinalHead { room, epoch, seq } => {
                    let seq = *seq;
                    self.final_heads.insert(room, FinalHead { at, epoch, seq });
                }
                Fact::FinalMembers { room, users } => {
                    self.final_members.insert(room, FinalMembers { at, users });
                }
                Fact::FinalStatus {
                    target,
                    online,
                    version,
                } => {
                    let status = FinalStatus {
                        at,
                        online: *online,
                        version: *version,
                    };
                    self.final_statuses.insert(target, status);
                }
                Fact::ArchiveRead => self.archive_read = Some(at),
                Fact::ArchivedRoom { room, cut } => self.archived_room(room, at).cut = *cut,
                Fact::ArchivedGap { room, first, last } => {
                    self.archived_room(room, at).gaps.push(*first..=*last);
                }
                Fact::Archived(entry) => {
                    self.archived_room(&entry.room, at).entries.push(entry);
                }
                Fact::Logged(message) => {
                    self.archived_room(&message.room, at).logged.push(message);
                }
                _ => {}
            }
        }
    }

    fn archived_room(&mut self, name: &'a str, at: u64) -> &mut ArchivedRoom<'a> {
        let room = self.archive.entry(name).or_default();
        room.at = at;
        room
    }
}

/// Collects the records of one client, and checks that each is possible after the ones before it.
struct ClientParser<'a> {
    client: ClientHistory<'a>,
    connected: bool,
}

impl<'a> ClientParser<'a> {
    fn new(name: &'a str) -> Self {
        let client = ClientHistory {
            name,
            user: None,
            records: Vec::new(),
            unaffected: None,
            ended: false,
        };
        Self {
            client,
            connected: false,
        }
    }

    /// Adds a record. A client that disconnects, ends or leaves a room in the final phase only
    /// cleans up: such a record is left out, so that it excuses nothing.
    fn add(&mut self, record: &'a Record, in_final_phase: bool, faults: &mut Faults) {
        let is_cleanup = matches!(
            record.fact,
            Fact::Disconnected | Fact::Ended | Fact::Left { .. }
        );
        if in_final_phase && is_cleanup {
            return;
        }
        if let Some(contradiction) = self.contradiction(record) {
            let name = self.client.name;
            let is_delivery = matches!(record.fact, Fact::Received { .. } | Fact::Reset { .. });
            let kind = if self.client.ended && is_delivery {
                FaultKind::NotSubscribed
            } else {
                FaultKind::Malformed
            };
            faults.add(kind, record.at, || {
                format!("{name} {contradiction}: {:?}", record.fact)
            });
            return;
        }
        match &record.fact {
            Fact::Connected { user } => {
                self.connected = true;
                self.client.user = Some(user);
            }
            Fact::Disconnected => self.connected = false,
            Fact::Ended => self.client.ended = true,
            _ => {}
        }
        self.client.records.push(record);
    }

    /// Says how the record contradicts earlier ones of its client, if it does.
    fn contradiction(&self, record: &Record) -> Option<&'static str> {
        match &record.fact {
            Fact::Disconnected if !self.connected => {
                Some("disconnected without having been connected")
            }
            Fact::Disconnected => None,
            _ if self.client.ended => Some("had ended, and went on"),
            Fact::Connected { .. } if self.connected => Some("connected twice"),
            Fact::Connected { user } if self.client.user.is_some_and(|known| known != user) => {
                Some("connected as another user")
            }
            Fact::Connected { .. }
            | Fact::Ended
            | Fact::Sent { .. }
            | Fact::Acked { .. }
            | Fact::Refused { .. } => None,
            _ if !self.connected => Some("wasn't connected"),
            _ => None,
        }
    }

    fn finish(self, faults: &mut Faults) -> ClientHistory<'a> {
        let client = self.client;
        if client.user.is_some() && !self.connected && !client.ended {
            let at = client.records.last().map_or(0, |record| record.at);
            faults.add(FaultKind::Malformed, at, || {
                format!(
                    "{} disconnected, never came back, and hasn't ended",
                    client.name
                )
            });
        }
        client
    }
}

/// Whether only the lab may record this.
fn is_lab_fact(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::Step { .. }
            | Fact::DataLost
            | Fact::DataSaved
            | Fact::PresenceChanged { .. }
            | Fact::Unaffected { .. }
            | Fact::FinalHead { .. }
            | Fact::FinalMembers { .. }
            | Fact::FinalStatus { .. }
            | Fact::ArchiveRead
            | Fact::ArchivedRoom { .. }
            | Fact::ArchivedGap { .. }
            | Fact::Archived(_)
            | Fact::Logged(_)
    )
}

/// The time and the index of the lab's first record about the final state. The run is over from
/// there on.
fn start_of_final_phase(history: &[Record]) -> Option<(u64, usize)> {
    for (number, record) in history.iter().enumerate() {
        let is_final = matches!(
            record.fact,
            Fact::FinalHead { .. } | Fact::FinalMembers { .. } | Fact::FinalStatus { .. }
        );
        if is_final && record.source == LAB {
            return Some((record.at, number));
        }
    }
    None
}
