//! The changes that unaffected watchers were notified of.

use std::collections::HashSet;

use super::{StatusCheck, Watch, word};
use crate::checker::faults::FaultKind;
use crate::checker::parsed_history::ClientHistory;

/// At most this many states are listed in the report of a fault.
const MAX_LISTED_STATES: usize = 10;

/// The versions of one user that unaffected watchers were notified of.
#[derive(Default)]
pub(super) struct KnownVersions {
    /// They were notified of every change after this version.
    baseline: u64,
    versions: HashSet<u64>,
}

impl<'a> StatusCheck<'_, 'a> {
    /// An unaffected watcher must be notified of each change, and of nothing else.
    pub(super) fn check_unaffected(
        &mut self,
        client: &ClientHistory<'a>,
        target: &'a str,
        watch: &Watch,
    ) {
        let (Some(baseline), Some(mark)) = (watch.baseline, client.unaffected) else {
            return;
        };
        let changes = self.history.presence_changes.get(target);
        let expected: Vec<bool> = changes
            .into_iter()
            .flatten()
            .filter(|change| change.lab_index > mark.lab_index)
            .map(|change| change.online)
            .collect();
        let seen: Vec<bool> = watch
            .since_baseline
            .iter()
            .map(|change| change.state.online)
            .collect();
        self.stats.presence_expected += expected.len() as u64;
        self.stats.presence_seen += seen.len() as u64;
        let is_right = if client.ended {
            expected.starts_with(&seen)
        } else {
            expected == seen
        };
        if !is_right {
            let kind = if seen.len() > expected.len() {
                FaultKind::UnexpectedStatusChange
            } else {
                FaultKind::MissedStatusChange
            };
            let matching = expected
                .iter()
                .zip(&seen)
                .take_while(|(expected, seen)| expected == seen)
                .count();
            // The time of the first difference.
            let change = watch.since_baseline.get(matching);
            let change = change.or(watch.since_baseline.last());
            let at = change.map_or(mark.at, |change| change.at);
            self.faults.add(kind, at, || {
                format!(
                    "unaffected {} was notified of {} changes of {target}, and there \
                     were {}; the first {matching} agree; \
                     after them, it was notified of: {}; the changes were: {}",
                    client.name,
                    seen.len(),
                    expected.len(),
                    list(&seen[matching..]),
                    list(&expected[matching..])
                )
            });
        }
        if !client.ended {
            let known = self
                .known_versions
                .entry(target)
                .or_insert_with(|| KnownVersions {
                    baseline,
                    ..KnownVersions::default()
                });
            known.baseline = baseline.min(known.baseline);
            for change in &watch.since_baseline {
                known.versions.insert(change.state.version);
            }
        }
    }

    /// Every version that is newer than an unaffected watcher's baseline must be one that such a
    /// watcher was notified of.
    pub(super) fn check_versions(&mut self) {
        for notification in &self.notifications {
            let target = notification.target;
            let version = notification.version;
            let Some(known) = self.known_versions.get(target) else {
                continue;
            };
            if version > known.baseline && !known.versions.contains(&version) {
                self.faults
                    .add(FaultKind::UnknownStatusVersion, notification.at, || {
                        format!(
                            "{} was notified of version {version} of {target}, and no unaffected \
                             watcher was",
                            notification.source
                        )
                    });
            }
        }
    }
}

fn list(states: &[bool]) -> String {
    if states.is_empty() {
        return "nothing".to_owned();
    }
    let listed: Vec<_> = states
        .iter()
        .take(MAX_LISTED_STATES)
        .map(|online| word(*online))
        .collect();
    let text = listed.join(", ");
    match states.len() - listed.len() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}
