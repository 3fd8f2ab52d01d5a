//! The queue of entries that wait for their commit.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::counters::Backlog;
use super::entry::ArchivedRow;
use crate::backplane::{BackplaneError, PendingCommit, Result};
use crate::domain::RoomId;
use crate::store::{ArchivedEntry, BATCH_BYTES, BATCH_ENTRIES};

/// The most bytes of records in the queue.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// How long entries whose senders don't wait are collected for one commit: each commit has a cost of
/// its own, on the node and in the database.
const COLLECT: Duration = Duration::from_millis(50);

/// How long a sender waits for a commit. Then the send is refused as unavailable; the entry stays in
/// the queue and is committed later.
pub(super) const COMMIT_TIMEOUT: Duration = Duration::from_secs(4);

/// The sender of an entry, if it waits for the commit.
pub(super) struct Sender {
    since: Instant,
    commit: Option<PendingCommit>,
}

impl Sender {
    fn is_late(&self) -> bool {
        self.since.elapsed() >= COMMIT_TIMEOUT
    }

    /// Notifies the sender of the outcome. A sender that panics must not end the task that commits.
    pub fn complete(&mut self, outcome: Result<()>) {
        if let Some(commit) = self.commit.take() {
            complete(commit, outcome);
        }
    }
}

fn complete(commit: PendingCommit, outcome: Result<()>) {
    let completed = catch_unwind(AssertUnwindSafe(|| commit.complete(outcome)));
    if completed.is_err() {
        tracing::error!("archive: acknowledging a message panicked");
    }
}

/// How an entry came into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// By a send on this node. By the time of a late commit the log may have lost the entry.
    Send,
    /// By the sweeper, which read it in the room's present log.
    Sweep,
}

/// Entries for one commit.
pub(super) struct Batch {
    pub origin: Origin,
    pub rows: Vec<ArchivedRow>,
    /// The sender of each row.
    pub senders: Vec<Sender>,
    /// The bytes of the records.
    bytes: usize,
    /// When the first of the entries' appends began.
    begun: Option<Instant>,
}

impl Batch {
    /// The greatest age that one of the entries can have: since its append began. The log may have been
    /// lost between the append and its reply.
    pub fn age(&self) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| begun.elapsed())
    }
}

struct Queued {
    row: ArchivedRow,
    origin: Origin,
    /// Before the entry's append, or before it was read in the log.
    begun: Instant,
    sender: Sender,
    /// Whether a sender or the sweeper waits for the commit.
    is_awaited: bool,
}

#[derive(Default)]
struct Entries {
    queue: VecDeque<Queued>,
    /// How many of them are awaited.
    awaited: usize,
    /// The bytes of the records in the queue and in the batch that is being committed.
    bytes: usize,
    /// The number of entries in the batch that is being committed.
    committing: usize,
    /// When the oldest entry of that batch was queued.
    committing_since: Option<Instant>,
    is_closed: bool,
    /// How many entries were queued so far, and how many of them left the queue or its last batch.
    queued: u64,
    finished: u64,
    /// Commits are due at once until so many entries have left the queue.
    flush_until: u64,
}

impl Entries {
    /// When the next commit should begin. `None` if there is nothing to commit.
    fn due(&self) -> Option<Instant> {
        let oldest = self.queue.front()?.sender.since;
        let taken = self.queued - self.queue.len() as u64;
        let is_due = self.awaited > 0
            || taken < self.flush_until
            || self.is_closed
            || self.queue.len() >= BATCH_ENTRIES
            || self.bytes >= BATCH_BYTES;
        Some(if is_due { oldest } else { oldest + COLLECT })
    }
}

/// Entries in the order in which they were appended. Bounded: [`Queue::is_full`] is checked before an
/// append, because an entry that has its number can't be refused any more.
pub(super) struct Queue {
    entries: Mutex<Entries>,
    max_entries: usize,
    filled: Notify,
    emptied: Notify,
    batch_ended: Notify,
}

impl Queue {
    pub fn new(max_entries: usize) -> Self {
        Self {
            entries: Mutex::default(),
            max_entries,
            filled: Notify::new(),
            emptied: Notify::new(),
            batch_ended: Notify::new(),
        }
    }

    pub fn is_full(&self) -> bool {
        let entries = self.entries.lock();
        entries.queue.len() + entries.committing >= self.max_entries || entries.bytes >= MAX_BYTES
    }

    pub fn len(&self) -> usize {
        let entries = self.entries.lock();
        entries.queue.len() + entries.committing
    }

    /// Adds an entry of a send, whose append began at that time. Once the queue is closed, the entry's
    /// commit fails instead.
    pub fn push(
        &self,
        room: RoomId,
        entry: ArchivedEntry,
        begun: Instant,
        commit: Option<PendingCommit>,
    ) {
        self.add((room, entry), Origin::Send, begun, commit);
    }

    /// Adds an entry that was read in the log. Once the queue is closed, its commit fails.
    pub fn push_swept(&self, room: RoomId, entry: ArchivedEntry, commit: Option<PendingCommit>) {
        self.add((room, entry), Origin::Sweep, Instant::now(), commit);
    }

    fn add(&self, row: ArchivedRow, origin: Origin, begun: Instant, commit: Option<PendingCommit>) {
        let since = Instant::now();
        let queued = Queued {
            row,
            origin,
            begun,
            is_awaited: commit.is_some() || origin == Origin::Sweep,
            sender: Sender { since, commit },
        };
        let mut entries = self.entries.lock();
        if entries.is_closed {
            drop(entries);
            return drop(queued);
        }
        let due_before = entries.due();
        entries.bytes += queued.row.1.record.len();
        entries.awaited += usize::from(queued.is_awaited);
        entries.queue.push_back(queued);
        entries.queued += 1;
        let is_due_earlier = due_before.is_none_or(|before| entries.due() < Some(before));
        drop(entries);
        if is_due_earlier {
            self.filled.notify_one();
        }
    }

    /// Waits until a commit is due, and takes as many entries of one origin as it may have. A commit is
    /// due at once if a sender waits for it, otherwise when it is full or its oldest entry has waited
    /// for [`COLLECT`]. `None` once the queue is closed and empty.
    pub async fn next_batch(&self) -> Option<Batch> {
        loop {
            let due = {
                let mut entries = self.entries.lock();
                let due = entries.due();
                if due.is_some_and(|due| due <= Instant::now()) {
                    return Some(take_batch(&mut entries));
                }
                if due.is_none() && entries.is_closed {
                    return None;
                }
                due
            };
            let filled = self.filled.notified();
            match due {
                // Whether the time is over or the queue has changed: both are looked at again.
                Some(due) => drop(tokio::time::timeout_at(due, filled).await),
                None => filled.await,
            }
        }
    }

    /// The batch, which was taken last, is committed.
    pub fn finish_batch(&self, batch: Batch) {
        let entries = self.entries.lock();
        let bytes = entries.bytes - batch.bytes;
        self.end_batch(entries, bytes);
    }

    /// The batch, which was taken last, is dropped: its senders are refused, and its entries are left
    /// to the sweeper.
    pub fn abandon_batch(&self) {
        let entries = self.entries.lock();
        let records = entries.queue.iter().map(|queued| &queued.row.1.record);
        let bytes = records.map(Bytes::len).sum();
        self.end_batch(entries, bytes);
    }

    /// No batch is being committed any more. `bytes` are those of the records in the queue.
    fn end_batch(&self, mut entries: MutexGuard<'_, Entries>, bytes: usize) {
        entries.bytes = bytes;
        entries.finished += entries.committing as u64;
        entries.committing = 0;
        entries.committing_since = None;
        let is_empty = entries.queue.is_empty();
        drop(entries);
        self.batch_ended.notify_waiters();
        if is_empty {
            self.emptied.notify_waiters();
        }
    }

    /// Refuses the sends that have waited for longer than [`COMMIT_TIMEOUT`], in their order. Returns
    /// their number.
    pub fn refuse_late(&self, batch: &mut Batch) -> u64 {
        let mut late = Vec::new();
        for sender in batch
            .senders
            .iter_mut()
            .take_while(|sender| sender.is_late())
        {
            late.extend(sender.commit.take());
        }
        let mut entries = self.entries.lock();
        if entries.awaited > 0 {
            let waiting = entries.queue.iter_mut().map(|queued| &mut queued.sender);
            for sender in waiting.take_while(|sender| sender.is_late()) {
                late.extend(sender.commit.take());
            }
        }
        drop(entries);
        let count = late.len() as u64;
        for commit in late {
            let reason = "the database did not commit the message in time".to_owned();
            complete(commit, Err(BackplaneError::Unavailable(reason)));
        }
        count
    }

    /// Accepts no more entries. The task that commits ends when the queue is empty.
    pub fn close(&self) {
        self.entries.lock().is_closed = true;
        self.filled.notify_one();
    }

    /// Waits until every entry that was queued is committed.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Commits at once what was queued before the call, and waits until that has ended: each entry is
    /// committed, refused, or left to the sweeper.
    pub async fn flush(&self) {
        let last = {
            let mut entries = self.entries.lock();
            entries.flush_until = entries.queued;
            entries.queued
        };
        self.filled.notify_one();
        loop {
            let mut ended = std::pin::pin!(self.batch_ended.notified());
            ended.as_mut().enable();
            if self.entries.lock().finished >= last {
                return;
            }
            ended.await;
        }
    }

    pub fn backlog(&self) -> Backlog {
        let entries = self.entries.lock();
        let oldest = entries
            .committing_since
            .or_else(|| entries.queue.front().map(|queued| queued.sender.since));
        Backlog {
            messages: entries.queue.len() + entries.committing,
            bytes: entries.bytes,
            age: oldest.map_or(Duration::ZERO, |since| since.elapsed()),
        }
    }
}

/// Takes as many entries of one origin as fit into one commit, at least one.
fn take_batch(entries: &mut Entries) -> Batch {
    let first = entries.queue.front();
    let mut batch = Batch {
        origin: first.map_or(Origin::Send, |queued| queued.origin),
        rows: Vec::new(),
        senders: Vec::new(),
        bytes: 0,
        begun: None,
    };
    while let Some(next) = entries.queue.front() {
        let bytes = batch.bytes + next.row.1.record.len();
        let is_full = batch.rows.len() == BATCH_ENTRIES || bytes > BATCH_BYTES;
        if next.origin != batch.origin || (is_full && !batch.rows.is_empty()) {
            break;
        }
        batch.bytes = bytes;
        let Some(queued) = entries.queue.pop_front() else {
            break;
        };
        entries.awaited -= usize::from(queued.is_awaited);
        let begun = batch.begun.unwrap_or(queued.begun);
        batch.begun = Some(begun.min(queued.begun));
        batch.rows.push(queued.row);
        batch.senders.push(queued.sender);
    }
    entries.committing = batch.rows.len();
    entries.committing_since = batch.senders.first().map(|sender| sender.since);
    batch
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::backplane::Commit;
    use crate::domain::{Epoch, Timestamp, UserId};
    use crate::store::StoredKind;

    fn entry(bytes: usize) -> ArchivedEntry {
        ArchivedEntry {
            seq: 1,
            epoch: Epoch::trusted("e"),
            at: Timestamp(0),
            kind: StoredKind::MESSAGE,
            id: Uuid::now_v7(),
            user: UserId::trusted("u"),
            send_key: None,
            record: Bytes::from(vec![b'x'; bytes]),
        }
    }

    fn push(queue: &Queue, bytes: usize) -> Commit {
        let (commit, pending) = Commit::pending();
        queue.push(
            RoomId::trusted("r"),
            entry(bytes),
            Instant::now(),
            Some(pending),
        );
        commit
    }

    #[tokio::test]
    async fn a_batch_has_entries_of_one_origin() {
        let queue = Queue::new(10);
        let _sends = [push(&queue, 1), push(&queue, 1)];
        for _ in 0..3 {
            queue.push_swept(RoomId::trusted("r"), entry(1), None);
        }
        let _last = push(&queue, 1);
        for expected in [(Origin::Send, 2), (Origin::Sweep, 3), (Origin::Send, 1)] {
            let batch = queue.next_batch().await.unwrap();
            assert_eq!((batch.origin, batch.rows.len()), expected);
            queue.finish_batch(batch);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn entries_that_nobody_awaits_are_collected() {
        let queue = Queue::new(10_000);
        let push_unawaited = || queue.push(RoomId::trusted("r"), entry(1), Instant::now(), None);
        let batch_after = |expected: Duration| {
            let queue = &queue;
            async move {
                let began = Instant::now();
                let batch = queue.next_batch().await.unwrap();
                // The clock of tokio counts milliseconds, and rounds up.
                let took = began.elapsed();
                assert!(
                    took >= expected && took <= expected + Duration::from_millis(1),
                    "{took:?}"
                );
                let entries = batch.rows.len();
                queue.finish_batch(batch);
                entries
            }
        };

        push_unawaited();
        tokio::time::advance(Duration::from_millis(20)).await;
        push_unawaited();
        assert_eq!(batch_after(COLLECT - Duration::from_millis(20)).await, 2);

        // One that is awaited takes those before it along, also while they are being waited for.
        push_unawaited();
        let later = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            push(&queue, 1)
        };
        let (entries, _commit) = tokio::join!(batch_after(Duration::from_millis(10)), later);
        assert_eq!(entries, 2);

        // A flush takes along those before it, and waits for their commit only.
        push_unawaited();
        let flush = async {
            queue.flush().await;
            queue.len()
        };
        let (entries, left) = tokio::join!(batch_after(Duration::ZERO), flush);
        assert_eq!((entries, left), (1, 0));
        push_unawaited();
        assert_eq!(
            batch_after(COLLECT).await,
            1,
            "later ones are collected again"
        );
        queue.flush().await;

        // A full commit, and the end, are not waited for.
        (0..=BATCH_ENTRIES).for_each(|_| push_unawaited());
        assert_eq!(batch_after(Duration::ZERO).await, BATCH_ENTRIES);
        queue.close();
        assert_eq!(batch_after(Duration::ZERO).await, 1);
    }

    #[tokio::test]
    async fn a_batch_ends_at_its_number_of_entries_or_bytes() {
        let queue = Queue::new(10_000);
        let mut commits: Vec<_> = (0..1001).map(|_| push(&queue, 10)).collect();
        for expected in [500, 500, 1] {
            let batch = queue.next_batch().await.unwrap();
            assert_eq!(batch.rows.len(), expected);
            queue.finish_batch(batch);
        }
        for bytes in [2 * BATCH_BYTES, BATCH_BYTES / 2, BATCH_BYTES / 2, 1] {
            commits.push(push(&queue, bytes));
        }
        for expected in [1, 2, 1] {
            let batch = queue.next_batch().await.unwrap();
            assert_eq!(batch.rows.len(), expected);
            queue.finish_batch(batch);
        }
        assert_eq!(queue.backlog().bytes, 0);
    }

    #[tokio::test]
    async fn the_queue_is_full_until_its_batch_is_committed() {
        let queue = Queue::new(2);
        let _first = push(&queue, 1);
        assert!(!queue.is_full());
        let _second = push(&queue, 1);
        assert!(queue.is_full());
        let batch = queue.next_batch().await.unwrap();
        assert_eq!((batch.rows.len(), queue.is_full()), (2, true));
        queue.finish_batch(batch);
        assert!(!queue.is_full());
        queue.emptied().await;
    }

    #[tokio::test(start_paused = true)]
    async fn late_sends_are_refused_in_order_and_their_entries_stay() {
        let queue = Queue::new(10);
        let first = push(&queue, 1);
        let mut batch = queue.next_batch().await.unwrap();
        let second = push(&queue, 1);
        tokio::time::advance(COMMIT_TIMEOUT).await;
        let third = push(&queue, 1);
        assert_eq!(queue.refuse_late(&mut batch), 2);
        assert!(first.wait().await.is_err());
        assert!(second.wait().await.is_err());
        assert!(!third.is_done());
        queue.finish_batch(batch);
        assert_eq!(queue.next_batch().await.unwrap().rows.len(), 2);
    }

    #[tokio::test]
    async fn a_closed_queue_refuses_entries_and_ends_when_it_is_empty() {
        let queue = Queue::new(10);
        let _first = push(&queue, 1);
        queue.close();
        assert!(push(&queue, 1).wait().await.is_err());
        let batch = queue.next_batch().await.unwrap();
        assert_eq!(batch.rows.len(), 1);
        queue.finish_batch(batch);
        assert!(queue.next_batch().await.is_none());
    }
}
