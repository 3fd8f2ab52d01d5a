//! Refresh tokens: random values that clients keep. Only their digests are stored.
//!
//! The successor of a token is a digest of the token and of a random salt that its first exchange
//! stores. So a repeated exchange makes the same successor, and the database alone makes none.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// A refresh token: 32 bytes. It is not shown by `Debug`.
#[derive(Clone)]
pub struct RefreshToken([u8; 32]);

impl RefreshToken {
    /// A random one.
    #[must_use]
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// Decodes a token as a client presents it.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// The token as a client receives it: 43 characters.
    #[must_use]
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The digest that is stored.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// The successor that is made with this salt.
    #[must_use]
    pub fn successor(&self, salt: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"hubbub refresh token");
        hash.update(self.0);
        hash.update(salt);
        Self(hash.finalize().into())
    }
}

impl std::fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RefreshToken")
    }
}

/// The SHA-256 of these bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// 32 bytes from the system's generator of random numbers.
#[must_use]
pub fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_follows_from_its_token_and_its_salt() {
        let token = RefreshToken::random();
        let (salt, other) = (random_bytes(), random_bytes());
        let successor = token.successor(&salt).encode();
        assert_eq!(token.successor(&salt).encode(), successor);
        assert_ne!(token.successor(&other).encode(), successor);
        assert_ne!(RefreshToken::random().successor(&salt).encode(), successor);
    }

    #[test]
    fn a_token_is_decoded_from_its_own_text_only() {
        let token = RefreshToken::random();
        let text = token.encode();
        let decoded = RefreshToken::decode(&text).unwrap();
        assert_eq!(decoded.digest(), token.digest());
        for other in [
            "",
            "x",
            &text[1..],
            &format!("{text}="),
            &format!("{text}A"),
        ] {
            assert!(RefreshToken::decode(other).is_none(), "{other}");
        }
        assert!(!format!("{token:?}").contains(&text));
    }
}
