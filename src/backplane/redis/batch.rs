//! Appends that wait for a call of their lane go together in the next one: under load one round trip carries many. There is
//! one lane; in a cluster, where a script serves one slot, there is one for each partition.
//!
//! One call of a lane is in flight at a time, and what waits for a room goes in the order in which it came: so a room's
//! messages keep their order, and appends of one caller who awaits each. Nothing waits for company, but for whatever is
//! ready by then; and nothing waits for long: an append is answered within [`PATIENCE`] and the longest time of one call,
//! five seconds by default.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::keys::{Partition, part};
use super::link::{Fault, Link, millis};
use super::script::{APPEND, ScriptReply};
use crate::backplane::{Appended, BackplaneError, Result, record};
use crate::domain::{Epoch, NewMessage, Timestamp};

/// The most messages in one call.
const BATCH: usize = 128;
/// The most bytes of records in one call, so that no call keeps Redis long.
const BATCH_BYTES: usize = 512 * 1024;
/// The most bytes of records that wait in one lane; what comes then is refused.
const WAITING_BYTES: usize = 64 * 1024 * 1024;

/// The longest that an append waits for calls before it; then it is refused, and has not happened.
const PATIENCE: Duration = Duration::from_secs(2);

struct Waiting {
    since: Instant,
    partition: Partition,
    room: String,
    /// The message's id and under what its place is remembered, as the script takes it; nothing without a key.
    name: String,
    id: Uuid,
    record: Bytes,
    reply: oneshot::Sender<Result<Appended>>,
}

#[derive(Default)]
struct AppendQueue {
    queue: VecDeque<Waiting>,
    bytes: usize,
    busy: bool,
}

/// The lanes.
pub(super) struct Appends {
    link: Arc<Link>,
    lanes: Vec<Mutex<AppendQueue>>,
    dedupe_ttl: i64,
    history_ttl: i64,
}

impl Appends {
    pub(super) fn new(link: Arc<Link>, dedupe_ttl: Duration, history_ttl: Duration) -> Arc<Self> {
        let lanes = (0..link.append_lanes()).map(|_| Mutex::default()).collect();
        Arc::new(Self {
            link,
            lanes,
            dedupe_ttl: millis(dedupe_ttl),
            history_ttl: millis(history_ttl),
        })
    }

    /// As [`RoomLog::append`](crate::backplane::RoomLog::append). A caller that goes away doesn't take its message back.
    pub(super) async fn append(
        self: &Arc<Self>,
        draft: &NewMessage,
        key: Option<&str>,
    ) -> Result<Appended> {
        let (reply, answer) = oneshot::channel();
        let partition = Partition::of_room(&draft.room);
        let record = record::encode(draft);
        let index = self.link.append_lane(partition);
        let start = {
            let mut lane = self.lanes[index].lock();
            if lane.bytes + record.len() > WAITING_BYTES {
                return Err(BackplaneError::Unavailable(
                    "too much waits to be appended".to_owned(),
                ));
            }
            lane.bytes += record.len();
            let name =
                key.map(|key| format!("{}{}:{}", draft.id, part(draft.user.as_str()), part(key)));
            lane.queue.push_back(Waiting {
                since: Instant::now(),
                partition,
                room: part(draft.room.as_str()),
                name: name.unwrap_or_default(),
                id: draft.id,
                record,
                reply,
            });
            !std::mem::replace(&mut lane.busy, true)
        };
        if start {
            tokio::spawn(self.clone().drain(index));
        }
        answer
            .await
            .unwrap_or_else(|_| Err(BackplaneError::Unavailable("the node stops".to_owned())))
    }

    async fn drain(self: Arc<Self>, index: usize) {
        let lane = &self.lanes[index];
        loop {
            // First whoever else is ready: what they append goes with it.
            tokio::task::yield_now().await;
            let late = take_late(&mut lane.lock());
            refuse(
                late,
                &BackplaneError::Unavailable(
                    "Redis is too slow for what waits to be appended".to_owned(),
                ),
            );
            let Some(batch) = next_batch(&mut lane.lock()) else {
                return;
            };
            let Err(fault) = self.send(batch).await else {
                continue;
            };
            // What waits would fail in the same way, and has waited long enough.
            if let error @ BackplaneError::Unavailable(_) = BackplaneError::from(fault) {
                let queue = take_all(&mut lane.lock());
                refuse(queue, &error);
            }
        }
    }

    async fn send(&self, mut batch: Vec<Waiting>) -> std::result::Result<(), Fault> {
        let Some(partition) = batch.first().map(|waiting| waiting.partition) else {
            return Ok(());
        };
        // Each room's messages together, and in their order.
        batch.sort_by(|one, other| one.room.cmp(&other.room));
        // fred may send a call again by itself, when slots move or connections are renewed: what has no key is known by a name
        // of the call's own.
        let keyless = batch.iter().any(|waiting| waiting.name.is_empty());
        let call = if keyless {
            Uuid::new_v4().simple().to_string()
        } else {
            String::new()
        };
        let mut args: Vec<Value> =
            vec![self.dedupe_ttl.into(), self.history_ttl.into(), call.into()];
        let mut rooms: Vec<Vec<Uuid>> = Vec::new();
        for messages in batch.chunk_by_mut(|one, next| one.room == next.room) {
            rooms.push(messages.iter().map(|message| message.id).collect());
            let first = &mut messages[0];
            let (tag, room) = (first.partition.tag(), std::mem::take(&mut first.room));
            args.extend([tag.into(), room.into(), messages.len().to_string().into()]);
            for message in messages {
                args.extend([
                    std::mem::take(&mut message.name).into(),
                    Value::Bytes(message.record.clone()),
                ]);
            }
        }
        let replies = batch.into_iter().map(|waiting| waiting.reply);
        match self
            .link
            .run(&APPEND, partition, args)
            .await
            .and_then(|answer| places(answer, &rooms))
        {
            Ok(places) => {
                for (reply, place) in replies.zip(places) {
                    let _ = reply.send(place.map_err(|why| self.link.refused(&why).into()));
                }
                Ok(())
            }
            Err(fault) => {
                for reply in replies {
                    let _ = reply.send(Err(fault.clone().into()));
                }
                Err(fault)
            }
        }
    }
}

/// `None` when nothing waits; then the lane is free, and the next append begins to drain it.
fn next_batch(lane: &mut AppendQueue) -> Option<Vec<Waiting>> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some(next) = lane.queue.front() {
        if batch.len() == BATCH || (bytes > 0 && bytes + next.record.len() > BATCH_BYTES) {
            break;
        }
        bytes += next.record.len();
        batch.extend(lane.queue.pop_front());
    }
    lane.bytes -= bytes;
    lane.busy = !batch.is_empty();
    lane.busy.then_some(batch)
}

/// What has waited too long; the first have waited longest.
fn take_late(lane: &mut AppendQueue) -> VecDeque<Waiting> {
    let count = lane
        .queue
        .partition_point(|waiting| waiting.since.elapsed() > PATIENCE);
    let late: VecDeque<_> = lane.queue.drain(..count).collect();
    lane.bytes -= late
        .iter()
        .map(|waiting| waiting.record.len())
        .sum::<usize>();
    late
}

fn refuse(queue: VecDeque<Waiting>, error: &BackplaneError) {
    for waiting in queue {
        let _ = waiting.reply.send(Err(error.clone()));
    }
}

fn take_all(lane: &mut AppendQueue) -> VecDeque<Waiting> {
    lane.bytes = 0;
    std::mem::take(&mut lane.queue)
}

/// Where a message has its place, or why it was refused.
type AppendOutcome = std::result::Result<Appended, String>;

/// What `append.lua` answers to a call with messages of these ids, by rooms.
pub(super) fn places(
    mut answer: ScriptReply,
    rooms: &[Vec<Uuid>],
) -> std::result::Result<Vec<AppendOutcome>, Fault> {
    let at = Timestamp(answer.number()?);
    let mut places = Vec::with_capacity(rooms.iter().map(Vec::len).sum());
    for ids in rooms {
        let epoch = answer.text()?;
        for &id in ids {
            places.push(match answer.value()? {
                Value::Integer(seq) => {
                    let seq = u64::try_from(seq).map_err(|_| Fault::nonsense("not a seq"))?;
                    Ok(Appended {
                        duplicate: false,
                        id,
                        seq,
                        epoch: Epoch::trusted(&epoch),
                        at,
                    })
                }
                line => line
                    .into_string()
                    .and_then(|line| elsewhere(&line))
                    .ok_or_else(|| Fault::nonsense("not a place"))?,
            });
        }
    }
    Ok(places)
}

/// `1 <id> <seq> <epoch> <time>` of a duplicate, or `! <why>`
fn elsewhere(line: &str) -> Option<AppendOutcome> {
    let (first, rest) = line.split_once(' ')?;
    if first == "!" {
        return Some(Err(rest.to_owned()));
    }
    let mut words = rest.split(' ');
    Some(Ok(Appended {
        duplicate: true,
        id: words.next()?.parse().ok()?,
        seq: words.next()?.parse().ok()?,
        epoch: Epoch::trusted(words.next()?),
        at: Timestamp(words.next()?.parse().ok()?),
    }))
}
