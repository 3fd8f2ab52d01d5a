//! The stored form of a message: JSON of all that the sender said, made once, where it is appended.
//!
//! What the backplane gives (`seq`, `epoch`, `timestamp`) is not in it; whoever shows the message puts these in front.

use bytes::Bytes;
use uuid::Uuid;

use crate::domain::NewMessage;

/// The length of a record without any text: its keys, and an id.
const BARE: usize = 129;

/// A JSON object, never empty, so that `{` can be replaced by `{"seq":…,`. The payload goes through byte for byte.
///
/// It is written by hand: for most texts nothing has to be escaped, which is quicker to see at once than byte for byte.
#[must_use]
pub fn encode(draft: &NewMessage) -> Bytes {
    let (room, user, name) = (
        draft.room.as_str(),
        draft.user.as_str(),
        draft.username.as_str(),
    );
    let payload = draft.payload.as_deref();
    // As long as it will be, but where something has to be escaped: most need not grow, and what is kept has no slack.
    let texts = [room, user, name, &draft.content, &draft.kind];
    let length =
        BARE + texts.iter().map(|text| text.len()).sum::<usize>() + payload.map_or(0, str::len);
    let mut json = Vec::with_capacity(length);
    json.extend_from_slice(b"{\"id\":\"");
    json.extend_from_slice(
        draft
            .id
            .hyphenated()
            .encode_lower(&mut Uuid::encode_buffer())
            .as_bytes(),
    );
    let fields = [
        ("\",\"room_id\":", room),
        (",\"user_id\":", user),
        (",\"username\":", name),
    ];
    for (key, text) in fields.into_iter().chain([
        (",\"content\":", &*draft.content),
        (",\"type\":", &*draft.kind),
    ]) {
        put(&mut json, key, text);
    }
    if let Some(title) = &draft.title {
        put(&mut json, ",\"title\":", title);
    }
    if let Some(payload) = payload {
        debug_assert!(
            serde_json::from_str::<serde::de::IgnoredAny>(payload).is_ok(),
            "a draft's payload is well-formed"
        );
        json.extend_from_slice(b",\"payload\":");
        json.extend_from_slice(payload.as_bytes());
    }
    json.extend_from_slice(b",\"attachment_urls\":");
    serde_json::to_writer(&mut json, &draft.attachment_urls).expect("strings always serialise");
    if let Some(key) = &draft.client_msg_id {
        put(&mut json, ",\"client_msg_id\":", key.as_str());
    }
    json.push(b'}');
    json.into()
}

/// Appends a key as it stands, and a text as JSON.
fn put(json: &mut Vec<u8>, key: &str, text: &str) {
    json.extend_from_slice(key.as_bytes());
    let is_special = |byte| byte < b' ' || byte == b'"' || byte == b'\\';
    // Without an early end the compiler looks at many bytes in one step.
    if text
        .bytes()
        .fold(false, |found, byte| found | is_special(byte))
    {
        serde_json::to_writer(json, text).expect("strings always serialise");
    } else {
        json.push(b'"');
        json.extend_from_slice(text.as_bytes());
        json.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ClientMsgId, Limits, MessageFields, RoomId, UserId, Username};

    #[test]
    fn a_bare_record_fits_without_room_to_spare() {
        let user = UserId::trusted("u");
        let fields = MessageFields {
            content: "c".into(),
            ..MessageFields::default()
        };
        let draft = NewMessage::new(
            RoomId::trusted("r"),
            user.clone(),
            Username::from(&user),
            fields,
            &Limits::default(),
        )
        .unwrap();
        assert_eq!(
            encode(&draft).len(),
            BARE + "ru".len() + "uc".len() + draft.kind.len()
        );
    }

    #[test]
    fn every_text_is_written_as_json() {
        for char in (0..0x300)
            .chain([0x2028, 0xffff, 0x1_f600])
            .filter_map(char::from_u32)
        {
            for text in [
                format!("{char}"),
                format!("before {char} and a while after"),
                format!("after a longer while {char}"),
            ] {
                let mut json = Vec::new();
                put(&mut json, "", &text);
                assert_eq!(
                    String::from_utf8(json).unwrap(),
                    serde_json::to_string(&text).unwrap()
                );
            }
        }
    }

    #[test]
    fn holds_what_was_said_and_nothing_that_was_not() {
        let fields = MessageFields {
            content: "hi \"there\"".into(),
            payload: Some(r#"{"b":1.0,"a":[ 2 ]}"#.into()),
            client_msg_id: Some(ClientMsgId::trusted("c1")),
            ..MessageFields::default()
        };
        let user = UserId::trusted("ann");
        let draft = NewMessage::new(
            RoomId::trusted("lobby"),
            user.clone(),
            Username::from(&user),
            fields,
            &Limits::default(),
        )
        .unwrap();
        let id = draft.id;
        assert_eq!(
            encode(&draft),
            format!(
                r#"{{"id":"{id}","room_id":"lobby","user_id":"ann","username":"ann","content":"hi \"there\"","type":"text","payload":{{"b":1.0,"a":[ 2 ]}},"attachment_urls":[],"client_msg_id":"c1"}}"#
            )
        );
    }
}
