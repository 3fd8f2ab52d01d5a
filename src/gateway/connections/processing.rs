//! Processing of a connection's inbox: one event after another, by at most one task at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use engineioxide::Scheduled;
use futures_util::FutureExt;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::events::{Earlier, Request, RequestContext};
use super::inbox::{EventText, Next};
use super::reply::Reply;
use super::{CloseReason, Connection, Connections, IncomingEvent};
use crate::domain::{Refusal, RoomId};

/// Events of one connection that are processed before other connections are.
const EVENTS_PER_SLICE: usize = 128;

/// The most connections that wait in the scheduler.
pub(super) const MAX_SCHEDULED: usize = 256;

/// How the processing of a connection's inbox begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheduling {
    /// The connection waits in the node's scheduler, until the events of all connections that are
    /// readable have been read.
    Queue,
    /// In the caller's stack, up to the first point where something has to be waited for. A task is
    /// made only for the rest.
    Inline,
    /// In a task.
    Task,
}

impl Connections {
    /// How a connection that has received an event is processed.
    ///
    /// If no other service takes part, most events are handled without waiting, and need no task.
    /// With Redis or an authorization webhook every event waits, and `Inline` would only delay the
    /// reader.
    ///
    /// On a single thread, connections queue: all of them are read first, so that the processor
    /// does not alternate between reading and handling for each event. When the queue is long,
    /// events are processed while they are read instead, which slows down further reading.
    pub(super) fn scheduling(&self) -> Scheduling {
        if !self.messaging.is_alone() {
            Scheduling::Task
        } else if self.scheduler.is_single_threaded() && self.scheduler.queue_len() < MAX_SCHEDULED
        {
            Scheduling::Queue
        } else {
            Scheduling::Inline
        }
    }
}

impl Connection {
    /// Begins to process the inbox. The caller must have put the inbox into its running phase:
    /// otherwise two tasks could process it.
    pub(super) fn schedule(self: &Arc<Self>, scheduling: Scheduling) {
        match scheduling {
            Scheduling::Queue => self.connections.scheduler.schedule(self.clone()),
            Scheduling::Inline => {
                let mut processing = Box::pin(self.process());
                // Nothing needs to be woken by this poll: if it is pending, the task polls again.
                let poll = processing
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()));
                if poll.is_pending() {
                    tokio::spawn(processing);
                }
            }
            Scheduling::Task => {
                tokio::spawn(Box::pin(self.process()));
            }
        }
    }

    /// Processes one event after another until the inbox is empty.
    fn process(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let this = self.clone();
        let span = tracing::debug_span!("socket", conn = %self.conn);
        let process = async move {
            let mut processed = 0;
            loop {
                if processed == EVENTS_PER_SLICE {
                    // The inbox is still in its running phase, so nothing else schedules this
                    // connection.
                    if this.connections.scheduling() == Scheduling::Queue {
                        return this.schedule(Scheduling::Queue);
                    }
                    tokio::task::yield_now().await;
                    processed = 0;
                }
                processed += 1;
                // A statement of its own, so that the lock is released before the event is handled.
                let next = this.inbox.lock().next();
                match &next {
                    Next::Event(text) => {
                        let handled = AssertUnwindSafe(this.handle_event(text))
                            .catch_unwind()
                            .await;
                        if handled.is_err() {
                            tracing::error!("handling an event panicked; the connection is closed");
                            this.close_transport(CloseReason::Fault);
                        }
                    }
                    Next::Loss => this.handle_loss().await,
                    Next::Nothing => return,
                }
            }
        };
        process.instrument(span)
    }

    /// Handles one event, once less than half of the outbox is unwritten: so replies are sent no
    /// faster than the client reads them. What else it waits for, depends on the event.
    async fn handle_event(self: &Arc<Self>, text: &EventText) {
        self.wait_until_below(self.connections.outbox_bytes / 2)
            .await;
        let limits = self.connections.messaging.limits();
        let IncomingEvent {
            name,
            reply_to,
            request,
        } = self.transport.decode(text, limits);
        let allows_anonymous = name.allows_anonymous();
        let reply = Reply {
            connection: self.clone(),
            reply_to,
            name,
        };
        // Boxed, as below: without an archive replies are pending only behind changes of messages.
        if self.pending_acks.count() > 0 {
            Box::pin(self.wait_for_earlier(&request)).await;
        }
        let mut state = self.state.lock().await;
        if !allows_anonymous && let Err(refusal) = state.authenticated() {
            return reply.refuse(&refusal);
        }
        let request = match request {
            Ok(request) => request,
            Err(refusal) => return reply.refuse(&refusal),
        };
        let context = RequestContext {
            connection: self,
            state: &mut state,
            reply: &reply,
            event_bytes: text.json().len(),
        };
        if let Err(refusal) = request.handle(context).await {
            drop(state);
            reply.refuse(&refusal);
        }
    }

    /// Waits for what must precede the request, while replies to earlier events are pending.
    async fn wait_for_earlier(&self, request: &Result<Request, Refusal>) {
        let earlier = match request {
            Ok(request) => request.waits_for(),
            Err(_) => Earlier::Nothing,
        };
        match earlier {
            Earlier::Nothing => self.wait_for_few_acks().await,
            Earlier::Changes => {
                self.wait_for_few_acks().await;
                self.wait_for_repeated_change().await;
            }
            Earlier::Replies => self.wait_for_acks().await,
        }
    }

    async fn handle_loss(&self) {
        let lost = async {
            let mut state = self.state.lock().await;
            self.connections.messaging.lost(&mut state).await;
        };
        if AssertUnwindSafe(lost).catch_unwind().await.is_err() {
            tracing::error!("handling the loss of a connection panicked");
        }
    }

    /// Returns once fewer bytes than that are unwritten, or the transport is closed.
    pub(super) async fn wait_until_below(&self, unwritten: usize) {
        if self.transport.unwritten() < unwritten {
            return;
        }
        let (below, is_below) = oneshot::channel::<()>();
        self.transport
            .when_below(unwritten, Box::new(move || drop(below)));
        let _ = is_below.await;
    }

    /// Notes that an event of that size was sent to the room. After every 12.5 % of an outbox,
    /// waits until it has been delivered on this node, so that the copies for this connection
    /// itself count in its outbox before its next event is handled.
    pub(super) async fn flush_sent(&self, room: &RoomId, bytes: usize) {
        let unflushed = self.unflushed_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unflushed > self.connections.outbox_bytes / 8 {
            self.unflushed_bytes.store(0, Ordering::Relaxed);
            // Boxed because it is rare and large: inline, it would determine the size of the
            // future.
            Box::pin(self.connections.messaging.flush(room)).await;
        }
    }
}

impl Scheduled for Connection {
    fn run_slice(self: Arc<Self>) {
        let scheduled = catch_unwind(AssertUnwindSafe(|| self.schedule(Scheduling::Inline)));
        if scheduled.is_err() {
            tracing::error!(
                conn = %self.conn,
                "processing events panicked; the connection is closed"
            );
            self.close_transport(CloseReason::Fault);
        }
    }
}
