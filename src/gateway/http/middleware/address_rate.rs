//! The rate of requests of an address.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::super::SharedState;
use crate::domain::{Cost, Refusal};
use crate::server::ClientAddress;

/// Charges a request to its address as an event.
pub(in crate::gateway::http) async fn charge(
    State(state): SharedState,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let client = request.extensions().get::<ClientAddress>().copied();
    state.admission.spend(client, Cost::event(0))?;
    Ok(next.run(request).await)
}
