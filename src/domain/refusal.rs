//! Refusals: a closed list of codes, the one table of their HTTP statuses, and the refusal itself.

use std::borrow::Cow;
use std::time::Duration;

use super::Exceeded;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal;)*) => {
        /// Every code that a client can receive.
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

            /// The code's HTTP status.
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
    /// The caller has no valid identity.
    Unauthorized = "unauthorized", 401;
    /// The token has expired.
    TokenExpired = "token_expired", 401;
    /// The name or the password of a login is wrong.
    InvalidCredentials = "invalid_credentials", 401;
    /// An admin has disabled the account.
    AccountDisabled = "account_disabled", 403;
    /// The caller's identity is known, but it may not do this.
    Forbidden = "forbidden", 403;
    /// Only occupants of the room may do this.
    NotInRoom = "not_in_room", 403;
    /// No such resource.
    NotFound = "not_found", 404;
    /// The resource does not support the method.
    MethodNotAllowed = "method_not_allowed", 405;
    /// The connection already belongs to another user.
    AlreadyAuthenticated = "already_authenticated", 409;
    /// The change contradicts the state of the resource.
    Conflict = "conflict", 409;
    /// Another account has the e-mail address.
    EmailTaken = "email_taken", 409;
    /// Another account has the user name.
    UsernameTaken = "username_taken", 409;
    /// The message is deleted.
    MessageDeleted = "message_deleted", 410;
    /// Longer, larger, deeper or more than the limit.
    TooLarge = "too_large", 413;
    /// The body has a content type or an encoding that is not supported.
    UnsupportedMediaType = "unsupported_media_type", 415;
    /// The idempotency key was used before, by a request with another body.
    IdempotencyMismatch = "idempotency_mismatch", 422;
    /// A rate limit is exceeded.
    RateLimited = "rate_limited", 429;
    /// The connection is in the most rooms that it may be in.
    TooManyRooms = "too_many_rooms", 429;
    /// The connection watches the most users that it may watch.
    TooManySubscriptions = "too_many_subscriptions", 429;
    /// The user or the address has the most connections that it may have.
    TooManyConnections = "too_many_connections", 429;
    /// A queue or table of this node is full.
    Overloaded = "overloaded", 429;
    /// The backplane cannot be reached.
    Unavailable = "unavailable", 503;
    /// The node is stopping.
    Draining = "draining", 503;
    /// This server is not configured for it: it needs a database.
    NotConfigured = "not_configured", 501;
    /// A fault of the server.
    Internal = "internal", 500;
}

macro_rules! token_faults {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// The fault of a refused token.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum TokenFault { $($(#[$doc])* $variant),* }

        impl TokenFault {
            /// Every fault, for tests and documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The fault's name on the wire: the field `reason`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

token_faults! {
    /// It has no `exp`, or `exp` is not a number.
    MissingExp = "missing_exp";
    /// It is not signed with a key that is configured.
    Signature = "signature";
    /// Its algorithm is not configured.
    Algorithm = "algorithm";
    /// It names no user, or in a form that no user id has.
    NoUser = "no_user";
    /// It is for another audience.
    Audience = "audience";
    /// It comes from another issuer.
    Issuer = "issuer";
    /// It has expired.
    Expired = "expired";
    /// It is not valid yet.
    NotYetValid = "not_yet_valid";
    /// It cannot be decoded, or a claim that limits the token is malformed.
    Malformed = "malformed";
}

/// A refused request, as the client receives it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {text}", code.as_str())]
pub struct Refusal {
    /// The code, for programs.
    pub code: Code,
    /// The text, for people. It may change at any time.
    pub text: Cow<'static, str>,
    /// The time to wait before a retry; `None` where waiting does not help.
    pub retry_after: Option<Duration>,
    /// The fault of the token; `None` for every refusal for another cause.
    pub reason: Option<TokenFault>,
    /// The field, parameter or header of the request that is at fault, by its name on the wire.
    pub field: Option<Cow<'static, str>>,
    /// The current message, as JSON: with `conflict` for a change of a message.
    pub message: Option<Box<str>>,
}

impl Refusal {
    /// A refusal with this code and text. For codes where waiting always helps, `retry_after` is
    /// one second.
    #[must_use]
    pub fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = match code {
            Code::Unavailable | Code::Draining | Code::Overloaded | Code::RateLimited => {
                Some(Duration::from_secs(1))
            }
            _ => None,
        };
        Self {
            code,
            text: text.into(),
            retry_after,
            reason: None,
            field: None,
            message: None,
        }
    }

    /// A token is refused. `text` names the claim concerned, and never its value.
    #[must_use]
    pub fn of_token(fault: TokenFault, text: impl Into<Cow<'static, str>>) -> Self {
        let code = match fault {
            TokenFault::Expired => Code::TokenExpired,
            _ => Code::Unauthorized,
        };
        Self {
            reason: Some(fault),
            ..Self::new(code, text)
        }
    }

    /// The request is malformed; `text` says how.
    #[must_use]
    pub fn bad_request(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadRequest, text)
    }

    /// A rate is exceeded. `whose` ends the text, for example ` of this user`.
    #[must_use]
    pub fn rate_limited(exceeded: Exceeded, whose: &str) -> Self {
        Self::new(
            Code::RateLimited,
            format!("too many {}{whose}", exceeded.kind),
        )
        .retry_after(exceeded.wait)
    }

    /// The same refusal, for the fault of this field.
    #[must_use]
    pub fn field(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(name.into());
        self
    }

    /// The same refusal with the current message, as JSON.
    #[must_use]
    pub fn message(mut self, json: impl Into<Box<str>>) -> Self {
        self.message = Some(json.into());
        self
    }

    /// The same refusal with a time to wait before a retry.
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
