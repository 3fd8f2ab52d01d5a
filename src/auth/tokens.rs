//! JSON Web Tokens: verifies signature, audience, issuer and times, and reads the identity. The
//! accepted algorithms and keys come from the configuration only, never from a token.

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

/// The longest token that is parsed, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8192;

/// The identity that a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The user's name.
    pub username: Username,
    /// The role, which can give rights beyond those of a user.
    pub role: Option<String>,
    /// The rooms that the identity is valid for.
    pub scope: RoomScope,
    /// When the identity expires, in seconds since 1970 (`exp` plus the leeway). `None` in open
    /// mode.
    pub expires_at: Option<u64>,
}

/// The rules for tokens, besides a valid signature.
#[derive(Debug, Clone, Default)]
pub struct TokenRules {
    /// The accepted algorithms. Empty: HS256.
    pub algorithms: Vec<Algorithm>,
    /// `aud` must contain one of these. Empty: `aud` is not checked.
    pub audience: Vec<String>,
    /// `iss` must be one of these. Empty: `iss` is not checked.
    pub issuer: Vec<String>,
    /// The tolerance for `exp` and `nbf`, in seconds.
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
    /// BetterAuth's session tokens contain the user here, and have neither `sub` nor `user_id`.
    user: Option<Value>,
    /// A `rooms` claim that is not a list of strings makes the token invalid, `null` included,
    /// because it was meant as a limit.
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

/// The fields of a token's header that are used.
struct TokenHeader {
    algorithm: Algorithm,
    kid: Option<String>,
}

/// Why a token is not accepted.
enum Rejection {
    /// The key set does not contain its key. A newer set may.
    UnknownKey,
    Refused(Refusal),
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

enum Keys {
    Fixed(Arc<KeySet>),
    Fetched(Arc<Jwks>),
}

/// Verifies tokens.
pub struct Verifier {
    keys: Keys,
    /// One for each configured algorithm.
    validations: Vec<(Algorithm, Validation)>,
    leeway: u64,
}

fn unauthorized(text: &'static str) -> Refusal {
    Refusal::new(Code::Unauthorized, text)
}

fn invalid_token() -> Refusal {
    unauthorized("the token is not valid")
}

impl Verifier {
    /// Verifies by HS256 with this secret. `leeway` is the tolerance for `exp` and `nbf`, in
    /// seconds.
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

    /// Verifies with these keys. A set from a URL is fetched for the first token, or by
    /// [`Verifier::warm_up`].
    ///
    /// # Errors
    /// If the keys are too weak, malformed, or not usable with the algorithms.
    pub fn new(keys: KeySource, rules: TokenRules) -> Result<Self, KeyError> {
        let algorithms = if rules.algorithms.is_empty() {
            vec![Algorithm::Hs256]
        } else {
            rules.algorithms.clone()
        };
        let needs_hs256 = matches!(keys, KeySource::Secrets(_));
        for algorithm in &algorithms {
            if (*algorithm == Algorithm::Hs256) != needs_hs256 {
                return Err(KeyError::WrongAlgorithm);
            }
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
            KeySource::Url(uri) => Keys::Fetched(Jwks::from_url(uri, algorithms.clone())?),
        };
        let validation = |algorithm: &Algorithm| (*algorithm, validation(*algorithm, &rules));
        Ok(Self {
            keys,
            validations: algorithms.iter().map(validation).collect(),
            leeway: rules.leeway,
        })
    }

    /// Fetches the key set if it comes from a URL, so that the first token need not wait for it.
    pub async fn warm_up(&self) {
        if let Keys::Fetched(jwks) = &self.keys {
            // A failure has been logged; the first token causes another fetch.
            let _ = jwks.fetch_newer().await;
        }
    }

    /// Verifies the token and returns its identity. If it names a key that a newer set may contain,
    /// that set is fetched.
    ///
    /// # Errors
    /// `token_expired`; `unavailable` if its key cannot be fetched now; `unauthorized` for every
    /// other defect. The refusal never quotes the token.
    pub async fn verify(&self, token: &str) -> Result<Identity, Refusal> {
        let verified = match &self.keys {
            Keys::Fixed(keys) => self.verify_with(token, keys),
            Keys::Fetched(jwks) => {
                jwks.refresh_if_old();
                match self.verify_with(token, &jwks.current()) {
                    Err(Rejection::UnknownKey) => {
                        self.verify_with(token, &*jwks.fetch_newer().await?)
                    }
                    verified => verified,
                }
            }
        };
        verified.map_err(|rejection| match rejection {
            Rejection::UnknownKey => unauthorized("the token's key is not known"),
            Rejection::Refused(refusal) => refusal,
        })
    }

    fn verify_with(&self, token: &str, keys: &KeySet) -> Result<Identity, Rejection> {
        let header = self.parse_header(token)?;
        let keys = match keys.find(header.algorithm, header.kid.as_deref()) {
            Lookup::Keys(keys) => keys,
            Lookup::NotInSet => return Err(Rejection::UnknownKey),
            Lookup::NoUsableKey => return Err(invalid_token().into()),
        };
        let mut refusal = invalid_token();
        for key in keys {
            let Some(validation) = self.validation(key.algorithm) else {
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

    /// Parses the header of a token before its signature is verified.
    fn parse_header(&self, token: &str) -> Result<TokenHeader, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(unauthorized("the token is too long"));
        }
        let encoded = token.split('.').next().unwrap_or_default();
        let json = URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| invalid_token())?;
        let header: Map<String, Value> =
            serde_json::from_slice(&json).map_err(|_| invalid_token())?;
        // `crit` lists extensions that a verifier must support, and no extension is supported here.
        if header.contains_key("crit") {
            return Err(invalid_token());
        }
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .and_then(Algorithm::named)
            .ok_or_else(invalid_token)?;
        if self.validation(algorithm).is_none() {
            return Err(invalid_token());
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(invalid_token()),
        };
        Ok(TokenHeader { algorithm, kid })
    }

    /// The rules for tokens of this algorithm; `None` if it is not configured.
    fn validation(&self, algorithm: Algorithm) -> Option<&Validation> {
        let mut validations = self.validations.iter();
        let (_, validation) = validations.find(|(configured, _)| *configured == algorithm)?;
        Some(validation)
    }

    fn identity(&self, claims: Claims) -> Result<Identity, Refusal> {
        let better_auth =
            |field: &str| Some(claims.user.as_ref()?.get(field)?.as_str()?.to_owned());
        let user = claims
            .user_id
            .or(claims.sub)
            .or_else(|| better_auth("id"))
            .ok_or_else(|| unauthorized("the token names no user"))?;
        let user = UserId::parse("user_id", &user)
            .map_err(|_| unauthorized("the token's user_id is not valid"))?;
        let name = claims
            .username
            .or(claims.name)
            .or(claims.preferred_username)
            .or_else(|| better_auth("name"));
        let username = match name {
            Some(name) => Username::parse("username", &name)
                .map_err(|_| unauthorized("the token's username is not valid"))?,
            None => Username::from(&user),
        };
        let scope = match claims.rooms.0 {
            Some(patterns) => RoomScope::only(patterns),
            None => RoomScope::Everywhere,
        };
        let exp = whole_seconds(&claims.exp);
        Ok(Identity {
            user,
            username,
            role: claims.role,
            scope,
            expires_at: Some(exp.saturating_add(self.leeway)),
        })
    }
}

/// `exp` without the fraction of a second.
fn whole_seconds(exp: &serde_json::Number) -> u64 {
    if let Some(exp) = exp.as_u64() {
        return exp;
    }
    // The library has refused negative numbers and NaN.
    exp.as_f64().map_or(0, |exp| exp as u64)
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

/// The claims of a token that this program signs: for development and tests.
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
    /// The rooms that the token is limited to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<String>>,
    /// The audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// The issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// The time of expiry, in seconds since 1970.
    pub exp: u64,
}

impl NewToken {
    /// The claims of a token for this user that expires after `ttl`.
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

    /// Signs the token by HS256.
    ///
    /// # Errors
    /// If the secret cannot sign.
    pub fn sign(&self, secret: &str) -> Result<String, jsonwebtoken::errors::Error> {
        let header = Header::new(Algorithm::Hs256.of_library());
        jsonwebtoken::encode(&header, self, &EncodingKey::from_secret(secret.as_bytes()))
    }
}

/// Signs a token with the usual claims by HS256.
///
/// # Errors
/// If the secret cannot sign.
pub fn mint(
    secret: &str,
    user: &str,
    name: Option<&str>,
    role: Option<&str>,
    ttl: Duration,
) -> Result<String, jsonwebtoken::errors::Error> {
    let token = NewToken {
        username: name.map(ToOwned::to_owned),
        role: role.map(ToOwned::to_owned),
        ..NewToken::lasting(user, ttl)
    };
    token.sign(secret)
}

#[cfg(test)]
mod tests;
