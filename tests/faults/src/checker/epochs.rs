//! The order of each room's epochs: the same for every client.

use std::collections::{BTreeSet, HashMap};

use super::faults::{Faults, Kind};
use super::names::{Name, Names};

/// The epochs of one room, as far as they are known.
#[derive(Default)]
pub(super) struct Epochs {
    /// When each was heard of first.
    heard: HashMap<Name, u64>,
    /// Whether anybody but a sender heard of it.
    seen: BTreeSet<Name>,
    /// Somebody went from the first to the second: who, and when.
    hops: HashMap<(Name, Name), (Name, u64)>,
}

/// The place of each epoch in their order.
pub(super) type Ranks = HashMap<Name, usize>;

impl Epochs {
    /// An ack tells of it.
    pub fn hear(&mut self, epoch: Name, at: u64) {
        let first = self.heard.entry(epoch).or_insert(at);
        *first = at.min(*first);
    }

    /// A member, or the lab, tells of it.
    pub fn see(&mut self, epoch: Name, at: u64) {
        self.hear(epoch, at);
        self.seen.insert(epoch);
    }

    pub fn is_seen(&self, epoch: Name) -> bool {
        self.seen.contains(&epoch)
    }

    pub fn len(&self) -> usize {
        self.heard.len()
    }

    /// A client was in one, and came to the other.
    pub fn hop(&mut self, from: Name, to: Name, who: Name, at: u64) {
        if from != to {
            self.hops.entry((from, to)).or_insert((who, at));
        }
    }

    /// Puts them in order: as clients came through them, and else as they were heard of.
    pub fn rank(&self, room: &str, names: &Names<'_>, faults: &mut Faults) -> Ranks {
        let mut left: BTreeSet<(u64, Name)> =
            self.heard.iter().map(|(epoch, at)| (*at, *epoch)).collect();
        let mut before: HashMap<Name, usize> = HashMap::new();
        let mut after: HashMap<Name, Vec<Name>> = HashMap::new();
        for (from, to) in self.hops.keys() {
            *before.entry(*to).or_default() += 1;
            after.entry(*from).or_default().push(*to);
        }
        let mut ranks = Ranks::new();
        let free = |before: &HashMap<Name, usize>, epoch: &Name| {
            before.get(epoch).is_none_or(|count| *count == 0)
        };
        while !left.is_empty() {
            let next = left.iter().find(|(_, epoch)| free(&before, epoch)).copied();
            let next = next.or_else(|| {
                self.tell_circle(room, &left, names, faults);
                left.first().copied()
            });
            let Some(next) = next else { break };
            left.remove(&next);
            ranks.insert(next.1, ranks.len());
            for to in after.remove(&next.1).unwrap_or_default() {
                before
                    .entry(to)
                    .and_modify(|count| *count = count.saturating_sub(1));
            }
        }
        ranks
    }

    fn tell_circle(
        &self,
        room: &str,
        left: &BTreeSet<(u64, Name)>,
        names: &Names<'_>,
        faults: &mut Faults,
    ) {
        let within = |epoch: Name| left.iter().any(|(_, other)| *other == epoch);
        let mut hops: Vec<_> = self
            .hops
            .iter()
            .filter(|((from, to), _)| within(*from) && within(*to))
            .collect();
        hops.sort_by_key(|(_, (_, at))| *at);
        let at = hops.last().map_or(0, |(_, (_, at))| *at);
        faults.add(Kind::Epochs, at, || {
            let told: Vec<_> = hops
                .iter()
                .map(|((from, to), (who, at))| {
                    format!(
                        "{} from {} to {} at {at} ms",
                        names.text(*who),
                        names.text(*from),
                        names.text(*to)
                    )
                })
                .collect();
            format!(
                "in {room} clients don't agree on the order of epochs: {}",
                told.join(", ")
            )
        });
    }
}
