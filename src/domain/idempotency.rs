//! The key by which a client marks the repeats of a request.

use super::refusal::Refusal;

/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// The value of the header `Idempotency-Key`: 1 to 255 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// The header's name, as refusals state it.
    pub const HEADER: &'static str = "Idempotency-Key";

    /// Checks the value of the header.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn parse(value: &[u8]) -> Result<Self, Refusal> {
        let refuse = |problem: &str| {
            let text = format!("{} {problem}", Self::HEADER);
            Refusal::bad_request(text).field(Self::HEADER)
        };
        let text = std::str::from_utf8(value).map_err(|_| refuse("must be UTF-8"))?;
        if text.is_empty() {
            return Err(refuse("must not be empty"));
        }
        if text.len() > MAX_KEY_BYTES {
            return Err(refuse(&format!("must be at most {MAX_KEY_BYTES} bytes")));
        }
        if text.chars().any(char::is_control) {
            return Err(refuse("must not contain control characters"));
        }
        Ok(Self(text.into()))
    }

    /// The key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Code;

    #[test]
    fn a_key_is_a_short_text_without_control_characters() {
        let longest = "k".repeat(255);
        for key in ["1", "a b", "8f14e45f-ceea", "ключ", &longest] {
            assert_eq!(IdempotencyKey::parse(key.as_bytes()).unwrap().as_str(), key);
        }
        let too_long = "k".repeat(256);
        for key in ["", "a\tb", "a\u{7f}", "\u{85}", &too_long] {
            let refusal = IdempotencyKey::parse(key.as_bytes()).unwrap_err();
            assert_eq!(refusal.code, Code::BadRequest, "{key:?}");
            assert_eq!(refusal.field.as_deref(), Some("Idempotency-Key"));
        }
        assert!(IdempotencyKey::parse(b"\xff").is_err());
    }
}
