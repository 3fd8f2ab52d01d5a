//! The record of a message: a JSON object with everything the sender supplied, encoded once, when
//! the message is appended.
//!
//! It doesn't contain the fields that the backplane assigns (`seq`, `epoch`, `timestamp`). The
//! encoders of the wire formats insert those at the beginning of the object.

use bytes::Bytes;
use uuid::Uuid;

use crate::domain::{NewMessage, UserId};

/// The length in bytes of a record whose texts are all empty: its keys and the id.
const EMPTY_RECORD_LEN: usize = 129;

/// Encodes a message as a JSON object. The object is never empty, so that an encoder may replace its
/// `{` by `{"seq":…,`. The payload is copied byte for byte.
///
/// This is written by hand for speed: most texts need no escaping, and checking that for a whole
/// text at once is faster than escaping byte by byte.
#[must_use]
pub fn encode(message: &NewMessage) -> Bytes {
    let (room, user, name) = (
        message.room.as_str(),
        message.user.as_str(),
        message.username.as_str(),
    );
    let payload = message.payload.as_deref();
    // The exact length unless a text needs escaping or an optional field is present. So most records
    // never reallocate, and stored records have no unused capacity.
    let texts = [room, user, name, &message.content, &message.kind];
    let length = EMPTY_RECORD_LEN
        + texts.iter().map(|text| text.len()).sum::<usize>()
        + payload.map_or(0, str::len);
    let mut json = Vec::with_capacity(length);
    json.extend_from_slice(b"{\"id\":\"");
    json.extend_from_slice(
        message
            .id
            .hyphenated()
            .encode_lower(&mut Uuid::encode_buffer())
            .as_bytes(),
    );
    json.push(b'"');
    put(&mut json, ",\"room_id\":\"", room);
    put(&mut json, ",\"user_id\":\"", user);
    put(&mut json, ",\"username\":\"", name);
    put(&mut json, ",\"content\":\"", &message.content);
    put(&mut json, ",\"type\":\"", &message.kind);
    if let Some(title) = &message.title {
        put(&mut json, ",\"title\":\"", title);
    }
    if let Some(payload) = payload {
        debug_assert!(
            serde_json::from_str::<serde::de::IgnoredAny>(payload).is_ok(),
            "a message's payload is well-formed JSON"
        );
        json.extend_from_slice(b",\"payload\":");
        json.extend_from_slice(payload.as_bytes());
    }
    json.extend_from_slice(b",\"attachment_urls\":");
    serde_json::to_writer(&mut json, &message.attachment_urls).expect("strings always serialise");
    if let Some(key) = &message.client_msg_id {
        put(&mut json, ",\"client_msg_id\":\"", key.as_str());
    }
    if let Some(thread) = message.thread {
        json.extend_from_slice(format!(",\"thread_id\":\"{thread}\"").as_bytes());
    }
    if !message.mentions.is_empty() {
        json.extend_from_slice(b",\"mentions\":");
        let mentions: Vec<&str> = message.mentions.iter().map(UserId::as_str).collect();
        serde_json::to_writer(&mut json, &mentions).expect("strings always serialise");
    }
    json.push(b'}');
    json.into()
}

/// Appends `key`, which ends with a quote, and `text` as a JSON string that begins with that quote.
fn put(json: &mut Vec<u8>, key: &str, text: &str) {
    let is_special = |byte| byte < b' ' || byte == b'"' || byte == b'\\';
    json.extend_from_slice(key.as_bytes());
    // Without an early return the compiler vectorises the loop.
    if text
        .bytes()
        .fold(false, |found, byte| found | is_special(byte))
    {
        // The serialiser writes the opening quote itself.
        json.pop();
        serde_json::to_writer(json, text).expect("strings always serialise");
    } else {
        json.extend_from_slice(text.as_bytes());
        json.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ClientMsgId, Limits, MessageFields, RoomId, Username};

    #[test]
    fn the_computed_length_of_a_record_is_exact() {
        let user = UserId::trusted("u");
        let fields = MessageFields {
            content: "c".into(),
            ..MessageFields::default()
        };
        let message = NewMessage::new(
            RoomId::trusted("r"),
            user.clone(),
            Username::from(&user),
            fields,
            &Limits::default(),
        )
        .unwrap();
        assert_eq!(
            encode(&message).len(),
            EMPTY_RECORD_LEN + "ru".len() + "uc".len() + message.kind.len()
        );
    }

    #[test]
    fn texts_are_escaped_like_serde_json_does() {
        for char in (0..0x300)
            .chain([0x2028, 0xffff, 0x1_f600])
            .filter_map(char::from_u32)
        {
            for text in [
                format!("{char}"),
                format!("before {char} and some text after"),
                format!("after a longer text {char}"),
            ] {
                let mut json = Vec::new();
                put(&mut json, "\"", &text);
                assert_eq!(
                    String::from_utf8(json).unwrap(),
                    serde_json::to_string(&text).unwrap()
                );
            }
        }
    }

    #[test]
    fn a_record_contains_the_fields_of_the_message_and_no_others() {
        let fields = MessageFields {
            content: "hi \"there\"".into(),
            payload: Some(r#"{"b":1.0,"a":[ 2 ]}"#.into()),
            client_msg_id: Some(ClientMsgId::trusted("c1")),
            ..MessageFields::default()
        };
        let user = UserId::trusted("ann");
        let message = NewMessage::new(
            RoomId::trusted("lobby"),
            user.clone(),
            Username::from(&user),
            fields,
            &Limits::default(),
        )
        .unwrap();
        let id = message.id;
        assert_eq!(
            encode(&message),
            format!(
                r#"{{"id":"{id}","room_id":"lobby","user_id":"ann","username":"ann","content":"hi \"there\"","type":"text","payload":{{"b":1.0,"a":[ 2 ]}},"attachment_urls":[],"client_msg_id":"c1"}}"#
            )
        );
    }

    #[test]
    fn the_thread_and_the_mentions_are_at_the_end_of_a_record() {
        let user = UserId::trusted("ann");
        let thread = Uuid::nil();
        let fields = MessageFields {
            content: "hi".into(),
            client_msg_id: Some(ClientMsgId::trusted("c1")),
            thread: Some(thread),
            ..MessageFields::default()
        };
        let (room, name) = (RoomId::trusted("lobby"), Username::from(&user));
        let message = NewMessage::new(room, user, name, fields, &Limits::default()).unwrap();
        let message = NewMessage {
            mentions: vec![UserId::trusted("bob"), UserId::trusted("\"x\"")],
            ..message
        };
        let record = String::from_utf8(encode(&message).to_vec()).unwrap();
        let expected =
            format!(r#","client_msg_id":"c1","thread_id":"{thread}","mentions":["bob","\"x\""]}}"#);
        assert!(record.ends_with(&expected), "{record}");
    }
}
