//! The secrets of bots' tokens.

use super::random_text;

/// The beginning of each secret, by which scanners of source code find one that leaked.
const PREFIX: &str = "hubbub_";

/// A new secret: the prefix, and 256 random bits.
#[must_use]
pub fn new_bot_secret() -> String {
    format!("{PREFIX}{}", random_text())
}

/// Whether a token claims to be the secret of a bot.
pub(super) fn is_bot_secret(token: &str) -> bool {
    token.starts_with(PREFIX)
}
