//! Tokens of bots in the REST API.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{BotToken, TokenScope};
use crate::features::accounts::BotTokenRequest;

/// The body of `POST /api/v1/tokens`.
#[derive(Deserialize)]
pub(crate) struct TokenRequest {
    /// The token's name, for people.
    name: String,
    /// At least one of `read`, `send`, `publish`, `chats`, `admin`.
    scopes: Vec<String>,
    /// For how many days it is valid: 1 to 3650; 90 by default.
    #[serde(default)]
    expires_in_days: Option<u64>,
}

impl From<TokenRequest> for BotTokenRequest {
    fn from(request: TokenRequest) -> Self {
        Self {
            name: request.name,
            scopes: request.scopes,
            expires_in_days: request.expires_in_days,
        }
    }
}

/// A token of a bot.
#[derive(Serialize)]
pub(crate) struct TokenJson<'a> {
    id: Uuid,
    name: &'a str,
    scopes: Vec<&'static str>,
    created_at: String,
    expires_at: String,
    /// When it was last used, to a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<String>,
    /// The secret, in the reply to its creation only.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

impl<'a> TokenJson<'a> {
    /// A token that was made now.
    pub fn with_secret(token: &'a BotToken, secret: &'a str) -> Self {
        Self {
            token: Some(secret),
            ..Self::from(token)
        }
    }
}

impl<'a> From<&'a BotToken> for TokenJson<'a> {
    fn from(token: &'a BotToken) -> Self {
        Self {
            id: token.id,
            name: &token.name,
            scopes: token.scopes.iter().map(TokenScope::as_str).collect(),
            created_at: token.created_at.to_string(),
            expires_at: token.expires_at.to_string(),
            last_used_at: token.last_used_at.map(|at| at.to_string()),
            token: None,
        }
    }
}

/// The reply to `DELETE /api/v1/tokens/{id}`.
#[derive(Serialize)]
pub(crate) struct ClosedJson {
    ok: bool,
    /// The sockets of the token that were closed, on all nodes.
    sockets_closed: usize,
}

impl ClosedJson {
    /// So many sockets were closed.
    pub fn of(sockets_closed: usize) -> Self {
        Self {
            ok: true,
            sockets_closed,
        }
    }
}
