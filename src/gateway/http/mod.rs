//! HTTP: the router and its middleware, the REST API, and the handshakes of both kinds of sockets.
//!
//! `routes/` has one file for each resource, and the table of all routes with the right that each
//! needs. A handler receives extractors (`extract.rs`), calls one use case, and returns a reply or
//! a refusal. `refusal.rs` is the one place that renders refusals.

mod accounts;
mod caller_rate_limiter;
mod chats;
mod extract;
#[cfg(test)]
mod fuzz;
mod idempotent;
mod malformed;
mod messages;
mod middleware;
mod refusal;
mod reply;
mod router;
mod routes;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use axum::extract::State;
use http::Extensions;

use super::access::Access;
use super::connections::HandshakeOrigin;
use super::origins::Origins;
use super::websocket::PlainWebSocket;
use crate::domain::{Code, Refusal};
use crate::features::accounts::{Accounts, Recovery};
use crate::features::chats::Chats;
use crate::features::idempotency::Idempotency;
use crate::features::messages::Messages;
use crate::features::messaging::Messaging;
use crate::server::admission::Admission;
use crate::server::{ClientAddress, TrustedProxies};
use crate::telemetry::exposition::MetricsFormat;
use middleware::request_id::RequestId;

pub use caller_rate_limiter::CallerRateLimiter;
pub use middleware::request_log::RequestLog;
pub use router::{metrics_router, router};

/// The state that all HTTP requests share.
pub struct HttpState {
    /// The use cases.
    pub messaging: Arc<Messaging>,
    /// The use cases of accounts; `None` where there are none.
    pub accounts: Option<Arc<Accounts>>,
    /// The use cases of accounts that need mail; `None` where no mails can be sent.
    pub recovery: Option<Arc<Recovery>>,
    /// The answers of requests with an idempotency key; `None` where there are no accounts.
    pub idempotency: Option<Arc<Idempotency>>,
    /// The use cases of chats; `None` where there are no accounts.
    pub chats: Option<Arc<Chats>>,
    /// The use cases of messages that change; `None` without a database.
    pub messages: Option<Arc<Messages>>,
    /// Identifies callers.
    pub access: Access,
    /// The rate of `POST /messages` of one caller.
    pub post_limiter: CallerRateLimiter,
    /// The rate of `POST /api/broadcast` of one caller.
    pub broadcast_limiter: CallerRateLimiter,
    /// The origins of pages that may send requests.
    pub origins: Origins,
    /// The proxies that are trusted to report client addresses.
    pub trusted_proxies: TrustedProxies,
    /// Admits handshakes, and limits the rates of addresses.
    pub admission: Arc<Admission>,
    /// The Engine.IO sessions of this node.
    pub control: engineioxide::Control,
    /// The plain WebSocket clients of this node.
    pub plain_websockets: Arc<PlainWebSocket>,
    /// The log lines about requests.
    pub request_log: RequestLog,
    /// Writes the text of `/metrics`.
    pub metrics: Arc<dyn Fn(MetricsFormat) -> String + Send + Sync>,
}

/// The extractor of the state.
type SharedState = State<Arc<HttpState>>;

/// The client and the id of the request with these extensions.
fn handshake_origin(extensions: &Extensions) -> HandshakeOrigin {
    HandshakeOrigin {
        client: extensions.get::<ClientAddress>().copied(),
        request_id: extensions.get().map(|RequestId(id)| id.clone()),
    }
}

impl HttpState {
    /// The number of clients that are connected to this node, by Socket.IO or plain WebSocket.
    fn client_count(&self) -> usize {
        self.control.len() + self.plain_websockets.len()
    }

    /// Checks that a handshake can succeed now.
    fn check_ready(&self) -> Result<(), Refusal> {
        if self.messaging.is_ready() {
            return Ok(());
        }
        Err(Refusal::new(
            Code::Unavailable,
            "the backplane can't be reached",
        ))
    }
}
