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
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'static str>,
    version: &'static str,
}

#[derive(Default, Serialize)]
struct NotReady {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'static str>,
}

impl IntoResponse for NotReady {
    fn into_response(self) -> Response {
        let reply = Reply::with_status(StatusCode::SERVICE_UNAVAILABLE, &self);
        ([(RETRY_AFTER, "1")], reply).into_response()
    }
}

/// `GET /health` and `GET /readyz`, the readiness: whether this node should receive new
/// connections.
///
/// A node without its database is degraded if it goes on to accept messages, and unhealthy if it
/// acknowledges them only after their commit.
pub(in crate::gateway::http) async fn ready(State(state): SharedState) -> Response {
    if state.admission.is_draining() {
        let draining = NotReady {
            status: "draining",
            ..NotReady::default()
        };
        return draining.into_response();
    }
    let archive = state.messaging.archive_status();
    let database = archive.map(|archive| if archive.is_up { "ok" } else { "down" });
    let unhealthy = NotReady {
        status: "unhealthy",
        database,
        ..NotReady::default()
    };
    if !state.messaging.is_ready() {
        let redis = Some("down");
        return NotReady { redis, ..unhealthy }.into_response();
    }
    let is_down = archive.is_some_and(|archive| !archive.is_up);
    if is_down && archive.is_some_and(|archive| archive.acknowledges_commits) {
        return unhealthy.into_response();
    }
    let ready = Ready {
        status: if is_down { "degraded" } else { "ok" },
        database,
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
