//! JSON responses.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

/// A JSON response, encoded.
pub(super) struct Reply {
    status: StatusCode,
    json: Vec<u8>,
}

impl Reply {
    /// A response with status 200.
    pub fn ok<T: Serialize>(body: &T) -> Self {
        Self::with_status(StatusCode::OK, body)
    }

    pub fn with_status<T: Serialize>(status: StatusCode, body: &T) -> Self {
        let json = serde_json::to_vec(body).expect("the wire's shapes always serialise");
        Self { status, json }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let content_type = [(CONTENT_TYPE, "application/json")];
        (self.status, content_type, self.json).into_response()
    }
}
