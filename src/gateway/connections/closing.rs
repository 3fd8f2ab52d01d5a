//! The end of a connection: by its deadlines, by a service, or by the loss of its transport.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::deadlines::DeadlineAction;
use super::processing::Scheduling;
use super::{CloseReason, Connection, EndReason};
use crate::domain::{Code, Refusal, TokenFault};

impl Connection {
    /// Closes the transport unless the client authenticates in time.
    pub fn set_authentication_deadline(self: &Arc<Self>) {
        let after = self.connections.messaging.limits().auth_timeout;
        let action = self.action(Self::close_unless_authenticated);
        self.set_deadline(Some((after, action)));
    }

    /// Disconnects the client when its token expires.
    pub(super) fn set_expiry_deadline(self: &Arc<Self>) {
        let deadline = self.expires_at().map(|at| {
            let remaining = at.saturating_sub(unix_time());
            (remaining, self.action(Self::disconnect_if_expired))
        });
        self.set_deadline(deadline);
    }

    /// The end of the token's validity, in time since the Unix epoch.
    fn expires_at(&self) -> Option<Duration> {
        let identity = self.identity.lock();
        identity.as_ref()?.expires_at.map(Duration::from_secs)
    }

    /// Replaces the connection's deadline.
    pub(super) fn set_deadline(&self, deadline: Option<(Duration, DeadlineAction)>) {
        let deadlines = &self.connections.deadlines;
        let mut current = self.deadline.lock();
        if let Some(key) = current.take() {
            deadlines.cancel(key);
        }
        if let Some((after, action)) = deadline {
            *current = deadlines.add(after, action);
        }
    }

    /// An action for a deadline, which does not keep the connection alive.
    fn action(self: &Arc<Self>, act: fn(&Arc<Self>)) -> DeadlineAction {
        let connection = Arc::downgrade(self);
        Box::new(move || {
            if let Some(connection) = connection.upgrade() {
                act(&connection);
            }
        })
    }

    fn close_unless_authenticated(self: &Arc<Self>) {
        if self.identity.lock().is_some() {
            return;
        }
        // No fault of identity: a page may connect when it loads, and log in much later. So only
        // the transport is closed, and the client comes back by itself.
        self.close_transport(CloseReason::NotAuthenticated);
    }

    fn disconnect_if_expired(self: &Arc<Self>) {
        match self.expires_at() {
            Some(at) if at <= unix_time() => {
                let refusal = Refusal::of_token(TokenFault::Expired, "the token has expired");
                self.disconnect(&refusal, EndReason::TokenExpired);
            }
            // A new token is valid for longer, or the clock was set back.
            _ => self.set_expiry_deadline(),
        }
    }

    /// Ends the connection because a service asked to end all connections of its user.
    pub fn disconnect_by_service(self: &Arc<Self>) {
        let text = "a service has ended the connections of this user";
        let refusal = Refusal::new(Code::Forbidden, text);
        self.disconnect(&refusal, EndReason::EndedByService);
    }

    /// Ends the connection in such a way that the client does not reconnect by itself: for faults
    /// of identity only. Events in the inbox are discarded, as their sender has lost its rights.
    pub(super) fn disconnect(self: &Arc<Self>, refusal: &Refusal, reason: EndReason) {
        self.set_end_reason(reason);
        if !self.inbox.lock().is_closed() {
            self.transport.disconnect(refusal);
        }
        let start = self.inbox.lock().close_and_discard();
        self.end(start);
    }

    /// The transport is gone, or counts as gone. Events in the inbox are still processed, and then
    /// the loss is reported, once.
    pub fn lost(self: &Arc<Self>) {
        let start = self.inbox.lock().close();
        self.end(start);
    }

    /// The part of the end that is the same for all reasons. `start`: nothing processes the closed
    /// inbox yet.
    fn end(self: &Arc<Self>, start: bool) {
        self.log_closed();
        self.set_deadline(None);
        self.pending_acks.close();
        self.transport.connection_ended();
        if start {
            self.schedule(Scheduling::Task);
        }
    }
}

/// The time since the Unix epoch.
fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
