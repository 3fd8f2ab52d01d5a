//! The REST door, and the way of every HTTP request: its id, its origin, and who is let through to the sockets.

#[cfg(test)]
mod fuzz;
mod handlers;
mod rate_limits;
mod refusal;
mod routes;
mod security_headers;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any_service, get, post};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_ENCODING, ORIGIN,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tracing::Instrument;

use super::access::{Access, Origins};
use super::socketio::Gateway;
use super::websocket::PlainWebSocket;
use crate::domain::{Code, Refusal};
use crate::features::messaging::Messaging;
use crate::server::admission::Admission;
use crate::server::{Peer, TrustedProxies};
pub use rate_limits::CallerRateLimiter;
use refusal::refuse;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// All that HTTP requests share.
pub struct HttpState {
    /// The use cases.
    pub chat: Arc<Messaging>,
    /// Who asks.
    pub access: Access,
    /// How often callers may post.
    pub callers: CallerRateLimiter,
    /// How often they may broadcast.
    pub broadcasters: CallerRateLimiter,
    /// Which pages may.
    pub origins: Origins,
    /// Whose word on clients' addresses counts.
    pub proxies: TrustedProxies,
    /// Who may open a connection.
    pub admission: Arc<Admission>,
    /// The Engine.IO sessions of this node.
    pub control: engineioxide::Control,
    /// Its plain clients.
    pub plain: Arc<PlainWebSocket>,
    /// Makes the text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl HttpState {
    /// How many clients are connected to this node, through either door.
    fn clients(&self) -> usize {
        self.control.len() + self.plain.len()
    }
}

/// Every route of the contract, those of the sockets among them.
pub fn router(doors: Arc<HttpState>, gateway: &Arc<Gateway>) -> Router {
    let sockets = any_service(gateway.service()).layer(middleware::from_fn_with_state(
        doors.clone(),
        routes::socketio::admit,
    ));
    Router::new()
        .route("/messages", post(handlers::post_message))
        .route("/api/broadcast", post(routes::broadcasts::post))
        .route("/rooms/{room_id}/messages", get(handlers::room_messages))
        .route("/rooms/{room_id}/users", get(handlers::room_users))
        .route("/users/{user_id}/status", get(handlers::user_status))
        .route(
            "/users/{user_id}/disconnect",
            post(handlers::disconnect_user),
        )
        .route("/metrics", get(handlers::metrics))
        .route_layer(middleware::from_fn_with_state(
            doors.clone(),
            rate_limits::count,
        ))
        .route("/socket.io/", sockets.clone())
        .route("/socket.io", sockets)
        .route("/ws", get(routes::websocket::admit))
        .route("/health", get(handlers::health))
        .route("/readyz", get(handlers::health))
        .route("/livez", get(handlers::livez))
        .fallback(async || refuse(&Refusal::new(Code::NotFound, "there is no such resource")))
        .method_not_allowed_fallback(async || {
            refuse(&Refusal::new(
                Code::MethodNotAllowed,
                "the resource knows no such method",
            ))
        })
        .layer(middleware::from_fn(refuse_encoded))
        .layer(middleware::from_fn_with_state(doors.clone(), check_origin))
        .layer(middleware::from_fn_with_state(doors.clone(), give_id))
        .layer(middleware::from_fn(security_headers::set))
        .with_state(doors)
}

/// `/metrics` alone, for an address of its own.
pub fn metrics_router(doors: Arc<HttpState>) -> Router {
    Router::new()
        .route("/metrics", get(handlers::open_metrics))
        .layer(middleware::from_fn(security_headers::set))
        .with_state(doors)
}

/// Gives the request an id, its client and its span. Errors learn the id on their way out.
async fn give_id(
    State(doors): State<Arc<HttpState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = uuid::Uuid::new_v4().simple().to_string();
    // The path only: a query may hold a token.
    let span = tracing::debug_span!("request", id, client = tracing::field::Empty, method = %request.method(), path = request.uri().path());
    if let Some(peer) = request.extensions().get::<Peer>() {
        let client = doors.proxies.client(peer.0.ip(), request.headers());
        span.record("client", tracing::field::display(client.0));
        request.extensions_mut().insert(client);
    }
    let mut response = next.run(request).instrument(span).await;
    if let Some(refusal) = response.extensions_mut().remove::<refusal::Refused>() {
        response = refusal::render(response, &refusal.0, &id);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Refuses compressed bodies, whatever the route: nothing here unpacks what a client sends.
async fn refuse_encoded(request: Request, next: Next) -> Response {
    let encodings = request.headers().get_all(CONTENT_ENCODING);
    if encodings
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return refuse(&Refusal::new(
            Code::UnsupportedMediaType,
            "a body must not be encoded",
        ));
    }
    next.run(request).await
}

/// Refuses pages of foreign origins, answers their preflights, and lets the others read what they get.
async fn check_origin(
    State(doors): State<Arc<HttpState>>,
    request: Request,
    next: Next,
) -> Response {
    if let Err(refusal) = doors.origins.check(request.headers()) {
        return refuse(&refusal);
    }
    let origin = request.headers().get(ORIGIN).cloned();
    let preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, OPTIONS"),
        );
        let allowed = HeaderValue::from_static("authorization, content-type, idempotency-key");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        response
    } else {
        next.run(request).await
    };
    doors.origins.allow(origin.as_ref(), response.headers_mut());
    response
}
