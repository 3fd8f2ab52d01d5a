//! How a node stops: at once, or after a drain that moves its clients to other nodes one by one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engineioxide::{Control, Frame, SessionHandle};

use super::App;
use crate::gateway::websocket::{Outbox, PlainWebSocket};
use crate::gateway::wire::{Envelope, going_away};
use crate::server::{Drainable, drain};

/// How long plain HTTP requests may take to finish when the node stops.
const LAST_REQUESTS_TIMEOUT: Duration = Duration::from_millis(500);
/// How long jobs that run may take to end when the node stops.
const LAST_JOBS_TIMEOUT: Duration = Duration::from_secs(2);

impl App {
    /// Makes the node not ready, announces to each client when its connection will close, closes the
    /// connections evenly over `duration`, and stops. Presence is left to its graces, so that a
    /// client that reconnects to another node in time causes no event.
    pub async fn drain(self, duration: Duration) {
        self.admission.begin_drain();
        tracing::info!(
            connections = self.connections.len(),
            over_secs = duration.as_secs_f64(),
            "draining"
        );
        drain(|| self.connections.list(), duration).await;
        let _ = self.stop.send(true);
        tokio::time::sleep(LAST_REQUESTS_TIMEOUT).await;
        self.shut_down().await;
    }

    /// Stops at once. For clients it is like a crash, but their graces have begun.
    pub async fn stop(self) {
        self.admission.begin_drain();
        for connection in self.connections.list() {
            connection.close();
        }
        let _ = self.stop.send(true);
        self.shut_down().await;
    }

    async fn shut_down(self) {
        // The connections that were just closed have yet to report their end to the backplane.
        for connection in self.connections.list() {
            connection.closed().await;
        }
        tokio::task::yield_now().await;
        let deadline = tokio::time::Instant::now() + LAST_JOBS_TIMEOUT;
        for mut worker in self.workers {
            // Its rows are due again after their lease.
            if tokio::time::timeout_at(deadline, &mut worker)
                .await
                .is_err()
            {
                worker.abort();
            }
        }
        if let Some(archive) = &self.archive {
            archive.stop().await;
        }
        self.backplane.lifecycle.stop().await;
        self.delivery.stop();
        for task in self.tasks {
            task.abort();
        }
    }
}

/// All client connections of the node: Engine.IO sessions and plain WebSockets.
#[derive(Clone)]
pub(super) struct ClientConnections {
    pub control: Control,
    pub plain: Arc<PlainWebSocket>,
}

impl ClientConnections {
    fn len(&self) -> usize {
        self.control.len() + self.plain.len()
    }

    fn list(&self) -> Vec<Box<dyn Drainable>> {
        let mut connections: Vec<Box<dyn Drainable>> = Vec::with_capacity(self.len());
        for session in self.control.sessions() {
            connections.push(Box::new(session));
        }
        for outbox in self.plain.outboxes() {
            connections.push(Box::new(outbox));
        }
        connections
    }
}

#[async_trait]
impl Drainable for SessionHandle {
    fn announce(&self, left: Duration) {
        self.send(&Frame::text(&going_away(Envelope::SocketIo, left)));
    }

    fn close_after_flush(&self, limit: Duration) {
        SessionHandle::close_after_flush(self, limit);
    }

    fn close(&self) {
        SessionHandle::close(self);
    }

    async fn closed(&self) {
        SessionHandle::closed(self).await;
    }
}

#[async_trait]
impl Drainable for Arc<Outbox> {
    fn announce(&self, left: Duration) {
        self.announce_end(left);
    }

    fn close_after_flush(&self, limit: Duration) {
        Outbox::close_after_flush(self, limit);
    }

    fn close(&self) {
        Outbox::close(self);
    }

    async fn closed(&self) {
        Outbox::closed(self).await;
    }
}
