//! Checks of JSON text that the JSON parser does not make.

/// The nesting depth of arrays and objects: 0 for a scalar. `json` must be well-formed.
pub(super) fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.bytes();
    let mut in_string = false;
    while let Some(byte) = bytes.next() {
        match (in_string, byte) {
            (true, b'\\') => {
                bytes.next();
            }
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Whether a `\u` escape encodes half of a surrogate pair without the other half. JSON syntax
/// allows it, but it does not encode any text.
pub(super) fn has_lone_surrogate(json: &str) -> bool {
    let mut rest = json.as_bytes();
    while let Some(at) = memchr::memchr(b'\\', rest) {
        rest = &rest[at + 1..];
        let Some((kind, after)) = rest.split_first() else {
            return false;
        };
        rest = after;
        if *kind != b'u' {
            continue;
        }
        match code_unit(rest) {
            Some(0xDC00..=0xDFFF) => return true,
            Some(0xD800..=0xDBFF) => {
                let low = match rest.get(4..6) {
                    Some(b"\\u") => code_unit(&rest[6..]),
                    _ => None,
                };
                if !matches!(low, Some(0xDC00..=0xDFFF)) {
                    return true;
                }
                rest = &rest[10..];
            }
            _ => {}
        }
    }
    false
}

/// Whether a number is larger than a double can hold. JSON syntax allows it, but many parsers
/// refuse the whole text then. `json` must be well-formed.
pub(super) fn has_number_out_of_range(json: &str) -> bool {
    let mut rest = json.as_bytes();
    while let Some(&byte) = rest.first() {
        let length = match byte {
            b'"' => string_length(rest),
            b'-' | b'0'..=b'9' => {
                let is_part =
                    |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let length = rest
                    .iter()
                    .position(|byte| !is_part(byte))
                    .unwrap_or(rest.len());
                let number = std::str::from_utf8(&rest[..length])
                    .ok()
                    .and_then(|number| number.parse::<f64>().ok());
                if number.is_some_and(f64::is_infinite) {
                    return true;
                }
                length
            }
            _ => 1,
        };
        rest = &rest[length..];
    }
    false
}

/// The length in bytes of the string at the start, including both quotes.
fn string_length(json: &[u8]) -> usize {
    let mut at = 1;
    loop {
        match json.get(at) {
            None => return json.len(),
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

/// The UTF-16 code unit that the first four hexadecimal digits encode.
fn code_unit(digits: &[u8]) -> Option<u16> {
    let digits = std::str::from_utf8(digits.get(..4)?).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_arrays_and_objects_but_no_brackets_in_strings() {
        assert_eq!(depth("1"), 0);
        assert_eq!(depth(r#"{"a":[1,{"b":[]}]}"#), 4);
        assert_eq!(depth(r#""[[[\"[[""#), 0);
        assert_eq!(depth(&"[".repeat(100_000)), 100_000);
    }

    #[test]
    fn numbers_larger_than_a_double_are_found_outside_of_strings_only() {
        let long = "9".repeat(400);
        for bad in ["1e309", "[1,-1E+999]", r#"{"1e999":{"a":[2e308]}}"#, &long] {
            assert!(has_number_out_of_range(bad), "{bad}");
        }
        for good in [
            "1e308",
            r#""1e999""#,
            r#"["\"1e999",-0.5,"\\",18446744073709551616]"#,
            r#"{"1e999":1e-999}"#,
            "null",
            "\"1e999",
        ] {
            assert!(!has_number_out_of_range(good), "{good}");
        }
    }

    #[test]
    fn lone_surrogates_are_found_and_complete_pairs_are_not() {
        for bad in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud83dx""#,
            r#""\ud83d\n""#,
            r#""\ud83d\u0041""#,
            r#""\uD83D"#,
            r#""a\ude00\ud83d""#,
        ] {
            assert!(has_lone_surrogate(bad), "{bad}");
        }
        for good in [
            r#""\ud83d\ude00""#,
            r#""\\ud800""#,
            r#""plain""#,
            r#""\u0041""#,
            "\"\\",
            r#""\u12"#,
        ] {
            assert!(!has_lone_surrogate(good), "{good}");
        }
    }
}
