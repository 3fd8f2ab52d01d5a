//! Chats: rooms with members.

use uuid::Uuid;

use super::id::{RoomId, UserId};
use super::refusal::{Code, Refusal};
use super::time::Timestamp;

/// The longest name of a chat, in bytes of UTF-8.
const MAX_CHAT_NAME_BYTES: usize = 128;

/// The most members of a chat.
pub const MAX_CHAT_MEMBERS: usize = 1000;

/// The kind of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatKind {
    /// The one chat of a pair of users. Its members never change, and it has neither owner nor name.
    Direct,
    /// A chat with owners, which choose the members.
    Group,
}

impl ChatKind {
    /// The kind's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
        }
    }
}

/// The rights of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatRole {
    /// May rename and delete the chat, and choose its members and their roles.
    Owner,
    /// May read and send.
    Member,
}

impl ChatRole {
    /// The role's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Member => "member",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Owner, Self::Member]
            .into_iter()
            .find(|role| role.as_str() == name)
    }
}

/// The messages that a new member can read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChatHistory {
    /// All.
    #[default]
    All,
    /// Those that are sent after the member was added.
    Joined,
}

impl ChatHistory {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Joined => "joined",
        }
    }

    /// The value of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::All, Self::Joined]
            .into_iter()
            .find(|history| history.as_str() == name)
    }
}

/// The name of a group: 1 to 128 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatName(Box<str>);

impl ChatName {
    /// Checks a name.
    ///
    /// # Errors
    /// `bad_request`, `too_large`.
    pub fn parse(value: &str) -> Result<Self, Refusal> {
        if value.trim().is_empty() {
            return Err(Refusal::bad_request("name must not be empty"));
        }
        if value.len() > MAX_CHAT_NAME_BYTES {
            let text = format!("name must be at most {MAX_CHAT_NAME_BYTES} bytes");
            return Err(Refusal::new(Code::TooLarge, text));
        }
        if value.chars().any(char::is_control) {
            let text = "name must not contain control characters";
            return Err(Refusal::bad_request(text));
        }
        Ok(Self(value.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chat {
    /// Its id, which its room's id contains.
    pub id: Uuid,
    /// See [`ChatKind`].
    pub kind: ChatKind,
    /// The name; only a group can have one.
    pub name: Option<String>,
    /// See [`ChatHistory`].
    pub history: ChatHistory,
    /// The number of its members.
    pub members: u64,
    /// The user that has created it.
    pub created_by: UserId,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed, its members apart.
    pub updated_at: Timestamp,
}

impl Chat {
    /// The room of its messages.
    #[must_use]
    pub fn room(&self) -> RoomId {
        RoomId::chat(self.id)
    }
}

/// The rights of a user in the room of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// The user's role.
    pub role: ChatRole,
    /// Messages with this `seq` and lower ones are hidden from the user: those before joining, in a chat
    /// with [`ChatHistory::Joined`]. Else 0.
    pub hidden_seq: u64,
}

/// A member of a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMember {
    /// The user.
    pub user: UserId,
    /// The user's unique name.
    pub username: String,
    /// The user's name for people.
    pub display_name: String,
    /// The role.
    pub role: ChatRole,
    /// When the user became a member.
    pub joined_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chats_name_is_short_text_without_control_characters() {
        assert_eq!(ChatName::parse("Böhse 🐎").unwrap().as_str(), "Böhse 🐎");
        for (name, code) in [
            ("", Code::BadRequest),
            (" ", Code::BadRequest),
            ("a\nb", Code::BadRequest),
            (&"ü".repeat(65), Code::TooLarge),
        ] {
            assert_eq!(ChatName::parse(name).unwrap_err().code, code, "{name:?}");
        }
    }

    #[test]
    fn roles_and_histories_have_names() {
        assert_eq!(ChatRole::named("owner"), Some(ChatRole::Owner));
        assert_eq!(ChatRole::named("admin"), None);
        assert_eq!(ChatHistory::named("joined"), Some(ChatHistory::Joined));
        assert_eq!(ChatHistory::named(""), None);
    }
}
