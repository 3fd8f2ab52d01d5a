//! The facts of a run in which messages change.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A fact about messages that change. `target` is the number of the message, in its room; 0 for one that
/// has no number yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change_fact", rename_all = "snake_case")]
pub enum ChangeFact {
    // ---- written by changers
    /// An attempt to make a change, over any transport. A changer makes one change after another.
    Attempted {
        room: String,
        target: u64,
        change: MessageChange,
        is_repeat: bool,
    },
    /// The change is acknowledged, at the number `seq`; 0 if the answer doesn't tell it.
    Acked {
        room: String,
        target: u64,
        seq: u64,
        change: MessageChange,
    },
    /// The change is refused, for a reason that a repeat doesn't remove.
    Refused {
        room: String,
        target: u64,
        change: MessageChange,
        code: String,
    },
    // ---- written by readers
    /// The client is in the room. The next event has the number after `position`.
    Joined {
        room: String,
        position: u64,
        is_resume: bool,
        recovered: bool,
        gap: bool,
    },
    /// A numbered event of the room arrived. `target` is 0 if it is about no message, `version` that of the
    /// message in a `message_edited`.
    Received {
        room: String,
        seq: u64,
        name: String,
        target: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    },
    /// A `room_reset` arrived.
    Reset { room: String },
    /// An answer or event showed the message's content. `began` is the time at which its request
    /// or its connection began.
    Shown {
        room: String,
        target: u64,
        began: u64,
    },
    /// A `reactions_changed` arrived. `timestamp` is the server's, in milliseconds.
    ReactionsReceived {
        room: String,
        target: u64,
        seq: u64,
        timestamp: u64,
    },
    // ---- written by the lab
    /// All messages of a room at the end, as a node's history or a client's folded state has them.
    Final {
        observer: String,
        is_history: bool,
        room: String,
        messages: Vec<FinalMessage>,
    },
    /// A row that was still in the outbox after the time in which it should have been published.
    LeftInOutbox {
        row: u64,
        kind: String,
        failed: bool,
    },
}

/// A change of a message. No two changes of a run have the same content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum MessageChange {
    Send {
        content: String,
        /// The id of the root that the message replies to.
        thread: Option<String>,
    },
    /// `condition` is the version that the request named.
    Edit {
        content: String,
        condition: Option<u64>,
    },
    Delete,
    React {
        user: String,
        emoji: String,
        on: bool,
    },
    Pin {
        on: bool,
    },
}

/// Users by emoji.
pub type Reactions = BTreeMap<String, BTreeSet<String>>;

/// A message at the end of the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalMessage {
    pub seq: u64,
    pub id: String,
    pub user: String,
    pub version: u64,
    /// `None`: deleted. Then only the fields around this one are set.
    pub content: Option<String>,
    pub deleted_by: Option<String>,
    pub thread_id: Option<String>,
    pub edited_at: Option<String>,
    pub pinned: bool,
    /// The number of the last announcement that the message is pinned, or is not.
    pub pinned_seq: Option<u64>,
    pub reactions: Reactions,
    /// The number of the last announcement of reactions.
    pub reactions_seq: Option<u64>,
    pub thread: Option<FinalThread>,
}

/// The replies to a message that are not deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalThread {
    pub replies: u64,
    pub last_seq: u64,
    pub participants: BTreeSet<String>,
}
