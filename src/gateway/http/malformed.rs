//! The refusals of bodies and queries that can't be decoded, with the field that is at fault.

use serde_json::error::Category;

use crate::domain::Refusal;

/// The longest name of a field that a refusal repeats.
const MAX_FIELD_BYTES: usize = 64;

/// The refusal of a JSON body.
pub(super) fn body(body: &str, error: &serde_json::Error) -> Refusal {
    let text = format!("the body is malformed: {error}");
    let refusal = Refusal::bad_request(text);
    if error.classify() != Category::Data {
        return refusal;
    }
    let field = field_of_message(&error.to_string())
        .or_else(|| field_at(body, offset(body, error.line(), error.column())));
    match field {
        Some(field) if field.len() <= MAX_FIELD_BYTES => refusal.field(field),
        _ => refusal,
    }
}

/// The refusal of a query, by the text that its decoder gives.
pub(super) fn query(text: String) -> Refusal {
    // The text is that of axum: `Failed to deserialize query string: limit: invalid digit …`.
    let fault = text.split_once(": ").map_or("", |(_, fault)| fault);
    let is_name = |name: &&str| {
        name.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let name = fault.split_once(": ").map(|(name, _)| name).filter(is_name);
    let field = name.map(str::to_owned).or_else(|| field_of_message(fault));
    let refusal = Refusal::bad_request(text);
    match field {
        Some(field) => refusal.field(field),
        None => refusal,
    }
}

/// The field of an error that names it: serde does where a field is missing or repeated.
fn field_of_message(message: &str) -> Option<String> {
    let (kind, rest) = message.split_once(" field `")?;
    let (name, _) = rest.split_once('`')?;
    matches!(kind, "missing" | "duplicate").then(|| name.to_owned())
}

/// The offset of a position as serde_json states it.
fn offset(body: &str, line: usize, column: usize) -> usize {
    let before: usize = body
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    (before + column).min(body.len())
}

/// The last field of the outermost object that begins before the offset: the value there is its.
fn field_at(body: &str, end: usize) -> Option<String> {
    let bytes = body.as_bytes();
    let (mut depth, mut at, mut field) = (0_usize, 0, None);
    let mut expects_field = false;
    while at < end {
        match bytes[at] {
            b'{' | b'[' => {
                depth += 1;
                expects_field = depth == 1 && bytes[at] == b'{';
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => expects_field = depth == 1,
            b'"' => {
                let after = end_of_string(bytes, at);
                if expects_field {
                    field = body.get(at..after);
                    expects_field = false;
                }
                at = after;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    serde_json::from_str(field?).ok()
}

/// The offset after the string that begins at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only whether it can be decoded matters")]
    struct Request {
        email: String,
        #[serde(default)]
        days: Option<u8>,
        #[serde(default)]
        ids: Vec<String>,
    }

    #[test]
    fn the_refusal_of_a_body_names_the_field_at_fault() {
        for (json, expected) in [
            (r#"{"days":1}"#, Some("email")),
            (r#"{"email":5}"#, Some("email")),
            (
                r#"{"a":{"email":[1,{"b":"c"}]},"email":null}"#,
                Some("email"),
            ),
            ("{\n\"email\": \"ä\",\n  \"days\": \"one\"\n}", Some("days")),
            (r#"{"email":"a","days":300}"#, Some("days")),
            (r#"{"email":"a,\"b\\","ids":["x",7]}"#, Some("ids")),
            (r#"{"email":"a","ids":{"days":1}}"#, Some("ids")),
            (r#"{"email":"a","email":"b"}"#, Some("email")),
            (r#"{"em\u0061il":true}"#, Some("email")),
            ("[]", None),
            ("7", None),
            (r#"{"email":"#, None),
            ("", None),
        ] {
            let error = serde_json::from_str::<Request>(json).unwrap_err();
            assert_eq!(
                body(json, &error).field.as_deref(),
                expected,
                "{json}: {error}"
            );
        }
    }

    #[test]
    fn the_refusal_of_a_query_names_the_parameter_at_fault() {
        let prefix = "Failed to deserialize query string: ";
        for (text, expected) in [
            ("limit: invalid digit found in string", Some("limit")),
            ("missing field `q`", Some("q")),
            ("something else", None),
        ] {
            assert_eq!(query(format!("{prefix}{text}")).field.as_deref(), expected);
        }
    }
}
