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
    /// Where the epoch before this one ended, as far as the surviving data tells.
    pub previous: Option<Head>,
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
        let end = match epoch {
            None => self.head.seq,
            Some(epoch) if *epoch == self.head.epoch => self.head.seq,
            Some(epoch) => match &self.previous {
                Some(previous) if previous.epoch == *epoch => previous.seq,
                _ => return Continuity::Lost { last_shared: None },
            },
        };
        if seq > end {
            Continuity::Lost { last_shared: Some(end) }
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

    fn span(oldest: u64, head: u64, previous: Option<u64>) -> LogSpan {
        LogSpan {
            head: Head { epoch: Epoch::trusted("new"), seq: head },
            oldest,
            previous: previous.map(|seq| Head { epoch: Epoch::trusted("old"), seq }),
        }
    }

    #[test]
    fn within_the_log_it_goes_on() {
        let span = span(11, 20, None);
        assert_eq!(span.continuity(None, 10), Continuity::Clean);
        assert_eq!(span.continuity(None, 20), Continuity::Clean);
        assert_eq!(span.continuity(Some(&Epoch::trusted("new")), 15), Continuity::Clean);
        assert_eq!(span.continuity(None, 9), Continuity::Trimmed);
        assert_eq!(span.continuity(None, 21), Continuity::Lost { last_shared: Some(20) });
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
        assert_eq!(span.continuity(Some(&old), 16), Continuity::Lost { last_shared: Some(15) });
        assert_eq!(span.continuity(Some(&Epoch::trusted("older")), 3), Continuity::Lost { last_shared: None });
    }
}
