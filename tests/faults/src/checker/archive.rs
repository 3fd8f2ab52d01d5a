//! Checks the archive: it has every acknowledged message exactly once, at its acknowledged position;
//! no number is missing; and the server returns what the archive has. (That its messages are those
//! that clients received is checked with the positions, and the order of its epochs with theirs.)

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::Archive;
use super::faults::{FaultKind, Faults};
use super::interner::{Interner, Symbol};
use super::message_index::{MessageIndex, MessagePosition};
use super::parsed_history::{ArchivedRoom, FinalHead, ParsedHistory};
use super::stats::Stats;
use crate::history::KeptMessage;

pub(super) struct ArchiveCheck<'r, 'a> {
    pub history: &'r ParsedHistory<'a>,
    pub index: &'r MessageIndex,
    pub interner: &'r Interner<'a>,
    pub faults: &'r mut Faults,
    pub stats: &'r mut Stats,
    pub promise: Archive,
    /// Redis may have lost data.
    pub data_loss: bool,
    pub two_primaries: bool,
}

impl ArchiveCheck<'_, '_> {
    pub fn check(mut self) {
        if self.history.archive_read.is_none() {
            self.faults.add(FaultKind::Malformed, 0, || {
                "the lab did not read the archive".to_owned()
            });
            return;
        }
        for (name, room) in &self.history.archive {
            self.check_numbers(name, room);
            self.check_identities(name, room);
            self.check_logged(name, room);
            if let Some(head) = self.history.final_heads.get(name) {
                self.check_head(name, room, *head);
            }
        }
        self.check_acknowledged();
    }

    /// Numbers rise without a hole, except for those that are recorded as lost, and these only after
    /// a loss of data.
    fn check_numbers(&mut self, name: &str, room: &ArchivedRoom<'_>) {
        for gap in &room.gaps {
            // A commit may come after the record of the loss: then the number is not lost.
            let in_gap = room.entries.iter().filter(|entry| gap.contains(&entry.seq));
            let late = in_gap.count() as u64;
            self.stats.archived_late += late;
            self.stats.archive_gaps += gap.end().saturating_sub(*gap.start()) + 1 - late;
            if !self.data_loss {
                self.faults.add(FaultKind::ArchiveHole, room.at, || {
                    format!("{name} has recorded {gap:?} as lost, and no data was lost")
                });
            }
        }
        let mut last = room.cut;
        for entry in &room.entries {
            if entry.seq <= last {
                self.faults.add(FaultKind::ArchivedTwice, room.at, || {
                    format!("{name} has {} after {last}", entry.seq)
                });
                continue;
            }
            let missing = first_uncovered(last + 1..=entry.seq - 1, &room.gaps);
            if let Some(seq) = missing {
                self.faults.add(FaultKind::ArchiveHole, room.at, || {
                    format!(
                        "{name} has no {seq}, although it has {} and that is not recorded as lost",
                        entry.seq
                    )
                });
            }
            last = entry.seq;
        }
    }

    /// No id and no send comes twice.
    fn check_identities(&mut self, name: &str, room: &ArchivedRoom<'_>) {
        let mut ids: HashMap<&str, u64> = HashMap::new();
        let mut sends: HashMap<(&str, &str), u64> = HashMap::new();
        for entry in &room.entries {
            let same_id = ids.insert(&entry.id, entry.seq);
            let msg = entry.msg.as_deref();
            let same_send = msg.and_then(|msg| sends.insert((&entry.user, msg), entry.seq));
            if self.two_primaries && same_id.is_none() && same_send.is_some() {
                self.stats.sent_to_both += 1;
                continue;
            }
            if let Some(other) = same_id.or(same_send) {
                self.faults.add(FaultKind::ArchivedTwice, room.at, || {
                    format!("{name} has {} also at {other}", describe(entry))
                });
            }
        }
    }

    /// The pages that the server returns hold exactly the messages of the archive.
    fn check_logged(&mut self, name: &str, room: &ArchivedRoom<'_>) {
        let common = room.entries.iter().zip(&room.logged);
        let same = common.take_while(|(entry, logged)| entry == logged).count();
        if same == room.entries.len() && same == room.logged.len() {
            return;
        }
        self.faults.add(FaultKind::ArchiveDiffers, room.at, || {
            let next = |messages: &[&KeptMessage]| match messages.get(same) {
                Some(message) => describe(message),
                None => "nothing more".to_owned(),
            };
            format!(
                "{name}: after {same} equal messages the archive has {} ({} in total), and the \
                 server returns {} ({} in total)",
                next(&room.entries),
                room.entries.len(),
                next(&room.logged),
                room.logged.len()
            )
        });
    }

    /// The archive reaches to the head of the room.
    fn check_head(&mut self, name: &str, room: &ArchivedRoom<'_>, head: FinalHead<'_>) {
        let last_entry = room.entries.last().map_or(room.cut, |entry| entry.seq);
        let last_gap = room.gaps.iter().map(|gap| *gap.end()).max().unwrap_or(0);
        let end = last_entry.max(last_gap);
        if end != head.seq {
            self.faults.add(FaultKind::ArchiveDiffers, room.at, || {
                format!(
                    "{name} ends at {end} in the archive, and its head is {}/{}",
                    head.epoch, head.seq
                )
            });
        }
    }

    /// Every acknowledged message is in the archive, at its acknowledged position. Excepted are, if
    /// acknowledgements don't wait for the archive, those that Redis may have lost.
    fn check_acknowledged(&mut self) {
        let mut lost: Vec<(u64, MessagePosition)> = Vec::new();
        for (position, message) in &self.index.messages {
            if let Some(at) = message.acked
                && !message.archived
            {
                lost.push((at, *position));
            }
        }
        lost.sort_unstable_by_key(|(at, position)| (*at, position.room, position.seq));
        for (at, position) in lost {
            if self.may_be_lost(at) {
                self.stats.acked_not_archived += 1;
                continue;
            }
            let text = |symbol: Symbol| self.interner.text(symbol);
            let room = text(position.room);
            let archived = self.history.archive.get(room);
            let instead = describe_instead(archived, position.seq);
            self.faults.add(FaultKind::NotArchived, at, || {
                format!(
                    "{}/{} in {room} was acknowledged, and the archive has {instead}",
                    text(position.epoch),
                    position.seq
                )
            });
        }
    }

    /// Whether Redis may have lost a message that was acknowledged at this time, before its commit.
    fn may_be_lost(&self, acked: u64) -> bool {
        let windows = &self.history.loss_windows;
        self.promise == Archive::AckAfterLog && windows.iter().any(|window| window.contains(&acked))
    }
}

/// The first number of the range that no gap covers.
fn first_uncovered(range: RangeInclusive<u64>, gaps: &[RangeInclusive<u64>]) -> Option<u64> {
    let mut next = *range.start();
    while next <= *range.end() {
        match gaps.iter().find(|gap| gap.contains(&next)) {
            Some(gap) => next = gap.end() + 1,
            None => return Some(next),
        }
    }
    None
}

/// The state of a number in the archive.
fn describe_instead(room: Option<&ArchivedRoom<'_>>, seq: u64) -> String {
    let Some(room) = room else {
        return "nothing of the room".to_owned();
    };
    if let Some(entry) = room.entries.iter().find(|entry| entry.seq == seq) {
        return format!("{} there", describe(entry));
    }
    match room.gaps.iter().find(|gap| gap.contains(&seq)) {
        Some(gap) => format!("{gap:?} recorded as lost"),
        None => "nothing there".to_owned(),
    }
}

fn describe(message: &KeptMessage) -> String {
    format!(
        "{}/{} ({} of {}, id {}, content {:08x})",
        message.epoch,
        message.seq,
        message.msg.as_deref().unwrap_or("?"),
        message.user,
        message.id,
        message.content
    )
}
