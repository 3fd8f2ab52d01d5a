//! The opening handshake of RFC 6455, section 4.2.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use sha1::{Digest, Sha1};

use crate::refusal::Refusal;
use crate::service::ResponseBody;

/// The constant of RFC 6455 that is hashed together with the client's key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A request that is a WebSocket handshake, with the headers of its response.
#[derive(Debug)]
pub(crate) struct Handshake {
    /// The value of `Sec-WebSocket-Accept`.
    proof: HeaderValue,
    subprotocol: Option<HeaderValue>,
}

/// Checks that the request is a WebSocket handshake.
pub(crate) fn check(parts: &Parts) -> Result<Handshake, Refusal> {
    let headers = &parts.headers;
    let asks = parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && has_token(headers, CONNECTION, "upgrade")
        && has_token(headers, UPGRADE, "websocket");
    if !asks {
        return Err(Refusal::BadRequest);
    }
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(Refusal::WebSocketVersion);
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .ok_or(Refusal::BadRequest)?
        .as_bytes();
    // The key is 16 bytes, which are 24 characters in base64; decoding checks both.
    match BASE64_STANDARD.decode(key) {
        Ok(nonce) if nonce.len() == 16 => Ok(Handshake {
            proof: proof(key),
            subprotocol: first_subprotocol(headers),
        }),
        _ => Err(Refusal::BadRequest),
    }
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

fn proof(key: &[u8]) -> HeaderValue {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    HeaderValue::from_str(&BASE64_STANDARD.encode(digest)).expect("base64 is a header value")
}

/// The first subprotocol that the client offers, to be chosen in the response: a browser fails the
/// connection if it offered subprotocols and none of them is chosen. Values that are not names of
/// subprotocols are skipped, because a client accepts only a name that it offered.
#[must_use]
pub fn first_subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let name = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .find(|name| is_token(name))?;
    HeaderValue::from_bytes(name).ok()
}

/// Whether the bytes are a token of RFC 9110, section 5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    let is_token_byte =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_token_byte)
}

/// The response that makes the connection a WebSocket.
pub(crate) fn accept<B>(handshake: Handshake) -> Response<ResponseBody<B>> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, handshake.proof);
    if let Some(subprotocol) = handshake.subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn request() -> http::request::Builder {
        Request::get("/")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    fn checked(builder: http::request::Builder) -> Result<HeaderValue, Refusal> {
        check(&builder.body(()).unwrap().into_parts().0).map(|handshake| handshake.proof)
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        assert_eq!(checked(request()).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn invalid_handshakes_are_refused() {
        let without = |name: &str| {
            let mut request = request();
            request.headers_mut().unwrap().remove(name);
            checked(request).unwrap_err()
        };
        assert_eq!(without("connection"), Refusal::BadRequest);
        assert_eq!(without("upgrade"), Refusal::BadRequest);
        assert_eq!(without("sec-websocket-key"), Refusal::BadRequest);
        assert_eq!(without("sec-websocket-version"), Refusal::WebSocketVersion);
        assert_eq!(
            checked(request().method("POST")).unwrap_err(),
            Refusal::BadRequest
        );
        assert_eq!(
            checked(request().version(Version::HTTP_10)).unwrap_err(),
            Refusal::BadRequest
        );
        let mut short = request();
        short
            .headers_mut()
            .unwrap()
            .insert("sec-websocket-key", HeaderValue::from_static("c2hvcnQ="));
        assert_eq!(checked(short).unwrap_err(), Refusal::BadRequest);
    }
}
