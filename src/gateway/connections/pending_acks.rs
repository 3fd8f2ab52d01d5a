//! Acknowledgements that wait for the commit of their message.
//!
//! With an archive, the position of a message and its durability are two moments. A connection's
//! next message is handled as soon as the position is known: only the acknowledgement waits. So a
//! client that sends many messages without waiting is not slowed down to one commit for each.
//!
//! Acknowledgements keep the order of the client's events. Those of messages do because commits
//! call back in the order in which the connection's messages were placed. Every other reply waits
//! until no acknowledgement is pending.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::reply::Reply;
use super::{Connection, Connections};
use crate::domain::{Refusal, RoomId};
use crate::features::messaging::{Appended, Commit};
use crate::gateway::wire::MessageAck;

/// The most acknowledgements of a connection that may be pending.
const MAX_PENDING: usize = 256;
/// About the size of the largest acknowledgement of a message.
const ACK_BYTES: usize = 512;

/// Counts the acknowledgements of a connection that wait for commits.
#[derive(Default)]
pub(super) struct PendingAcks {
    count: AtomicUsize,
    waiter: Mutex<Waiter>,
}

/// The task that processes the connection's events, while it waits. There is at most one.
#[derive(Default)]
struct Waiter {
    /// Wakes the task once fewer acknowledgements than that are pending.
    wake: Option<(usize, oneshot::Sender<()>)>,
    /// The connection has ended: nothing waits any more, as no reply reaches the client.
    is_closed: bool,
}

impl PendingAcks {
    /// The number of pending acknowledgements. An acknowledgement that doesn't count any more was
    /// sent.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Counts an acknowledgement. Returns true if it is the only one.
    fn add(&self) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// An acknowledgement was sent. Returns true if it was the last one.
    fn remove(&self) -> bool {
        let left = self.count.fetch_sub(1, Ordering::AcqRel) - 1;
        let woken = {
            let mut waiter = self.waiter.lock();
            match &waiter.wake {
                Some((limit, _)) if left < *limit => waiter.wake.take(),
                _ => None,
            }
        };
        drop(woken);
        left == 0
    }

    /// Returns once fewer acknowledgements than that are pending, or the connection has ended.
    async fn wait_until_below(&self, limit: usize) {
        let is_below = {
            let mut waiter = self.waiter.lock();
            // The lock orders this with `remove`, which counts before it takes the lock.
            if self.count() < limit || waiter.is_closed {
                return;
            }
            let (wake, is_below) = oneshot::channel();
            waiter.wake = Some((limit, wake));
            is_below
        };
        // Woken by the drop of the sender.
        let _ = is_below.await;
    }

    /// The connection has ended: its events are processed without waiting from now on.
    pub fn close(&self) {
        let woken = {
            let mut waiter = self.waiter.lock();
            waiter.is_closed = true;
            waiter.wake.take()
        };
        drop(woken);
    }
}

impl Connections {
    /// How many acknowledgements of a connection may be pending: so few that they take up at most
    /// about 12.5 % of its outbox, which replies are free to use beyond the half at which the next
    /// event waits.
    pub(super) fn max_pending_acks(&self) -> usize {
        (self.outbox_bytes / 8 / ACK_BYTES).clamp(1, MAX_PENDING)
    }
}

impl Connection {
    /// Acknowledges a message once it is committed, or refuses it if its commit fails.
    pub(super) fn acknowledge_after(
        self: &Arc<Self>,
        commit: Commit,
        reply: Reply,
        room: RoomId,
        appended: Appended,
    ) {
        if self.pending_acks.add() {
            self.transport.hold();
        }
        let this = self.clone();
        commit.on_done(Box::new(move |outcome| {
            match outcome {
                Ok(()) => reply.acknowledge(&MessageAck::of(&room, &appended)),
                Err(error) => this.refuse(&reply, &Refusal::from(error)),
            }
            if this.pending_acks.remove() {
                this.transport.release();
            }
        }));
    }

    /// Returns once so few acknowledgements are pending that another message may be handled.
    pub(super) async fn wait_for_few_acks(&self) {
        let limit = self.connections.max_pending_acks();
        self.pending_acks.wait_until_below(limit).await;
    }

    /// Returns once no acknowledgement is pending, so that the reply to a later event may be sent.
    pub(super) async fn wait_for_acks(&self) {
        self.pending_acks.wait_until_below(1).await;
    }

    /// Refuses an event after the acknowledgements of earlier ones.
    pub(super) async fn refuse_after_acks(&self, reply: Reply, refusal: Refusal) {
        self.wait_for_acks().await;
        self.refuse(&reply, &refusal);
    }
}
