//! What clients ask, decoded.

use std::borrow::Cow;
use std::marker::PhantomData;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::fields::{Fields, Name};
use crate::auth::Credentials;
use crate::delivery::ReplayFrom;
use crate::domain::{
    ClientMsgId, Code, Epoch, Limits, MessageFields, Refusal, RoomId, UserId, Username,
};
use crate::features::messaging::HistoryWindow;

/// Above it JavaScript doesn't know every whole number; no room gets there.
pub const MAX_SEQ: u64 = (1 << 53) - 1;
/// How many messages `history` gives when it isn't told.
const HISTORY_DEFAULT: u64 = 50;

/// The events that clients may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientEvent {
    /// Says who one is.
    Authenticate,
    /// Enters a room.
    Join,
    /// Leaves a room.
    Leave,
    /// Sends a message.
    Message,
    /// Watches a user.
    SubscribeStatus,
    /// Ends watching a user.
    UnsubscribeStatus,
    /// Reads back.
    History,
    /// Types.
    Typing,
}

impl ClientEvent {
    /// Every one.
    const ALL: [Self; 8] = [
        Self::Message,
        Self::Join,
        Self::Authenticate,
        Self::Leave,
        Self::Typing,
        Self::History,
        Self::SubscribeStatus,
        Self::UnsubscribeStatus,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Message => "message",
            Self::SubscribeStatus => "subscribe_status",
            Self::UnsubscribeStatus => "unsubscribe_status",
            Self::History => "history",
            Self::Typing => "typing",
        }
    }

    /// The event of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == name)
    }
}

/// An `authenticate` request.
pub type AuthenticateRequest = Credentials;

/// A `history` request.
#[derive(Debug)]
pub struct HistoryRequest {
    /// Which room.
    pub room: RoomId,
    /// Which messages.
    pub window: HistoryWindow,
    /// How many.
    pub limit: usize,
}

/// A request of a socket, valid in form.
#[derive(Debug)]
pub enum Decoded {
    /// `authenticate`.
    Authenticate(AuthenticateRequest),
    /// `join`.
    Join(RoomId, ReplayFrom),
    /// `leave`.
    Leave(RoomId),
    /// `message`.
    Message(RoomId, MessageFields),
    /// `subscribe_status`.
    SubscribeStatus(UserId),
    /// `unsubscribe_status`.
    UnsubscribeStatus(UserId),
    /// `history`.
    History(HistoryRequest),
    /// `typing`.
    Typing(RoomId, bool),
}

/// A packet's JSON array: the event's name and first argument. Extra arguments are ignored.
struct Packet<'a, T>(Cow<'a, str>, Option<T>);

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Packet<'a, T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = Packet<'de, T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an event")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Packet<'de, T>, A::Error> {
                let name: Name<'de> = seq
                    .next_element()?
                    .ok_or_else(|| serde::de::Error::custom("no name"))?;
                let first = seq.next_element()?;
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Packet(name.0, first))
            }
        }
        deserializer.deserialize_seq(Visitor(PhantomData))
    }
}

/// Decodes a packet's JSON array: the event's name, for the refusal, and the request.
///
/// # Errors
/// `unknown_event`, `bad_request`, `too_large`.
pub fn decode(packet: &str, limits: &Limits) -> (Cow<'static, str>, Result<Decoded, Refusal>) {
    // Most are right, and seen to be in one pass. What is wrong with the others is said by a second one.
    if Fields::check(packet, limits.event_bytes, "packet").is_ok()
        && let Ok(Packet(name, Some(fields))) =
            serde_json::from_str::<Packet<'_, Fields<'_>>>(packet)
        && let Some(event) = ClientEvent::named(&name)
    {
        return (event.as_str().into(), decode_fields(event, &fields));
    }
    decode_by_parts(packet, limits)
}

/// As [`decode`], with a look at each part by itself, so that whatever is wrong can be named.
pub(super) fn decode_by_parts(
    packet: &str,
    limits: &Limits,
) -> (Cow<'static, str>, Result<Decoded, Refusal>) {
    match serde_json::from_str::<Packet<'_, &RawValue>>(packet) {
        Err(_) => (
            name_alone(packet).into(),
            Err(Refusal::bad_request("the event is not a JSON array")),
        ),
        Ok(Packet(name, payload)) => decode_named(name, payload, limits),
    }
}

/// The event's name, for the refusal, and the request.
pub(super) fn decode_named(
    name: Cow<'_, str>,
    payload: Option<&RawValue>,
    limits: &Limits,
) -> (Cow<'static, str>, Result<Decoded, Refusal>) {
    match ClientEvent::named(&name) {
        None => (
            name.into_owned().into(),
            Err(Refusal::new(Code::UnknownEvent, "there is no such event")),
        ),
        Some(event) => (
            event.as_str().into(),
            decode_payload(event, payload, limits),
        ),
    }
}

/// The event's name, even where what follows it is broken.
fn name_alone(packet: &str) -> String {
    let mut names = serde_json::Deserializer::from_str(packet.trim_start_matches([' ', '[']))
        .into_iter::<String>();
    names.next().and_then(Result::ok).unwrap_or_default()
}

fn decode_payload(
    event: ClientEvent,
    payload: Option<&RawValue>,
    limits: &Limits,
) -> Result<Decoded, Refusal> {
    let json = payload
        .map(RawValue::get)
        .ok_or_else(|| Refusal::bad_request("the payload is missing"))?;
    decode_fields(event, &Fields::parse(json, limits.event_bytes, "payload")?)
}

fn decode_fields(event: ClientEvent, fields: &Fields<'_>) -> Result<Decoded, Refusal> {
    let room = || fields.required("room_id", RoomId::parse);
    let target = || fields.required("target_user_id", UserId::parse);
    Ok(match event {
        ClientEvent::Authenticate => Decoded::Authenticate(Credentials {
            user: fields.id("user_id", UserId::parse)?,
            username: fields.id("username", Username::parse)?,
            token: fields.text("token")?,
        }),
        ClientEvent::Join => Decoded::Join(room()?, start(fields)?),
        ClientEvent::Leave => Decoded::Leave(room()?),
        ClientEvent::Message => Decoded::Message(room()?, draft(fields)?),
        ClientEvent::SubscribeStatus => Decoded::SubscribeStatus(target()?),
        ClientEvent::UnsubscribeStatus => Decoded::UnsubscribeStatus(target()?),
        ClientEvent::History => Decoded::History(HistoryRequest {
            room: room()?,
            window: history_window(
                fields.number("before_seq", 0, MAX_SEQ)?,
                fields.number("after_seq", 0, MAX_SEQ)?,
            )?,
            limit: history_limit(fields.number("limit", 1, Limits::HISTORY)?),
        }),
        ClientEvent::Typing => Decoded::Typing(room()?, fields.flag("is_typing")?.unwrap_or(true)),
    })
}

/// `before_seq`, `after_seq`, or neither.
pub fn history_window(before: Option<u64>, after: Option<u64>) -> Result<HistoryWindow, Refusal> {
    match (before, after) {
        (Some(_), Some(_)) => Err(Refusal::bad_request(
            "before_seq and after_seq exclude each other",
        )),
        (Some(seq), None) => Ok(HistoryWindow::Before(seq)),
        (None, Some(seq)) => Ok(HistoryWindow::After(seq)),
        (None, None) => Ok(HistoryWindow::Newest),
    }
}

/// `limit` as a count.
pub fn history_limit(limit: Option<u64>) -> usize {
    usize::try_from(limit.unwrap_or(HISTORY_DEFAULT)).unwrap_or(usize::MAX)
}

fn start(fields: &Fields<'_>) -> Result<ReplayFrom, Refusal> {
    let epoch = fields.id("epoch", Epoch::parse)?;
    let limit = fields.number("limit", 0, Limits::HISTORY)?;
    match (fields.number("since_seq", 0, MAX_SEQ)?, limit) {
        (Some(_), Some(_)) => Err(Refusal::bad_request(
            "since_seq and limit exclude each other",
        )),
        (Some(seq), None) => Ok(ReplayFrom::Since { seq, epoch }),
        (None, Some(limit)) => Ok(ReplayFrom::Last(limit)),
        (None, None) => Ok(ReplayFrom::Live),
    }
}

fn draft(fields: &Fields<'_>) -> Result<MessageFields, Refusal> {
    Ok(MessageFields {
        content: fields.text("content")?.unwrap_or_default(),
        kind: fields.text("type")?,
        title: fields.text("title")?,
        payload: fields.json("payload")?,
        attachment_urls: fields.texts("attachment_urls")?,
        client_msg_id: fields.id("client_msg_id", ClientMsgId::parse)?,
    })
}

/// The body of `POST /messages`.
#[derive(Debug)]
pub struct PostRequest {
    /// Where it goes.
    pub room: RoomId,
    /// In whose name; `system` unless said.
    pub user: UserId,
    /// Under which name; `System` unless said.
    pub username: Username,
    /// What is said.
    pub fields: MessageFields,
}

impl PostRequest {
    /// Decodes the body; `idempotency_key` is the header's.
    ///
    /// # Errors
    /// `bad_request`, `too_large`.
    pub fn decode(
        body: &str,
        idempotency_key: Option<&str>,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        let fields = Fields::parse(body, limits.event_bytes, "body")?;
        let user = fields.id("user_id", UserId::parse)?;
        let username = fields
            .id("username", Username::parse)?
            .unwrap_or_else(|| Username::trusted("System"));
        let mut draft = draft(&fields)?;
        draft.client_msg_id = one_key(draft.client_msg_id, idempotency_key)?;
        let user = user.unwrap_or_else(|| UserId::trusted("system"));
        Ok(Self {
            room: fields.required("room_id", RoomId::parse)?,
            user,
            username,
            fields: draft,
        })
    }
}

/// By which a send is known again: the field's or the header's, which say the same where both are there.
pub(super) fn one_key(
    id: Option<ClientMsgId>,
    header: Option<&str>,
) -> Result<Option<ClientMsgId>, Refusal> {
    let Some(header) = header else { return Ok(id) };
    let key = ClientMsgId::parse("Idempotency-Key", header)?;
    if id.is_some_and(|id| id != key) {
        return Err(Refusal::bad_request(
            "Idempotency-Key and client_msg_id differ",
        ));
    }
    Ok(Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(packet: &str) -> Result<Decoded, Refusal> {
        decode(packet, &Limits::default()).1
    }

    #[test]
    fn requests_are_decoded() {
        assert!(matches!(
            decoded(r#"["join",{"room_id":"a"}]"#),
            Ok(Decoded::Join(_, ReplayFrom::Live))
        ));
        assert!(matches!(
            decoded(r#"["join",{"room_id":"a","limit":5},1,2]"#),
            Ok(Decoded::Join(_, ReplayFrom::Last(5)))
        ));
        assert!(matches!(
            decoded(r#"["join",{"room_id":"a","since_seq":3,"epoch":null,"more":{}}]"#),
            Ok(Decoded::Join(
                _,
                ReplayFrom::Since {
                    seq: 3,
                    epoch: None
                }
            ))
        ));
        assert!(matches!(
            decoded(r#"["typing",{"room_id":"a"}]"#),
            Ok(Decoded::Typing(_, true))
        ));
    }

    #[test]
    fn nothing_hostile_gets_through_or_panics() {
        let deep = format!(r#"["join",{}{}]"#, "[".repeat(5000), "]".repeat(5000));
        let deep_id = format!(
            r#"["join",{{"room_id":{}{}}}]"#,
            "[".repeat(5000),
            "]".repeat(5000)
        );
        for packet in [
            r#"["join"]"#,
            r#"["join",null]"#,
            r#"["join",1]"#,
            r#"["join","a"]"#,
            r#"["join",[]]"#,
            r#"["join",{}]"#,
            r#"["join",{"room_id":null}]"#,
            r#"["join",{"room_id":{"a":1}}]"#,
            r#"["join",{"room_id":"\ud800"}]"#,
            r#"["join",{"room_id":""}]"#,
            r#"["join",{"room_id":"a","since_seq":-1}]"#,
            r#"["join",{"room_id":"a","limit":201}]"#,
            r#"["join",{"room_id":"a","limit":5,"since_seq":1}]"#,
            r#"["join",{"room_id":"a","x":"\udfff"}]"#,
            r#"["join",{"room_id":"a\u0000"}]"#,
            r#"["history",{"room_id":"a","before_seq":1,"after_seq":1}]"#,
            r#"["history",{"room_id":"a","limit":0}]"#,
            r#"["join",{"_placeholder":true,"num":0}]"#,
            &deep,
            &deep_id,
        ] {
            assert_eq!(
                decoded(packet).unwrap_err().code,
                Code::BadRequest,
                "{packet}"
            );
        }
        assert_eq!(
            decoded(r#"["__proto__",{}]"#).unwrap_err().code,
            Code::UnknownEvent
        );
        let long = format!(
            r#"["message",{{"room_id":"a","content":"{}"}}]"#,
            "x".repeat(70_000)
        );
        assert_eq!(decoded(&long).unwrap_err().code, Code::TooLarge);
        assert_eq!(decode("[\"join\",{]", &Limits::default()).0, "join");
    }
}
