//! Chats, their members and their messages in the REST API.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::cursor::{decode_cursor, encode_cursor};
use super::fields::Fields;
use super::messages::{PositionJson, UnreadJson, listed, listed_json};
use super::request_fields::{idempotency_key, message_fields};
use crate::domain::{ChatHistory, ChatMember, ChatRole, Limits, MessageFields, Refusal};
use crate::features::chats::{ChatView, Entry, NewGroup, RoomUnread};
use crate::features::messaging::{HistoryPage, HistoryWindow};

/// A list of a REST response.
#[derive(Serialize)]
pub(crate) struct List<T> {
    /// The elements of this page.
    pub items: Vec<T>,
    /// Whether another page follows.
    pub has_more: bool,
    /// The `cursor` of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl<T> List<T> {
    /// A page, and the cursor of the next one if there is one.
    pub fn new(items: Vec<T>, next_cursor: Option<String>) -> Self {
        Self {
            items,
            has_more: next_cursor.is_some(),
            next_cursor,
        }
    }
}

/// A chat as its member sees it.
#[derive(Serialize)]
pub(crate) struct ChatJson<'a> {
    id: Uuid,
    /// The room of its messages.
    room_id: String,
    /// `direct` or `group`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// The messages that a new member can read: `all`, or those after it has `joined`.
    history: &'static str,
    /// The number of members.
    members: u64,
    /// The member's own part in it.
    my: MyJson,
    /// The other user of a direct chat.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<PeerJson<'a>>,
    /// The newest message that the member can read.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_message: Option<Box<RawValue>>,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize)]
struct MyJson {
    /// `owner` or `member`.
    role: &'static str,
    #[serde(flatten)]
    unread: Option<MyUnread>,
}

#[derive(Serialize)]
struct MyUnread {
    #[serde(flatten)]
    unread: UnreadJson,
    mentions: u64,
    last_read_seq: u64,
}

impl From<&RoomUnread> for MyUnread {
    fn from(room: &RoomUnread) -> Self {
        Self {
            unread: room.unread.into(),
            mentions: room.mentions,
            last_read_seq: room.last_read_seq,
        }
    }
}

#[derive(Serialize)]
struct PeerJson<'a> {
    id: &'a str,
    username: &'a str,
    display_name: &'a str,
}

impl<'a> From<&'a ChatView> for ChatJson<'a> {
    fn from(view: &'a ChatView) -> Self {
        let chat = &view.chat;
        Self {
            id: chat.id,
            room_id: chat.room().as_str().to_owned(),
            kind: chat.kind.as_str(),
            name: chat.name.as_deref(),
            history: chat.history.as_str(),
            members: chat.members,
            my: MyJson {
                role: view.membership.role.as_str(),
                unread: view.unread.as_ref().map(MyUnread::from),
            },
            peer: view.peer.as_ref().map(|peer| PeerJson {
                id: peer.user.as_str(),
                username: &peer.username,
                display_name: &peer.display_name,
            }),
            last_message: view.last_message.as_ref().map(message_json),
            created_at: chat.created_at.to_string(),
            updated_at: chat.updated_at.to_string(),
        }
    }
}

/// A member of a chat.
#[derive(Serialize)]
pub(crate) struct MemberJson<'a> {
    user_id: &'a str,
    username: &'a str,
    display_name: &'a str,
    /// `owner` or `member`.
    role: &'static str,
    joined_at: String,
}

impl<'a> From<&'a ChatMember> for MemberJson<'a> {
    fn from(member: &'a ChatMember) -> Self {
        Self {
            user_id: member.user.as_str(),
            username: &member.username,
            display_name: &member.display_name,
            role: member.role.as_str(),
            joined_at: member.joined_at.to_string(),
        }
    }
}

/// The body of `POST /api/v1/chats`: `user_id` for a direct chat, or `user_ids` for a group.
#[derive(Debug)]
pub(crate) enum OpenChatRequest {
    /// The direct chat with this user.
    Direct(String),
    /// A group.
    Group(NewGroup),
}

impl OpenChatRequest {
    /// # Errors
    /// `bad_request`.
    pub fn decode(body: &str, limits: &Limits) -> Result<Self, Refusal> {
        let fields = Fields::parse(body, limits.event_bytes, "body")?;
        Self::from_fields(&fields)
    }

    fn from_fields(fields: &Fields<'_>) -> Result<Self, Refusal> {
        match (fields.text("user_id")?, fields.raw("user_ids")) {
            (Some(user), None) => Ok(Self::Direct(user)),
            (None, Some(_)) => Ok(Self::Group(NewGroup {
                users: fields.texts("user_ids")?,
                name: fields.text("name")?,
                history: match fields.text("history")? {
                    Some(name) => history(&name)?,
                    None => ChatHistory::default(),
                },
            })),
            (None, None) => Err(Refusal::bad_request("user_id or user_ids is missing")),
            (Some(_), Some(_)) => Err(Refusal::bad_request(
                "user_id and user_ids exclude each other",
            )),
        }
    }
}

fn history(name: &str) -> Result<ChatHistory, Refusal> {
    ChatHistory::named(name)
        .ok_or_else(|| Refusal::bad_request("history must be \"all\" or \"joined\""))
}

fn role(name: &str) -> Result<ChatRole, Refusal> {
    ChatRole::named(name)
        .ok_or_else(|| Refusal::bad_request("role must be \"owner\" or \"member\""))
}

/// The body of `PATCH /api/v1/chats/{chat_id}`.
#[derive(Deserialize)]
pub(crate) struct RenameRequest {
    /// The name; `null` removes it, and without the field it stays.
    #[serde(default, deserialize_with = "present")]
    pub name: Option<Option<String>>,
}

/// Distinguishes `null` from an absent field.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// The body of `POST /api/v1/chats/{chat_id}/members`: `user_id` or `user_ids`.
#[derive(Deserialize)]
pub(crate) struct AddMembersRequest {
    /// One user.
    #[serde(default)]
    pub user_id: Option<String>,
    /// Several users.
    #[serde(default)]
    pub user_ids: Option<Vec<String>>,
    /// `owner` or `member`, the default.
    #[serde(default)]
    role: Option<String>,
}

impl AddMembersRequest {
    /// # Errors
    /// `bad_request`.
    pub fn role(&self) -> Result<ChatRole, Refusal> {
        self.role.as_deref().map_or(Ok(ChatRole::Member), role)
    }
}

/// The body of `PATCH /api/v1/chats/{chat_id}/members/{user_id}`.
#[derive(Deserialize)]
pub(crate) struct SetRoleRequest {
    role: String,
}

impl SetRoleRequest {
    /// # Errors
    /// `bad_request`.
    pub fn role(&self) -> Result<ChatRole, Refusal> {
        role(&self.role)
    }
}

/// The body of `POST /api/v1/rooms/{room_id}/messages`.
#[derive(Debug)]
pub(crate) struct MessageRequest(pub MessageFields);

impl MessageRequest {
    /// # Errors
    /// `bad_request`, `too_large`.
    pub fn decode(body: &str, key: Option<&str>, limits: &Limits) -> Result<Self, Refusal> {
        let fields = Fields::parse(body, limits.event_bytes, "body")?;
        message(&fields, key).map(Self)
    }
}

fn message(fields: &Fields<'_>, key: Option<&str>) -> Result<MessageFields, Refusal> {
    let mut message = message_fields(fields)?;
    message.client_msg_id = idempotency_key(message.client_msg_id, key)?;
    Ok(message)
}

/// The chat that a message is for.
#[derive(Debug)]
pub(crate) enum ChatTarget {
    /// The direct chat with this user.
    User(String),
    /// This chat.
    Chat(String),
}

/// The body of `POST /api/chats/message`: a message, and `user_id` or `chat_id`.
#[derive(Debug)]
pub(crate) struct ChatMessageRequest {
    pub to: ChatTarget,
    pub message: MessageFields,
}

impl ChatMessageRequest {
    /// # Errors
    /// `bad_request`, `too_large`.
    pub fn decode(body: &str, key: Option<&str>, limits: &Limits) -> Result<Self, Refusal> {
        let fields = Fields::parse(body, limits.event_bytes, "body")?;
        Self::from_fields(&fields, key)
    }

    fn from_fields(fields: &Fields<'_>, key: Option<&str>) -> Result<Self, Refusal> {
        let to = match (fields.text("user_id")?, fields.text("chat_id")?) {
            (Some(user), None) => ChatTarget::User(user),
            (None, Some(chat)) => ChatTarget::Chat(chat),
            (None, None) => return Err(Refusal::bad_request("user_id or chat_id is missing")),
            (Some(_), Some(_)) => {
                let text = "user_id and chat_id exclude each other";
                return Err(Refusal::bad_request(text));
            }
        };
        let message = message(fields, key)?;
        Ok(Self { to, message })
    }
}

/// The body of `POST /api/chats`: that of `POST /api/chats/message` if it has a `content`, else that of
/// `POST /api/v1/chats`.
#[derive(Debug)]
pub(crate) enum OpenOrSendRequest {
    Open(OpenChatRequest),
    Send(ChatMessageRequest),
}

impl OpenOrSendRequest {
    /// # Errors
    /// `bad_request`, `too_large`.
    pub fn decode(body: &str, key: Option<&str>, limits: &Limits) -> Result<Self, Refusal> {
        let fields = Fields::parse(body, limits.event_bytes, "body")?;
        if fields.raw("content").is_some() || fields.raw("chat_id").is_some() {
            ChatMessageRequest::from_fields(&fields, key).map(Self::Send)
        } else {
            OpenChatRequest::from_fields(&fields).map(Self::Open)
        }
    }
}

/// A message. `null` if its record is damaged.
pub(crate) fn message_json(entry: &Entry) -> Box<RawValue> {
    listed_json(entry, None)
}

/// A page of messages.
#[derive(Serialize)]
pub(crate) struct MessageList<'a> {
    /// The messages, in ascending `seq`.
    items: Vec<Box<RawValue>>,
    /// Whether another page follows in the direction of the request.
    has_more: bool,
    /// The `cursor` of that page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// Whether there are later messages; only for `around_seq`.
    #[serde(skip_serializing_if = "Option::is_none")]
    has_more_after: Option<bool>,
    as_of: PositionJson<'a>,
}

impl<'a> MessageList<'a> {
    pub fn of(page: &'a HistoryPage) -> Self {
        Self {
            items: listed(&page.entries, &page.states),
            has_more: page.has_more,
            next_cursor: page.next.and_then(next_cursor),
            has_more_after: page.has_more_after,
            as_of: (&page.head).into(),
        }
    }
}

/// The name of the list in cursors.
const MESSAGES: &str = "messages";

/// The direction in which a list of messages goes on.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Direction {
    After,
    Before,
}

fn next_cursor(next: HistoryWindow) -> Option<String> {
    let position = match next {
        HistoryWindow::After(seq) => (Direction::After, seq),
        HistoryWindow::Before(seq) => (Direction::Before, seq),
        HistoryWindow::Around(_) | HistoryWindow::Newest => return None,
    };
    Some(encode_cursor(MESSAGES, &position))
}

/// The window of a page of messages that a cursor stands for.
///
/// # Errors
/// `bad_request`.
pub(crate) fn message_cursor(cursor: &str) -> Result<HistoryWindow, Refusal> {
    Ok(match decode_cursor(MESSAGES, cursor)? {
        (Direction::After, seq) => HistoryWindow::After(seq),
        (Direction::Before, seq) => HistoryWindow::Before(seq),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Code;

    #[test]
    fn a_cursor_of_messages_is_read_as_it_was_written() {
        for window in [HistoryWindow::After(7), HistoryWindow::Before(7)] {
            let cursor = next_cursor(window).unwrap();
            assert_eq!(message_cursor(&cursor).unwrap(), window);
        }
        let of_chats = encode_cursor("chats", &(1, Uuid::nil()));
        for foreign in ["", "b7", "x", of_chats.as_str()] {
            let refusal = message_cursor(foreign).unwrap_err();
            assert_eq!(refusal.code, Code::BadRequest, "{foreign}");
        }
    }

    #[test]
    fn a_new_chat_is_direct_or_a_group() {
        let decode = |body| OpenChatRequest::decode(body, &Limits::default());
        let direct = decode(r#"{"user_id":"u","name":"x"}"#).unwrap();
        assert!(matches!(direct, OpenChatRequest::Direct(user) if user == "u"));
        let group = decode(r#"{"user_ids":["u"],"history":"joined"}"#).unwrap();
        let OpenChatRequest::Group(group) = group else {
            panic!("{group:?}");
        };
        assert_eq!((group.users.len(), group.history), (1, ChatHistory::Joined));
        for body in [
            "{}",
            r#"{"user_id":"u","user_ids":[]}"#,
            r#"{"user_ids":[1]}"#,
            r#"{"user_ids":[],"history":"none"}"#,
        ] {
            assert_eq!(decode(body).unwrap_err().code, Code::BadRequest, "{body}");
        }
    }

    #[test]
    fn null_removes_a_name_and_an_absent_one_stays() {
        let name = |body| serde_json::from_str::<RenameRequest>(body).unwrap().name;
        assert_eq!(name("{}"), None);
        assert_eq!(name(r#"{"name":null}"#), Some(None));
        assert_eq!(name(r#"{"name":"x"}"#), Some(Some("x".to_owned())));
    }
}
