//! Admission of Engine.IO handshakes, before the Engine.IO layer sees them.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use engineioxide::Retained;

use super::super::{SharedState, handshake_origin};
use crate::domain::Refusal;
use crate::gateway::access::bearer;
use crate::gateway::socketio::Handshake;

/// Admits a request for a new session, and attaches the data of its handshake that the session
/// keeps. A request with `sid` belongs to a session that was admitted before. Refusals that may
/// pass have a status and a `Retry-After` upon which clients retry by themselves.
pub(in crate::gateway::http) async fn admit(
    State(state): SharedState,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    request.extensions_mut().insert(state.control.clone());
    if !has_sid(&request) {
        state.check_ready()?;
        let origin = handshake_origin(request.extensions());
        let slot = state.admission.admit(origin.client)?;
        let connections = state.plain_websockets.connections();
        let token = query_parameter(&request, "token")
            .or_else(|| bearer(request.headers()).map(ToOwned::to_owned));
        let handshake = Handshake::new(token, origin, slot, connections.clone());
        request
            .extensions_mut()
            .insert(Retained(Arc::new(handshake)));
    }
    Ok(next.run(request).await)
}

/// Whether the query has a `sid` that is not empty. Compares it undecoded, as the Engine.IO layer
/// does, so that both agree on the requests that ask for a new session.
fn has_sid(request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query
        .split('&')
        .any(|pair| pair.strip_prefix("sid=").is_some_and(|sid| !sid.is_empty()))
}

/// A parameter of the query, decoded.
fn query_parameter(request: &Request, name: &str) -> Option<String> {
    let query = request.uri().query()?;
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}
