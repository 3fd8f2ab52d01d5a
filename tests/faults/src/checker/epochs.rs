//! Checks that the epochs of each room have one order, the same for every client.

use std::collections::{BTreeSet, HashMap};

use super::faults::{FaultKind, Faults};
use super::interner::{Interner, Symbol};

/// The epochs of one room that appear in the history.
#[derive(Default)]
pub(super) struct Epochs {
    /// The time at which each epoch appeared first.
    first_seen: HashMap<Symbol, u64>,
    /// Epochs that a member of the room or the lab observed. Those not in it are known from
    /// acknowledgements alone.
    observed: BTreeSet<Symbol>,
    /// Pairs of epochs that a client saw directly after each other, with the first such
    /// observation.
    transitions: HashMap<(Symbol, Symbol), Transition>,
}

#[derive(Clone, Copy)]
struct Transition {
    client: Symbol,
    at: u64,
}

/// By epoch: its index in the order.
pub(super) type EpochRanks = HashMap<Symbol, usize>;

impl Epochs {
    /// The epoch appears in the history, perhaps only in an acknowledgement.
    pub fn add(&mut self, epoch: Symbol, at: u64) {
        let first = self.first_seen.entry(epoch).or_insert(at);
        *first = at.min(*first);
    }

    /// A member of the room, or the lab, observed the epoch.
    pub fn add_observed(&mut self, epoch: Symbol, at: u64) {
        self.add(epoch, at);
        self.observed.insert(epoch);
    }

    pub fn is_observed(&self, epoch: Symbol) -> bool {
        self.observed.contains(&epoch)
    }

    pub fn len(&self) -> usize {
        self.first_seen.len()
    }

    /// A client was in the first epoch, and then in the second.
    pub fn add_transition(&mut self, from: Symbol, to: Symbol, client: Symbol, at: u64) {
        if from != to {
            self.transitions
                .entry((from, to))
                .or_insert(Transition { client, at });
        }
    }

    /// Every epoch has the same rank: the order of the messages is that of their numbers alone.
    pub fn unordered(&self) -> EpochRanks {
        self.first_seen.keys().map(|epoch| (*epoch, 0)).collect()
    }

    /// Sorts the epochs topologically by the transitions of the clients; among those that the
    /// transitions leave open, the one that appeared first comes first. Reports a cycle as a fault.
    pub fn rank(&self, room: &str, interner: &Interner<'_>, faults: &mut Faults) -> EpochRanks {
        let mut unranked: BTreeSet<(u64, Symbol)> = self
            .first_seen
            .iter()
            .map(|(epoch, at)| (*at, *epoch))
            .collect();
        let mut predecessors: HashMap<Symbol, usize> = HashMap::new();
        let mut successors: HashMap<Symbol, Vec<Symbol>> = HashMap::new();
        for (from, to) in self.transitions.keys() {
            *predecessors.entry(*to).or_default() += 1;
            successors.entry(*from).or_default().push(*to);
        }
        let mut ranks = EpochRanks::new();
        while let Some(earliest) = unranked.first().copied() {
            let unblocked = unranked
                .iter()
                .find(|(_, epoch)| predecessors.get(epoch).is_none_or(|count| *count == 0))
                .copied();
            let next = match unblocked {
                Some(next) => next,
                None => {
                    self.report_cycle(room, &unranked, interner, faults);
                    earliest
                }
            };
            unranked.remove(&next);
            let (_, epoch) = next;
            ranks.insert(epoch, ranks.len());
            for successor in successors.remove(&epoch).unwrap_or_default() {
                if let Some(count) = predecessors.get_mut(&successor) {
                    *count = count.saturating_sub(1);
                }
            }
        }
        ranks
    }

    fn report_cycle(
        &self,
        room: &str,
        unranked: &BTreeSet<(u64, Symbol)>,
        interner: &Interner<'_>,
        faults: &mut Faults,
    ) {
        let is_unranked = |epoch: Symbol| unranked.iter().any(|(_, other)| *other == epoch);
        let mut transitions: Vec<_> = self
            .transitions
            .iter()
            .filter(|((from, to), _)| is_unranked(*from) && is_unranked(*to))
            .collect();
        transitions.sort_by_key(|(_, transition)| transition.at);
        let at = transitions
            .last()
            .map_or(0, |(_, transition)| transition.at);
        faults.add(FaultKind::EpochOrder, at, || {
            let texts: Vec<_> = transitions
                .iter()
                .map(|((from, to), transition)| {
                    format!(
                        "{} from {} to {} at {} ms",
                        interner.text(transition.client),
                        interner.text(*from),
                        interner.text(*to),
                        transition.at
                    )
                })
                .collect();
            format!(
                "in {room} clients don't agree on the order of epochs: {}",
                texts.join(", ")
            )
        });
    }
}
