//! JSON responses.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::features::idempotency::{Answer, Answered};

/// Marks the answer to a request that was sent before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A JSON response, encoded.
pub(super) struct Reply {
    status: StatusCode,
    json: Vec<u8>,
    is_repeat: bool,
}

impl Reply {
    /// A response with status 200.
    pub fn ok<T: Serialize>(body: &T) -> Self {
        Self::with_status(StatusCode::OK, body)
    }

    pub fn with_status<T: Serialize>(status: StatusCode, body: &T) -> Self {
        let json = serde_json::to_vec(body).expect("the wire's shapes always serialise");
        Self {
            status,
            json,
            is_repeat: false,
        }
    }

    /// The response as an answer that can be stored.
    pub fn into_answer(self) -> Answer {
        Answer {
            status: self.status.as_u16(),
            body: self.json,
            redacted: None,
        }
    }
}

impl From<Answered> for Reply {
    fn from(answered: Answered) -> Self {
        let (answer, is_repeat) = match answered {
            Answered::Now(answer) => (answer, false),
            Answered::Before(answer) => (answer, true),
        };
        let status = StatusCode::from_u16(answer.status);
        Self {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            json: answer.body,
            is_repeat,
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let content_type = [(CONTENT_TYPE, "application/json")];
        let mut response = (self.status, content_type, self.json).into_response();
        if self.is_repeat {
            let headers = response.headers_mut();
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}
