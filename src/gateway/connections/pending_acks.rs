//! Replies that are still to come, and the replies behind them.
//!
//! With an archive, the position of a message and its durability are two moments; a change of a message
//! is made before it is announced. The connection's next events are handled meanwhile: only the
//! acknowledgement waits. So a client that sends many messages without waiting is not slowed down to one
//! commit for each, and a slow outbox delays nothing but its own acknowledgements.
//!
//! Replies keep the order of the client's events: one that comes early waits in a queue for those
//! before it. The queue is bounded: at its limit the next event waits. Events whose reply must precede
//! other events of the server, such as a join, are handled once nothing is pending.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;

use super::reply::{Output, Reply};
use super::{ClientTransport, Connection, Connections};
use crate::domain::Refusal;

/// The most replies of a connection that may be pending.
const MAX_PENDING: usize = 256;
/// About the size of the largest acknowledgement of a message.
const ACK_BYTES: usize = 512;

/// The replies of a connection that are not sent yet.
#[derive(Default)]
pub(super) struct PendingAcks {
    /// Their number. A reply that doesn't count any more was sent.
    count: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// In the order of the client's events; `None` for one that is still to come.
    replies: VecDeque<Option<Output>>,
    /// The number of the first of them.
    first: u64,
    /// A task sends the replies at the front.
    is_sending: bool,
    /// A change of a message is repeated.
    is_repeating: bool,
    /// The task that processes the connection's events, while it waits. There is at most one.
    waiter: Option<(Condition, oneshot::Sender<()>)>,
    /// The connection has ended: no reply reaches the client.
    is_closed: bool,
}

/// What the task that processes the connection's events waits for.
#[derive(Debug, Clone, Copy)]
enum Condition {
    /// Fewer replies than that are pending, or the connection has ended.
    Below(usize),
    /// No change is repeated. Also after the end: changes are made in the order of the events.
    NoRepeat,
}

impl Queue {
    fn meets(&self, condition: Condition, count: usize) -> bool {
        match condition {
            Condition::Below(limit) => count < limit || self.is_closed,
            Condition::NoRepeat => !self.is_repeating,
        }
    }

    /// The waiter, if it need not wait any more. Dropping it wakes the task.
    fn woken(&mut self, count: usize) -> Option<(Condition, oneshot::Sender<()>)> {
        let condition = self.waiter.as_ref()?.0;
        if self.meets(condition, count) {
            self.waiter.take()
        } else {
            None
        }
    }

    /// Whether the caller has to send the replies at the front.
    fn begin_sending(&mut self) -> bool {
        !std::mem::replace(&mut self.is_sending, true)
    }

    /// The next reply to send. `None` ends the sending.
    fn next_ready(&mut self) -> Option<Output> {
        let is_ready = self.replies.front().is_some_and(Option::is_some);
        if !is_ready {
            self.is_sending = false;
            return None;
        }
        self.first += 1;
        self.replies.pop_front().flatten()
    }
}

impl PendingAcks {
    /// The number of pending replies. A reply that doesn't count any more was sent.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Adds a reply; `None` if it is still to come. Returns its number.
    fn add(&self, output: Option<Output>, transport: &dyn ClientTransport) -> u64 {
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            transport.hold();
        }
        let mut queue = self.queue.lock();
        let number = queue.first + queue.replies.len() as u64;
        queue.replies.push_back(output);
        number
    }

    /// The reply with that number has come.
    fn fill(&self, number: u64, output: Output) {
        let mut queue = self.queue.lock();
        let index = usize::try_from(number - queue.first).ok();
        if let Some(reply) = index.and_then(|index| queue.replies.get_mut(index)) {
            *reply = Some(output);
        }
    }

    /// Sends the replies at the front that have come. One task does that at a time, and without the
    /// lock: a transport that is full ends the connection, which takes the lock.
    fn send_ready(&self, transport: &dyn ClientTransport) {
        if !self.queue.lock().begin_sending() {
            return;
        }
        loop {
            let next = self.queue.lock().next_ready();
            let Some(output) = next else {
                return;
            };
            output.send(transport);
            let left = self.count.fetch_sub(1, Ordering::AcqRel) - 1;
            let woken = self.queue.lock().woken(left);
            drop(woken);
            if left == 0 {
                transport.release();
            }
        }
    }

    async fn wait_until(&self, condition: Condition) {
        let is_met = {
            let mut queue = self.queue.lock();
            // The lock orders this with the changes of what is waited for, which precede `woken`.
            if queue.meets(condition, self.count()) {
                return;
            }
            let (wake, is_met) = oneshot::channel();
            queue.waiter = Some((condition, wake));
            is_met
        };
        // Woken by the drop of the sender.
        let _ = is_met.await;
    }

    fn set_repeating(&self, is_repeating: bool) {
        let woken = {
            let mut queue = self.queue.lock();
            queue.is_repeating = is_repeating;
            queue.woken(self.count())
        };
        drop(woken);
    }

    /// The connection has ended: its events wait for no reply from now on.
    pub fn close(&self) {
        let woken = {
            let mut queue = self.queue.lock();
            queue.is_closed = true;
            queue.woken(self.count())
        };
        drop(woken);
    }
}

impl Connections {
    /// How many replies of a connection may be pending: so few that they take up at most about 12.5 % of
    /// its outbox, which replies are free to use beyond the half at which the next event waits.
    pub(super) fn max_pending_acks(&self) -> usize {
        (self.outbox_bytes / 8 / ACK_BYTES).clamp(1, MAX_PENDING)
    }
}

/// A reply that is still to come. Replies to later events wait for it. Dropped, it is left out.
pub(super) struct PendingReply {
    reply: Reply,
    number: u64,
    is_sent: bool,
}

impl PendingReply {
    /// As [`Reply::acknowledge`].
    pub fn acknowledge<T: Serialize>(mut self, payload: &T) {
        let output = self.reply.acknowledgement(payload);
        self.send(output);
    }

    /// As [`Reply::refuse`].
    pub fn refuse(mut self, refusal: &Refusal) {
        let output = self.reply.refusal(refusal);
        self.send(output);
    }

    fn send(&mut self, output: Output) {
        self.is_sent = true;
        let connection = &self.reply.connection;
        connection.pending_acks.fill(self.number, output);
        connection.send_ready_replies();
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        if !self.is_sent {
            self.send(Output::Nothing);
        }
    }
}

/// A change of a message is repeated until this is dropped. The connection's next change waits for that,
/// so that its changes are made in the order of its events.
pub(super) struct RepeatedChange(Arc<Connection>);

impl Drop for RepeatedChange {
    fn drop(&mut self) {
        self.0.pending_acks.set_repeating(false);
    }
}

impl Connection {
    /// A reply that follows later, in the place of this one.
    pub(super) fn reply_later(self: &Arc<Self>, reply: Reply) -> PendingReply {
        PendingReply {
            number: self.pending_acks.add(None, &*self.transport),
            reply,
            is_sent: false,
        }
    }

    /// Sends a reply once those before it are sent.
    pub(super) fn send_in_order(&self, output: Output) {
        if self.pending_acks.count() == 0 {
            return output.send(&*self.transport);
        }
        self.pending_acks.add(Some(output), &*self.transport);
        self.send_ready_replies();
    }

    fn send_ready_replies(&self) {
        self.pending_acks.send_ready(&*self.transport);
    }

    /// Notes that a change of a message is repeated. There is no other: see
    /// [`wait_for_repeated_change`](Self::wait_for_repeated_change).
    pub(super) fn repeat_change(self: &Arc<Self>) -> RepeatedChange {
        self.pending_acks.set_repeating(true);
        RepeatedChange(self.clone())
    }

    /// Returns once no change of a message is repeated any more.
    pub(super) async fn wait_for_repeated_change(&self) {
        self.pending_acks.wait_until(Condition::NoRepeat).await;
    }

    /// Returns once so few replies are pending that another one may be.
    pub(super) async fn wait_for_few_acks(&self) {
        let limit = self.connections.max_pending_acks();
        self.pending_acks.wait_until(Condition::Below(limit)).await;
    }

    /// Returns once no reply is pending.
    pub(super) async fn wait_for_acks(&self) {
        self.pending_acks.wait_until(Condition::Below(1)).await;
    }
}
