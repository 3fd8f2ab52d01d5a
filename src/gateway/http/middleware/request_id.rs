//! The id of each request, its client address, and its span and line in the log.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Instrument;

use super::super::SharedState;
use super::super::refusal::{self, RequestFacts};
use super::request_log::{RequestLine, method_name};
use crate::gateway::access::bearer;
use crate::server::Peer;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over from a proxy, in bytes.
const MAX_ID_BYTES: usize = 128;

/// The id of a request, as a request extension.
#[derive(Clone)]
pub(in crate::gateway::http) struct RequestId(pub Arc<str>);

/// Assigns an id to the request, determines its client address, and logs it. Renders the refusal if the
/// response is one, because the body contains the id.
pub(in crate::gateway::http) async fn assign(
    State(state): SharedState,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get().map(|Peer(peer)| peer.ip());
    let is_proxy = peer.is_some_and(|peer| state.trusted_proxies.trusts(peer));
    let proxys_id = if is_proxy {
        valid_id(request.headers())
    } else {
        None
    };
    let id: Arc<str> = match proxys_id {
        Some(id) => id.into(),
        None => uuid::Uuid::new_v4().simple().to_string().into(),
    };
    // The route's pattern: the path and the query may hold a secret.
    let span = tracing::debug_span!(
        "request",
        request_id = &*id,
        client = tracing::field::Empty,
        method = method_name(request.method()),
        route = request.extensions().get().map(MatchedPath::as_str),
    );
    if let Some(peer) = peer {
        let client = state.trusted_proxies.client(peer, request.headers());
        span.record("client", tracing::field::display(client.0));
        request.extensions_mut().insert(client);
    }
    request.extensions_mut().insert(RequestId(id.clone()));
    let facts = RequestFacts {
        id: &id,
        has_bearer: bearer(request.headers()).is_some(),
    };
    let line = RequestLine::of(&request);
    let response = next.run(request).instrument(span).await;
    line.write(&state, &response);
    let mut response = refusal::render(response, &facts);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The id that the headers have, if there is one, it is short enough, and it consists of characters
/// that are plain in a log, in JSON and in a header.
fn valid_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(&REQUEST_ID)?.to_str().ok()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    let is_valid = !id.is_empty() && id.len() <= MAX_ID_BYTES && id.bytes().all(is_plain);
    is_valid.then_some(id)
}
