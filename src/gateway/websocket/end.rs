//! How a plain connection ends: the code and the reason of its close frame, which say whether to come back.

use axum::extract::ws::CloseFrame;
use tungstenite::Error;
use tungstenite::error::CapacityError;

use crate::domain::{Code, Refusal};
use crate::gateway::connections::CloseReason;

macro_rules! ends {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $reason:literal;)*) => {
        /// Why a connection ends that the client hasn't ended by itself.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum End { $($(#[$doc])* $variant),* }

        impl End {
            /// Every one, for tests and documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code of the close frame.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self { $(Self::$variant => $code),* }
            }

            /// Its reason: at most 123 bytes.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$variant => $reason),* }
            }
        }
    };
}

ends! {
    /// Frames that break the protocol.
    Protocol = 1002, "protocol error; do not come back without a change";
    /// Binary messages: everything here is text.
    Binary = 1003, "only text is understood; do not come back without a change";
    /// Text that isn't UTF-8.
    NotText = 1007, "text must be UTF-8; do not come back without a change";
    /// A message larger than the limit.
    TooLarge = 1009, "message too large; do not send it again";
    /// A fault of ours.
    Fault = 1011, "internal error; come back";
    /// This node drains: each is closed at its own time, so one may come back at once.
    Restart = 1012, "draining; come back; reconnect_in_ms=100";
    /// The token's time is over.
    TokenExpired = 4401, "token_expired; come back with a new token";
    /// A service has ended the user's connections.
    Forbidden = 4403, "forbidden; do not come back by yourself";
    /// Nothing was heard of the client, neither a frame nor a pong.
    Idle = 4408, "idle; come back";
    /// The log no longer holds what was about to be replayed.
    ReplayOutrun = 4409, "replay outrun; come back and resume: gap will be told";
    /// What the client hasn't read is more than is kept for it, or it reads nothing.
    Slow = 4410, "slow consumer; come back and resume";
    /// It went on when it was refused for a rate.
    RateLimitAbuse = 4429, "rate_limited; come back in a minute, and slower";
}

impl End {
    /// By that refusal, which is a fault of identity.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        match refusal.code {
            Code::TokenExpired | Code::Unauthorized => Self::TokenExpired,
            _ => Self::Forbidden,
        }
    }

    /// What is wrong with what came, or with how what was sent is taken; `None` for a transport that broke, or was closed.
    pub(super) fn of(error: axum::Error) -> Option<Self> {
        let Ok(error) = error.into_inner().downcast::<Error>() else {
            return Some(Self::Protocol);
        };
        match *error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => Some(Self::TooLarge),
            Error::Utf8(_) => Some(Self::NotText),
            // Full of answers to pings that nobody reads.
            Error::WriteBufferFull(_) => Some(Self::Slow),
            Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
                None
            }
            Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed => None,
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

impl From<CloseReason> for End {
    fn from(closing: CloseReason) -> Self {
        match closing {
            CloseReason::RateLimitAbuse => Self::RateLimitAbuse,
            CloseReason::Fault | CloseReason::Unavailable => Self::Fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_a_code_of_its_own_and_says_whether_to_come_back() {
        let mut codes: Vec<_> = End::ALL.iter().map(|end| end.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), End::ALL.len());
        for end in End::ALL {
            let reason = end.reason();
            assert!(
                reason.len() <= 123 && (reason.contains("come back") || reason.contains("do not")),
                "{reason}"
            );
        }
    }

    #[test]
    fn every_end_is_documented() {
        let text =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/websocket.md"))
                .unwrap();
        for end in End::ALL {
            assert!(
                text.contains(&format!("| {} | `{}` |", end.code(), end.reason())),
                "{end:?}"
            );
        }
    }
}
