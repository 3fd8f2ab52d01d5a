//! The new record of an edited message.

use std::sync::Arc;

use super::Messages;
use super::changing_user::ChangingUser;
use crate::backplane::EditableRecord;
use crate::domain::{Code, Limits, MessageBody, Refusal, UserId};
use crate::store::{EditRecord, EditedRecord};

/// A new value of an optional field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Replacement<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// The field is removed.
    Clear,
    /// The field gets this value.
    Set(T),
}

impl<T> Replacement<T> {
    fn apply(&self, field: &mut Option<T>)
    where
        T: Clone,
    {
        match self {
            Self::Keep => {}
            Self::Clear => *field = None,
            Self::Set(value) => *field = Some(value.clone()),
        }
    }
}

/// The fields of an edit. Fields that are not given keep their values.
#[derive(Debug, Clone, Default)]
pub struct EditFields {
    /// The text.
    pub content: Option<String>,
    /// The heading.
    pub title: Replacement<String>,
    /// JSON text, already known to be well-formed and within the depth limit.
    pub payload: Replacement<Box<str>>,
    /// URLs of attachments.
    pub attachment_urls: Option<Vec<String>>,
}

impl EditFields {
    /// The function that makes the new record from the present one. `mentions`: those of the new content;
    /// without a new content the record keeps its own.
    pub(super) fn into_edit(self, mentions: Vec<UserId>, limits: Limits) -> EditRecord {
        Arc::new(move |record| self.edited(record, &mentions, &limits))
    }

    fn edited(
        &self,
        record: &[u8],
        mentions: &[UserId],
        limits: &Limits,
    ) -> Result<EditedRecord, Refusal> {
        let mut record = EditableRecord::decode(record).ok_or_else(damaged)?;
        if let Some(content) = &self.content {
            record.content.clone_from(content);
            record.mentions = mentions
                .iter()
                .map(|user| user.as_str().to_owned())
                .collect();
        }
        self.title.apply(&mut record.title);
        let is_json = match &self.payload {
            Replacement::Keep => true,
            Replacement::Clear => record.set_payload(None),
            Replacement::Set(json) => record.set_payload(Some(json)),
        };
        if !is_json {
            return Err(Refusal::bad_request("payload must be JSON").field("payload"));
        }
        if let Some(urls) = &self.attachment_urls {
            record.attachment_urls.clone_from(urls);
        }
        MessageBody {
            content: &record.content,
            title: record.title.as_deref(),
            payload: record.payload(),
            attachment_urls: &record.attachment_urls,
        }
        .check(limits)?;
        Ok(EditedRecord {
            record: record.encode(),
            mentions: self.content.as_ref().map(|_| mentions.to_vec()),
        })
    }
}

fn damaged() -> Refusal {
    tracing::error!("the record of a message can't be edited");
    Refusal::new(Code::Internal, "the stored message cannot be read")
}

impl Messages {
    /// The users that the new content mentions.
    pub(super) async fn mentions_of_edit(
        &self,
        by: &ChangingUser,
        fields: &EditFields,
    ) -> Result<Vec<UserId>, Refusal> {
        let Some(content) = &fields.content else {
            return Ok(Vec::new());
        };
        let permit = by.rights().may_send()?;
        self.parts.mentions.of(&permit, &by.user, content).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"id":"1","room_id":"r","user_id":"ann","username":"Ann","content":"old","type":"text","title":"t","payload":{"a":1.0},"attachment_urls":[],"client_msg_id":"c","thread_id":"2","mentions":["bob"]}"#;

    fn edited(fields: EditFields, mentions: &[&str]) -> Result<String, Refusal> {
        let mentions: Vec<UserId> = mentions.iter().map(|user| UserId::trusted(user)).collect();
        let has_content = fields.content.is_some();
        let edited = fields.into_edit(mentions.clone(), Limits::default())(RECORD.as_bytes())?;
        let expected = if has_content { Some(mentions) } else { None };
        assert_eq!(edited.mentions, expected, "as in the record");
        Ok(String::from_utf8(edited.record.to_vec()).unwrap())
    }

    #[test]
    fn fields_that_are_not_given_stay_byte_for_byte() {
        assert_eq!(edited(EditFields::default(), &[]).unwrap(), RECORD);
    }

    #[test]
    fn a_new_content_replaces_the_mentions() {
        let fields = EditFields {
            content: Some("new".to_owned()),
            title: Replacement::Clear,
            payload: Replacement::Set("[2]".into()),
            attachment_urls: Some(vec!["https://a.example/b".to_owned()]),
        };
        let expected = r#"{"id":"1","room_id":"r","user_id":"ann","username":"Ann","content":"new","type":"text","payload":[2],"attachment_urls":["https://a.example/b"],"client_msg_id":"c","thread_id":"2","mentions":["eve"]}"#;
        assert_eq!(edited(fields, &["eve"]).unwrap(), expected);
    }

    #[test]
    fn an_edit_keeps_the_rules_of_sending() {
        let empty = |payload| EditFields {
            content: Some(String::new()),
            payload,
            ..EditFields::default()
        };
        assert!(edited(empty(Replacement::Keep), &[]).is_ok());
        let refused = edited(empty(Replacement::Clear), &[]).unwrap_err();
        assert_eq!(refused.code, Code::BadRequest);
        let long = EditFields {
            title: Replacement::Set("x".repeat(257)),
            ..EditFields::default()
        };
        assert_eq!(edited(long, &[]).unwrap_err().code, Code::TooLarge);
    }
}
