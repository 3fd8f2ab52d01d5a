//! The counters of the archive, and its metrics.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::telemetry::meter::{Counter, Histogram};
use crate::telemetry::sample::Sample;

/// The counters of the archive on this node.
#[derive(Debug, Default)]
pub struct ArchiveCounters {
    /// Entries that this node has committed, or found in the archive already.
    pub archived: Counter,
    /// Commits.
    pub commits: Counter,
    /// Commits that failed and were repeated.
    pub failed_commits: Counter,
    /// Seconds that each commit took.
    pub commit_time: Histogram,
    /// Entries that the archive refused because it has others with their numbers.
    pub conflicts: Counter,
    /// Entries that the database refused, each counted once.
    pub rejected: Counter,
    /// Sends refused because too many messages waited for their commit.
    pub refused: Counter,
    /// Sends refused because their commit took too long.
    pub late: Counter,
    /// Entries that the sweeper found unarchived and committed.
    pub swept: Counter,
    /// Messages that were left unarchived for too long, by the last sweep.
    pub left_behind: AtomicU64,
    /// Rooms restored from the archive.
    pub restored: Counter,
    /// Numbers recorded as lost.
    pub lost: Counter,
    /// Checks of the whole archive that this node has completed.
    pub checks: Counter,
    /// Numbers that these found missing without being recorded as lost.
    pub gaps: Counter,
    /// Rooms of which these found the log to end before the archive.
    pub head_mismatches: Counter,
    /// Entries deleted by retention.
    pub deleted: Counter,
}

/// The state of the archive's queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backlog {
    pub messages: usize,
    pub bytes: usize,
    pub age: Duration,
}

/// The state of the archive.
pub(super) struct Status {
    pub is_up: bool,
    pub is_retention_overdue: bool,
    pub backlog: Backlog,
    /// Entries that the database has refused and that are offered again.
    pub refused: usize,
}

impl ArchiveCounters {
    /// Counts numbers that have been recorded as lost.
    pub(super) fn add_lost(&self, lost: &RangeInclusive<u64>) {
        self.lost.add(lost.end() - lost.start() + 1);
    }

    pub(super) fn samples(&self, status: &Status) -> Vec<Sample> {
        let backlog = status.backlog;
        vec![
            Sample::gauge(
                "archive_up",
                "1 while the archive's database responds, otherwise 0",
                u64::from(status.is_up),
            ),
            Sample::gauge(
                "archive_backlog",
                "Messages of this node that wait for their commit: the archive's lag",
                backlog.messages as u64,
            ),
            Sample::gauge(
                "archive_backlog_bytes",
                "Bytes of the records of these messages",
                backlog.bytes as u64,
            ),
            Sample::gauge_seconds(
                "archive_lag_seconds",
                "Time for which the oldest of these messages has waited",
                backlog.age.as_secs_f64(),
            ),
            Sample::counter(
                "archived",
                "Messages that this node has committed to the archive; divided by the number of \
                 commits, the mean size of a batch",
                self.archived.get(),
            ),
            Sample::counter(
                "archive_commits",
                "Commits to the archive",
                self.commits.get(),
            ),
            Sample::counter(
                "archive_commit_failures",
                "Commits that failed and were repeated",
                self.failed_commits.get(),
            ),
            Sample::histogram(
                "archive_commit_seconds",
                "Time that a commit took",
                &self.commit_time,
            ),
            Sample::counter(
                "archive_conflicts",
                "Messages that the archive refused because it has others with their numbers",
                self.conflicts.get(),
            ),
            Sample::counter(
                "archive_rejected",
                "Messages that the database did not take although it responds; each is offered again",
                self.rejected.get(),
            ),
            Sample::gauge(
                "archive_rejected_waiting",
                "Of these messages, those that the database has not taken yet",
                status.refused as u64,
            ),
            Sample::counter(
                "archive_refused",
                "Sends refused because the backlog was full or the database was known to be down",
                self.refused.get(),
            ),
            Sample::counter(
                "archive_late",
                "Sends answered unavailable because their commit took too long",
                self.late.get(),
            ),
            Sample::counter(
                "archive_swept",
                "Messages that their own node had left unarchived, and this node committed",
                self.swept.get(),
            ),
            Sample::gauge(
                "archive_left_behind",
                "Messages of all nodes that are not archived, in rooms where one has waited for more \
                 than 5 seconds, as of this node's last sweep",
                self.left_behind.load(Ordering::Relaxed),
            ),
            Sample::counter(
                "archive_restored_rooms",
                "Rooms that continued from the archive, because the log did not know them or may \
                 have lost their end",
                self.restored.get(),
            ),
            Sample::counter(
                "archive_lost",
                "Numbers that this node has recorded as lost: neither log nor archive has them",
                self.lost.get(),
            ),
            Sample::counter(
                "archive_checks",
                "Checks of the whole archive for missing messages that this node has completed",
                self.checks.get(),
            ),
            Sample::counter(
                "archive_gaps",
                "Messages that checks of this node found missing in the archive, though not recorded as \
                 lost",
                self.gaps.get(),
            ),
            Sample::counter(
                "archive_head_mismatches",
                "Rooms whose log ended before the archive, found by checks of this node",
                self.head_mismatches.get(),
            ),
            Sample::counter(
                "archive_deleted",
                "Messages that retention has deleted",
                self.deleted.get(),
            ),
            Sample::gauge(
                "archive_retention_overdue",
                "1 if no run of retention has succeeded for two hours, otherwise 0",
                u64::from(status.is_retention_overdue),
            ),
        ]
    }
}
