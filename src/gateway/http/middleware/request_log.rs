//! One log line for each HTTP request, and one for each connection that is refused at its handshake.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use http::Method;
use http::header::UPGRADE;

use super::super::{HttpState, handshake_origin, refusal};
use crate::domain::TokenFault;
use crate::gateway::connections::{HandshakeOrigin, TransportLabels};
use crate::telemetry::line_budget::{LineBudget, log_within};

/// The target of the lines, for `RUST_LOG`.
const TARGET: &str = "hubbub::http";
/// The route of a request that matches none. Its path is not logged, since it may hold anything.
const UNKNOWN: &str = "unknown";

/// How many lines are written.
pub struct RequestLog {
    at_info: Arc<LineBudget>,
    at_debug: Arc<LineBudget>,
}

impl RequestLog {
    /// With that many lines per second at `info`.
    #[must_use]
    pub fn new(per_sec: u32) -> Self {
        Self {
            at_info: LineBudget::new("requests", per_sec),
            at_debug: LineBudget::only_debug(),
        }
    }
}

/// The kinds of routes, which differ in the level of their lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RouteKind {
    /// Requests of machines, at intervals.
    Probe,
    /// Handshakes, whose connections have lines of their own, and polls.
    Socket,
    Rest,
}

/// The part of a request that its line shows. Neither the query nor the path is part of it: both may
/// hold a secret.
pub(super) struct RequestLine {
    began: Instant,
    origin: HandshakeOrigin,
    method: &'static str,
    route: Option<MatchedPath>,
    labels: TransportLabels,
}

impl RequestLine {
    /// Of a request that is about to be handled, with its id and client address as extensions.
    pub fn of(request: &Request) -> Self {
        Self {
            began: Instant::now(),
            origin: handshake_origin(request.extensions()),
            method: method_name(request.method()),
            route: request.extensions().get().cloned(),
            labels: labels(request),
        }
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or(UNKNOWN, MatchedPath::as_str)
    }

    fn kind(&self) -> RouteKind {
        match self.route() {
            "/livez" | "/readyz" | "/health" | "/metrics" => RouteKind::Probe,
            "/ws" | "/socket.io" | "/socket.io/" => RouteKind::Socket,
            _ => RouteKind::Rest,
        }
    }

    /// Writes the line, when the head of the response is ready and before a refusal is rendered.
    pub fn write(&self, state: &HttpState, response: &Response) {
        let kind = self.kind();
        let refusal = refusal::of(response);
        if kind == RouteKind::Socket
            && let Some(refusal) = refusal
        {
            let connections = state.plain_websockets.connections();
            connections.log_refused(&self.origin, self.labels, refusal);
        }
        let is_failed_poll =
            kind == RouteKind::Socket && refusal.is_none() && response.status().is_client_error();
        let budget = if kind == RouteKind::Rest || is_failed_poll {
            &state.request_log.at_info
        } else {
            &state.request_log.at_debug
        };
        log_within!(
            budget,
            target: TARGET,
            request_id = self.origin.request_id.as_deref(),
            client = self.origin.client.map(|client| tracing::field::display(client.0)),
            method = self.method,
            route = self.route(),
            status = response.status().as_u16(),
            fault = refusal.and_then(|refusal| refusal.reason).map(TokenFault::as_str),
            ms = self.began.elapsed().as_micros() as f64 / 1000.0,
            "request"
        );
    }
}

/// The name of the method. Others than these may be any text.
pub(super) fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The transport and protocol that a handshake asks for.
fn labels(request: &Request) -> TransportLabels {
    let is_websocket = request.headers().contains_key(UPGRADE);
    let has_version = |version: &str| {
        let query = request.uri().query().unwrap_or_default();
        query
            .split('&')
            .any(|pair| pair.strip_prefix("EIO=") == Some(version))
    };
    let is_plain = request.uri().path() == "/ws";
    let protocol = if is_plain {
        "plain"
    } else if has_version("4") {
        "4"
    } else if has_version("3") {
        "3"
    } else {
        UNKNOWN
    };
    TransportLabels {
        transport: if is_websocket || is_plain {
            "websocket"
        } else {
            "polling"
        },
        protocol,
    }
}
