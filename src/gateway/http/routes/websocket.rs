//! `GET /ws`: who is let in as a plain client, and what the handshake asks for.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL};

use super::super::HttpState;
use super::super::handlers::answer;
use crate::auth::{Claimed, Identity};
use crate::delivery::ReplayFrom;
use crate::domain::{Code, Epoch, Refusal, UserId, Username};
use crate::gateway::access::bearer;
use crate::gateway::websocket::ConnectParams;
use crate::gateway::wire::MAX_SEQ;
use crate::server::Client;

pub(in crate::gateway::http) async fn admit(
    State(doors): State<Arc<HttpState>>,
    request: Request,
) -> Response {
    answer(enter(&doors, request).await)
}

/// Everything that can be refused is, before the handshake is answered.
async fn enter(doors: &HttpState, request: Request) -> Result<Response, Refusal> {
    if !doors.chat.is_ready() {
        return Err(Refusal::new(
            Code::Unavailable,
            "the backplane can't be reached",
        ));
    }
    let (mut parts, _) = request.into_parts();
    let client = parts.extensions.get::<Client>().copied();
    let place = doors.admission.admit(client)?;
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let identity = identify(doors, &parts.headers, &query).await?;
    let params = query.params()?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = upgrade
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
    Ok(doors
        .plain
        .open(identity, params, client, place)
        .await?
        .begin(upgrade))
}

/// Who it is, by its token, or by its own word where that is enough.
async fn identify(
    doors: &HttpState,
    headers: &HeaderMap,
    query: &Query,
) -> Result<Identity, Refusal> {
    let auth = &doors.access.auth;
    if !auth.needs_token() {
        let user = query.user_id.as_deref().filter(|user| !user.is_empty());
        let user = user.ok_or_else(|| Refusal::new(Code::Unauthorized, "user_id is missing"))?;
        let user = Some(UserId::parse("user_id", user)?);
        let username = query.username.as_deref().filter(|name| !name.is_empty());
        let username = username
            .map(|name| Username::parse("username", name))
            .transpose()?;
        return auth
            .identify(
                Claimed {
                    user,
                    username,
                    token: None,
                },
                None,
            )
            .await;
    }
    let token = bearer(headers)
        .or_else(|| subprotocol(headers))
        .or(query.token.as_deref().filter(|token| !token.is_empty()));
    let token =
        token.ok_or_else(|| Refusal::new(Code::Unauthorized, "Authorization header required"))?;
    let claimed = Claimed {
        token: Some(token.to_owned()),
        ..Claimed::default()
    };
    auth.identify(claimed, None)
        .await
        .map_err(|refusal| match refusal.code {
            Code::Unauthorized | Code::TokenExpired => Refusal {
                text: "Invalid token".into(),
                ..refusal
            },
            _ => refusal,
        })
}

/// The token of `Sec-WebSocket-Protocol: bearer, <token>`: all that a page can set of its handshake's headers.
fn subprotocol(headers: &HeaderMap) -> Option<&str> {
    let lines = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let mut names = lines.flat_map(|line| line.split(',').map(str::trim));
    names.find(|name| *name == "bearer")?;
    names.next().filter(|token| !token.is_empty())
}

/// What the handshake's query says; of what is there twice, the first.
#[derive(Default)]
struct Query {
    token: Option<String>,
    user_id: Option<String>,
    username: Option<String>,
    since_seq: Option<String>,
    epoch: Option<String>,
    chat: Option<String>,
}

impl Query {
    fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (key, value) in url::form_urlencoded::parse(text.as_bytes()) {
            let field = match &*key {
                "token" => &mut query.token,
                "user_id" => &mut query.user_id,
                "username" => &mut query.username,
                "since_seq" => &mut query.since_seq,
                "epoch" => &mut query.epoch,
                "chat" => &mut query.chat,
                _ => continue,
            };
            field.get_or_insert(value.into_owned());
        }
        query
    }

    fn params(&self) -> Result<ConnectParams, Refusal> {
        let given = |field: &'_ Option<String>| field.clone().filter(|value| !value.is_empty());
        let since = given(&self.since_seq).map(|seq| match seq.parse() {
            Ok(seq) if seq <= MAX_SEQ => Ok(seq),
            _ => Err(Refusal::bad_request(format!(
                "since_seq must be a whole number from 0 to {MAX_SEQ}"
            ))),
        });
        let epoch = given(&self.epoch)
            .map(|epoch| Epoch::parse("epoch", &epoch))
            .transpose()?;
        let resume = match since.transpose()? {
            Some(seq) => Some(ReplayFrom::Since { seq, epoch }),
            // Who has seen nothing yet asks where it stands.
            None => self.since_seq.is_some().then_some(ReplayFrom::Live),
        };
        let chat = match self.chat.as_deref() {
            None | Some("" | "0" | "false") => false,
            Some("1" | "true") => true,
            Some(_) => return Err(Refusal::bad_request("chat must be 0 or 1")),
        };
        Ok(ConnectParams { resume, chat })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_come_as_a_subprotocol() {
        let token = |lines: &[&'static str]| {
            let lines = lines
                .iter()
                .map(|line| (SEC_WEBSOCKET_PROTOCOL, http::HeaderValue::from_static(line)));
            subprotocol(&lines.collect()).map(str::to_owned)
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
    fn a_position_is_asked_for_by_naming_it() {
        let params = |query: &str| {
            Query::parse(query)
                .params()
                .map(|params| (params.resume, params.chat))
        };
        let since = |seq, epoch: Option<&str>| {
            Some(ReplayFrom::Since {
                seq,
                epoch: epoch.map(Epoch::trusted),
            })
        };
        assert_eq!(params("").unwrap(), (None, false));
        assert_eq!(
            params("since_seq=&epoch=&chat=").unwrap(),
            (Some(ReplayFrom::Live), false)
        );
        assert_eq!(
            params("since_seq=7&epoch=e%201&chat=1").unwrap(),
            (since(7, Some("e 1")), true)
        );
        assert_eq!(
            params("since_seq=0&since_seq=9").unwrap(),
            (since(0, None), false)
        );
        for bad in [
            "since_seq=-1",
            "since_seq=x",
            "since_seq=9007199254740992",
            "chat=yes",
            "since_seq=1&epoch=%00",
        ] {
            assert_eq!(params(bad).unwrap_err().code, Code::BadRequest, "{bad}");
        }
    }
}
