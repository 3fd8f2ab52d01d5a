//! `GET /ws`: admission of plain WebSocket clients, and the parameters of their handshake.

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engineioxide::first_subprotocol;
use http::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::super::{HttpState, SharedState, handshake_origin};
use crate::auth::{Credentials, Identity};
use crate::delivery::ReplayFrom;
use crate::domain::{Code, Epoch, Limits, Refusal, UserId, Username};
use crate::gateway::access::bearer;
use crate::gateway::websocket::ConnectParams;
use crate::gateway::wire::MAX_SEQ;

/// The subprotocol in front of a token.
const BEARER: &str = "bearer";

/// `GET /ws`: opens a plain WebSocket. Everything that can be refused is refused before the
/// handshake is answered.
pub(in crate::gateway::http) async fn open(
    State(state): SharedState,
    request: Request,
) -> Result<Response, Refusal> {
    state.check_ready()?;
    let (mut parts, _) = request.into_parts();
    let origin = handshake_origin(&parts.extensions);
    let slot = state.admission.admit_identified(origin.client)?;
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let authenticator = &state.access.authenticator;
    let token = token(&parts.headers, &query);
    let identity = match token {
        Some(token) if authenticator.uses_token(token) => identify_by_token(&state, token).await?,
        None if authenticator.needs_token() => {
            let text = "Authorization header required";
            return Err(Refusal::new(Code::Unauthorized, text));
        }
        _ => identify_openly(&state, &query).await?,
    };
    let params = query.connect_params()?;
    let upgrade = upgrade(&mut parts).await?;
    let subprotocol = choose_subprotocol(&parts.headers);
    let admitted = state
        .plain_websockets
        .open(identity, params, &origin, slot)
        .await?;
    Ok(admitted.begin(upgrade, subprotocol))
}

async fn upgrade(parts: &mut Parts) -> Result<WebSocketUpgrade, Refusal> {
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &())
        .await
        .map_err(|_| Refusal::bad_request("this resource is for WebSockets, of version 13"))?;
    let key = parts
        .headers
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| STANDARD.decode(key.as_bytes()).ok());
    if key.is_none_or(|key| key.len() != 16) {
        return Err(Refusal::bad_request(
            "Sec-WebSocket-Key must be 16 bytes in base64",
        ));
    }
    Ok(upgrade)
}

/// `bearer`, if the client offers it, because a token follows it, else the first subprotocol that it
/// offers: a browser fails the connection if none of them is chosen.
fn choose_subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut offered = offered_subprotocols(headers);
    if offered.any(|name| name == BEARER) {
        return Some(HeaderValue::from_static(BEARER));
    }
    first_subprotocol(headers)
}

/// In open mode the query states the identity.
async fn identify_openly(state: &HttpState, query: &Query) -> Result<Identity, Refusal> {
    let Some(user) = non_empty(&query.user_id) else {
        return Err(Refusal::new(Code::Unauthorized, "user_id is missing"));
    };
    let user = UserId::parse("user_id", user)?;
    let username = match non_empty(&query.username) {
        Some(name) => Some(Username::parse("username", name)?),
        None => None,
    };
    let credentials = Credentials {
        user: Some(user),
        username,
        token: None,
    };
    state.access.authenticator.identify(credentials, None).await
}

/// The token of the handshake.
fn token<'a>(headers: &'a HeaderMap, query: &'a Query) -> Option<&'a str> {
    bearer(headers)
        .or_else(|| subprotocol_token(headers))
        .or_else(|| non_empty(&query.token))
}

async fn identify_by_token(state: &HttpState, token: &str) -> Result<Identity, Refusal> {
    let credentials = Credentials {
        token: Some(token.to_owned()),
        ..Credentials::default()
    };
    match state.access.authenticator.identify(credentials, None).await {
        Err(refusal) if matches!(refusal.code, Code::Unauthorized | Code::TokenExpired) => {
            Err(Refusal {
                text: "Invalid token".into(),
                ..refusal
            })
        }
        identified => identified,
    }
}

/// The token of `Sec-WebSocket-Protocol: bearer, <token>`. This is the only header of the handshake
/// that a web page can set.
fn subprotocol_token(headers: &HeaderMap) -> Option<&str> {
    let mut names = offered_subprotocols(headers);
    names.find(|name| *name == BEARER)?;
    names.next().filter(|token| !token.is_empty())
}

fn offered_subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',').map(str::trim))
}

fn non_empty(parameter: &Option<String>) -> Option<&str> {
    parameter.as_deref().filter(|value| !value.is_empty())
}

/// The query of the handshake. The first value of a repeated parameter counts.
#[derive(Default)]
struct Query {
    token: Option<String>,
    user_id: Option<String>,
    username: Option<String>,
    since_seq: Option<String>,
    epoch: Option<String>,
    replay_limit: Option<String>,
    chat: Option<String>,
}

impl Query {
    fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (key, value) in url::form_urlencoded::parse(text.as_bytes()) {
            let parameter = match &*key {
                "token" => &mut query.token,
                "user_id" => &mut query.user_id,
                "username" => &mut query.username,
                "since_seq" => &mut query.since_seq,
                "epoch" => &mut query.epoch,
                "replay_limit" => &mut query.replay_limit,
                "chat" => &mut query.chat,
                _ => continue,
            };
            parameter.get_or_insert(value.into_owned());
        }
        query
    }

    fn connect_params(&self) -> Result<ConnectParams, Refusal> {
        Ok(ConnectParams {
            resume: self.resume()?,
            chat: self.chat()?,
        })
    }

    /// The position to continue from. An empty `since_seq` is for a client that has seen nothing
    /// yet, and asks for the current position.
    fn resume(&self) -> Result<Option<ReplayFrom>, Refusal> {
        let since = match non_empty(&self.since_seq) {
            Some(text) => Some(parse_number("since_seq", text, 0, MAX_SEQ)?),
            None => None,
        };
        let epoch = match non_empty(&self.epoch) {
            Some(text) => Some(Epoch::parse("epoch", text)?),
            None => None,
        };
        let limit = match non_empty(&self.replay_limit) {
            Some(text) => Some(parse_number("replay_limit", text, 1, Limits::REPLAY)?),
            None => None,
        };
        match since {
            Some(seq) => Ok(Some(ReplayFrom::Since { seq, epoch, limit })),
            None if self.since_seq.is_some() => Ok(Some(ReplayFrom::Live)),
            None => Ok(None),
        }
    }

    fn chat(&self) -> Result<bool, Refusal> {
        match self.chat.as_deref() {
            None | Some("" | "0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(Refusal::bad_request("chat must be 0 or 1")),
        }
    }
}

fn parse_number(name: &str, text: &str, min: u64, max: u64) -> Result<u64, Refusal> {
    match text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(Refusal::bad_request(format!(
            "{name} must be a whole number from {min} to {max}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_accepted_as_a_subprotocol() {
        let token = |lines: &[&'static str]| {
            let lines = lines
                .iter()
                .map(|line| (SEC_WEBSOCKET_PROTOCOL, http::HeaderValue::from_static(line)));
            subprotocol_token(&lines.collect()).map(str::to_owned)
        };
        assert_eq!(token(&["bearer, a.b.c"]).as_deref(), Some("a.b.c"));
        assert_eq!(
            token(&["chat", "bearer,a.b.c , more"]).as_deref(),
            Some("a.b.c")
        );
        for none in ["", "bearer", "a.b.c", "bearer,", "Bearer, a.b.c"] {
            assert_eq!(token(&[none]), None, "{none}");
        }
    }

    #[test]
    fn since_seq_requests_a_replay_and_an_empty_one_the_position() {
        let params = |query: &str| {
            Query::parse(query)
                .connect_params()
                .map(|params| (params.resume, params.chat))
        };
        let since = |seq, epoch: Option<&str>, limit| {
            Some(ReplayFrom::Since {
                seq,
                epoch: epoch.map(Epoch::trusted),
                limit,
            })
        };
        assert_eq!(params("").unwrap(), (None, false));
        assert_eq!(
            params("since_seq=&epoch=&replay_limit=&chat=").unwrap(),
            (Some(ReplayFrom::Live), false)
        );
        assert_eq!(
            params("since_seq=7&epoch=e%201&chat=1").unwrap(),
            (since(7, Some("e 1"), None), true)
        );
        assert_eq!(
            params("since_seq=7&replay_limit=10000").unwrap(),
            (since(7, None, Some(10_000)), false)
        );
        assert_eq!(params("replay_limit=7").unwrap(), (None, false));
        assert_eq!(
            params("since_seq=0&since_seq=9").unwrap(),
            (since(0, None, None), false)
        );
        for bad in [
            "since_seq=-1",
            "since_seq=x",
            "since_seq=9007199254740992",
            "since_seq=1&replay_limit=0",
            "since_seq=1&replay_limit=10001",
            "replay_limit=x",
            "chat=yes",
            "since_seq=1&epoch=%00",
        ] {
            assert_eq!(params(bad).unwrap_err().code, Code::BadRequest, "{bad}");
        }
    }
}
