//! The claims of a token whose signature is valid, and the identity that they describe.
//!
//! A claim that only describes the user never makes a token invalid: in an unexpected form it
//! counts as absent. A claim that limits the token must be well-formed.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::tokens::{Identity, TokenRules};
use crate::domain::policy::RoomScope;
use crate::domain::{Refusal, TokenFault, UserId, Username};

/// Every claim that is used, with a JSON value of any type.
#[derive(Deserialize)]
pub(super) struct Claims {
    #[serde(default, deserialize_with = "any")]
    user_id: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    sub: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    id: Option<Value>,
    #[serde(default, deserialize_with = "any", rename = "userId")]
    camel_case_user_id: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    username: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    name: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    preferred_username: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    role: Option<Value>,
    /// BetterAuth's session tokens contain the user here, and have neither `sub` nor `user_id`.
    #[serde(default, deserialize_with = "any")]
    user: Option<Value>,
    /// `Some(Value::Null)` if the claim is present in a form that is no list.
    #[serde(default, deserialize_with = "present")]
    rooms: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    exp: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    nbf: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    aud: Option<Value>,
    #[serde(default, deserialize_with = "any")]
    iss: Option<Value>,
    /// The session, in this server's own tokens.
    #[serde(default, deserialize_with = "any")]
    sid: Option<Value>,
}

/// A claim. `null` counts as absent, as does a text that is not Unicode (JavaScript cuts a surrogate
/// pair in two when it shortens a name).
fn any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Ok(present(deserializer)?.filter(|value| !value.is_null()))
}

/// A claim, of which every form counts as present.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    let json = Box::<RawValue>::deserialize(deserializer)?;
    Ok(Some(serde_json::from_str(json.get()).unwrap_or_default()))
}

impl Claims {
    /// Checks audience, issuer and times.
    ///
    /// # Errors
    /// `token_expired`, `unauthorized`, naming the claim.
    pub fn check(&self, rules: &TokenRules) -> Result<(), Refusal> {
        let now = jsonwebtoken::get_current_timestamp();
        let fault = if !is_one_of(self.iss.as_ref(), &rules.issuer) {
            (
                TokenFault::Issuer,
                "the token's iss is missing or names another issuer",
            )
        } else if !is_one_of(self.aud.as_ref(), &rules.audience) {
            (
                TokenFault::Audience,
                "the token's aud is missing or names another audience",
            )
        } else if self.expires_at().is_none() {
            (
                TokenFault::MissingExp,
                "the token has no exp, or its exp is not a number of seconds",
            )
        } else if self.expires_at() < Some(now.saturating_sub(rules.leeway)) {
            (TokenFault::Expired, "the token has expired (exp)")
        } else {
            return self.check_start(now.saturating_add(rules.leeway));
        };
        Err(Refusal::of_token(fault.0, fault.1))
    }

    /// Checks `nbf`, which is optional.
    fn check_start(&self, latest: u64) -> Result<(), Refusal> {
        let Some(nbf) = &self.nbf else {
            return Ok(());
        };
        match seconds(nbf) {
            Some(start) if start <= latest => Ok(()),
            Some(_) => Err(Refusal::of_token(
                TokenFault::NotYetValid,
                "the token is not yet valid (nbf)",
            )),
            None => Err(Refusal::of_token(
                TokenFault::Malformed,
                "the token's nbf is not a number of seconds",
            )),
        }
    }

    /// `exp`, in seconds since 1970.
    fn expires_at(&self) -> Option<u64> {
        self.exp.as_ref().and_then(seconds)
    }

    /// The identity. `leeway` is the tolerance for `exp`, in seconds.
    ///
    /// # Errors
    /// `unauthorized`, naming the claim: it names no user, or `rooms` is malformed.
    pub fn identity(self, leeway: u64) -> Result<Identity, Refusal> {
        let user = self.user()?;
        let username = self.username().unwrap_or_else(|| Username::from(&user));
        let exp = self.expires_at().unwrap_or_default();
        Ok(Identity {
            user,
            username,
            roles: roles(self.role),
            scope: scope(self.rooms)?,
            session: self.sid.as_ref().and_then(session),
            expires_at: Some(exp.saturating_add(leeway)),
        })
    }

    fn user_field(&self, field: &str) -> Option<&Value> {
        self.user.as_ref()?.get(field)
    }

    /// The first claim that names a user counts. An empty text, and a value that is neither a text
    /// nor an integer, name nobody.
    fn user(&self) -> Result<UserId, Refusal> {
        let claims = [
            ("user_id", self.user_id.as_ref()),
            ("sub", self.sub.as_ref()),
            ("user.id", self.user_field("id")),
            ("id", self.id.as_ref()),
            ("userId", self.camel_case_user_id.as_ref()),
        ];
        let mut unusable = None;
        for (claim, value) in claims {
            let Some(value) = value else { continue };
            let Some(text) = text_or_integer(value) else {
                unusable = unusable.or(Some(claim));
                continue;
            };
            return UserId::parse(claim, &text)
                .map_err(|refusal| no_user(format!("the token's {}", refusal.text)));
        }
        Err(match unusable {
            Some(claim) => no_user(format!(
                "the token names no user: its {claim} is neither a text nor an integer"
            )),
            None => no_user("the token names no user: it has neither user_id nor sub".to_owned()),
        })
    }

    /// The first name that a user may have.
    fn username(&self) -> Option<Username> {
        let claims = [
            self.username.as_ref(),
            self.name.as_ref(),
            self.preferred_username.as_ref(),
            self.user_field("name"),
        ];
        let mut names = claims.into_iter().flatten().filter_map(Value::as_str);
        names.find_map(|name| Username::parse("username", name).ok())
    }
}

fn no_user(text: String) -> Refusal {
    Refusal::of_token(TokenFault::NoUser, text)
}

/// The text, or the decimal text of an integer. `None` for an empty text and every other value.
fn text_or_integer(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

fn session(sid: &Value) -> Option<Uuid> {
    Uuid::try_parse(sid.as_str()?).ok()
}

/// One role, or a list of them. Other values count as no role.
fn roles(role: Option<Value>) -> Vec<String> {
    let values = match role {
        Some(Value::Array(values)) => values,
        Some(value) => vec![value],
        None => Vec::new(),
    };
    let text = |value| match value {
        Value::String(text) => Some(text),
        _ => None,
    };
    values.into_iter().filter_map(text).collect()
}

/// A `rooms` claim that is not a list of texts makes the token invalid, because it was meant as a
/// limit.
fn scope(rooms: Option<Value>) -> Result<RoomScope, Refusal> {
    let Some(rooms) = rooms else {
        return Ok(RoomScope::Everywhere);
    };
    match serde_json::from_value::<Vec<String>>(rooms) {
        Ok(patterns) => Ok(RoomScope::only(patterns)),
        Err(_) => Err(Refusal::of_token(
            TokenFault::Malformed,
            "the token's rooms must be a list of texts",
        )),
    }
}

/// A time in whole seconds since 1970. `None` if it is not a number, or negative.
fn seconds(time: &Value) -> Option<u64> {
    if let Some(seconds) = time.as_u64() {
        return Some(seconds);
    }
    let seconds = time.as_f64()?;
    // The conversion cuts off the fraction, and saturates.
    (seconds >= 0.0).then_some(seconds as u64)
}

/// Whether the claim, a text or a list of texts, contains one of these. If there are none, the claim
/// is not checked.
fn is_one_of(claim: Option<&Value>, accepted: &[String]) -> bool {
    if accepted.is_empty() {
        return true;
    }
    let is_accepted = |value: &Value| accepted.iter().any(|text| value == text);
    match claim {
        Some(Value::Array(values)) => values.iter().any(is_accepted),
        Some(value) => is_accepted(value),
        None => false,
    }
}
