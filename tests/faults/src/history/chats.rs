//! The facts of a run with chats: changes of memberships, the announcements of them, and rights.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A fact about chats. Users are ids of accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "chat_fact", rename_all = "snake_case")]
pub enum ChatFact {
    // ---- written by drivers
    /// An attempt to change something over REST. All attempts of one change have its name.
    ChangeAttempted { change: String, wanted: Wanted },
    /// The change is acknowledged. `chat` is the id of the chat.
    ChangeAcked { change: String, chat: String },
    /// The server refuses the change, for a reason that a repeat does not remove.
    ChangeRefused { change: String, status: u16 },
    /// More than a second after the acknowledged removal of the user, and before the next attempt to
    /// add it, a node answered the user's request for the messages of the chat.
    ReadAfterRemoval {
        chat: String,
        user: String,
        node: usize,
        status: u16,
    },
    // ---- written by members
    /// The client has joined the room of a chat. The next event is that after `position`.
    Joined {
        chat: String,
        user: String,
        position: u64,
        gap: bool,
    },
    /// An event of a chat's room, or of the user's feed.
    Received {
        room: String,
        user: String,
        seq: u64,
        event: ChatEvent,
    },
    /// An attempt to send a message to the room of a chat.
    Sent { room: String, msg: String },
    /// The message is acknowledged.
    Acked { room: String, msg: String, seq: u64 },
    // ---- written by the lab
    /// From now on the client is in the room of this chat until the end of the run.
    Watcher { client: String, chat: String },
    /// An entry of the archive, of a chat's room or of a user's feed.
    KeptEntry {
        room: String,
        seq: u64,
        id: String,
        event: ChatEvent,
    },
    /// A row of the table of chats.
    KeptChat { chat: String, name: Option<String> },
    /// A row of the table of members.
    KeptMember {
        chat: String,
        user: String,
        role: Role,
    },
    /// A row that was still in the outbox after the time in which it should have been published.
    LeftInOutbox {
        row: u64,
        kind: String,
        failed: bool,
    },
    /// A node's answer, at the end, to a user's request to join or to read a chat.
    FinalRight {
        chat: String,
        user: String,
        node: usize,
        request: String,
        granted: bool,
    },
    /// The lab has read the tables.
    TablesRead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Owner,
    Member,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Member => "member",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        match name {
            "owner" => Some(Self::Owner),
            "member" => Some(Self::Member),
            _ => None,
        }
    }
}

/// A change that a driver wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Wanted {
    /// A new group of these users. The first one creates it, and is its owner.
    Open {
        name: String,
        users: Vec<String>,
    },
    Rename {
        chat: String,
        name: String,
    },
    Add {
        chat: String,
        user: String,
        role: Role,
    },
    SetRole {
        chat: String,
        user: String,
        role: Role,
    },
    Remove {
        chat: String,
        user: String,
    },
    /// Deletes a chat that has these members, in any order.
    Delete {
        chat: String,
        users: Vec<String>,
    },
}

/// An event of a chat's room or of a feed, without its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum ChatEvent {
    Message {
        msg: Option<String>,
        sender: String,
    },
    ChatCreated {
        chat: String,
        title: Option<String>,
        role: Option<Role>,
    },
    ChatUpdated {
        chat: String,
        title: Option<String>,
        role: Option<Role>,
    },
    MemberAdded {
        chat: String,
        user: String,
        role: Option<Role>,
    },
    MemberRemoved {
        chat: String,
        user: String,
        role: Option<Role>,
    },
}

impl ChatEvent {
    /// Reads an event. `None` if it is none of a chat.
    pub fn of(name: &str, event: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let chat = &event["chat"];
        let role_in_chat = || chat["my"]["role"].as_str().and_then(Role::named);
        let role = || event["role"].as_str().and_then(Role::named);
        Some(match name {
            "message" => Self::Message {
                msg: text(&event["client_msg_id"]),
                sender: text(&event["user_id"])?,
            },
            "chat_created" => Self::ChatCreated {
                chat: text(&chat["id"])?,
                title: text(&chat["name"]),
                role: role_in_chat(),
            },
            "chat_updated" => Self::ChatUpdated {
                chat: text(&chat["id"])?,
                title: text(&chat["name"]),
                role: role_in_chat(),
            },
            "member_added" => Self::MemberAdded {
                chat: text(&event["chat_id"])?,
                user: text(&event["user_id"])?,
                role: role(),
            },
            "member_removed" => Self::MemberRemoved {
                chat: text(&event["chat_id"])?,
                user: text(&event["user_id"])?,
                role: role(),
            },
            _ => return None,
        })
    }
}

/// The room of a chat.
pub fn room_of(chat: &str) -> String {
    format!("chat:{chat}")
}

/// The feed of a user.
pub fn feed_of(user: &str) -> String {
    format!("user:{user}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_read_from_its_fields() {
        let added = json!({"chat_id": "c", "user_id": "u", "role": "owner", "seq": 3});
        let expected = ChatEvent::MemberAdded {
            chat: "c".into(),
            user: "u".into(),
            role: Some(Role::Owner),
        };
        assert_eq!(ChatEvent::of("member_added", &added), Some(expected));
        let updated = json!({"chat": {"id": "c", "name": "n", "my": {"role": "member"}}});
        let expected = ChatEvent::ChatUpdated {
            chat: "c".into(),
            title: Some("n".into()),
            role: Some(Role::Member),
        };
        assert_eq!(ChatEvent::of("chat_updated", &updated), Some(expected));
        assert_eq!(ChatEvent::of("user_joined", &added), None);
    }
}
