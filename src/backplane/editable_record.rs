//! The record of a message, taken apart to be edited.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The record of a message, in the order of its fields. Fields that an edit can't change stay byte for byte.
#[derive(Debug, Serialize, Deserialize)]
pub struct EditableRecord {
    id: Box<RawValue>,
    room_id: Box<RawValue>,
    user_id: Box<RawValue>,
    username: Box<RawValue>,
    /// The text.
    pub content: String,
    r#type: Box<RawValue>,
    /// The heading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    /// URLs of attachments.
    #[serde(default)]
    pub attachment_urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thread_id: Option<Box<RawValue>>,
    /// The ids of the users that the content mentions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<String>,
}

impl EditableRecord {
    /// Takes a record apart. `None` if it is damaged.
    #[must_use]
    pub fn decode(record: &[u8]) -> Option<Self> {
        serde_json::from_slice(record).ok()
    }

    /// The record as [`record::encode`](super::record::encode) would encode it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let record = serde_json::to_vec(self).expect("strings and JSON always serialise");
        record.into()
    }

    /// The payload, as JSON text.
    #[must_use]
    pub fn payload(&self) -> Option<&str> {
        self.payload.as_deref().map(RawValue::get)
    }

    /// Replaces the payload. False, and nothing changes, if it is not JSON.
    #[must_use]
    pub fn set_payload(&mut self, payload: Option<&str>) -> bool {
        match payload.map(|json| RawValue::from_string(json.to_owned())) {
            None => self.payload = None,
            Some(Ok(json)) => self.payload = Some(json),
            Some(Err(_)) => return false,
        }
        true
    }

    /// Whether the message has this id.
    #[must_use]
    pub fn has_id(&self, id: Uuid) -> bool {
        self.id.get().trim_matches('"') == id.to_string()
    }

    /// Whether the message is a reply in a thread.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.thread_id.is_some()
    }
}
