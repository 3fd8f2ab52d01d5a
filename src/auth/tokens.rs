//! JSON Web Tokens: verifies the signature, and passes the claims on to be checked. The accepted
//! algorithms and keys come from the configuration only, never from a token.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header, crypto};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::claims::Claims;
use super::jwks::Jwks;
use super::keys::{Algorithm, Key, KeyError, KeySet, KeySource, Lookup};
use crate::domain::policy::RoomScope;
use crate::domain::{Refusal, TokenFault, TokenScope, UserId, Username};

/// The longest token that is parsed, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8192;

/// The identity that a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The user's name.
    pub username: Username,
    /// The roles, which can give rights beyond those of a user.
    pub roles: Vec<String>,
    /// The rooms that the identity is valid for.
    pub scope: RoomScope,
    /// The session of an account; `None` for the user of an outside issuer, and in open mode.
    pub session: Option<Uuid>,
    /// When the identity expires, in seconds since 1970 (`exp` plus the leeway). `None` in open
    /// mode.
    pub expires_at: Option<u64>,
}

impl Identity {
    /// Whether the identity has the rights of an admin: by its role, unless the scopes of a bot's token
    /// exclude them.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.roles.iter().any(|role| role == "admin") && self.scope.allows(TokenScope::Admin)
    }
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
    /// Whether `sid` names a session of this server: for its own tokens only.
    pub reads_session: bool,
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
    /// With at least one algorithm.
    rules: TokenRules,
}

fn malformed(text: &'static str) -> Refusal {
    Refusal::of_token(TokenFault::Malformed, text)
}

fn not_a_token() -> Refusal {
    malformed("the token is not a JSON Web Token")
}

fn wrong_algorithm() -> Refusal {
    let text = "the token's alg is not an algorithm that this server is configured for";
    Refusal::of_token(TokenFault::Algorithm, text)
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
    pub fn new(keys: KeySource, mut rules: TokenRules) -> Result<Self, KeyError> {
        if rules.algorithms.is_empty() {
            rules.algorithms.push(Algorithm::Hs256);
        }
        let algorithms = &rules.algorithms;
        let needs_hs256 = matches!(keys, KeySource::Secrets(_));
        for algorithm in algorithms {
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
                Keys::Fixed(Arc::new(KeySet::jwks(json.as_bytes(), algorithms)?))
            }
            KeySource::Url(uri) => Keys::Fetched(Jwks::from_url(uri, algorithms.clone())?),
        };
        Ok(Self { keys, rules })
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
    /// other fault. The refusal names the fault and the claim, and never quotes the token.
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
            Rejection::UnknownKey => {
                let text = "the token's kid names a key that this server doesn't have";
                Refusal::of_token(TokenFault::Signature, text)
            }
            Rejection::Refused(refusal) => refusal,
        })
    }

    fn verify_with(&self, token: &str, keys: &KeySet) -> Result<Identity, Rejection> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(malformed("the token is longer than 8192 bytes").into());
        }
        let parts = Parts::of(token)?;
        let header = self.parse_header(parts.header)?;
        let keys = match keys.find(header.algorithm, header.kid.as_deref()) {
            Lookup::Keys(keys) => keys,
            Lookup::NotInSet => return Err(Rejection::UnknownKey),
            Lookup::NoUsableKey => {
                let text = "no single key of this server fits the token's alg and kid";
                return Err(Refusal::of_token(TokenFault::Signature, text).into());
            }
        };
        if !keys.iter().any(|key| parts.is_signed_with(key)) {
            let text = "the token's signature is not valid, or not made with a key of this server";
            return Err(Refusal::of_token(TokenFault::Signature, text).into());
        }
        let claims: Claims = serde_json::from_slice(&decode(parts.claims)?)
            .map_err(|_| malformed("the token's claims are not a JSON object"))?;
        claims.check(&self.rules)?;
        let identity = claims.identity(self.rules.leeway)?;
        Ok(match self.rules.reads_session {
            true => identity,
            false => Identity {
                session: None,
                ..identity
            },
        })
    }

    /// Parses the header of a token before its signature is verified.
    fn parse_header(&self, header: &str) -> Result<TokenHeader, Refusal> {
        let header: Map<String, Value> =
            serde_json::from_slice(&decode(header)?).map_err(|_| not_a_token())?;
        // `crit` lists extensions that a verifier must support, and no extension is supported here.
        if header.contains_key("crit") {
            return Err(malformed("the token has critical extensions (crit)"));
        }
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .and_then(Algorithm::named)
            .ok_or_else(wrong_algorithm)?;
        if !self.rules.algorithms.contains(&algorithm) {
            return Err(wrong_algorithm());
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(malformed("the token's kid is not a text")),
        };
        Ok(TokenHeader { algorithm, kid })
    }
}

/// The three parts of a token, in base64.
struct Parts<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    /// Header and claims, as they are in the token.
    signed: &'a str,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, Refusal> {
        let (signed, signature) = token.rsplit_once('.').ok_or_else(not_a_token)?;
        let (header, claims) = signed.split_once('.').ok_or_else(not_a_token)?;
        Ok(Self {
            header,
            claims,
            signature,
            signed,
        })
    }

    /// The key determines the algorithm.
    fn is_signed_with(&self, key: &Key) -> bool {
        let algorithm = key.algorithm.of_library();
        crypto::verify(self.signature, self.signed.as_bytes(), &key.key, algorithm).unwrap_or(false)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| not_a_token())
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
