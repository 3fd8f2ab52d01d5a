//! Changes of messages: edits, deletions, reactions and pins.

use super::id::UserId;
use super::refusal::Refusal;

/// The kind of a change of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageChangeKind {
    /// The author has edited the message.
    Edited,
    /// The message was deleted.
    Deleted,
    /// The reactions to the message have changed.
    ReactionsChanged,
    /// The message was pinned to the room.
    Pinned,
    /// The message is no longer pinned.
    Unpinned,
}

impl MessageChangeKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::Edited,
        Self::Deleted,
        Self::ReactionsChanged,
        Self::Pinned,
        Self::Unpinned,
    ];

    /// The name of the event that announces the change.
    #[must_use]
    pub const fn event(self) -> &'static str {
        match self {
            Self::Edited => "message_edited",
            Self::Deleted => "message_deleted",
            Self::ReactionsChanged => "reactions_changed",
            Self::Pinned => "message_pinned",
            Self::Unpinned => "message_unpinned",
        }
    }

    /// The kind that the event with this name announces.
    #[must_use]
    pub fn of_event(event: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.event() == event)
    }

    /// Whether the announcement's `seq` becomes the version of the message.
    #[must_use]
    pub const fn raises_version(self) -> bool {
        match self {
            Self::Edited | Self::Deleted => true,
            Self::ReactionsChanged | Self::Pinned | Self::Unpinned => false,
        }
    }
}

/// An emoji, as a reaction: the character itself or a name as `:shrug:`. Compared byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Emoji(Box<str>);

impl Emoji {
    /// The most bytes of an emoji.
    pub const MAX_BYTES: usize = 64;

    /// Checks an emoji of a client.
    ///
    /// # Errors
    /// `bad_request` if it is empty, longer than [`MAX_BYTES`](Self::MAX_BYTES), or has a space or a
    /// control character.
    pub fn parse(field: &str, text: &str) -> Result<Self, Refusal> {
        let is_unfit = |char: char| char.is_whitespace() || char.is_control();
        if text.is_empty() || text.len() > Self::MAX_BYTES || text.chars().any(is_unfit) {
            let text = format!(
                "{field} must have 1 to {} bytes without spaces and control characters",
                Self::MAX_BYTES
            );
            return Err(Refusal::bad_request(text));
        }
        Ok(Self(text.into()))
    }

    /// An emoji that was checked before.
    #[must_use]
    pub fn trusted(text: &str) -> Self {
        Self(text.into())
    }

    /// The text of the emoji.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The users that have reacted to a message with one emoji.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// The emoji.
    pub emoji: Emoji,
    /// How many users have reacted with it.
    pub count: u64,
    /// The first of them, at most [`Reaction::USERS`].
    pub users: Vec<UserId>,
}

impl Reaction {
    /// The most users that are listed.
    pub const USERS: usize = 20;
    /// The most different emojis of one message.
    pub const EMOJIS: u64 = 50;

    /// Whether more users have reacted than are listed.
    #[must_use]
    pub fn is_clipped(&self) -> bool {
        self.count > self.users.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_follows_from_the_name_of_its_event() {
        for kind in MessageChangeKind::ALL {
            assert_eq!(MessageChangeKind::of_event(kind.event()), Some(kind));
        }
        assert_eq!(MessageChangeKind::of_event("message"), None);
    }

    #[test]
    fn an_emoji_is_a_short_text_without_spaces() {
        for text in ["\u{1f44d}\u{1f3fd}", ":shrug:", "+1"] {
            assert_eq!(Emoji::parse("emoji", text).unwrap().as_str(), text);
        }
        let long = "x".repeat(Emoji::MAX_BYTES + 1);
        for text in ["", "a b", "a\n", "\u{0}", long.as_str()] {
            assert!(Emoji::parse("emoji", text).is_err(), "{text:?}");
        }
    }
}
