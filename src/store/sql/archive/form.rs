//! The stored form of a record: without the parts at its beginning and end that other columns repeat.
//!
//! A record is JSON that begins and ends the same way for most messages, as the log encodes it. Where
//! it has exactly the expected bytes they are left out, and put back when the record is read. Any
//! other record is stored whole. So a record is always read byte for byte as it was written.

use bytes::Bytes;
use uuid::Uuid;

/// `{"id":…,"room_id":…,"user_id":…` is left out.
const HEAD: i64 = 1;
/// `,"username":…,"content":"` with the user's id as the name is left out, after [`HEAD`].
const NAME: i64 = 2;
/// `,"username":"` is left out, after [`HEAD`] and instead of [`NAME`].
const OTHER_NAME: i64 = 16;
/// `,"client_msg_id":…}` at the end is left out.
const KEY: i64 = 4;
/// The end of a plain text's record is left out, before [`KEY`]'s part or the closing brace.
const TAIL: i64 = 8;

const NAME_KEY: &str = ",\"username\":\"";
const PLAIN_TAIL: &str = "\",\"type\":\"text\",\"attachment_urls\":[]";

/// The values of a record that other columns have, too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns<'a> {
    pub(super) id: Uuid,
    pub(super) room: &'a str,
    pub(super) user: &'a str,
    pub(super) send_key: Option<&'a str>,
}

impl Columns<'_> {
    fn head(&self) -> String {
        let (id, room, user) = (self.id, json(self.room), json(self.user));
        format!("{{\"id\":\"{id}\",\"room_id\":{room},\"user_id\":{user}")
    }

    fn name(&self) -> String {
        format!(",\"username\":{},\"content\":\"", json(self.user))
    }

    fn key(&self) -> Option<String> {
        let key = json(self.send_key?);
        Some(format!(",\"client_msg_id\":{key}}}"))
    }
}

/// A text as JSON.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Returns the form of a record and its stored part.
pub(super) fn shorten(record: &[u8], columns: &Columns<'_>) -> (i64, Vec<u8>) {
    let mut form = 0;
    let mut rest = record;
    if let Some(after) = rest.strip_prefix(columns.head().as_bytes()) {
        form |= HEAD;
        rest = after;
        if let Some(after) = rest.strip_prefix(columns.name().as_bytes()) {
            form |= NAME;
            rest = after;
        } else if let Some(after) = rest.strip_prefix(NAME_KEY.as_bytes()) {
            form |= OTHER_NAME;
            rest = after;
        }
    }
    let key = columns.key();
    if let Some(before) = key.and_then(|key| rest.strip_suffix(key.as_bytes())) {
        form |= KEY;
        rest = before;
    }
    let tail = if form & KEY == 0 {
        rest.strip_suffix(b"}")
            .and_then(|rest| rest.strip_suffix(PLAIN_TAIL.as_bytes()))
    } else {
        rest.strip_suffix(PLAIN_TAIL.as_bytes())
    };
    if let Some(before) = tail {
        form |= TAIL;
        rest = before;
    }
    (form, rest.to_vec())
}

/// The record whose form and stored part these are.
pub(super) fn restore(form: i64, stored: Vec<u8>, columns: &Columns<'_>) -> Bytes {
    if form == 0 {
        return stored.into();
    }
    let mut record = Vec::with_capacity(stored.len() + 256);
    if form & HEAD != 0 {
        record.extend_from_slice(columns.head().as_bytes());
    }
    if form & NAME != 0 {
        record.extend_from_slice(columns.name().as_bytes());
    }
    if form & OTHER_NAME != 0 {
        record.extend_from_slice(NAME_KEY.as_bytes());
    }
    record.extend_from_slice(&stored);
    if form & TAIL != 0 {
        record.extend_from_slice(PLAIN_TAIL.as_bytes());
    }
    if form & KEY != 0 {
        record.extend_from_slice(columns.key().unwrap_or_default().as_bytes());
    } else if form & TAIL != 0 {
        record.push(b'}');
    }
    record.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);

    fn columns<'a>(send_key: Option<&'a str>) -> Columns<'a> {
        Columns {
            id: ID,
            room: "lob\"by",
            user: "ann",
            send_key,
        }
    }

    #[test]
    fn a_plain_text_is_stored_as_its_content() {
        let head = format!(
            r#"{{"id":"{ID}","room_id":"lob\"by","user_id":"ann","username":"ann","content":"#
        );
        let keyless = format!(r#"{head}"hi","type":"text","attachment_urls":[]}}"#);
        let keyed =
            format!(r#"{head}"hi","type":"text","attachment_urls":[],"client_msg_id":"c\u0000"}}"#);
        for (record, key) in [(keyless, None), (keyed, Some("c\0"))] {
            let (form, stored) = shorten(record.as_bytes(), &columns(key));
            assert_eq!(stored, b"hi", "{record}");
            assert_eq!(restore(form, stored, &columns(key)), record);
        }
    }

    #[test]
    fn a_name_of_its_own_is_stored_with_the_content() {
        let record = format!(
            r#"{{"id":"{ID}","room_id":"lob\"by","user_id":"ann","username":"Ann","content":"hi","type":"x"}}"#
        );
        let (form, stored) = shorten(record.as_bytes(), &columns(None));
        assert_eq!(stored, br#"Ann","content":"hi","type":"x"}"#);
        assert_eq!(restore(form, stored, &columns(None)), record);
    }

    #[test]
    fn another_record_is_stored_whole() {
        for record in ["", "}", "{}", PLAIN_TAIL, "not even JSON \u{0}"] {
            let (form, stored) = shorten(record.as_bytes(), &columns(Some("k")));
            assert_eq!((form, stored.as_slice()), (0, record.as_bytes()));
            assert_eq!(restore(form, stored, &columns(Some("k"))), record);
        }
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(
            parts in prop::collection::vec(0_usize..10, 0..8),
            text in ".{0,6}",
            key in prop::option::of(".{1,4}"),
            user in ".{1,4}",
        ) {
            let columns = Columns { user: &user, ..columns(key.as_deref()) };
            let (head, name) = (columns.head(), columns.name());
            let ending = columns.key().unwrap_or_default();
            let pieces: [&str; 10] =
                [&head, &name, NAME_KEY, &text, PLAIN_TAIL, &ending, "}", "\"", ",\"username\":", "{\"id\":"];
            let record: String = parts.into_iter().map(|part| pieces[part]).collect();
            let (form, stored) = shorten(record.as_bytes(), &columns);
            prop_assert_eq!(restore(form, stored, &columns), record);
        }
    }
}
