//! The router: all routes, wrapped in the middleware.

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::any_service;

use super::HttpState;
use super::middleware::{address_rate, encoded_body, origin, request_id, security_headers};
use super::routes;
use crate::domain::{Code, Refusal};
use crate::gateway::socketio::Gateway;

/// The routes of the REST API, of both kinds of sockets, and of health checks.
pub fn router(state: Arc<HttpState>, gateway: &Arc<Gateway>) -> Router {
    let admit = from_fn_with_state(state.clone(), routes::socketio::admit);
    let socketio = any_service(gateway.service()).layer(admit);
    let charge_address = from_fn_with_state(state.clone(), address_rate::charge);
    let mut router = Router::new()
        .route("/socket.io/", socketio.clone())
        .route("/socket.io", socketio);
    for route in routes::all() {
        let handler = if route.right.is_charged_to_address() {
            route.handler.route_layer(charge_address.clone())
        } else {
            route.handler
        };
        router = router.route(route.path, handler);
    }
    router
        .fallback(async || Refusal::new(Code::NotFound, "there is no such resource"))
        .method_not_allowed_fallback(async || {
            Refusal::new(
                Code::MethodNotAllowed,
                "the resource does not support this method",
            )
        })
        // The layer that is added last runs first.
        .layer(from_fn(encoded_body::refuse))
        .layer(from_fn_with_state(state.clone(), origin::check))
        .layer(from_fn_with_state(state.clone(), request_id::assign))
        .layer(from_fn(security_headers::set))
        .with_state(state)
}

/// `/metrics` alone and without authentication, for a separate address.
pub fn metrics_router(state: Arc<HttpState>) -> Router {
    Router::new()
        .route(
            "/metrics",
            axum::routing::get(routes::metrics::unauthenticated),
        )
        .layer(from_fn_with_state(state.clone(), request_id::assign))
        .layer(from_fn(security_headers::set))
        .with_state(state)
}
