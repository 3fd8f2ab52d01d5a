//! Reading the messages around one of them.

use std::collections::{BTreeMap, VecDeque};

use super::{HistoryPage, HistoryWindow, Messaging};
use crate::backplane::{Entry, Window};
use crate::domain::Refusal;
use crate::domain::policy::{Permit, Reading};

impl Messaging {
    /// Reads the message `seq`, or what there is near its place: at most `limit` messages, half of
    /// them before it, and more of one side where the other one ends. Fewer when their records
    /// exceed `max_bytes`; the message itself is returned even if it alone is larger.
    ///
    /// # Errors
    /// `unavailable`.
    pub(super) async fn read_around(
        &self,
        permit: &Permit<Reading>,
        seq: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<HistoryPage, Refusal> {
        let from = Window::After(seq.saturating_sub(1).max(permit.hidden_seq()));
        loop {
            let newer = self.messages(permit, from, limit, max_bytes).await?;
            let older = Window::Before(seq);
            let older = self.messages(permit, older, limit, max_bytes).await?;
            let head = older.span.head;
            if newer.span.head.epoch != head.epoch {
                // The room was lost between the two reads, so that they may not fit together.
                continue;
            }
            let oldest = older.entries.first().map(|entry| entry.seq);
            let newest = newer.entries.last().map(|entry| entry.seq);
            let entries = choose(older.entries, newer.entries, limit, max_bytes);
            let first = entries.first().map_or(seq, |entry| entry.seq);
            let last = entries.last().map_or(seq, |entry| entry.seq);
            let next = if oldest.is_some_and(|oldest| oldest < first) {
                Some(first)
            } else {
                older.position.filter(|_| older.has_more)
            };
            return Ok(HistoryPage {
                has_more: next.is_some(),
                next: next.map(HistoryWindow::Before),
                has_more_after: Some(newer.has_more || newest.is_some_and(|newest| newest > last)),
                entries,
                head,
                states: BTreeMap::new(),
                traces: older.traces.with(newer.traces),
            });
        }
    }
}

/// Chooses messages by turns from both sides, beginning with the first of `newer`, until the limits
/// are reached. The choice has no hole.
fn choose(older: Vec<Entry>, newer: Vec<Entry>, limit: usize, max_bytes: usize) -> Vec<Entry> {
    let mut older = older.into_iter().rev().peekable();
    let mut newer = newer.into_iter().peekable();
    let mut chosen = VecDeque::new();
    let mut bytes = 0;
    loop {
        let before = chosen.len();
        let fits = |entry: &Entry, chosen: usize, bytes: usize| {
            chosen == 0 || chosen < limit && bytes + entry.record.len() <= max_bytes
        };
        if let Some(entry) = newer.next_if(|entry| fits(entry, chosen.len(), bytes)) {
            bytes += entry.record.len();
            chosen.push_back(entry);
        }
        if let Some(entry) = older.next_if(|entry| fits(entry, chosen.len(), bytes)) {
            bytes += entry.record.len();
            chosen.push_front(entry);
        }
        if chosen.len() == before {
            return chosen.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backplane::{BackplaneLimits, EntryKind, memory};
    use crate::delivery::{Delivery, DeliverySettings};
    use crate::domain::policy::{self, Relation, RoomScope};
    use crate::domain::{Epoch, Limits, MessageFields, RoomId, Timestamp, UserId, Username};

    fn permit() -> Permit<Reading> {
        let room = RoomId::trusted("lobby");
        policy::may_read(&RoomScope::Everywhere, Relation::Service, &room, None).unwrap()
    }

    #[tokio::test]
    async fn a_page_around_a_message_is_filled_up_from_the_other_side() {
        let backplane = memory::embedded(BackplaneLimits {
            history_size: 20,
            ..BackplaneLimits::default()
        });
        let delivery = Arc::new(Delivery::start(&backplane, &DeliverySettings::default()));
        let messaging = Messaging::new(backplane, delivery, Limits::default());
        let around = async |seq, limit, max_bytes| {
            let window = HistoryWindow::Around(seq);
            let page = messaging.read(&permit(), window, limit, max_bytes).await;
            let page = page.unwrap();
            let seqs: Vec<u64> = page.entries.iter().map(|entry| entry.seq).collect();
            (seqs, page.has_more, page.has_more_after, page.head.seq)
        };
        let nothing = (vec![], false, Some(false), 0);
        assert_eq!(around(0, 5, usize::MAX).await, nothing);
        assert_eq!(around(7, 5, usize::MAX).await, nothing);
        for _ in 1..=30 {
            let room = RoomId::trusted("lobby");
            let permit =
                policy::may_send(&RoomScope::Everywhere, Relation::Service, &room, None).unwrap();
            let user = UserId::trusted("ann");
            let fields = MessageFields {
                content: "hi".into(),
                ..MessageFields::default()
            };
            let name = Username::from(&user);
            let _ = messaging.post(permit, user, name, fields).await.unwrap();
        }
        // The log has 11 to 30.
        for (seq, limit, expected, has_more, has_more_after) in [
            (20, 1, 20..=20, true, true),
            (20, 2, 19..=20, true, true),
            (20, 5, 18..=22, true, true),
            (20, 6, 17..=22, true, true),
            (29, 5, 26..=30, true, false),
            (30, 1, 30..=30, true, false),
            (31, 5, 26..=30, true, false),
            (1000, 5, 26..=30, true, false),
            (12, 5, 11..=15, false, true),
            (11, 1, 11..=11, false, true),
            (3, 5, 11..=15, false, true),
            (0, 5, 11..=15, false, true),
            (20, 200, 11..=30, false, false),
        ] {
            let expected = (expected.collect(), has_more, Some(has_more_after), 30);
            let page = around(seq, limit, usize::MAX).await;
            assert_eq!(page, expected, "{limit} around {seq}");
        }
        assert_eq!(around(20, 200, 1).await.0, [20], "always included");
    }

    fn entry(seq: u64, bytes: usize) -> Entry {
        Entry {
            seq,
            epoch: Epoch::trusted("e"),
            at: Timestamp(0),
            kind: EntryKind::Message,
            record: "x".repeat(bytes).into(),
        }
    }

    #[test]
    fn a_page_is_bounded_in_bytes_and_has_no_hole() {
        let older = || vec![entry(1, 1), entry(2, 50), entry(3, 10)];
        let newer = || vec![entry(4, 60), entry(5, 10), entry(6, 30), entry(7, 1)];
        let chosen = |max_bytes| -> Vec<u64> {
            let chosen = choose(older(), newer(), 100, max_bytes);
            chosen.iter().map(|entry| entry.seq).collect()
        };
        assert_eq!(chosen(59), [4]);
        assert_eq!(chosen(70), [3, 4]);
        assert_eq!(chosen(100), [3, 4, 5], "7 would fit, but not 6");
        assert_eq!(chosen(111), [3, 4, 5, 6, 7]);
        assert_eq!(chosen(161), [1, 2, 3, 4, 5, 6]);
        assert_eq!(chosen(162), [1, 2, 3, 4, 5, 6, 7]);
    }
}
