//! Health checks.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::RETRY_AFTER;
use serde::Serialize;
use serde_json::json;

use super::super::SharedState;
use super::super::reply::Reply;

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    #[serde(rename = "connectedClients")]
    connected_clients: usize,
    backplane: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct NotReady {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<&'static str>,
}

impl IntoResponse for NotReady {
    fn into_response(self) -> Response {
        let reply = Reply::with_status(StatusCode::SERVICE_UNAVAILABLE, &self);
        ([(RETRY_AFTER, "1")], reply).into_response()
    }
}

/// `GET /health` and `GET /readyz`, the readiness: whether this node should receive new
/// connections.
pub(in crate::gateway::http) async fn ready(State(state): SharedState) -> Response {
    if state.admission.is_draining() {
        let draining = NotReady {
            status: "draining",
            redis: None,
        };
        return draining.into_response();
    }
    if !state.messaging.is_ready() {
        let unhealthy = NotReady {
            status: "unhealthy",
            redis: Some("down"),
        };
        return unhealthy.into_response();
    }
    let ready = Ready {
        status: "ok",
        connected_clients: state.client_count(),
        backplane: state.messaging.backplane_kind(),
        version: env!("CARGO_PKG_VERSION"),
    };
    Reply::ok(&ready).into_response()
}

/// `GET /livez`, the liveness: this process responds.
pub(in crate::gateway::http) async fn live() -> Reply {
    Reply::ok(&json!({ "status": "ok" }))
}
