//! The stored form of a message: JSON of all that the sender said, made once, where it is appended.
//!
//! What the backplane gives (`seq`, `epoch`, `timestamp`) is not in it; whoever shows the message puts these in front.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::Draft;

#[derive(Serialize)]
struct Record<'a> {
    id: uuid::Uuid,
    room_id: &'a str,
    user_id: &'a str,
    username: &'a str,
    content: &'a str,
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    attachment_urls: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<&'a str>,
}

/// The length of a record without any text: its keys, and an id.
const BARE: usize = 129;

/// A JSON object, never empty, so that `{` can be replaced by `{"seq":…,`. The payload goes through byte for byte.
#[must_use]
pub fn encode(draft: &Draft) -> Bytes {
    let record = Record {
        id: draft.id,
        room_id: draft.room.as_str(),
        user_id: draft.user.as_str(),
        username: draft.username.as_str(),
        content: &draft.content,
        r#type: &draft.kind,
        title: draft.title.as_deref(),
        payload: draft
            .payload
            .as_ref()
            .map(|payload| serde_json::from_str(payload).expect("a draft's payload is well-formed JSON")),
        attachment_urls: &draft.attachment_urls,
        client_msg_id: draft.client_msg_id.as_ref().map(|id| id.as_str()),
    };
    // As long as it will be, but where something has to be escaped: most need not grow, and what is kept has no slack.
    let texts = [record.room_id, record.user_id, record.username, record.content, record.r#type];
    let payload = draft.payload.as_ref().map_or(0, |payload| payload.len());
    let length = BARE + texts.iter().map(|text| text.len()).sum::<usize>() + payload;
    let mut json = Vec::with_capacity(length);
    serde_json::to_writer(&mut json, &record).expect("strings and raw JSON always serialise");
    json.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ClientMsgId, DraftFields, Limits, RoomId, UserId, Username};

    #[test]
    fn a_bare_record_fits_without_room_to_spare() {
        let user = UserId::trusted("u");
        let fields = DraftFields { content: "c".into(), ..DraftFields::default() };
        let draft =
            Draft::new(RoomId::trusted("r"), user.clone(), Username::from(&user), fields, &Limits::default()).unwrap();
        assert_eq!(encode(&draft).len(), BARE + "ru".len() + "uc".len() + draft.kind.len());
    }

    #[test]
    fn holds_what_was_said_and_nothing_that_was_not() {
        let fields = DraftFields {
            content: "hi \"there\"".into(),
            payload: Some(r#"{"b":1.0,"a":[ 2 ]}"#.into()),
            client_msg_id: Some(ClientMsgId::trusted("c1")),
            ..DraftFields::default()
        };
        let user = UserId::trusted("ann");
        let draft =
            Draft::new(RoomId::trusted("lobby"), user.clone(), Username::from(&user), fields, &Limits::default())
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
