//! The token that a client sends with CONNECT.

use std::convert::Infallible;
use std::sync::Arc;

use socketioxide::adapter::LocalAdapter;
use socketioxide::handler::FromConnectParts;
use socketioxide::socket::Socket;
use socketioxide_core::Value;

use crate::gateway::wire::Fields;

/// The field `token` in the `auth` payload of CONNECT.
pub(super) enum AuthToken {
    /// No payload, a payload that is not an object, or no token in it.
    Missing,
    Given(String),
    /// The token is not a string.
    Malformed,
}

impl FromConnectParts<LocalAdapter> for AuthToken {
    type Error = Infallible;

    fn from_connect_parts(
        _: &Arc<Socket<LocalAdapter>>,
        auth: &Option<Value>,
    ) -> Result<Self, Infallible> {
        let Some(json) = auth.as_ref().and_then(Value::as_str) else {
            return Ok(Self::Missing);
        };
        let Ok(fields) = Fields::parse(json, usize::MAX, "auth payload") else {
            return Ok(Self::Missing);
        };
        Ok(match fields.text("token") {
            Ok(None) => Self::Missing,
            Ok(Some(token)) => Self::Given(token),
            Err(_) => Self::Malformed,
        })
    }
}
