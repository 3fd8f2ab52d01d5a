//! The state of the messages of a page: reactions, pins and threads, which the store has.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{HistoryPage, Messaging};
use crate::backplane::resolved_entry;
use crate::domain::{Refusal, RoomId};
use crate::features::messages::{MessageState, reconcile};
use crate::store::MessageStore;

/// The longest wait for the state of a page's messages.
const STATE_TIMEOUT: Duration = Duration::from_millis(200);

/// The states of messages, by their numbers.
type States = BTreeMap<u64, MessageState>;

impl Messaging {
    /// Adds the state of its messages to a page, and lowers the position that it reflects where the state is
    /// older. Messages that are deleted in the store, and not yet in the log, become tombstones.
    ///
    /// # Errors
    /// `unavailable`.
    pub(super) async fn add_states(
        &self,
        store: &dyn MessageStore,
        room: &RoomId,
        page: &mut HistoryPage,
    ) -> Result<(), Refusal> {
        let (Some(first), Some(last)) = (page.entries.first(), page.entries.last()) else {
            return Ok(());
        };
        let (seqs, traces) = (first.seq..=last.seq, page.traces);
        // Changes of a message, and replies to it, come behind it: the log has them if it has the message.
        let is_in_log = first.seq >= traces.oldest;
        let has_threads = !is_in_log || traces.last_reply > first.seq;
        if is_in_log && !traces.has_changes && !has_threads {
            return Ok(());
        }
        let head = page.head.clone();
        if has_threads && traces.last_reply > traces.watermark {
            // The store has replies once they are archived.
            page.head.seq = page.head.seq.min(traces.watermark);
        }
        let Some(mut states) = self
            .states_within_limit(store, room, seqs.clone(), has_threads)
            .await
        else {
            // All changes of the messages come behind the first one.
            page.head.seq = page.head.seq.min(*seqs.start());
            return Ok(());
        };
        let mut by_seq: BTreeMap<u64, &mut MessageState> = states
            .iter_mut()
            .map(|(seq, state)| (*seq, state))
            .collect();
        let mut listed = Vec::new();
        for entry in &mut page.entries {
            let Some(state) = by_seq.remove(&entry.seq) else {
                continue;
            };
            if let Some(deletion) = &state.deletion {
                resolved_entry::delete(entry, &deletion.by, deletion.thread, deletion.version);
            }
            listed.push((entry, state));
        }
        let as_of = reconcile(self.log(), room, &head, listed).await?;
        page.head.seq = page.head.seq.min(as_of.seq);
        page.states = states;
        Ok(())
    }

    /// The states, unless the database is away or slow.
    async fn states_within_limit(
        &self,
        store: &dyn MessageStore,
        room: &RoomId,
        seqs: RangeInclusive<u64>,
        has_threads: bool,
    ) -> Option<States> {
        if self.archive_status().is_some_and(|status| !status.is_up) {
            return None;
        }
        let states = store.states(room, seqs, has_threads);
        match tokio::time::timeout(STATE_TIMEOUT, states).await {
            Ok(Ok(states)) => Some(states.into_iter().collect()),
            Ok(Err(error)) => {
                tracing::warn!(%room, %error, "a page of messages comes without their state");
                None
            }
            Err(_) => {
                let limit_ms = STATE_TIMEOUT.as_millis();
                tracing::warn!(%room, limit_ms, "the database is slow: a page of messages comes without their state");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
