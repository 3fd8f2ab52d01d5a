//! JSON answers and refusals over HTTP.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::domain::{Code, Refusal};
use crate::gateway::wire::RestError;

/// The refusal that a response stands for, until its body is written with the request's id.
#[derive(Clone)]
pub(super) struct Refused(pub Refusal);

/// A refused request: the body follows where the id is known.
pub(super) fn refuse(refusal: &Refusal) -> Response {
    let mut response = status(refusal.code).into_response();
    response.extensions_mut().insert(Refused(refusal.clone()));
    response
}

fn status(code: Code) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The error's body and `Retry-After` (whole seconds, rounded up) put into a response that has its other headers.
pub(super) fn render(response: Response, refusal: &Refusal, request_id: &str) -> Response {
    let error = RestError {
        error: &refusal.text,
        code: refusal.code.as_str(),
        request_id,
    };
    let mut rendered = json(status(refusal.code), &error);
    for (name, value) in response.headers() {
        if name != CONTENT_TYPE && name != http::header::CONTENT_LENGTH {
            rendered.headers_mut().append(name, value.clone());
        }
    }
    let must_wait = matches!(
        status(refusal.code),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    );
    if must_wait || refusal.retry_after.is_some() {
        let wait = refusal
            .retry_after
            .map_or(1, |wait| {
                wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
            })
            .max(1);
        rendered
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(wait));
    }
    rendered
}

pub(super) fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    let body = serde_json::to_vec(body).expect("the wire's shapes always serialise");
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}
