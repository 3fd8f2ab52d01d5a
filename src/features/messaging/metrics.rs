//! The metrics of messaging.

use super::Messaging;
use crate::telemetry::sample::Sample;

impl Messaging {
    /// The metrics of messaging as they stand now.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let counters = self.counters();
        vec![
            Sample::counter(
                "messages_in",
                "Messages that this node appended to a room's log",
                counters.sent.get(),
            ),
            Sample::counter(
                "messages_duplicate",
                "Sends recognised as repeats of an earlier send",
                counters.duplicates.get(),
            ),
            Sample::counter(
                "messages_without_mentions",
                "Messages sent without the users that they mention, because the database was away or slow",
                counters.without_mentions.get(),
            ),
            Sample::counter("joins", "Joins answered positively", counters.joins.get()),
            Sample::histogram(
                "append_seconds",
                "Time until a message had its place in the room's log",
                &counters.append,
            ),
        ]
    }
}
