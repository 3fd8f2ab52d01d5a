//! Changes of messages that arrive while a read of the log is under way. The read may have found forms that
//! they replace.

use std::collections::BTreeMap;

use crate::backplane::{AppliedChange, Entry};

/// The most changes to keep during one read. If there are more, the log is read again.
const MAX_CHANGES: usize = 256;

/// The changes that a feed has delivered since a read of the log began.
#[derive(Default)]
pub(super) struct ChangesDuringRead {
    /// The last one of each kind and message, which has the newest form.
    last: BTreeMap<(u64, &'static str), Entry>,
    /// There were too many, or some were passed over: none is kept.
    is_incomplete: bool,
}

impl ChangesDuringRead {
    pub fn add(&mut self, change: &AppliedChange<'_>, entry: &Entry) {
        if self.is_incomplete {
            return;
        }
        self.last.insert(change.key(), entry.clone());
        if self.last.len() > MAX_CHANGES {
            self.discard();
        }
    }

    /// Changes are missing: the entries are of no use.
    pub fn discard(&mut self) {
        self.last.clear();
        self.is_incomplete = true;
    }

    /// Gives the entries that were read their newest forms. False if changes are missing: the entries are of
    /// no use then.
    #[must_use]
    pub fn apply(self, entries: &mut [Entry]) -> bool {
        if self.is_incomplete {
            return false;
        }
        let mut changes: Vec<Entry> = self.last.into_values().collect();
        changes.sort_unstable_by_key(|change| change.seq);
        for change in changes.iter().filter_map(AppliedChange::of) {
            for entry in &mut *entries {
                if let Some(changed) = change.apply(entry) {
                    *entry = changed;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::{EntryKind, change_record};
    use crate::domain::{Epoch, RoomId, Timestamp};
    use uuid::Uuid;

    fn deletion(seq: u64, target: u64) -> Entry {
        let id = Uuid::from_u128(target.into());
        let fields = format!("{{\"id\":\"{id}\",\"target_seq\":{target}}}");
        let room = RoomId::trusted("a");
        entry(
            seq,
            EntryKind::Change,
            change_record::encode(&room, "message_deleted", id, &fields),
        )
    }

    fn entry(seq: u64, kind: EntryKind, record: bytes::Bytes) -> Entry {
        Entry {
            seq,
            epoch: Epoch::trusted("e"),
            at: Timestamp(0),
            kind,
            record,
        }
    }

    #[test]
    fn changes_are_applied_until_there_are_too_many() {
        let read = |count: u64| {
            let mut changes = ChangesDuringRead::default();
            for target in 1..=count {
                let deletion = deletion(10_000 + target, target);
                // Repeats take no space.
                for _ in 0..2 {
                    changes.add(&AppliedChange::of(&deletion).unwrap(), &deletion);
                }
            }
            let mut entries = vec![entry(1, EntryKind::Message, "{}".into())];
            (changes.apply(&mut entries), entries[0].kind)
        };
        assert_eq!(read(0), (true, EntryKind::Message));
        assert_eq!(read(256), (true, EntryKind::Change));
        assert!(!read(257).0);
    }

    #[test]
    fn changes_that_were_passed_over_are_missing() {
        let mut changes = ChangesDuringRead::default();
        changes.discard();
        let deletion = deletion(2, 1);
        changes.add(&AppliedChange::of(&deletion).unwrap(), &deletion);
        assert!(!changes.apply(&mut []));
    }
}
