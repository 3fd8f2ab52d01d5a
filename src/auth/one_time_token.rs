//! One-time tokens: random values that are mailed to users.

use super::random_token::{RandomToken, TokenUse};

/// The use of one-time tokens.
pub enum OneTime {}

impl TokenUse for OneTime {
    const NAME: &'static str = "OneTimeToken";
    const DIGEST_PREFIX: &'static [u8] = b"hubbub one-time token";
}

/// A one-time token.
pub type OneTimeToken = RandomToken<OneTime>;
