//! Whether what someone has seen of a room goes on without a hole: the rule behind `join`, catch-up and `room_reset`.

use super::id::Epoch;

/// The last message of a room's numbering: `seq` is 0 before the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The life of the numbering.
    pub epoch: Epoch,
    /// The last number given.
    pub seq: u64,
}

/// What a room's log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSpan {
    /// Where it ends.
    pub head: Head,
    /// The lowest `seq` still kept; `head.seq + 1` when nothing is.
    pub oldest: u64,
    /// Where the epochs before this one ended, as far as the surviving data tells: the newest first, and not all of them.
    pub past: Vec<Head>,
}

/// The answer to "can I go on from here?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// Everything after the position is kept, and follows it.
    Clean,
    /// The position's epoch goes on, but messages after it are no longer kept.
    Trimmed,
    /// The position lies on a numbering that was lost. `last_shared` is the last `seq` that both have in common, if known.
    Lost {
        /// Messages up to this one mean the same in both numberings.
        last_shared: Option<u64>,
    },
}

impl LogSpan {
    /// Whether whoever has seen everything up to `seq` of `epoch` (`None`: the current one) can go on.
    #[must_use]
    pub fn continuity(&self, epoch: Option<&Epoch>, seq: u64) -> Continuity {
        let shared = epoch.map_or(Some(self.head.seq), |epoch| self.end_of(epoch));
        self.judge(seq, shared)
    }

    /// As [`continuity`](Self::continuity), for who also knows from where its own epoch went on (newest first): then the
    /// epoch itself may have been lost.
    #[must_use]
    pub fn continuity_after(&self, at: &Head, past: &[Head]) -> Continuity {
        let mut seen = std::iter::once(at).chain(past);
        let shared = seen.find_map(|seen| Some(seen.seq.min(self.end_of(&seen.epoch)?)));
        self.judge(at.seq, shared)
    }

    /// Up to where the epoch's numbers mean the same here.
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
        LogSpan {
            head: head("new", seq),
            oldest,
            past: old.into_iter().map(|seq| head("old", seq)).collect(),
        }
    }

    #[test]
    fn within_the_log_it_goes_on() {
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
    fn at_the_head_it_goes_on_even_when_the_log_has_expired() {
        assert_eq!(span(21, 20, None).continuity(None, 20), Continuity::Clean);
        assert_eq!(span(21, 20, None).continuity(None, 19), Continuity::Trimmed);
    }

    #[test]
    fn another_epoch_goes_on_only_up_to_where_it_ended() {
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
    fn an_epoch_that_was_lost_itself_goes_on_from_where_it_branched_off() {
        let span = LogSpan {
            past: vec![head("old", 15), head("older", 10)],
            ..span(1, 20, None)
        };
        let after = |at: &Head, past: &[Head]| span.continuity_after(at, past);
        assert_eq!(after(&head("old", 12), &[]), Continuity::Clean);
        assert_eq!(
            after(&head("lost", 15), &[head("old", 15)]),
            Continuity::Clean,
            "nothing was said in it"
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
