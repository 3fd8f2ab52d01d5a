//! The check of secrets that can be guessed although they are long enough.

/// Fewer different bytes than that are no random secret of the shortest accepted length.
const MIN_DIFFERENT_BYTES: usize = 16;
/// The same for secrets of hexadecimal digits, of which there are 16 only. A random secret of 32
/// digits has fewer in 1 of 100,000 cases.
const MIN_DIFFERENT_DIGITS: usize = 10;

/// Phrases of example secrets, without separators and in lower case.
const PLACEHOLDERS: [&str; 29] = [
    "changeit",
    "changeme",
    "changethis",
    "default",
    "dummy",
    "example",
    "hereisyour",
    "insertyour",
    "jwtsecretkey",
    "keyhere",
    "letmein",
    "longandrandom",
    "mysecret",
    "password",
    "passwordhere",
    "passw0rd",
    "placeholder",
    "qwerty",
    "randomsecret",
    "replaceme",
    "replacethis",
    "replacewith",
    "secrethere",
    "secretkey",
    "supersecret",
    "topsecret",
    "verysecret",
    "yourkey",
    "yoursecret",
];

/// Why the secret can be guessed, as the rest of a sentence that begins with its key; `None` if no
/// sign of it is found. Never contains a part of the secret.
pub(super) fn weakness(secret: &str) -> Option<&'static str> {
    if let Some(weakness) = placeholder(secret) {
        return Some(weakness);
    }
    if is_repetition(secret.as_bytes()) {
        return Some("repeats the same few characters: it can be guessed");
    }
    let is_hexadecimal = secret.bytes().all(|byte| byte.is_ascii_hexdigit());
    let min_different = if is_hexadecimal {
        MIN_DIFFERENT_DIGITS
    } else {
        MIN_DIFFERENT_BYTES
    };
    if different_bytes(secret) < min_different {
        return Some("has too few different characters: it can be guessed");
    }
    None
}

/// As [`weakness`], for passwords, which may be shorter.
pub(super) fn password_weakness(password: &str) -> Option<&'static str> {
    let is_repetition = different_bytes(password) < 4;
    placeholder(password)
        .or_else(|| is_repetition.then_some("repeats the same few characters: it can be guessed"))
}

fn placeholder(secret: &str) -> Option<&'static str> {
    let letters: String = secret
        .chars()
        .filter(|character| character.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    let is_placeholder = PLACEHOLDERS.iter().any(|phrase| letters.contains(phrase));
    is_placeholder.then_some("looks like the placeholder of an example: it can be guessed")
}

/// Whether the bytes are one unit of up to half of their length, again and again.
fn is_repetition(bytes: &[u8]) -> bool {
    (1..=bytes.len() / 2).any(|period| {
        let (unrepeated, repeated) = (&bytes[..bytes.len() - period], &bytes[period..]);
        unrepeated == repeated
    })
}

fn different_bytes(text: &str) -> usize {
    let mut bytes = text.as_bytes().to_vec();
    bytes.sort_unstable();
    bytes.dedup();
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_secrets_in_every_usual_form_are_not_weak() {
        for secret in [
            "5f0cbb2fb1c6a1f6e1d0b4f4a1c7e9d8",
            "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeHA=",
            "correct horse battery staple under seven bridges",
            "2f9d6f0e-6f1b-4a57-9d0c-5d1b8f0a7c33",
        ] {
            assert_eq!(weakness(secret), None, "{secret}");
        }
    }

    #[test]
    fn repeated_characters_placeholders_and_few_different_bytes_are_weak() {
        for (secret, weakness_has) in [
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "repeats"),
            ("1234567890123456789012345678901234567890", "repeats"),
            (
                "0000000000000000000000000000000000001111",
                "too few different",
            ),
            ("abcabcabcdabcabcdabcdefabcabcdefghij", "too few different"),
            ("your-secret-key-here", "placeholder"),
            ("Your_Secret_Key_Here_0123456789abcdefXYZ", "placeholder"),
            ("my-super-secret-jwt-key-for-production-2024", "placeholder"),
            ("CHANGE ME to something that is long enough", "placeholder"),
        ] {
            let weakness = weakness(secret).unwrap_or("nothing");
            assert!(weakness.contains(weakness_has), "{secret}: {weakness}");
        }
        assert!(password_weakness("changeme").is_some());
        assert!(password_weakness("aaaa").is_some());
        assert_eq!(password_weakness("c4&kP1"), None);
    }
}
