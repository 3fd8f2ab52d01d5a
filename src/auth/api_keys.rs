//! API keys, by which services authenticate.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The prefix of a key that is configured as its digest.
const DIGEST_PREFIX: &str = "sha256:";

/// A configured key begins with `sha256:` and does not continue with a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sha256: must be followed by the 64 hexadecimal digits of a key's SHA-256")]
pub struct NotADigest;

/// The accepted keys, stored as digests. All have the same length, and a digest that leaks from
/// memory cannot be used as a key.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<[u8; 32]>);

impl ApiKeys {
    /// Each key is given as it is, or as `sha256:` and its digest in hexadecimal.
    ///
    /// # Errors
    /// If a digest is malformed.
    pub fn new(keys: &[String]) -> Result<Self, NotADigest> {
        let digest = |key: &String| match key.strip_prefix(DIGEST_PREFIX) {
            None => Ok(Sha256::digest(key).into()),
            Some(digits) => parse_digest(digits).ok_or(NotADigest),
        };
        keys.iter().map(digest).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `key` is one of the keys. Compares it with every key, each in constant time, so that
    /// the duration reveals nothing about the keys.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let found = |hit: bool, known: &[u8; 32]| hit | bool::from(known.ct_eq(&digest));
        self.0.iter().fold(false, found)
    }
}

fn parse_digest(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[&str]) -> Result<ApiKeys, NotADigest> {
        ApiKeys::new(&keys.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn only_complete_keys_are_accepted() {
        let keys = keys(&["first-key", "second-key"]).unwrap();
        assert!(keys.contains("first-key") && keys.contains("second-key"));
        assert!(!keys.contains("first") && !keys.contains("") && !keys.contains("first-key "));
        assert!(!ApiKeys::default().contains(""));
    }

    #[test]
    fn a_configured_digest_accepts_its_key_but_not_itself() {
        // The digest of "abc", an example in the standard.
        let digest = "sha256:BA7816BF8F01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let keys = keys(&["first-key", digest]).unwrap();
        assert!(keys.contains("abc") && keys.contains("first-key"));
        assert!(!keys.contains(digest) && !keys.contains(&digest[7..]));
    }

    #[test]
    fn a_malformed_digest_is_refused() {
        for wrong in [
            "sha256:",
            "sha256:abc",
            &format!("sha256:{}", "g".repeat(64)),
            &format!("sha256:{}", "é".repeat(32)),
        ] {
            assert_eq!(keys(&[wrong]).err(), Some(NotADigest), "{wrong}");
        }
    }
}
