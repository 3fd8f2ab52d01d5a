//! Refresh tokens: random values that clients keep.
//!
//! The successor of a token is a digest of the token and of a random salt that its first exchange
//! stores. So a repeated exchange makes the same successor, and the database alone makes none.

use sha2::{Digest, Sha256};

use super::random_token::{RandomToken, TokenUse};

/// The use of refresh tokens.
pub enum Refresh {}

impl TokenUse for Refresh {
    const NAME: &'static str = "RefreshToken";
    const DIGEST_PREFIX: &'static [u8] = b"";
}

/// A refresh token.
pub type RefreshToken = RandomToken<Refresh>;

impl RefreshToken {
    /// The successor that is made with this salt.
    #[must_use]
    pub fn successor(&self, salt: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"hubbub refresh token");
        hash.update(self.bytes());
        hash.update(salt);
        Self::new(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::random_bytes;

    #[test]
    fn a_successor_follows_from_its_token_and_its_salt() {
        let token = RefreshToken::random();
        let (salt, other) = (random_bytes(), random_bytes());
        let successor = token.successor(&salt).encode();
        assert_eq!(token.successor(&salt).encode(), successor);
        assert_ne!(token.successor(&other).encode(), successor);
        assert_ne!(RefreshToken::random().successor(&salt).encode(), successor);
    }
}
