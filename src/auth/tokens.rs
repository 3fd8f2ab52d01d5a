//! JSON Web Tokens: verified by HS256 alone, whatever a token says of itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::domain::{Code, Refusal, UserId, Username};

/// The shortest secret that is taken, in bytes: as many as HS256's digest has.
pub const MIN_SECRET_BYTES: usize = 32;

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The user's name.
    pub username: Username,
    /// What the user may do beyond chatting.
    pub role: Option<String>,
    /// When the identity ends, in seconds since 1970 (`exp` and the leeway). `None` in open mode.
    pub expires_at: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    exp: u64,
}

/// A secret too short to be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret must have at least {MIN_SECRET_BYTES} bytes")]
pub struct WeakSecret;

/// Checks tokens.
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    /// By HS256 with that secret. `leeway` (seconds) is granted on `exp` and `nbf`.
    ///
    /// # Errors
    /// [`WeakSecret`].
    pub fn hs256(secret: &str, leeway: u64) -> Result<Self, WeakSecret> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(WeakSecret);
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = leeway;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        Ok(Self { key: DecodingKey::from_secret(secret.as_bytes()), validation })
    }

    /// Who the token speaks for. The refusal never quotes the token.
    ///
    /// # Errors
    /// `token_expired`; `unauthorized` for everything else that is wrong with it.
    pub fn verify(&self, token: &str) -> Result<Identity, Refusal> {
        let unauthorized = |text: &'static str| Refusal::new(Code::Unauthorized, text);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => Refusal::new(Code::TokenExpired, "the token has expired"),
                ErrorKind::ImmatureSignature => unauthorized("the token is not yet valid"),
                _ => unauthorized("the token is not valid"),
            })?
            .claims;
        let user = claims.user_id.or(claims.sub).ok_or_else(|| unauthorized("the token names no user"))?;
        let user = UserId::parse("user_id", &user).map_err(|_| unauthorized("the token's user_id is not valid"))?;
        let username = match claims.username.or(claims.name).or(claims.preferred_username) {
            Some(name) => {
                Username::parse("username", &name).map_err(|_| unauthorized("the token's username is not valid"))?
            }
            None => Username::from(&user),
        };
        Ok(Identity {
            user,
            username,
            role: claims.role,
            expires_at: Some(claims.exp.saturating_add(self.validation.leeway)),
        })
    }
}

/// Makes an HS256 token: for development and tests.
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
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = Claims {
        user_id: None,
        sub: Some(user.to_owned()),
        username: name.map(ToOwned::to_owned),
        name: None,
        preferred_username: None,
        role: role.map(ToOwned::to_owned),
        exp: (now + ttl).as_secs(),
    };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SECRET: &str = "a secret of at least thirty-two bytes";

    fn verify(claims: &Value) -> Result<Identity, Refusal> {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), claims, &key).unwrap();
        Verifier::hs256(SECRET, 0).unwrap().verify(&token)
    }

    const FAR: u64 = 4_000_000_000;

    #[test]
    fn names_are_found_in_their_order() {
        let identity = verify(&json!({"exp": FAR, "sub": "s", "user_id": "u", "name": "N"})).unwrap();
        assert_eq!((identity.user.as_str(), identity.username.as_str()), ("u", "N"));
        let identity = verify(&json!({"exp": FAR, "sub": "s", "preferred_username": "p", "role": "admin"})).unwrap();
        assert_eq!((identity.user.as_str(), identity.username.as_str()), ("s", "p"));
        assert_eq!(identity.role.as_deref(), Some("admin"));
    }

    #[test]
    fn what_is_wrong_with_a_token_has_a_code() {
        let code = |claims: Value| verify(&claims).unwrap_err().code;
        assert_eq!(code(json!({"exp": 1000, "sub": "s"})), Code::TokenExpired);
        assert_eq!(code(json!({"sub": "s"})), Code::Unauthorized);
        assert_eq!(code(json!({"exp": FAR})), Code::Unauthorized);
        assert_eq!(code(json!({"exp": FAR, "sub": ""})), Code::Unauthorized);
        assert_eq!(code(json!({"exp": FAR, "sub": 5})), Code::Unauthorized);
        assert_eq!(code(json!({"exp": FAR, "nbf": FAR - 1, "sub": "s"})), Code::Unauthorized);
    }

    #[test]
    fn the_algorithm_is_not_the_tokens_to_choose() {
        let verifier = Verifier::hs256(SECRET, 0).unwrap();
        for token in [
            "",
            "a.b.c",
            // {"alg":"none"} . {"sub":"s","exp":4000000000} .
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzIiwiZXhwIjo0MDAwMDAwMDAwfQ.",
        ] {
            assert_eq!(verifier.verify(token).unwrap_err().code, Code::Unauthorized);
        }
        let header = Header::new(Algorithm::HS512);
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&header, &json!({"exp": FAR, "sub": "s"}), &key).unwrap();
        assert_eq!(verifier.verify(&token).unwrap_err().code, Code::Unauthorized);
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert_eq!(Verifier::hs256("short", 0).err(), Some(WeakSecret));
    }
}
