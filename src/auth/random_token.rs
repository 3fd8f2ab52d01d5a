//! Random tokens that clients keep. Only their digests are stored.

use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// The use of a token: tokens of one use are none of another.
pub trait TokenUse {
    /// The name of the token's type.
    const NAME: &'static str;
    /// What precedes the token in its digest, so that digests of equal bytes differ by use.
    const DIGEST_PREFIX: &'static [u8];
}

/// A token: 32 random bytes. It is not shown by `Debug`.
pub struct RandomToken<U>([u8; 32], PhantomData<U>);

impl<U: TokenUse> RandomToken<U> {
    /// The token with these bytes.
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes, PhantomData)
    }

    /// A random one.
    #[must_use]
    pub fn random() -> Self {
        Self::new(random_bytes())
    }

    /// Decodes a token as a client presents it.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self::new)
    }

    /// The token as a client receives it: 43 characters that a URL may contain.
    #[must_use]
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The digest that is stored.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(U::DIGEST_PREFIX);
        hash.update(self.0);
        hash.finalize().into()
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl<U> Clone for RandomToken<U> {
    fn clone(&self) -> Self {
        Self(self.0, PhantomData)
    }
}

impl<U: TokenUse> std::fmt::Debug for RandomToken<U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(U::NAME)
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

/// 256 random bits, as 43 characters that a URL may contain.
#[must_use]
pub fn random_text() -> String {
    URL_SAFE_NO_PAD.encode(random_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{OneTimeToken, RefreshToken};

    fn is_decoded_from_its_own_text_only<U: TokenUse>() {
        let token = RandomToken::<U>::random();
        let text = token.encode();
        assert_eq!(text.len(), 43);
        let decoded = RandomToken::<U>::decode(&text).unwrap();
        assert_eq!(decoded.digest(), token.digest());
        assert_ne!(RandomToken::<U>::random().digest(), token.digest());
        for other in [
            "",
            "x",
            &text[1..],
            &format!("{text}="),
            &format!("{text}A"),
        ] {
            assert!(RandomToken::<U>::decode(other).is_none(), "{other}");
        }
        assert!(!format!("{token:?}").contains(&text));
    }

    #[test]
    fn a_token_is_decoded_from_its_own_text_only() {
        is_decoded_from_its_own_text_only::<super::super::one_time_token::OneTime>();
        is_decoded_from_its_own_text_only::<super::super::refresh_token::Refresh>();
    }

    #[test]
    fn tokens_of_two_uses_have_other_digests() {
        let refresh = RefreshToken::random();
        let mailed = OneTimeToken::decode(&refresh.encode()).unwrap();
        assert_ne!(refresh.digest(), mailed.digest());
        assert_eq!(refresh.digest(), digest(refresh.bytes()));
    }
}
