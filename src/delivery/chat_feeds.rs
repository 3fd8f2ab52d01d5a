//! The feeds of chats on this node, for the checks of rights: a feed hears each change of the chat's
//! members.

use std::time::Duration;

use ahash::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::RoomId;

/// How long a feed may read the log until it no longer counts as current.
const MAX_CATCH_UP: Duration = Duration::from_millis(500);

/// The feed of a chat on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatFeed {
    /// The feed has heard each change of the chat since it has this number. It gets another one when
    /// it may have skipped changes, and no two feeds have the same.
    pub number: u64,
    /// False while changes may be missing: the feed is catching up, and has been for half a second.
    pub is_current: bool,
}

/// The feeds of all chats. The workers keep it up to date.
#[derive(Default)]
pub(super) struct ChatFeeds(Mutex<Feeds>);

#[derive(Default)]
struct Feeds {
    last_number: u64,
    chats: HashMap<RoomId, Feed>,
}

struct Feed {
    number: u64,
    /// Since when it has been catching up.
    catches_up_since: Option<Instant>,
}

impl Feeds {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

impl ChatFeeds {
    /// The chat has a feed from now on.
    pub fn begin(&self, chat: &RoomId) {
        let mut feeds = self.0.lock();
        let number = feeds.next_number();
        let feed = Feed {
            number,
            catches_up_since: None,
        };
        feeds.chats.insert(chat.clone(), feed);
    }

    /// The chat has no feed any more.
    pub fn end(&self, chat: &RoomId) {
        self.0.lock().chats.remove(chat);
    }

    /// The feed may have skipped changes.
    pub fn reset(&self, chat: &RoomId) {
        let mut feeds = self.0.lock();
        let number = feeds.next_number();
        if let Some(feed) = feeds.chats.get_mut(chat) {
            feed.number = number;
        }
    }

    /// The feed reads the log, because changes may be missing.
    pub fn catches_up(&self, chat: &RoomId) {
        if let Some(feed) = self.0.lock().chats.get_mut(chat) {
            feed.catches_up_since.get_or_insert_with(Instant::now);
        }
    }

    /// The feed has reached the end of the log.
    pub fn caught_up(&self, chat: &RoomId) {
        if let Some(feed) = self.0.lock().chats.get_mut(chat) {
            feed.catches_up_since = None;
        }
    }

    /// The feed of the chat.
    pub fn of(&self, chat: &RoomId) -> Option<ChatFeed> {
        let feeds = self.0.lock();
        let feed = feeds.chats.get(chat)?;
        let is_current = match feed.catches_up_since {
            Some(since) => since.elapsed() < MAX_CATCH_UP,
            None => true,
        };
        Some(ChatFeed {
            number: feed.number,
            is_current,
        })
    }
}
