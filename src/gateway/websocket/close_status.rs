//! The codes and reasons of the close frames that plain WebSocket clients get. The reason says
//! whether to reconnect.

use axum::extract::ws::CloseFrame;
use tungstenite::Error;
use tungstenite::error::{CapacityError, ProtocolError};

use crate::domain::{Code, Refusal};
use crate::gateway::connections::{CloseReason, EndReason};

macro_rules! close_statuses {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $reason:literal;)*) => {
        /// Why the server closes a plain WebSocket.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum CloseStatus { $($(#[$doc])* $variant),* }

        impl CloseStatus {
            /// Every status, for tests and documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code of the close frame.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self { $(Self::$variant => $code),* }
            }

            /// The reason in the close frame: at most 123 bytes.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$variant => $reason),* }
            }
        }
    };
}

close_statuses! {
    /// Frames that violate the WebSocket protocol.
    Protocol = 1002, "protocol error; do not come back without a change";
    /// A binary message that is not JSON in UTF-8.
    Binary = 1003, "a binary message must be JSON in UTF-8; do not come back without a change";
    /// Text that is not UTF-8.
    NotText = 1007, "text must be UTF-8; do not come back without a change";
    /// A message larger than the limit.
    TooLarge = 1009, "message too large; do not send it again";
    /// An internal error.
    Fault = 1011, "internal error; come back";
    /// This node drains. Each connection is closed at a time of its own, so its client may
    /// reconnect at once.
    Restart = 1012, "draining; come back; reconnect_in_ms=100";
    /// The token has expired.
    TokenExpired = 4401, "token_expired; come back with a new token";
    /// A service has ended the user's connections.
    Forbidden = 4403, "forbidden; do not come back by yourself";
    /// Nothing was received from the client, neither a message nor a pong.
    Idle = 4408, "idle; come back";
    /// The log was trimmed past the position of a replay.
    ReplayOutrun = 4409, "replay outrun; come back and resume: gap will be told";
    /// The outbox is full, or the client reads nothing.
    Slow = 4410, "slow consumer; come back and resume";
    /// The log could not be read for a replay.
    ReplayFailed = 4411, "replay unavailable; come back and resume";
    /// The client kept sending although its events were refused for its rate.
    RateLimitAbuse = 4429, "rate_limited; come back in a minute, and slower";
}

impl CloseStatus {
    /// The status for a refusal, which must be a fault of identity.
    pub(super) fn of_refusal(refusal: &Refusal) -> Self {
        match refusal.code {
            Code::TokenExpired | Code::Unauthorized => Self::TokenExpired,
            _ => Self::Forbidden,
        }
    }

    /// The status for an error of the transport: the fault of the client, or that it does not read.
    /// `None` if the transport broke or was closed, so that no close frame can be sent.
    pub(super) fn of_error(error: axum::Error) -> Option<Self> {
        let Ok(error) = error.into_inner().downcast::<Error>() else {
            return Some(Self::Protocol);
        };
        match *error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => Some(Self::TooLarge),
            Error::Utf8(_) => Some(Self::NotText),
            // The write buffer is full of pongs that the client does not read.
            Error::WriteBufferFull(_) => Some(Self::Slow),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
            | Error::Io(_)
            | Error::ConnectionClosed
            | Error::AlreadyClosed => None,
            _ => Some(Self::Protocol),
        }
    }

    pub(super) fn frame(self) -> CloseFrame {
        CloseFrame {
            code: self.code(),
            reason: self.reason().into(),
        }
    }
}

impl From<CloseReason> for CloseStatus {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::RateLimitAbuse => Self::RateLimitAbuse,
            // `NotAuthenticated` cannot happen: a plain client has its identity from its handshake
            // on.
            CloseReason::Fault | CloseReason::NotAuthenticated => Self::Fault,
        }
    }
}

impl From<CloseStatus> for EndReason {
    fn from(status: CloseStatus) -> Self {
        match status {
            CloseStatus::Protocol
            | CloseStatus::Binary
            | CloseStatus::NotText
            | CloseStatus::TooLarge => Self::ProtocolError,
            CloseStatus::Fault => Self::Fault,
            CloseStatus::Restart => Self::Draining,
            CloseStatus::TokenExpired => Self::TokenExpired,
            CloseStatus::Forbidden => Self::EndedByService,
            CloseStatus::Idle => Self::HeartbeatTimeout,
            CloseStatus::ReplayOutrun => Self::ReplayOutrun,
            CloseStatus::ReplayFailed => Self::ReplayFailed,
            CloseStatus::Slow => Self::SlowConsumer,
            CloseStatus::RateLimitAbuse => Self::RateLimited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_own_code_and_a_reason_that_says_whether_to_reconnect() {
        let mut codes: Vec<_> = CloseStatus::ALL
            .iter()
            .map(|status| status.code())
            .collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CloseStatus::ALL.len());
        for status in CloseStatus::ALL {
            let reason = status.reason();
            assert!(
                reason.len() <= 123 && (reason.contains("come back") || reason.contains("do not")),
                "{reason}"
            );
        }
    }

    #[test]
    fn every_status_is_documented() {
        let text =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/websocket.md"))
                .unwrap();
        for status in CloseStatus::ALL {
            assert!(
                text.contains(&format!("| {} | `{}` |", status.code(), status.reason())),
                "{status:?}"
            );
        }
    }
}
