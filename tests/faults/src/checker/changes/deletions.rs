//! Checks that deleted messages are not shown any more.

use std::collections::BTreeMap;

use super::{Observed, Target};
use crate::checker::faults::{FaultKind, Faults};
use crate::history::changes::{ChangeFact, MessageChange};

pub(super) fn check(facts: &[Observed<'_>], faults: &mut Faults) {
    let mut deleted: BTreeMap<Target<'_>, u64> = BTreeMap::new();
    for Observed { at, fact, .. } in facts {
        if let ChangeFact::Acked {
            room,
            target,
            change: MessageChange::Delete,
            ..
        } = fact
        {
            let first = deleted.entry((room, *target)).or_insert(*at);
            *first = (*first).min(*at);
        }
    }
    for Observed { at, fact, .. } in facts {
        let ChangeFact::Shown {
            room,
            target,
            began,
        } = fact
        else {
            continue;
        };
        // Times of different sources are exact to the millisecond only.
        if deleted
            .get(&(&**room, *target))
            .is_some_and(|acked| began > acked)
        {
            faults.add(FaultKind::ShownAfterDeletion, *at, || {
                format!("{room}/{target}, deleted before {began}")
            });
        }
    }
}
