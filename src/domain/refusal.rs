//! Why a request was refused: a closed list of codes, the one table of their status and retry, and the refusal itself.

use std::borrow::Cow;
use std::time::Duration;

use super::Exceeded;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal;)*) => {
        /// Every code that a client can meet, with its HTTP status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $variant),* }

        impl Code {
            /// Every code, for tests and documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code's name on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The fitting HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status),* }
            }
        }
    };
}

codes! {
    /// The request is malformed; the text names the field.
    BadRequest = "bad_request", 400;
    /// No such event.
    UnknownEvent = "unknown_event", 400;
    /// Nobody said who this is.
    Unauthorized = "unauthorized", 401;
    /// The token's time is over.
    TokenExpired = "token_expired", 401;
    /// Known, but not allowed.
    Forbidden = "forbidden", 403;
    /// Only members may do that.
    NotInRoom = "not_in_room", 403;
    /// No such resource.
    NotFound = "not_found", 404;
    /// The resource knows no such method.
    MethodNotAllowed = "method_not_allowed", 405;
    /// The socket already belongs to another user.
    AlreadyAuthenticated = "already_authenticated", 409;
    /// Longer, larger, deeper or more than the limit.
    TooLarge = "too_large", 413;
    /// The body is not JSON.
    UnsupportedMediaType = "unsupported_media_type", 415;
    /// Too many events in too short a time.
    RateLimited = "rate_limited", 429;
    /// This socket is in as many rooms as it may be.
    TooManyRooms = "too_many_rooms", 429;
    /// This socket watches as many users as it may.
    TooManySubscriptions = "too_many_subscriptions", 429;
    /// This user, address or node has as many connections as it may.
    TooManyConnections = "too_many_connections", 429;
    /// A queue or table of this node is full.
    Overloaded = "overloaded", 429;
    /// The backplane can't be reached.
    Unavailable = "unavailable", 503;
    /// This node is about to stop.
    Draining = "draining", 503;
    /// A fault of ours.
    Internal = "internal", 500;
}

/// A request that was refused: what the client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {text}", code.as_str())]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// For a person.
    pub text: Cow<'static, str>,
    /// How long to wait before trying again, where waiting helps.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal without a hint when to retry, but for the codes where waiting always helps (one second).
    #[must_use]
    pub fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = matches!(
            code,
            Code::Unavailable | Code::Draining | Code::Overloaded | Code::RateLimited
        )
        .then_some(Duration::from_secs(1));
        Self {
            code,
            text: text.into(),
            retry_after,
        }
    }

    /// The request is malformed in the way that `text` tells.
    #[must_use]
    pub fn bad_request(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadRequest, text)
    }

    /// A rate is exceeded; `whose` ends the text, such as ` of this user`.
    #[must_use]
    pub fn rate_limited(exceeded: Exceeded, whose: &str) -> Self {
        Self::new(
            Code::RateLimited,
            format!("too many {}{whose}", exceeded.what),
        )
        .retry_after(exceeded.wait)
    }

    /// The same refusal with a hint when to retry.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_distinct_names_and_error_statuses() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(
            Code::ALL
                .iter()
                .all(|code| (400..600).contains(&code.status()))
        );
    }
}
