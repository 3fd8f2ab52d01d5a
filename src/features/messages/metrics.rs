//! The metrics of messages that change.

use super::Messages;
use super::change::ChangeRefused;
use crate::domain::Code;
use crate::telemetry::meter::{Counter, Histogram};
use crate::telemetry::sample::{Labels, Sample};

const KINDS: [&str; 4] = ["edit", "delete", "pin", "react"];
const OUTCOMES: [&str; 5] = ["made", "conflict", "refused", "failed", "late"];

/// The kind of a change, as it is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum ChangeKind {
    Edit,
    Delete,
    Pin,
    React,
}

/// The outcome of a change, as it is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum ChangeResult {
    Made,
    /// The user has seen another version.
    Conflict,
    /// The user may not make it, or there is no such message.
    Refused,
    /// The database, or another part of the server, could not make it.
    Failed,
    /// It is made, and was not announced in time.
    Late,
}

impl ChangeResult {
    pub fn of<T>(result: &Result<T, ChangeRefused>) -> Self {
        match result {
            Ok(_) => Self::Made,
            Err(ChangeRefused::Conflict(_)) => Self::Conflict,
            Err(ChangeRefused::Refusal(refusal)) => match refusal.code {
                Code::Unavailable | Code::Internal | Code::Overloaded => Self::Failed,
                _ => Self::Refused,
            },
        }
    }
}

/// Counts changes by kind and outcome.
#[derive(Debug, Default)]
pub(super) struct ChangeCounters {
    changes: [[Counter; OUTCOMES.len()]; KINDS.len()],
    /// From the commit of a change to the end of the wait for its announcement.
    pub publish: Histogram,
}

impl ChangeCounters {
    pub fn add(&self, kind: ChangeKind, result: ChangeResult) {
        self.changes[kind as usize][result as usize].add(1);
    }
}

impl Messages {
    /// The metrics of changes as they stand now.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let mut changes: Vec<(Labels, u64)> = Vec::new();
        for (kind, counters) in KINDS.into_iter().zip(&self.counters.changes) {
            for (outcome, counter) in OUTCOMES.into_iter().zip(counters) {
                changes.push((vec![("kind", kind), ("outcome", outcome)], counter.get()));
            }
        }
        vec![
            Sample::counters(
                "message_changes",
                "Changes of messages, by kind (edit, delete, pin, react) and outcome (made, conflict, refused, failed; late ones are made too, but were not announced within 5 seconds)",
                changes,
            ),
            Sample::histogram(
                "change_publish_seconds",
                "Time from the commit of an edit, a deletion or a pin to its announcement",
                &self.counters.publish,
            ),
            Sample::gauge(
                "reactions_waiting",
                "Reactions that wait for their transaction",
                self.reactions.waiting() as u64,
            ),
        ]
    }
}
