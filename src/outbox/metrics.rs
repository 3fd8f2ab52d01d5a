//! The metrics of the outbox.

use super::Worker;
use crate::telemetry::sample::Sample;

impl Worker {
    /// The metrics of this node's worker as they stand now.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        vec![
            Sample::counter(
                "outbox_published",
                "Rows of the outbox that this node published",
                self.published.get(),
            ),
            Sample::counter(
                "outbox_retries",
                "Attempts of this node to publish a row that failed and are repeated",
                self.postponed.get(),
            ),
            Sample::counter(
                "outbox_failed",
                "Rows of the outbox that this node gave up: see `hubbub outbox list`",
                self.failed.get(),
            ),
        ]
    }
}
