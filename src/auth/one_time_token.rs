//! One-time tokens: random values that are mailed to users. Only their digests are stored.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::random_bytes;

/// A one-time token: 32 bytes. It is not shown by `Debug`.
pub struct OneTimeToken([u8; 32]);

impl OneTimeToken {
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

    /// The token as the mail has it: 43 characters that a URL may contain.
    #[must_use]
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The digest that is stored. It is not that of a refresh token with the same bytes.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"hubbub one-time token");
        hash.update(self.0);
        hash.finalize().into()
    }
}

impl std::fmt::Debug for OneTimeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OneTimeToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_decoded_from_its_own_text_only() {
        let token = OneTimeToken::random();
        let text = token.encode();
        assert_eq!(text.len(), 43);
        assert_eq!(
            OneTimeToken::decode(&text).unwrap().digest(),
            token.digest()
        );
        assert_ne!(OneTimeToken::random().digest(), token.digest());
        for other in ["", "x", &text[1..], &format!("{text}=")] {
            assert!(OneTimeToken::decode(other).is_none(), "{other}");
        }
        assert!(!format!("{token:?}").contains(&text));
    }
}
