//! The check of origins, and the CORS headers.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{Method, StatusCode};

use super::super::SharedState;
use crate::domain::Refusal;

/// Refuses requests from pages of other origins. For the pages of allowed origins it answers
/// preflight requests, and adds the headers that let them read the response.
pub(in crate::gateway::http) async fn check(
    State(state): SharedState,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    state.origins.check(request.headers())?;
    let origin = request.headers().get(ORIGIN).cloned();
    let mut response = if is_preflight(&request) {
        preflight_response()
    } else {
        next.run(request).await
    };
    state.origins.allow(origin.as_ref(), response.headers_mut());
    Ok(response)
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight_response() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, idempotency-key",
        ),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}
