//! Digests and encryption for the stored answers of idempotent requests.
//!
//! Bodies of requests contain passwords, and bodies of answers contain tokens. The database gets neither
//! in a form that it alone could use:
//! - The digest of a request's body is keyed with a secret of the server. A plain digest would let a
//!   reader of the database try passwords much faster than Argon2id allows.
//! - An answer is encrypted with a key that follows from a secret of the server, the idempotency key and
//!   the body of the request, of which the database has digests only.
//!
//! While a secret is being changed, repeats are recognised under the previous one. A repeat that was
//! stored under a secret which is configured no more counts as one with another body: it is refused, so
//! the work is not done twice.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::random_token::random_bytes;
use crate::domain::IdempotencyKey;

/// The secrets that digests and keys follow from: the current one first.
pub struct AnswerSecrets(Vec<hmac::Key>);

/// A request with an idempotency key, as it is identified.
pub struct RequestParts<'a> {
    /// The user; `None` for a request without an account.
    pub user: Option<Uuid>,
    /// The method and the path. The same key at another path is another key.
    pub route: &'a str,
    /// The key.
    pub key: &'a IdempotencyKey,
    /// The body, byte for byte.
    pub body: &'a [u8],
}

/// The digests of a request, and the keys for its answer.
pub struct AnswerSeal {
    /// The digest of user, route and key.
    pub digest: [u8; 32],
    /// The digests of the body, one under each secret.
    pub bodies: Vec<[u8; 32]>,
    keys: Vec<[u8; 32]>,
}

impl AnswerSecrets {
    /// Uses these secrets, the current one first.
    #[must_use]
    pub fn new(secrets: &[String]) -> Self {
        let key = |secret: &String| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Self(secrets.iter().map(key).collect())
    }

    /// The digests and keys of a request.
    #[must_use]
    pub fn seal(&self, request: &RequestParts<'_>) -> AnswerSeal {
        let user = request.user.map(Uuid::into_bytes).unwrap_or_default();
        let mut digest = Sha256::new();
        let identity = [
            &user,
            request.route.as_bytes(),
            request.key.as_str().as_bytes(),
        ];
        for part in identity {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        let keyed = |secret: &hmac::Key, purpose: &[u8]| {
            let parts = [
                purpose,
                &digest,
                request.key.as_str().as_bytes(),
                request.body,
            ];
            keyed_digest(secret, &parts)
        };
        let bodies = self.0.iter();
        let bodies = bodies.map(|secret| keyed(secret, b"hubbub idempotent body"));
        let keys = self.0.iter();
        let keys = keys.map(|secret| keyed(secret, b"hubbub idempotent answer"));
        AnswerSeal {
            digest,
            bodies: bodies.collect(),
            keys: keys.collect(),
        }
    }
}

impl AnswerSeal {
    /// Encrypts an answer under the current secret.
    ///
    /// # Panics
    /// Without a secret, and if the system has no random numbers.
    #[must_use]
    pub fn encrypt(&self, answer: &[u8]) -> Vec<u8> {
        let random = random_bytes();
        let nonce: &[u8; NONCE_LEN] = random.first_chunk().expect("a nonce has 12 bytes");
        let mut text = answer.to_vec();
        let key = cipher(self.keys.first().expect("there is a secret"));
        let unique = Nonce::assume_unique_for_key(*nonce);
        key.seal_in_place_append_tag(unique, Aad::from(self.digest), &mut text)
            .expect("an answer is shorter than the cipher's limit");
        [&nonce[..], &text].concat()
    }

    /// Decrypts an answer; `None` for one that none of the secrets has encrypted for this request.
    #[must_use]
    pub fn decrypt(&self, stored: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = stored.split_first_chunk::<NONCE_LEN>()?;
        for key in &self.keys {
            let mut text = text.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = cipher(key).open_in_place(nonce, Aad::from(self.digest), &mut text);
            if let Ok(answer) = opened {
                return Some(answer.to_vec());
            }
        }
        None
    }
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key);
    LessSafeKey::new(key.expect("the cipher's keys have 32 bytes"))
}

/// An HMAC of parts, each with its length before it.
fn keyed_digest(secret: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(secret);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let tag = context.sign();
    let tag: Result<[u8; 32], _> = tag.as_ref().try_into();
    tag.expect("HMAC-SHA256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(secrets: &[&str]) -> AnswerSecrets {
        let secrets: Vec<String> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        AnswerSecrets::new(&secrets)
    }

    fn seal(
        secrets: &AnswerSecrets,
        user: Option<Uuid>,
        route: &str,
        key: &str,
        body: &str,
    ) -> AnswerSeal {
        let key = IdempotencyKey::parse(key.as_bytes()).unwrap();
        secrets.seal(&RequestParts {
            user,
            route,
            key: &key,
            body: body.as_bytes(),
        })
    }

    #[test]
    fn a_request_is_known_by_its_user_its_route_and_its_key() {
        let secrets = secrets(&["one"]);
        let user = Some(Uuid::from_u128(1));
        let first = seal(&secrets, user, "POST /a", "k", "{}");
        let other_body = seal(&secrets, user, "POST /a", "k", "{ }");
        assert_eq!(first.digest, other_body.digest);
        assert_ne!(first.bodies, other_body.bodies);
        for other in [
            seal(&secrets, None, "POST /a", "k", "{}"),
            seal(&secrets, Some(Uuid::from_u128(2)), "POST /a", "k", "{}"),
            seal(&secrets, user, "POST /ak", "k", "{}"),
            seal(&secrets, user, "POST /", "ak", "{}"),
            seal(&secrets, user, "POST /a", "kk", "{}"),
        ] {
            assert_ne!(first.digest, other.digest);
        }
    }

    #[test]
    fn only_the_same_request_decrypts_an_answer() {
        let secrets = secrets(&["one"]);
        let first = seal(&secrets, None, "POST /a", "k", "{}");
        let (stored, again) = (first.encrypt(b"token"), first.encrypt(b"token"));
        assert_ne!(stored, again);
        assert!(!stored.windows(5).any(|part| part == b"token"));
        let same = seal(&secrets, None, "POST /a", "k", "{}");
        assert_eq!(same.decrypt(&stored).unwrap(), b"token");
        for (route, key, body) in [
            ("POST /b", "k", "{}"),
            ("POST /a", "l", "{}"),
            ("POST /a", "k", "[]"),
        ] {
            let other = seal(&secrets, None, route, key, body);
            assert!(other.decrypt(&stored).is_none());
        }
        let mut changed = stored;
        *changed.last_mut().unwrap() ^= 1;
        assert!(first.decrypt(&changed).is_none());
        assert!(first.decrypt(b"short").is_none());
    }

    #[test]
    fn a_repeat_is_recognised_while_the_secret_is_being_changed() {
        let before = seal(&secrets(&["one"]), None, "POST /a", "k", "{}");
        let stored = before.encrypt(b"token");
        let during = seal(&secrets(&["two", "one"]), None, "POST /a", "k", "{}");
        assert_eq!(before.digest, during.digest);
        assert!(during.bodies.contains(&before.bodies[0]));
        assert_eq!(during.decrypt(&stored).unwrap(), b"token");
        let after = seal(&secrets(&["two"]), None, "POST /a", "k", "{}");
        assert!(!after.bodies.contains(&before.bodies[0]));
        assert!(after.decrypt(&stored).is_none());
    }
}
