//! The metrics of the outbox.

use super::{JobRunner, Worker};
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

impl JobRunner {
    /// The metrics of this node's jobs as they stand now.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        vec![
            Sample::counter(
                "jobs_completed",
                "Jobs that this node completed, such as mails",
                self.completed.get(),
            ),
            Sample::counter(
                "jobs_retried",
                "Attempts of this node to run a job that failed and are repeated",
                self.retried.get(),
            ),
            Sample::counter(
                "jobs_failed",
                "Jobs that this node gave up: see `hubbub outbox list`",
                self.failed.get(),
            ),
        ]
    }
}
