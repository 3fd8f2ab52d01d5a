//! Before Engine.IO: who is let in, and what of a handshake is kept.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use engineioxide::Retained;

use super::super::HttpState;
use super::super::refusal::refuse;
use crate::domain::{Code, Refusal};
use crate::gateway::access::bearer;
use crate::gateway::socketio::Handshake;
use crate::server::Client;

/// A request without `sid` asks for a new session: only such a one can be refused here. What may pass is refused by status
/// and `Retry-After`, as clients come back by themselves after it.
pub(in crate::gateway::http) async fn admit(
    State(doors): State<Arc<HttpState>>,
    mut request: Request,
    next: Next,
) -> Response {
    request.extensions_mut().insert(doors.control.clone());
    // As Engine.IO looks for it: undecoded, so that both agree on which request asks for a session.
    let has_sid = request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair.starts_with("sid=")));
    if !has_sid {
        if !doors.chat.is_ready() {
            return refuse(&Refusal::new(
                Code::Unavailable,
                "the backplane can't be reached",
            ));
        }
        let client = request.extensions().get::<Client>().copied();
        let place = match doors.admission.admit(client) {
            Ok(place) => Some(place),
            Err(refusal) => return refuse(&refusal),
        };
        let token = parameter(&request, "token")
            .or_else(|| bearer(request.headers()).map(ToOwned::to_owned));
        request
            .extensions_mut()
            .insert(Retained(Arc::new(Handshake::new(token, client, place))));
    }
    next.run(request).await
}

/// A parameter of the query, decoded.
fn parameter(request: &Request, name: &str) -> Option<String> {
    let query = request.uri().query()?;
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}
