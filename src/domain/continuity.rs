//! Whether a reader's position in a room's log can continue without a hole: the rule behind `join`,
//! catch-up and `room_reset`.

use super::id::Epoch;

/// The position of a room's newest message; `seq` is 0 before the first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The epoch of the numbering.
    pub epoch: Epoch,
    /// The last number assigned.
    pub seq: u64,
}

/// The range of messages that a room's log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSpan {
    /// Where the log ends.
    pub head: Head,
    /// The lowest `seq` from which on every message up to the head is kept; `head.seq + 1` if none is.
    pub oldest: u64,
    /// Where a replay begins for a reader whose position means nothing: the lowest `seq` of the newest
    /// messages, those that a log keeps without an archive. At least `oldest`.
    pub recent: u64,
    /// The lowest `seq` kept at all: less than `oldest` only where an archive lacks some messages
    /// between the two.
    pub first: u64,
    /// Whether there may be messages before `oldest` that can't be read now, because the archive's
    /// database is away.
    pub is_cut_off: bool,
    /// Up to where the numbers of earlier epochs mean the same messages in this log, newest first. Only epochs
    /// that the surviving data still records are listed.
    pub past: Vec<Head>,
}

/// Whether a reader can continue from a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// Everything after the position is kept and continues it.
    Clean,
    /// The numbering continues that of the position, but some messages after it are no longer kept.
    Trimmed,
    /// The numbering continues that of the position, but some messages after it can't be read now.
    Unreadable,
    /// The position belongs to a numbering that was lost.
    Lost {
        /// The last `seq` that means the same message in both numberings, if known.
        last_shared: Option<u64>,
    },
}

impl LogSpan {
    /// The span of a log without an archive.
    #[must_use]
    pub fn of_log(head: Head, oldest: u64, past: Vec<Head>) -> Self {
        Self {
            head,
            oldest,
            recent: oldest,
            first: oldest,
            is_cut_off: false,
            past,
        }
    }

    /// Whether a reader that has seen everything up to `seq` of `epoch` (`None`: the current epoch)
    /// can continue.
    #[must_use]
    pub fn continuity(&self, epoch: Option<&Epoch>, seq: u64) -> Continuity {
        let shared = epoch.map_or(Some(self.head.seq), |epoch| self.end_of(epoch));
        self.judge(seq, shared)
    }

    /// As [`continuity`](Self::continuity), for a reader that also knows where the epochs before
    /// its own ended (`past`, newest first). It can then continue even if its own epoch was lost,
    /// from the point where that epoch branched off.
    #[must_use]
    pub fn continuity_after(&self, at: &Head, past: &[Head]) -> Continuity {
        let mut seen = std::iter::once(at).chain(past);
        let shared = seen.find_map(|seen| Some(seen.seq.min(self.end_of(&seen.epoch)?)));
        self.judge(at.seq, shared)
    }

    /// Whether there are messages before this one, or may be some that can't be read now.
    #[must_use]
    pub fn has_before(&self, seq: u64) -> bool {
        seq > self.first || self.is_cut_off && seq > 1
    }

    /// Whether the span has the end of this epoch, or the epoch is the current one.
    #[must_use]
    pub fn knows(&self, epoch: &Epoch) -> bool {
        self.end_of(epoch).is_some()
    }

    /// The last `seq` up to which the epoch's numbers mean the same messages in this log.
    fn end_of(&self, epoch: &Epoch) -> Option<u64> {
        let mut epochs = std::iter::once(&self.head).chain(&self.past);
        epochs
            .find(|head| head.epoch == *epoch)
            .map(|head| head.seq)
    }

    fn judge(&self, seq: u64, shared: Option<u64>) -> Continuity {
        if shared.is_none_or(|shared| seq > shared) {
            Continuity::Lost {
                last_shared: shared,
            }
        } else if seq == self.head.seq || seq + 1 >= self.oldest {
            Continuity::Clean
        } else if self.is_cut_off {
            Continuity::Unreadable
        } else {
            Continuity::Trimmed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(epoch: &str, seq: u64) -> Head {
        Head {
            epoch: Epoch::trusted(epoch),
            seq,
        }
    }

    fn span(oldest: u64, seq: u64, old: Option<u64>) -> LogSpan {
        let past = old.into_iter().map(|seq| head("old", seq)).collect();
        LogSpan::of_log(head("new", seq), oldest, past)
    }

    #[test]
    fn a_position_within_the_log_continues() {
        let span = span(11, 20, None);
        assert_eq!(span.continuity(None, 10), Continuity::Clean);
        assert_eq!(span.continuity(None, 20), Continuity::Clean);
        assert_eq!(
            span.continuity(Some(&Epoch::trusted("new")), 15),
            Continuity::Clean
        );
        assert_eq!(span.continuity(None, 9), Continuity::Trimmed);
        assert_eq!(
            span.continuity(None, 21),
            Continuity::Lost {
                last_shared: Some(20)
            }
        );
    }

    #[test]
    fn a_position_at_the_head_continues_even_if_the_log_has_expired() {
        assert_eq!(span(21, 20, None).continuity(None, 20), Continuity::Clean);
        assert_eq!(span(21, 20, None).continuity(None, 19), Continuity::Trimmed);
    }

    #[test]
    fn a_position_before_the_log_is_unreadable_while_the_archive_is_away() {
        let span = LogSpan {
            is_cut_off: true,
            ..span(11, 20, None)
        };
        assert_eq!(span.continuity(None, 9), Continuity::Unreadable);
        assert_eq!(span.continuity(None, 10), Continuity::Clean);
        let lost = span.continuity(Some(&Epoch::trusted("other")), 9);
        assert_eq!(lost, Continuity::Lost { last_shared: None });
    }

    #[test]
    fn messages_before_a_hole_or_in_an_archive_that_is_away_count_as_earlier_ones() {
        let complete = span(11, 20, None);
        assert!(complete.has_before(12) && !complete.has_before(11));
        let with_hole = LogSpan {
            first: 5,
            ..complete.clone()
        };
        assert!(with_hole.has_before(6) && !with_hole.has_before(5));
        let cut_off = LogSpan {
            is_cut_off: true,
            ..complete
        };
        assert!(cut_off.has_before(11) && !cut_off.has_before(1));
    }

    #[test]
    fn an_earlier_epoch_continues_only_up_to_where_it_ended() {
        let old = Epoch::trusted("old");
        let span = span(1, 20, Some(15));
        assert_eq!(span.continuity(Some(&old), 15), Continuity::Clean);
        assert_eq!(
            span.continuity(Some(&old), 16),
            Continuity::Lost {
                last_shared: Some(15)
            }
        );
        assert_eq!(
            span.continuity(Some(&Epoch::trusted("older")), 3),
            Continuity::Lost { last_shared: None }
        );
    }

    #[test]
    fn a_lost_epoch_continues_from_where_it_branched_off() {
        let span = LogSpan {
            past: vec![head("old", 15), head("older", 10)],
            ..span(1, 20, None)
        };
        let after = |at: &Head, past: &[Head]| span.continuity_after(at, past);
        assert_eq!(after(&head("old", 12), &[]), Continuity::Clean);
        assert_eq!(
            after(&head("lost", 15), &[head("old", 15)]),
            Continuity::Clean,
            "the lost epoch had no message"
        );
        assert_eq!(
            after(&head("lost", 17), &[head("old", 15)]),
            Continuity::Lost {
                last_shared: Some(15)
            }
        );
        assert_eq!(
            after(&head("lost", 17), &[head("old", 14)]),
            Continuity::Lost {
                last_shared: Some(14)
            }
        );
        assert_eq!(
            after(
                &head("lost", 17),
                &[head("lost too", 16), head("older", 10)]
            ),
            Continuity::Lost {
                last_shared: Some(10)
            }
        );
        assert_eq!(
            after(&head("lost", 3), &[]),
            Continuity::Lost { last_shared: None }
        );
    }
}
