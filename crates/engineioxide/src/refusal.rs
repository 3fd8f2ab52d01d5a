//! Refusals of requests, with the codes and messages of the reference server.

use http::{Response, StatusCode, header};

use crate::packet::Malformed;
use crate::payload::Invalid;
use crate::service::ResponseBody;

/// The reason for refusing a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The transport is unknown or not allowed here.
    UnknownTransport,
    /// There is no session with this id, or it is closed.
    UnknownSession,
    /// A session must begin with a GET request.
    BadHandshakeMethod,
    /// Any other invalid request.
    BadRequest,
    /// `EIO` is neither 3 nor 4.
    UnsupportedVersion,
    /// A packet is larger than `max_payload`, or a body than [`EngineIoConfig::body_limit`].
    ///
    /// [`EngineIoConfig::body_limit`]: crate::config::EngineIoConfig::body_limit
    TooLarge,
    /// The WebSocket protocol version is not 13.
    WebSocketVersion,
}

impl From<Malformed> for Refusal {
    fn from(Malformed: Malformed) -> Self {
        Self::BadRequest
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::Malformed => Self::BadRequest,
            Invalid::PacketTooLarge => Self::TooLarge,
        }
    }
}

impl Refusal {
    pub(crate) fn response<B>(self) -> Response<ResponseBody<B>> {
        let (status, code, message) = match self {
            Self::UnknownTransport => (StatusCode::BAD_REQUEST, 0, "Transport unknown"),
            Self::UnknownSession => (StatusCode::BAD_REQUEST, 1, "Session ID unknown"),
            Self::BadHandshakeMethod => (StatusCode::BAD_REQUEST, 2, "Bad handshake method"),
            Self::BadRequest => (StatusCode::BAD_REQUEST, 3, "Bad request"),
            Self::UnsupportedVersion => {
                (StatusCode::BAD_REQUEST, 5, "Unsupported protocol version")
            }
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, 3, "Payload too large"),
            Self::WebSocketVersion => (StatusCode::UPGRADE_REQUIRED, 3, "Bad request"),
        };
        let mut response = Response::new(ResponseBody::full(format!(
            r#"{{"code":{code},"message":"{message}"}}"#
        )));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/json"),
        );
        match self {
            Self::WebSocketVersion => {
                headers.insert(
                    header::SEC_WEBSOCKET_VERSION,
                    header::HeaderValue::from_static("13"),
                );
            }
            // The rest of the body is not read, so the connection cannot be reused.
            Self::TooLarge => {
                headers.insert(
                    header::CONNECTION,
                    header::HeaderValue::from_static("close"),
                );
            }
            _ => {}
        }
        response
    }
}

/// A refusal as an error, for the test harness.
#[cfg(feature = "__test_harness")]
#[doc(hidden)]
#[derive(Debug)]
pub struct Refused(Refusal);

#[cfg(feature = "__test_harness")]
impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

#[cfg(feature = "__test_harness")]
impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
