//! The id of each request, its client address, and its span in the log.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue};
use tracing::Instrument;

use super::super::SharedState;
use super::super::refusal::{self, RequestFacts};
use crate::gateway::access::bearer;
use crate::server::Peer;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Assigns an id to the request, and determines its client address. Renders the refusal if the
/// response is one, because the body contains the id.
pub(in crate::gateway::http) async fn assign(
    State(state): SharedState,
    mut request: Request,
    next: Next,
) -> Response {
    let id = uuid::Uuid::new_v4().simple().to_string();
    // The path without the query, which may contain a token.
    let span = tracing::debug_span!(
        "request",
        id,
        client = tracing::field::Empty,
        method = %request.method(),
        path = request.uri().path(),
    );
    if let Some(Peer(peer)) = request.extensions().get::<Peer>() {
        let client = state.trusted_proxies.client(peer.ip(), request.headers());
        span.record("client", tracing::field::display(client.0));
        request.extensions_mut().insert(client);
    }
    let facts = RequestFacts {
        id: &id,
        has_bearer: bearer(request.headers()).is_some(),
    };
    let response = next.run(request).instrument(span).await;
    let mut response = refusal::render(response, &facts);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
