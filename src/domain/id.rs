//! Identifiers as newtypes: a room id cannot be passed where a user id is meant, and none of them
//! can be malformed.

use std::fmt;
use std::sync::Arc;

use super::refusal::{Code, Refusal};

/// The longest room id, user id or user name, in bytes of UTF-8.
const MAX_NAME_BYTES: usize = 128;
/// The longest `client_msg_id`, in bytes of UTF-8.
const MAX_CLIENT_MSG_ID_BYTES: usize = 64;

fn check(
    field: &'static str,
    value: &str,
    max: usize,
    forbid_control: bool,
) -> Result<(), Refusal> {
    if value.is_empty() {
        let text = format!("{field} must not be empty");
        return Err(Refusal::bad_request(text).field(field));
    }
    if value.len() > max {
        let text = format!("{field} must be at most {max} bytes");
        return Err(Refusal::new(Code::TooLarge, text).field(field));
    }
    if forbid_control && value.chars().any(char::is_control) {
        let text = format!("{field} must not contain control characters");
        return Err(Refusal::bad_request(text).field(field));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $max:expr, $forbid_control:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks `value`. `field` is the name of the field that the client sent, for the
            /// refusal's text.
            ///
            /// # Errors
            /// `bad_request` when empty or malformed, `too_large` when too long.
            pub fn parse(field: &'static str, value: &str) -> Result<Self, Refusal> {
                check(field, value, $max, $forbid_control)?;
                Ok(Self(value.into()))
            }

            /// Wraps a value that was checked earlier, such as one read back from the backplane.
            #[must_use]
            pub fn trusted(value: &str) -> Self {
                Self(value.into())
            }

            /// The identifier's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name!(
    /// A room's name: 1 to 128 bytes, no control characters.
    RoomId, MAX_NAME_BYTES, true
);
name!(
    /// A user's id: 1 to 128 bytes, no control characters.
    UserId, MAX_NAME_BYTES, true
);
name!(
    /// A user's display name: 1 to 128 bytes.
    Username, MAX_NAME_BYTES, false
);
name!(
    /// The sender's own id of a message, which makes a send safe to repeat: 1 to 64 bytes.
    ClientMsgId, MAX_CLIENT_MSG_ID_BYTES, false
);
name!(
    /// Names one period of a room's numbering: a short opaque string. A new epoch begins when the
    /// log was lost.
    Epoch, MAX_NAME_BYTES, true
);
name!(
    /// A connection (a Socket.IO session or a plain WebSocket), unique in the cluster and never
    /// reused.
    ConnId, MAX_NAME_BYTES, true
);

impl UserId {
    /// The sender of entries that no user sends: no user has this id.
    #[must_use]
    pub fn nobody() -> Self {
        Self::trusted("")
    }
}

impl From<&UserId> for Username {
    /// The default name of a user is the user's id.
    fn from(user: &UserId) -> Self {
        Self(user.0.clone())
    }
}

impl Epoch {
    /// A new epoch, never used before: 12 hexadecimal digits of a random UUID.
    #[must_use]
    pub fn fresh() -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self(id[..12].into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_maximum_length_in_bytes_and_no_control_characters() {
        assert!(RoomId::parse("room_id", "lobby").is_ok());
        assert_eq!(
            RoomId::parse("room_id", "").unwrap_err().code,
            Code::BadRequest
        );
        assert_eq!(
            RoomId::parse("room_id", "a\u{7}b").unwrap_err().code,
            Code::BadRequest
        );
        assert!(RoomId::parse("room_id", &"x".repeat(128)).is_ok());
        assert_eq!(
            RoomId::parse("room_id", &"x".repeat(129)).unwrap_err().code,
            Code::TooLarge
        );
        // Bytes count, not characters.
        assert_eq!(
            RoomId::parse("room_id", &"é".repeat(65)).unwrap_err().code,
            Code::TooLarge
        );
    }
}
