//! The health checks of a node with a database.

use axum::body::{Body, to_bytes};
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::slow_log::SlowLog;
use crate::auth::Authenticator;
use crate::backplane::ArchiveStatus;
use crate::gateway::http::tests::Node;

#[tokio::test]
async fn a_node_without_its_database_is_degraded_or_unhealthy_by_what_it_acknowledges() {
    let (log, backplane) = SlowLog::backplane();
    let node = Node::on(backplane, Authenticator::open());
    let serving = |status: &str, database: Option<&str>| {
        let mut body = json!({
            "status": status,
            "connectedClients": 0,
            "backplane": "embedded",
            "version": env!("CARGO_PKG_VERSION"),
        });
        if let Some(database) = database {
            body["database"] = database.into();
        }
        body
    };
    let unhealthy = json!({"status": "unhealthy", "database": "down"});
    let status = |is_up, acknowledges_commits| {
        Some(ArchiveStatus {
            is_up,
            acknowledges_commits,
        })
    };
    for (archive, code, expected) in [
        (None, 200, serving("ok", None)),
        (status(true, false), 200, serving("ok", Some("ok"))),
        (status(true, true), 200, serving("ok", Some("ok"))),
        (status(false, false), 200, serving("degraded", Some("down"))),
        (status(false, true), 503, unhealthy),
    ] {
        *log.status.lock() = archive;
        for path in ["/health", "/readyz"] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let Ok(response) = node.router.clone().oneshot(request).await;
            assert_eq!(response.status(), code, "{path}: {archive:?}");
            let may_retry = response.headers().contains_key("retry-after");
            assert_eq!(may_retry, code == 503);
            let body = to_bytes(response.into_body(), 4096).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body, expected, "{path}: {archive:?}");
        }
    }
}
