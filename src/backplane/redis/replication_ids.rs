//! The replication ids under which this node has written to each partition: they reveal that a
//! partition may have lost data.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::keys::Partition;

/// For each partition to which this node has written: the replication id (`master_replid`) under
/// which the partition is known to have all of it.
///
/// That is the id of the first write, until the partition was checked. It is empty while data may be
/// missing that isn't restored yet.
#[derive(Default)]
pub(super) struct ReplicationIds(Mutex<HashMap<Partition, String>>);

impl ReplicationIds {
    /// Records that a write was made under this id. What was written under another id may be lost.
    pub(super) fn record(&self, partition: Partition, replid: &str) {
        let mut known = self.0.lock();
        let known = known.entry(partition).or_insert_with(|| replid.to_owned());
        if known != replid {
            known.clear();
        }
    }

    /// Whether this node has ever written to the partition. Even if nothing of that is left, a
    /// partition that lost data may have lost the removal of it.
    pub(super) fn has_written(&self, partition: Partition) -> bool {
        self.0.lock().contains_key(&partition)
    }

    /// Whether the partition's id is still the one under which it has everything. True if this node
    /// has written nothing, because then nothing is missing.
    pub(super) fn matches(&self, partition: Partition, replid: &str) -> bool {
        self.0
            .lock()
            .get(&partition)
            .is_none_or(|known| known == replid)
    }

    /// Marks the partition as incomplete until [`set_complete`](Self::set_complete), whatever is
    /// written meanwhile.
    pub(super) fn set_incomplete(&self, partition: Partition) {
        self.0.lock().insert(partition, String::new());
    }

    /// Records that the partition has everything under this id.
    pub(super) fn set_complete(&self, partition: Partition, replid: String) {
        self.0.lock().insert(partition, replid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_under_another_id_makes_a_partition_incomplete_until_it_is_checked() {
        let ids = ReplicationIds::default();
        let partition = Partition::LEASES;
        assert!(!ids.has_written(partition) && ids.matches(partition, "any"));
        ids.record(partition, "one");
        ids.record(partition, "one");
        assert!(ids.matches(partition, "one") && !ids.matches(partition, "two"));
        ids.record(partition, "two");
        assert!(!ids.matches(partition, "one") && !ids.matches(partition, "two"));
        ids.record(partition, "two");
        assert!(!ids.matches(partition, "two"), "not checked yet");
        ids.set_complete(partition, "two".to_owned());
        assert!(ids.matches(partition, "two"));
        ids.set_incomplete(partition);
        assert!(!ids.matches(partition, "two") && ids.has_written(partition));
    }
}
