//! Refusals as HTTP responses. A handler or middleware returns a `Refusal`; its body is rendered on
//! the way out, where the id of the request is known.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use super::reply::Reply;
use crate::domain::{Code, Refusal};
use crate::gateway::wire::RestError;

/// A refusal that is not rendered yet, as a response extension.
#[derive(Clone)]
struct Unrendered(Refusal);

impl IntoResponse for Refusal {
    // Without a body, which `render` adds.
    fn into_response(self) -> Response {
        let mut response = status(self.code).into_response();
        response.extensions_mut().insert(Unrendered(self));
        response
    }
}

fn status(code: Code) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The refusal, if the response is one that is not rendered yet.
pub(super) fn of(response: &Response) -> Option<&Refusal> {
    response
        .extensions()
        .get()
        .map(|Unrendered(refusal)| refusal)
}

/// The facts about a request that its refusal states or depends on.
pub(super) struct RequestFacts<'a> {
    pub id: &'a str,
    /// The request had a token or key in its `Authorization` header.
    pub has_bearer: bool,
}

/// Renders the body, `Retry-After` and `WWW-Authenticate` if the response is a refusal. Its other
/// headers are kept.
pub(super) fn render(mut response: Response, request: &RequestFacts<'_>) -> Response {
    let Some(Unrendered(refusal)) = response.extensions_mut().remove() else {
        return response;
    };
    let error = RestError::of(&refusal, request.id);
    let mut rendered = Reply::with_status(status(refusal.code), &error).into_response();
    for (name, value) in response.headers() {
        if name != CONTENT_TYPE && name != CONTENT_LENGTH {
            rendered.headers_mut().append(name, value.clone());
        }
    }
    if let Some(secs) = retry_after_secs(&refusal) {
        rendered
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(secs));
    }
    if rendered.status() == StatusCode::UNAUTHORIZED {
        let challenge = challenge(request.has_bearer);
        rendered.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    rendered
}

/// How to authenticate (RFC 6750). The error is stated only for a request that tried.
fn challenge(has_bearer: bool) -> HeaderValue {
    HeaderValue::from_static(if has_bearer {
        r#"Bearer realm="hubbub", error="invalid_token""#
    } else {
        r#"Bearer realm="hubbub""#
    })
}

/// The time to wait before a retry in whole seconds, rounded up, and at least 1. A refusal with
/// status 429 or 503 always has one.
fn retry_after_secs(refusal: &Refusal) -> Option<u64> {
    if let Some(wait) = refusal.retry_after {
        let rounded_up = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        return Some(rounded_up.max(1));
    }
    match status(refusal.code) {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_for_which_waiting_helps_say_how_long() {
        let facts = RequestFacts {
            id: "1",
            has_bearer: false,
        };
        for code in Code::ALL {
            let response = render(Refusal::new(*code, "x").into_response(), &facts);
            let says_so = response.headers().contains_key(RETRY_AFTER);
            let is_expected = matches!(code.status(), 429 | 503);
            assert_eq!(says_so, is_expected, "{}", code.as_str());
        }
        let wait = std::time::Duration::from_millis(2100);
        let refusal = Refusal::new(Code::RateLimited, "x").retry_after(wait);
        let response = render(refusal.into_response(), &facts);
        assert_eq!(response.headers()[RETRY_AFTER], "3");
    }
}
