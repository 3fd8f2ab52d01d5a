//! The refusal of compressed bodies.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::header::CONTENT_ENCODING;

use crate::domain::{Code, Refusal};

/// Refuses requests with a compressed body on every route: the server decompresses nothing.
pub(in crate::gateway::http) async fn refuse(
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    for encoding in request.headers().get_all(CONTENT_ENCODING) {
        if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") {
            return Err(Refusal::new(
                Code::UnsupportedMediaType,
                "a body must not be encoded",
            ));
        }
    }
    Ok(next.run(request).await)
}
