//! The check of origins, and the CORS headers.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, ORIGIN, VARY,
};
use http::{HeaderValue, Method, StatusCode};

use super::super::{HttpState, SharedState};
use crate::domain::{Code, Refusal};
use crate::gateway::origins::Origins;
use crate::server::Peer;

/// The headers that a preflight allows if it does not ask for any.
const DEFAULT_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key");

/// Refuses requests from pages of other origins. For the pages of allowed origins it answers
/// preflight requests, and adds the headers that let them read the response. Without `Origin` a
/// request does not come from a page.
pub(in crate::gateway::http) async fn check(
    State(state): SharedState,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    if let Some(origin) = &origin
        && !is_allowed(&state, &request, origin)
    {
        let refusal = Refusal::new(Code::Forbidden, "this origin is not allowed");
        let mut response = refusal.into_response();
        vary_by(response.headers_mut(), "Origin");
        return response;
    }
    let grant = Grant::of(&state.origins, request.uri().path());
    let mut response = if is_preflight(&request) {
        preflight_response(request.headers())
    } else {
        let mut response = next.run(request).await;
        if origin.is_some() {
            response.headers_mut().insert(
                ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("x-request-id, retry-after, idempotency-replayed"),
            );
        }
        response
    };
    grant.write(origin, response.headers_mut());
    response
}

fn is_allowed(state: &HttpState, request: &Request, origin: &HeaderValue) -> bool {
    if matches!(state.origins, Origins::Any) {
        return true;
    }
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let hosts = state
        .trusted_proxies
        .requested_hosts(peer, request.headers());
    // Other bytes than ASCII are in no origin, and only `*` allows them.
    let origin = origin.to_str().unwrap_or_default();
    state.origins.allow(origin, &hosts)
}

/// How a response allows an origin to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    /// For the origin of the request, with credentials.
    Echo,
    /// For all origins, without credentials.
    Wildcard,
}

impl Grant {
    /// Under `*` Socket.IO echoes the origin: clients of version 2 always send credentials in
    /// browsers, and later ones if asked to (for the cookie of a load balancer). The server takes no
    /// identity from a cookie. Behind a proxy that turns a cookie into `Authorization`, `*` lets every
    /// page act as its visitor: the documentation requires a list of origins there.
    fn of(origins: &Origins, path: &str) -> Self {
        let is_socketio = matches!(path, "/socket.io" | "/socket.io/");
        match origins {
            Origins::Any if !is_socketio => Self::Wildcard,
            _ => Self::Echo,
        }
    }

    fn write(self, origin: Option<HeaderValue>, response: &mut HeaderMap) {
        if self == Self::Echo {
            vary_by(response, "Origin");
        }
        let Some(origin) = origin else {
            return;
        };
        match self {
            Self::Wildcard => {
                response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Self::Echo => {
                response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                response.insert(
                    ACCESS_CONTROL_ALLOW_CREDENTIALS,
                    HeaderValue::from_static("true"),
                );
            }
        }
    }
}

/// Adds a name to `Vary`, which stays one line.
fn vary_by(response: &mut HeaderMap, name: &'static str) {
    let names = match response.get(VARY).and_then(|names| names.to_str().ok()) {
        Some(names) => HeaderValue::try_from(format!("{names}, {name}")),
        None => Ok(HeaderValue::from_static(name)),
    };
    if let Ok(names) = names {
        response.insert(VARY, names);
    }
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Allows all headers that the preflight asks for: applications and tracing libraries add their own,
/// and a header gives no right without a key or token.
fn preflight_response(request: &HeaderMap) -> Response {
    let requested = request.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let headers = [
        (
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, OPTIONS"),
        ),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            requested.unwrap_or(DEFAULT_HEADERS),
        ),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
        (
            VARY,
            HeaderValue::from_static("Access-Control-Request-Headers"),
        ),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}
