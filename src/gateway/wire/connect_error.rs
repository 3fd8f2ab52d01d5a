//! The payload of Socket.IO's CONNECT_ERROR.

use serde::Serialize;

use super::to_json;
use crate::domain::{Refusal, TokenFault};

/// The payload for Socket.IO protocol 5: clients make an error with this message and data of it.
#[derive(Serialize)]
struct ConnectError<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

#[derive(Serialize)]
struct Data {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// A refused CONNECT as JSON. The message begins with the code.
pub(crate) fn connect_error(refusal: &Refusal) -> String {
    to_json(&ConnectError {
        message: &refusal.to_string(),
        data: Some(Data {
            code: refusal.code.as_str(),
            reason: refusal.reason.map(TokenFault::as_str),
        }),
    })
}

/// The same for Socket.IO protocol 4, whose payload is a text. Java clients of version 1 drop an
/// object.
pub(crate) fn connect_error_text(refusal: &Refusal) -> String {
    to_json(&refusal.to_string())
}

/// The refusal of a CONNECT to an unknown namespace, for protocol 5 and 4. This is the text of
/// Socket.IO's own server.
pub(crate) const INVALID_NAMESPACE: (&str, &str) = (
    r#"{"message":"Invalid namespace"}"#,
    r#""Invalid namespace""#,
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Code;

    #[test]
    fn a_refused_connect_has_a_code_and_the_reason_if_a_token_is_at_fault() {
        let refusal = Refusal::of_token(TokenFault::Expired, "it has \"expired\"");
        assert_eq!(
            connect_error(&refusal),
            r#"{"message":"token_expired: it has \"expired\"","data":{"code":"token_expired","reason":"expired"}}"#
        );
        assert_eq!(
            connect_error_text(&refusal),
            r#""token_expired: it has \"expired\"""#
        );
        assert_eq!(
            connect_error(&Refusal::new(Code::Internal, "x")),
            r#"{"message":"internal: x","data":{"code":"internal"}}"#
        );
    }
}
