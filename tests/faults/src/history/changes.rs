//! The facts of a run in which messages change.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A fact about messages that change. `target` is the number of the message, in its room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change_fact", rename_all = "snake_case")]
pub enum ChangeFact {
    /// A change is acknowledged, at the number `seq`.
    Acked {
        room: String,
        target: u64,
        seq: u64,
        change: MessageChange,
    },
    /// The driver gave the change up: nobody knows whether it was made.
    GivenUp {
        room: String,
        target: u64,
        change: MessageChange,
    },
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
    /// All messages of a room at the end, as a node's history or a client's folded state has them.
    Final {
        observer: String,
        is_history: bool,
        room: String,
        messages: Vec<FinalMessage>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum MessageChange {
    Send {
        content: String,
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
}

/// A message at the end of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalMessage {
    pub seq: u64,
    pub id: String,
    pub version: u64,
    /// `None`: deleted.
    pub content: Option<String>,
    pub edited_at: Option<String>,
    pub pinned: bool,
    /// Users by emoji.
    pub reactions: BTreeMap<String, BTreeSet<String>>,
    pub replies: u64,
}
