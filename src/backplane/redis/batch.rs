//! Batches of appends: the appends that queue while a call is under way go together in the next
//! call, so under load one round trip carries many of them.
//!
//! There is one queue; in a cluster, where a script serves one slot, there is one per partition. One
//! call of a queue is under way at a time, and appends leave the queue in the order in which they
//! came: so a room's messages keep their order, as do the appends of a caller that awaits each. No
//! append waits for others to fill a batch. And none waits for long: an append is answered within
//! [`APPEND_QUEUE_TIMEOUT`] and the timeout of one call, five seconds by default.
//!
//! A room that must be restored from the archive holds up none but its own appends. They are held
//! apart, with those that come meanwhile, and return to the front of the queue once the room is
//! restored: so they keep their order, too. Such an append may last up to
//! [`RESTORE_TIMEOUT`](super::restore::RESTORE_TIMEOUT) longer.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::append_outcome::{AppendOutcome, parse_outcomes};
use super::entry_kind;
use super::fault::Fault;
use super::forms;
use super::keys::{Partition, decode_name, encode_name};
use super::link::{Link, millis};
use super::restore::{RestoreRounds, Restores};
use super::script::{APPEND, APPEND_ARCHIVED};
use crate::backplane::{
    Appended, BackplaneError, BackplaneLimits, NewChange, NewEntry, Result, is_permanent,
};
use crate::domain::{RoomId, UserId};

/// The most messages in one call.
const MAX_BATCH_MESSAGES: usize = 128;
/// The most bytes of records in one call, so that no call occupies Redis for long.
const MAX_BATCH_BYTES: usize = 512 * 1024;
/// The most bytes of records in one queue; further appends are refused.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// The longest that an append stays in its queue. Then it is refused and will not happen.
const APPEND_QUEUE_TIMEOUT: Duration = Duration::from_secs(2);

/// An append in a queue.
struct QueuedAppend {
    since: Instant,
    /// See [`Self::rounds`]; `None` before the first restore.
    rounds: Option<RestoreRounds>,
    partition: Partition,
    /// Encoded for keys.
    room: String,
    /// See [`is_permanent`].
    permanent: bool,
    /// See [`NewEntry::is_reply`].
    is_reply: bool,
    /// The message's id and the name of its send key, as the script takes them; empty without a key.
    send: String,
    id: Uuid,
    /// The record; for a pointer see [`forms::pointer_argument`].
    record: Bytes,
    /// Becomes true when an append of its series is refused: then those behind it are, too, so that none
    /// comes before it when it is repeated.
    is_series_refused: Option<Arc<AtomicBool>>,
    reply: oneshot::Sender<Result<Appended>>,
}

impl QueuedAppend {
    fn complete(self, outcome: Result<Appended>) {
        if let Some(is_refused) = &self.is_series_refused
            && outcome.is_err()
        {
            is_refused.store(true, Ordering::Release);
        }
        let _ = self.reply.send(outcome);
    }

    fn must_be_refused(&self) -> bool {
        let is_refused = self.is_series_refused.as_ref();
        is_refused.is_some_and(|is_refused| is_refused.load(Ordering::Acquire))
    }

    /// The restores of the room that it may still wait for.
    fn rounds(&self) -> RestoreRounds {
        self.rounds
            .unwrap_or_else(|| RestoreRounds::since(self.since))
    }
}

#[derive(Default)]
struct AppendQueue {
    appends: VecDeque<QueuedAppend>,
    /// By room, as encoded for keys: the appends that wait until the room is restored.
    held: HashMap<String, VecDeque<QueuedAppend>>,
    /// The bytes of the records in the queue, and of those held.
    bytes: usize,
    /// Whether a task drains the queue.
    is_draining: bool,
}

/// All append queues.
pub(super) struct Appends {
    link: Arc<Link>,
    /// `None` without an archive.
    restores: Option<Arc<Restores>>,
    queues: Vec<Mutex<AppendQueue>>,
    dedupe_ttl: i64,
    history_ttl: i64,
    scrub_delay: i64,
}

impl Appends {
    pub(super) fn new(
        link: Arc<Link>,
        restores: Option<Arc<Restores>>,
        limits: &BackplaneLimits,
        scrub_delay: Duration,
    ) -> Arc<Self> {
        let queues = (0..link.append_queues())
            .map(|_| Mutex::default())
            .collect();
        Arc::new(Self {
            link,
            restores,
            queues,
            dedupe_ttl: millis(limits.dedupe_ttl),
            history_ttl: millis(limits.history_ttl),
            scrub_delay: millis(scrub_delay),
        })
    }

    /// As [`HotLog::append_record`](crate::backplane::HotLog::append_record). Dropping the future
    /// doesn't remove the append from its queue.
    pub(super) async fn append(
        self: &Arc<Self>,
        entry: NewEntry<'_>,
        key: Option<&str>,
        record: Bytes,
    ) -> Result<Appended> {
        let outcome = self.enqueue(entry, key, record, None)?;
        outcome.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// As [`HotLog::append_changes`](crate::backplane::HotLog::append_changes): a series of appends, which
    /// one call carries if it has the capacity.
    pub(super) async fn append_changes(
        self: &Arc<Self>,
        room: &RoomId,
        changes: &[NewChange],
    ) -> Vec<Result<Appended>> {
        let nobody = UserId::nobody();
        let is_refused = Arc::new(AtomicBool::new(false));
        let mut queued = Vec::with_capacity(changes.len());
        for change in changes {
            let entry = NewEntry::change(room, change, &nobody);
            let (key, series) = (change.id.to_string(), Some(is_refused.clone()));
            let outcome = self.enqueue(entry, Some(&key), change.record.clone(), series);
            let is_full = outcome.is_err();
            queued.push(outcome);
            if is_full {
                break;
            }
        }
        let mut outcomes = Vec::with_capacity(queued.len());
        for outcome in queued {
            let outcome = match outcome {
                Ok(outcome) => outcome.await.unwrap_or_else(|_| Err(stopping())),
                Err(error) => Err(error),
            };
            let is_refused = outcome.is_err();
            outcomes.push(outcome);
            if is_refused {
                break;
            }
        }
        outcomes
    }

    /// Adds an append to its queue.
    fn enqueue(
        self: &Arc<Self>,
        entry: NewEntry<'_>,
        key: Option<&str>,
        record: Bytes,
        is_series_refused: Option<Arc<AtomicBool>>,
    ) -> Result<oneshot::Receiver<Result<Appended>>> {
        let (reply, outcome) = oneshot::channel();
        let record = match entry.amendment {
            Some(amendment) => forms::pointer_argument(&record, amendment),
            None => record,
        };
        let partition = Partition::of_room(entry.room);
        let index = self.link.append_queue(partition);
        let was_draining = {
            let mut queue = self.queues[index].lock();
            if queue.bytes + record.len() > MAX_QUEUED_BYTES {
                return Err(BackplaneError::Unavailable(
                    "too many messages wait to be appended".to_owned(),
                ));
            }
            queue.bytes += record.len();
            let send = match key {
                Some(key) => {
                    let kind = entry_kind::in_append(entry.kind);
                    let user = encode_name(entry.user.as_str());
                    format!("{kind}{}{user}:{}", entry.id, encode_name(key))
                }
                None => String::new(),
            };
            queue.appends.push_back(QueuedAppend {
                since: Instant::now(),
                rounds: None,
                partition,
                room: encode_name(entry.room.as_str()),
                permanent: is_permanent(entry.room),
                is_reply: entry.is_reply,
                send,
                id: entry.id,
                record,
                is_series_refused,
                reply,
            });
            std::mem::replace(&mut queue.is_draining, true)
        };
        if !was_draining {
            tokio::spawn(self.clone().drain(index));
        }
        Ok(outcome)
    }

    /// Sends batches until the queue is empty.
    async fn drain(self: Arc<Self>, index: usize) {
        let queue = &self.queues[index];
        loop {
            // Other tasks that are ready run first, so that their appends join the batch.
            tokio::task::yield_now().await;
            let late = take_late(&mut queue.lock());
            refuse(
                late,
                &BackplaneError::Unavailable(
                    "the append waited in its queue for more than 2 seconds, because Redis is slow"
                        .to_owned(),
                ),
            );
            let Some(batch) = next_batch(&mut queue.lock()) else {
                return;
            };
            let Err(fault) = self.send(index, batch).await else {
                continue;
            };
            // The queued appends would fail in the same way, and have waited for long enough.
            if let error @ BackplaneError::Unavailable(_) = BackplaneError::from(fault) {
                let queued = take_all(&mut queue.lock());
                refuse(queued, &error);
            }
        }
    }

    /// Sends one batch of a queue and completes its appends, except those that it holds.
    async fn send(
        self: &Arc<Self>,
        index: usize,
        mut batch: Vec<QueuedAppend>,
    ) -> std::result::Result<(), Fault> {
        let Some(partition) = batch.first().map(|append| append.partition) else {
            return Ok(());
        };
        // Groups the messages of each room; the sort is stable, so they keep their order.
        batch.sort_by(|one, other| one.room.cmp(&other.room));
        let (args, rooms) = self.arguments(&mut batch);
        let script = if self.restores.is_some() {
            &APPEND_ARCHIVED
        } else {
            &APPEND
        };
        let outcomes = self
            .link
            .run(script, partition, args)
            .await
            .and_then(|reply| parse_outcomes(reply, &rooms));
        match outcomes {
            Ok(outcomes) => {
                let mut unrestored = Vec::new();
                for (append, outcome) in batch.into_iter().zip(outcomes) {
                    let outcome = match outcome {
                        AppendOutcome::Position(position) => Ok(position),
                        AppendOutcome::Refused(text) => {
                            Err(self.link.partial_fault(partition, &text).into())
                        }
                        AppendOutcome::Unrestored => {
                            unrestored.push(append);
                            continue;
                        }
                    };
                    append.complete(outcome);
                }
                if !unrestored.is_empty() {
                    self.hold(index, unrestored);
                }
                Ok(())
            }
            Err(fault) => {
                for append in batch {
                    append.complete(Err(fault.clone().into()));
                }
                Err(fault)
            }
        }
    }

    /// Holds appends until their rooms are restored, and begins the restores. All appends of a room are
    /// held in one step, before its restore can end. So none of them overtakes another.
    fn hold(self: &Arc<Self>, index: usize, appends: Vec<QueuedAppend>) {
        let mut rooms = Vec::new();
        let mut queue = self.queues[index].lock();
        for append in appends {
            queue.bytes += append.record.len();
            if let Some(held) = queue.held.get_mut(&append.room) {
                held.push_back(append);
                continue;
            }
            let room = append.room.clone();
            rooms.push(room.clone());
            queue.held.insert(room, VecDeque::from([append]));
        }
        drop(queue);
        for room in rooms {
            tokio::spawn(self.clone().restore(index, room));
        }
    }

    /// Restores a room and returns the appends that are held for it to the front of the queue. If that
    /// fails, refuses them.
    async fn restore(self: Arc<Self>, index: usize, room: String) {
        let queue = &self.queues[index];
        let oldest = queue.lock().held[&room].front().map(QueuedAppend::rounds);
        let mut rounds = oldest.unwrap_or_else(RestoreRounds::new);
        let restored = match (&self.restores, decode_name(&room)) {
            (Some(restores), Some(name)) => {
                let rooms = [RoomId::trusted(&name)];
                restores.restore(&rooms, &mut rounds).await
            }
            _ => Err(Fault::Unrestored.into()),
        };
        let mut queue = queue.lock();
        let mut held = queue.held.remove(&room).unwrap_or_default();
        if let Err(error) = restored {
            queue.bytes -= bytes_of(&held);
            drop(queue);
            return refuse(held, &error);
        }
        while let Some(mut append) = held.pop_back() {
            append.rounds = Some(append.rounds().with_as_many_as(&rounds));
            append.since = Instant::now();
            queue.appends.push_front(append);
        }
        if !std::mem::replace(&mut queue.is_draining, true) {
            drop(queue);
            tokio::spawn(self.clone().drain(index));
        }
    }

    /// The arguments of `append.lua` for a batch that is grouped by room, and the ids of each room's
    /// messages.
    fn arguments(&self, batch: &mut [QueuedAppend]) -> (Vec<Value>, Vec<Vec<Uuid>>) {
        // Appends that may have to be held keep their texts.
        let has_archive = self.restores.is_some();
        let text = |text: &mut String| {
            if has_archive {
                text.clone()
            } else {
                std::mem::take(text)
            }
        };
        // fred may repeat a call by itself when slots move or connections are renewed. Messages
        // without a key need a name for the call, by which the script recognises the repeat.
        let has_keyless = batch.iter().any(|append| append.send.is_empty());
        let call = if has_keyless {
            Uuid::new_v4().simple().to_string()
        } else {
            String::new()
        };
        let is_change = |append: &QueuedAppend| append.send.starts_with(['A', 'P']);
        let is_plain = !batch
            .iter()
            .any(|append| append.is_reply || is_change(append));
        let mut permanent_rooms = String::new();
        for append in batch.iter().filter(|append| append.permanent) {
            permanent_rooms.extend([" ", &append.room, " "]);
        }
        let mut args: Vec<Value> = vec![
            self.dedupe_ttl.into(),
            self.history_ttl.into(),
            call.into(),
            permanent_rooms.into(),
            self.link.archive.name(),
            if is_plain {
                "".into()
            } else {
                self.changes_argument(batch).into()
            },
        ];
        let mut rooms = Vec::new();
        for messages in batch.chunk_by_mut(|one, next| one.room == next.room) {
            rooms.push(messages.iter().map(|message| message.id).collect());
            let first = &mut messages[0];
            args.extend([
                Value::String(self.link.keys.tag(first.partition).clone()),
                text(&mut first.room).into(),
                messages.len().to_string().into(),
            ]);
            for message in messages {
                args.extend([
                    text(&mut message.send).into(),
                    Value::Bytes(message.record.clone()),
                ]);
            }
        }
        (args, rooms)
    }

    /// The argument of `append.lua` for a batch with changes or replies.
    fn changes_argument(&self, batch: &[QueuedAppend]) -> String {
        let mut argument = self.scrub_delay.to_string();
        for append in batch.iter().filter(|append| append.is_reply) {
            argument.extend([" ", &append.room, " "]);
        }
        argument
    }
}

/// Takes the next batch out of the queue, and holds the appends of rooms that are being restored.
/// `None` when the queue is empty: then the next append begins to drain it again.
fn next_batch(queue: &mut AppendQueue) -> Option<Vec<QueuedAppend>> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some(next) = queue.appends.front() {
        let is_full = batch.len() == MAX_BATCH_MESSAGES
            || (bytes > 0 && bytes + next.record.len() > MAX_BATCH_BYTES);
        if is_full {
            break;
        }
        let Some(next) = queue.appends.pop_front() else {
            break;
        };
        if next.must_be_refused() {
            queue.bytes -= next.record.len();
            next.complete(Err(earlier_refused()));
            continue;
        }
        if !queue.held.is_empty()
            && let Some(held) = queue.held.get_mut(&next.room)
        {
            held.push_back(next);
            continue;
        }
        bytes += next.record.len();
        batch.push(next);
    }
    queue.bytes -= bytes;
    if batch.is_empty() {
        queue.is_draining = false;
        return None;
    }
    Some(batch)
}

fn stopping() -> BackplaneError {
    BackplaneError::Unavailable("the node is stopping".to_owned())
}

fn earlier_refused() -> BackplaneError {
    BackplaneError::Unavailable("an earlier change of the room was refused".to_owned())
}

/// Takes the appends out of the front of the queue that have waited for longer than
/// [`APPEND_QUEUE_TIMEOUT`]. The oldest are at the front, except that appends which were held begin to
/// wait anew: those behind them are refused a batch later.
fn take_late(queue: &mut AppendQueue) -> VecDeque<QueuedAppend> {
    let is_late = |append: &QueuedAppend| append.since.elapsed() > APPEND_QUEUE_TIMEOUT;
    let mut late = VecDeque::new();
    while queue.appends.front().is_some_and(is_late) {
        late.extend(queue.appends.pop_front());
    }
    queue.bytes -= bytes_of(&late);
    late
}

fn take_all(queue: &mut AppendQueue) -> VecDeque<QueuedAppend> {
    let queued = std::mem::take(&mut queue.appends);
    queue.bytes -= bytes_of(&queued);
    queued
}

/// The bytes of the records.
fn bytes_of(appends: &VecDeque<QueuedAppend>) -> usize {
    appends.iter().map(|append| append.record.len()).sum()
}

fn refuse(appends: VecDeque<QueuedAppend>, error: &BackplaneError) {
    for append in appends {
        append.complete(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests;
