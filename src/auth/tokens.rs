//! JSON Web Tokens: who signed them, for whom, until when. How they may be signed is the configuration's to say, never theirs.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::jwks::Jwks;
use super::keys::{Algorithm, KeyError, KeySet, KeySource, Lookup};
use crate::domain::policy::RoomScope;
use crate::domain::{Code, Refusal, UserId, Username};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8192;

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The user's name.
    pub username: Username,
    /// What the user may do beyond chatting.
    pub role: Option<String>,
    /// In which rooms the identity counts.
    pub reach: RoomScope,
    /// When the identity ends, in seconds since 1970 (`exp` and the leeway). `None` in open mode.
    pub expires_at: Option<u64>,
}

/// What is asked of a token beside its signature.
#[derive(Debug, Clone, Default)]
pub struct TokenRules {
    /// By which it may be signed. Empty: HS256.
    pub algorithms: Vec<Algorithm>,
    /// One of these must be in `aud`; empty: not looked at.
    pub audience: Vec<String>,
    /// One of these must be `iss`; empty: not looked at.
    pub issuer: Vec<String>,
    /// Granted on `exp` and `nbf`, in seconds.
    pub leeway: u64,
}

#[derive(Deserialize)]
struct Claims {
    user_id: Option<String>,
    sub: Option<String>,
    username: Option<String>,
    name: Option<String>,
    preferred_username: Option<String>,
    role: Option<String>,
    /// BetterAuth's session tokens have the user here, and neither `sub` nor `user_id`.
    user: Option<Value>,
    /// A claim that isn't a list of texts, `null` among them, is a broken token: it was meant to limit something.
    #[serde(default)]
    rooms: Rooms,
    exp: serde_json::Number,
}

#[derive(Default)]
struct Rooms(Option<Vec<String>>);

impl<'de> Deserialize<'de> for Rooms {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(|rooms| Self(Some(rooms)))
    }
}

/// What a token's header says of it, as far as anyone asks.
struct Head {
    algorithm: Algorithm,
    kid: Option<String>,
}

enum Fault {
    /// It names a key that isn't known here.
    UnknownKey,
    Refused(Refusal),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

enum Keys {
    Fixed(Arc<KeySet>),
    Fetched(Arc<Jwks>),
}

/// Checks tokens.
pub struct Verifier {
    keys: Keys,
    /// One for each algorithm that is configured.
    validations: Vec<(Algorithm, Validation)>,
    leeway: u64,
}

fn unauthorized(text: &'static str) -> Refusal {
    Refusal::new(Code::Unauthorized, text)
}

impl Verifier {
    /// By HS256 with that secret. `leeway` (seconds) is granted on `exp` and `nbf`.
    ///
    /// # Errors
    /// [`KeyError::WeakSecret`].
    pub fn hs256(secret: &str, leeway: u64) -> Result<Self, KeyError> {
        Self::new(
            KeySource::Secrets(vec![secret.to_owned()]),
            TokenRules {
                leeway,
                ..TokenRules::default()
            },
        )
    }

    /// By those keys. A set to be fetched is fetched with the first token, or by [`Verifier::warm_up`].
    ///
    /// # Errors
    /// When the keys are too weak, or don't go with the algorithms.
    pub fn new(keys: KeySource, rules: TokenRules) -> Result<Self, KeyError> {
        let algorithms = if rules.algorithms.is_empty() {
            vec![Algorithm::Hs256]
        } else {
            rules.algorithms.clone()
        };
        let secret = matches!(keys, KeySource::Secrets(_));
        if algorithms
            .iter()
            .any(|algorithm| (*algorithm == Algorithm::Hs256) != secret)
        {
            return Err(KeyError::WrongAlgorithm);
        }
        let keys = match keys {
            KeySource::Secrets(secrets) => Keys::Fixed(Arc::new(KeySet::secrets(&secrets)?)),
            KeySource::PublicKey(pem) => match algorithms.as_slice() {
                [algorithm] => Keys::Fixed(Arc::new(KeySet::public_key(&pem, *algorithm)?)),
                _ => return Err(KeyError::WrongAlgorithm),
            },
            KeySource::Set(json) => {
                Keys::Fixed(Arc::new(KeySet::jwks(json.as_bytes(), &algorithms)?))
            }
            KeySource::Url(uri) => Keys::Fetched(Jwks::at(uri, algorithms.clone())?),
        };
        let validation = |algorithm: &Algorithm| (*algorithm, validation(*algorithm, &rules));
        Ok(Self {
            keys,
            validations: algorithms.iter().map(validation).collect(),
            leeway: rules.leeway,
        })
    }

    /// Fetches what is to be fetched, so that the first token needn't wait for it.
    pub async fn warm_up(&self) {
        if let Keys::Fetched(jwks) = &self.keys {
            // What is wrong has been logged; the first token tries again.
            let _ = jwks.newer().await;
        }
    }

    /// Who the token speaks for. Where it names a key that a newer set may have, that is fetched.
    ///
    /// # Errors
    /// `token_expired`; `unavailable` when its key can't be looked up now; `unauthorized` for everything else that is wrong
    /// with it. The refusal never quotes the token.
    pub async fn verify(&self, token: &str) -> Result<Identity, Refusal> {
        let checked = match &self.keys {
            Keys::Fixed(keys) => self.check(token, keys),
            Keys::Fetched(jwks) => {
                jwks.keep_fresh();
                match self.check(token, &jwks.current()) {
                    Err(Fault::UnknownKey) => self.check(token, &*jwks.newer().await?),
                    checked => checked,
                }
            }
        };
        checked.map_err(|fault| match fault {
            Fault::UnknownKey => unauthorized("the token's key is not known"),
            Fault::Refused(refusal) => refusal,
        })
    }

    fn check(&self, token: &str, keys: &KeySet) -> Result<Identity, Fault> {
        let head = self.read_head(token)?;
        let keys = match keys.find(head.algorithm, head.kid.as_deref()) {
            Lookup::Keys(keys) => keys,
            Lookup::Unknown => return Err(Fault::UnknownKey),
            Lookup::Unfit => return Err(unauthorized("the token is not valid").into()),
        };
        let mut refusal = unauthorized("the token is not valid");
        for key in keys {
            let Some((_, validation)) = self
                .validations
                .iter()
                .find(|(own, _)| *own == key.algorithm)
            else {
                continue;
            };
            match jsonwebtoken::decode::<Claims>(token, &key.key, validation) {
                Ok(data) => return Ok(self.identity(data.claims)?),
                Err(error) => match error.kind() {
                    ErrorKind::ExpiredSignature => {
                        refusal = Refusal::new(Code::TokenExpired, "the token has expired")
                    }
                    ErrorKind::ImmatureSignature => {
                        refusal = unauthorized("the token is not yet valid")
                    }
                    _ => {}
                },
            }
        }
        Err(refusal.into())
    }

    /// Reads the header of a token that may be anybody's.
    fn read_head(&self, token: &str) -> Result<Head, Refusal> {
        let wrong = || unauthorized("the token is not valid");
        if token.len() > MAX_TOKEN_BYTES {
            return Err(unauthorized("the token is too long"));
        }
        let head = token.split('.').next().unwrap_or_default();
        let head = URL_SAFE_NO_PAD.decode(head).map_err(|_| wrong())?;
        let head: Map<String, Value> = serde_json::from_slice(&head).map_err(|_| wrong())?;
        // It says that it means something else to who doesn't know an extension; and we know none.
        if head.contains_key("crit") {
            return Err(wrong());
        }
        let algorithm = head
            .get("alg")
            .and_then(Value::as_str)
            .and_then(Algorithm::named)
            .ok_or_else(wrong)?;
        if self.validations.iter().all(|(own, _)| *own != algorithm) {
            return Err(wrong());
        }
        let kid = match head.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(wrong()),
        };
        Ok(Head { algorithm, kid })
    }

    fn identity(&self, claims: Claims) -> Result<Identity, Refusal> {
        let session = |field: &str| Some(claims.user.as_ref()?.get(field)?.as_str()?.to_owned());
        let user = claims.user_id.or(claims.sub).or_else(|| session("id"));
        let user = user.ok_or_else(|| unauthorized("the token names no user"))?;
        let user = UserId::parse("user_id", &user)
            .map_err(|_| unauthorized("the token's user_id is not valid"))?;
        let name = claims
            .username
            .or(claims.name)
            .or(claims.preferred_username)
            .or_else(|| session("name"));
        let username = match name {
            Some(name) => Username::parse("username", &name)
                .map_err(|_| unauthorized("the token's username is not valid"))?,
            None => Username::from(&user),
        };
        // A fraction of a second is cut off; the library has refused what is negative or no number.
        let exp = claims
            .exp
            .as_u64()
            .or_else(|| claims.exp.as_f64().map(|exp| exp as u64))
            .unwrap_or_default();
        let reach = claims
            .rooms
            .0
            .map_or(RoomScope::Everywhere, RoomScope::only);
        Ok(Identity {
            user,
            username,
            role: claims.role,
            reach,
            expires_at: Some(exp.saturating_add(self.leeway)),
        })
    }
}

fn validation(algorithm: Algorithm, rules: &TokenRules) -> Validation {
    let mut validation = Validation::new(algorithm.of_library());
    let mut required = vec!["exp"];
    validation.leeway = rules.leeway;
    validation.validate_nbf = true;
    validation.validate_aud = !rules.audience.is_empty();
    if !rules.audience.is_empty() {
        validation.set_audience(&rules.audience);
        required.push("aud");
    }
    if !rules.issuer.is_empty() {
        validation.set_issuer(&rules.issuer);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// What a token says that is made here: for development and tests.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewToken {
    /// The user's id.
    pub sub: String,
    /// The user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// `service` or `admin` may use every REST route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The rooms that it is limited to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<String>>,
    /// For whom it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// Who it is from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
}

impl NewToken {
    /// For that user, from now on.
    #[must_use]
    pub fn lasting(user: &str, ttl: Duration) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            sub: user.to_owned(),
            exp: now.saturating_add(ttl).as_secs(),
            ..Self::default()
        }
    }

    /// By HS256.
    ///
    /// # Errors
    /// When the secret can't sign.
    pub fn sign(&self, secret: &str) -> Result<String, jsonwebtoken::errors::Error> {
        let header = Header::new(Algorithm::Hs256.of_library());
        jsonwebtoken::encode(&header, self, &EncodingKey::from_secret(secret.as_bytes()))
    }
}

/// Makes an HS256 token of the usual claims.
///
/// # Errors
/// When the secret can't sign.
pub fn mint(
    secret: &str,
    user: &str,
    name: Option<&str>,
    role: Option<&str>,
    ttl: Duration,
) -> Result<String, jsonwebtoken::errors::Error> {
    let (username, role) = (name.map(ToOwned::to_owned), role.map(ToOwned::to_owned));
    NewToken {
        username,
        role,
        ..NewToken::lasting(user, ttl)
    }
    .sign(secret)
}

#[cfg(test)]
mod tests;
