//! `/metrics`, in the text format of OpenMetrics.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

use super::super::extract::UnlimitedService;
use super::super::{HttpState, SharedState};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /metrics`.
pub(in crate::gateway::http) async fn get(
    State(state): SharedState,
    _: UnlimitedService,
) -> Response {
    text(&state)
}

/// `GET /metrics` on the separate address, which authenticates no caller.
pub(in crate::gateway::http) async fn unauthenticated(State(state): SharedState) -> Response {
    text(&state)
}

fn text(state: &HttpState) -> Response {
    ([(CONTENT_TYPE, OPENMETRICS)], (state.metrics)()).into_response()
}
