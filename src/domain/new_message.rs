//! A message that has no `seq` yet. An invalid one cannot be constructed.

use url::Url;
use uuid::Uuid;

use super::id::{ClientMsgId, RoomId, UserId, Username};
use super::limits::Limits;
use super::refusal::{Code, Refusal};

/// The fields of a message as the sender gave them, not yet checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageFields {
    /// The text; may be empty when there is a payload or an attachment.
    pub content: String,
    /// The sender's `type`; `text` if absent.
    pub kind: Option<String>,
    /// An optional heading.
    pub title: Option<String>,
    /// JSON text, already known to be well-formed and within the depth limit.
    pub payload: Option<Box<str>>,
    /// URLs of attachments.
    pub attachment_urls: Vec<String>,
    /// The sender's own id of the message, which makes the send safe to repeat.
    pub client_msg_id: Option<ClientMsgId>,
    /// The root of the thread that the message is a reply in.
    pub thread: Option<Uuid>,
}

/// A valid message that has no `seq` yet.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// UUIDv7 by this node's clock: unique, and only roughly in order of time.
    pub id: Uuid,
    /// The room it is sent to.
    pub room: RoomId,
    /// The sender.
    pub user: UserId,
    /// The sender's display name.
    pub username: Username,
    /// The text.
    pub content: String,
    /// The `type` on the wire.
    pub kind: String,
    /// An optional heading.
    pub title: Option<String>,
    /// JSON text.
    pub payload: Option<Box<str>>,
    /// URLs of attachments.
    pub attachment_urls: Vec<String>,
    /// The sender's own id of the message.
    pub client_msg_id: Option<ClientMsgId>,
    /// The root of the thread that the message is a reply in.
    pub thread: Option<Uuid>,
    /// The users that the content mentions, as the server has resolved them.
    pub mentions: Vec<UserId>,
}

impl NewMessage {
    /// Checks `fields` against `limits` and gives the message its id.
    ///
    /// # Errors
    /// `bad_request` or `too_large`, naming the field.
    pub fn new(
        room: RoomId,
        user: UserId,
        username: Username,
        fields: MessageFields,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        let MessageFields {
            content,
            kind,
            title,
            payload,
            attachment_urls,
            client_msg_id,
            thread,
        } = fields;
        let kind = kind.unwrap_or_else(|| "text".to_owned());
        if kind.is_empty() {
            return Err(Refusal::bad_request("type must not be empty"));
        }
        at_most("type", kind.len(), Limits::TYPE_BYTES)?;
        MessageBody {
            content: &content,
            title: title.as_deref(),
            payload: payload.as_deref(),
            attachment_urls: &attachment_urls,
        }
        .check(limits)?;
        Ok(Self {
            id: Uuid::now_v7(),
            room,
            user,
            username,
            content,
            kind,
            title,
            payload,
            attachment_urls,
            client_msg_id,
            thread,
            mentions: Vec::new(),
        })
    }
}

/// The parts of a message that an edit may replace.
#[derive(Debug, Clone, Copy)]
pub struct MessageBody<'a> {
    /// The text.
    pub content: &'a str,
    /// An optional heading.
    pub title: Option<&'a str>,
    /// JSON text.
    pub payload: Option<&'a str>,
    /// URLs of attachments.
    pub attachment_urls: &'a [String],
}

impl MessageBody<'_> {
    /// Checks the parts against the limits.
    ///
    /// # Errors
    /// `bad_request` or `too_large`, naming the field.
    pub fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        let Self {
            content,
            title,
            payload,
            attachment_urls,
        } = self;
        at_most("content", content.len(), limits.content_bytes)?;
        at_most("title", title.map_or(0, str::len), Limits::TITLE_BYTES)?;
        at_most("payload", payload.map_or(0, str::len), limits.payload_bytes)?;
        if attachment_urls.len() > Limits::ATTACHMENTS {
            let text = format!("attachment_urls must be at most {}", Limits::ATTACHMENTS);
            return Err(Refusal::new(Code::TooLarge, text));
        }
        for link in *attachment_urls {
            at_most(
                "each of attachment_urls",
                link.len(),
                Limits::ATTACHMENT_BYTES,
            )?;
            let known = Url::parse(link)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            if !known {
                return Err(Refusal::bad_request(
                    "each of attachment_urls must be an http or https URL",
                ));
            }
        }
        if content.is_empty() && payload.is_none() && attachment_urls.is_empty() {
            return Err(Refusal::bad_request(
                "content must not be empty without a payload or an attachment",
            ));
        }
        Ok(())
    }
}

fn at_most(field: &str, bytes: usize, max: usize) -> Result<(), Refusal> {
    if bytes > max {
        return Err(Refusal::new(
            Code::TooLarge,
            format!("{field} must be at most {max} bytes"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: MessageFields) -> Result<NewMessage, Refusal> {
        let user = UserId::trusted("ann");
        let name = Username::from(&user);
        NewMessage::new(
            RoomId::trusted("lobby"),
            user,
            name,
            fields,
            &Limits::default(),
        )
    }

    fn text(content: &str) -> MessageFields {
        MessageFields {
            content: content.to_owned(),
            ..MessageFields::default()
        }
    }

    #[test]
    fn a_message_needs_content_or_a_payload_or_an_attachment() {
        assert_eq!(message(text("hello")).unwrap().kind, "text");
        assert_eq!(message(text("")).unwrap_err().code, Code::BadRequest);
        assert!(
            message(MessageFields {
                payload: Some("0".into()),
                ..text("")
            })
            .is_ok()
        );
        assert!(
            message(MessageFields {
                attachment_urls: vec!["https://a.example/b".into()],
                ..text("")
            })
            .is_ok()
        );
    }

    #[test]
    fn every_field_has_a_maximum_length() {
        for fields in [
            text(&"x".repeat(16_385)),
            MessageFields {
                kind: Some("x".repeat(65)),
                ..text("a")
            },
            MessageFields {
                title: Some("x".repeat(257)),
                ..text("a")
            },
            MessageFields {
                payload: Some(format!("\"{}\"", "x".repeat(16_384)).into()),
                ..text("a")
            },
            MessageFields {
                attachment_urls: vec!["https://a.example/".to_owned(); 11],
                ..text("a")
            },
            MessageFields {
                attachment_urls: vec![format!("https://a.example/{}", "x".repeat(2048))],
                ..text("a")
            },
        ] {
            assert_eq!(message(fields).unwrap_err().code, Code::TooLarge);
        }
    }

    #[test]
    fn attachment_urls_must_be_http_urls_and_type_must_not_be_empty() {
        for link in [
            "ftp://a.example/b",
            "javascript:alert(1)",
            "nonsense",
            "",
            "https://",
        ] {
            let fields = MessageFields {
                attachment_urls: vec![link.to_owned()],
                ..text("a")
            };
            assert_eq!(
                message(fields).unwrap_err().code,
                Code::BadRequest,
                "{link}"
            );
        }
        assert_eq!(
            message(MessageFields {
                kind: Some(String::new()),
                ..text("a")
            })
            .unwrap_err()
            .code,
            Code::BadRequest
        );
    }
}
