//! The check of secrets that can be guessed although they are long enough.

/// So many different characters are enough in a secret of any length.
const ENOUGH_DIFFERENT: usize = 16;
/// The part of all random secrets that may be taken for weak ones.
const MAX_FALSE_WARNINGS: f64 = 1e-6;
/// The characters that separate groups of hexadecimal digits, as in UUIDs and fingerprints.
const SEPARATORS: [char; 3] = ['-', ':', '_'];

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
    if has_few_different_characters(secret) {
        return Some("has too few different characters: it can be guessed");
    }
    None
}

/// Whether the text has fewer different characters than random text of its length and alphabet.
fn has_few_different_characters(secret: &str) -> bool {
    let digits = secret.replace(SEPARATORS, "");
    if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let is_decimal = digits.bytes().all(|byte| byte.is_ascii_digit());
        let alphabet = if is_decimal { 10 } else { 16 };
        let different = different_bytes(&digits.to_ascii_lowercase());
        return different < min_different(digits.len(), alphabet);
    }
    different_bytes(secret) < min_different(secret.len(), alphabet_size(secret))
}

/// The size of the smallest usual alphabet of random text with these characters.
fn alphabet_size(text: &str) -> usize {
    let has = |is_of_class: fn(&u8) -> bool| text.as_bytes().iter().any(is_of_class);
    let has_other = has(|byte| !byte.is_ascii_alphanumeric());
    let has_both_cases = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    if has_other || has_both_cases {
        58 // base58; base64 and printable ASCII are larger.
    } else if has(u8::is_ascii_digit) {
        32 // base32; 36 are rare.
    } else {
        26
    }
}

/// The least number of different characters that random text has, except for
/// [`MAX_FALSE_WARNINGS`] of all texts; at most [`ENOUGH_DIFFERENT`].
fn min_different(length: usize, alphabet: usize) -> usize {
    // By number of different characters: the probability after the characters drawn so far.
    // Larger numbers are left out, as none of them leads back to a smaller one.
    let mut probabilities = [0.0; ENOUGH_DIFFERENT];
    probabilities[0] = 1.0;
    for _ in 0..length {
        for different in (0..ENOUGH_DIFFERENT).rev() {
            let repeats = share(different, alphabet) * probabilities[different];
            let adds = match different.checked_sub(1) {
                Some(fewer) => {
                    share(alphabet - fewer.min(alphabet), alphabet) * probabilities[fewer]
                }
                None => 0.0,
            };
            probabilities[different] = repeats + adds;
        }
    }
    let mut sum = 0.0;
    for (different, probability) in probabilities.into_iter().enumerate() {
        sum += probability;
        if sum > MAX_FALSE_WARNINGS {
            return different;
        }
    }
    ENOUGH_DIFFERENT
}

#[allow(clippy::cast_precision_loss)] // Both are small.
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
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
            "5F:0C:BB:2F:B1:C6:A1:F6:E1:D0:B4:F4:A1:C7:E9:D8",
        ] {
            assert_eq!(weakness(secret), None, "{secret}");
        }
    }

    /// Random bytes from a fixed seed (the generator SplitMix64).
    struct Random(u64);

    impl Random {
        fn byte(&mut self) -> u8 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed.to_be_bytes()[0]
        }

        /// Text of `length` characters of an alphabet. Its bytes beyond the last whole multiple of
        /// the alphabet are skipped, so that every character is equally likely.
        fn text(&mut self, alphabet: &str, length: usize) -> String {
            let size = alphabet.len();
            let mut text = String::new();
            while text.len() < length {
                let byte = usize::from(self.byte());
                if byte < 256 / size * size {
                    text.push(char::from(alphabet.as_bytes()[byte % size]));
                }
            }
            text
        }

        fn uuid(&mut self) -> String {
            let digits = self.text("0123456789abcdef", 30);
            let variant = self.text("89ab", 1);
            format!(
                "{}-{}-4{}-{variant}{}-{}",
                &digits[..8],
                &digits[8..12],
                &digits[12..15],
                &digits[15..18],
                &digits[18..]
            )
        }
    }

    #[test]
    fn no_random_secret_is_weak() {
        const DIGITS: &str = "0123456789";
        const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
        const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let alphabets = [
            "0123456789".to_owned(),
            "0123456789abcdef".to_owned(),
            "0123456789ABCDEF".to_owned(),
            format!("{UPPER}234567"),
            format!("{LOWER}234567"),
            LOWER.to_owned(),
            format!("{LOWER}{DIGITS}"),
            "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz".to_owned(),
            format!("{UPPER}{LOWER}{DIGITS}"),
            format!("{UPPER}{LOWER}{DIGITS}+/"),
            format!("{UPPER}{LOWER}{DIGITS}-_"),
            (33..127).map(char::from).collect(),
        ];
        let mut random = Random(7);
        for _ in 0..500 {
            let uuid = random.uuid();
            for secret in [uuid.to_uppercase(), uuid] {
                assert_eq!(weakness(&secret), None, "{secret}");
            }
            let with_colons: Vec<_> = (0..16).map(|_| format!("{:02x}", random.byte())).collect();
            let with_colons = with_colons.join(":");
            assert_eq!(weakness(&with_colons), None, "{with_colons}");
            for alphabet in &alphabets {
                for length in [24, 26, 32, 43, 64] {
                    let secret = random.text(alphabet, length);
                    assert_eq!(weakness(&secret), None, "{secret}");
                }
            }
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
            // 15 different bytes of a mixed alphabet.
            ("aB3$aB3$eF5&eF5&hJ7(aB3$eF5&hKx9", "too few different"),
            ("11111111-2222-4333-8111-111111112222", "too few different"),
            ("aa:bb:aa:bb:cc:dd:aa:bb:aa:bb:cc:aa", "too few different"),
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
