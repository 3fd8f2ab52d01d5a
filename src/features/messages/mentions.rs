//! The users that a message mentions: `@username`, `@here` and `@channel`.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::refused;
use crate::backplane::Presence;
use crate::domain::policy::{Permit, Sending};
use crate::domain::{Refusal, RoomId, RoomKind, UserId};
use crate::store::{ChatStore, DirectoryStore, MAX_NAMES};

/// `@here` lists at most this many users. `@channel` lists no more either: chats with more members are
/// mentioned as a whole, by owners and admins only.
const MAX_LISTED: usize = 100;
/// The name that stands for all members of a room in a message's `mentions`.
const ALL_MEMBERS: &str = "@channel";

/// Finds the users that contents mention.
pub struct Mentions {
    accounts: Option<Arc<dyn DirectoryStore>>,
    chats: Option<Arc<dyn ChatStore>>,
    presence: Arc<dyn Presence>,
}

/// The mentions in a content, not resolved yet.
#[derive(Debug, Default, PartialEq, Eq)]
struct MentionedNames {
    /// Names of accounts in lower case.
    users: BTreeSet<String>,
    here: bool,
    channel: bool,
}

impl Mentions {
    /// Finds users in these stores; without accounts, nobody is mentioned by a name.
    #[must_use]
    pub fn new(
        accounts: Option<Arc<dyn DirectoryStore>>,
        chats: Option<Arc<dyn ChatStore>>,
        presence: Arc<dyn Presence>,
    ) -> Self {
        Self {
            accounts,
            chats,
            presence,
        }
    }

    /// Whether the content may mention somebody. Others need no call of [`of`](Self::of).
    #[must_use]
    pub fn are_possible(content: &str) -> bool {
        memchr::memchr(b'@', content.as_bytes()).is_some()
    }

    /// The users that a content mentions, without the sender. `@channel` stands for all members where
    /// they are too many to list.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn of(
        &self,
        permit: &Permit<Sending>,
        sender: &UserId,
        content: &str,
    ) -> Result<Vec<UserId>, Refusal> {
        let mut named = MentionedNames::in_content(content);
        let room = permit.room();
        if room.kind() != RoomKind::Chat && named.channel {
            (named.channel, named.here) = (false, true);
        }
        let mut users = BTreeSet::new();
        if let Some(accounts) = &self.accounts
            && !named.users.is_empty()
        {
            let names: Vec<String> = named.users.into_iter().take(MAX_NAMES).collect();
            let found = accounts.users_named(&names).await.map_err(refused)?;
            let ids = found.iter().map(|id| UserId::trusted(&id.to_string()));
            users.extend(ids);
        }
        if named.here {
            users.extend(self.occupants(room, sender).await?);
        }
        if named.channel {
            match self.members(room).await? {
                Some(members) => users.extend(members),
                None if permit.is_moderator() => {
                    users.insert(UserId::trusted(ALL_MEMBERS));
                }
                None => {}
            }
        }
        users.remove(sender);
        Ok(users.into_iter().collect())
    }

    /// Users that are in the room, without the sender.
    async fn occupants(&self, room: &RoomId, sender: &UserId) -> Result<Vec<UserId>, Refusal> {
        let page = self.presence.members(room, None, MAX_LISTED + 1).await?;
        let users = page.members.into_iter().map(|(user, _)| user);
        let others = users.filter(|user| user != sender);
        Ok(others.take(MAX_LISTED).collect())
    }

    /// The members of the room's chat. `None`: too many to list.
    async fn members(&self, room: &RoomId) -> Result<Option<Vec<UserId>>, Refusal> {
        let (Some(chats), Some(chat)) = (&self.chats, chat_of(room)) else {
            return Ok(Some(Vec::new()));
        };
        let found = chats.chat_members(chat, None, MAX_LISTED + 1).await;
        let members = found.map_err(refused)?;
        if members.len() > MAX_LISTED {
            return Ok(None);
        }
        Ok(Some(
            members.into_iter().map(|member| member.user).collect(),
        ))
    }
}

/// The chat whose room this is.
pub(super) fn chat_of(room: &RoomId) -> Option<Uuid> {
    Uuid::try_parse(room.as_str().strip_prefix("chat:")?).ok()
}

impl MentionedNames {
    fn in_content(content: &str) -> Self {
        let mut named = Self::default();
        let is_part = |char: char| char.is_ascii_alphanumeric() || "_.-".contains(char);
        let mut before: Option<char> = None;
        for (at, char) in content.char_indices() {
            // An address such as `ann@example.com` mentions nobody.
            let begins = char == '@' && !before.is_some_and(char::is_alphanumeric);
            before = Some(char);
            if !begins {
                continue;
            }
            let rest = &content[at + 1..];
            let end = rest.find(|char| !is_part(char)).unwrap_or(rest.len());
            named.add(&rest[..end]);
        }
        named
    }

    /// Adds a name. A dot or hyphen behind it may belong to the sentence.
    fn add(&mut self, name: &str) {
        let trimmed = name.trim_end_matches(['.', '-']);
        match trimmed {
            "" => return,
            "here" => self.here = true,
            "channel" => self.channel = true,
            name => {
                self.users.insert(name.to_ascii_lowercase());
            }
        }
        if trimmed != name {
            self.users.insert(name.to_ascii_lowercase());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(content: &str) -> (Vec<String>, bool, bool) {
        let named = MentionedNames::in_content(content);
        (named.users.into_iter().collect(), named.here, named.channel)
    }

    #[test]
    fn a_name_begins_behind_an_at_sign_that_no_word_precedes() {
        for (content, expected) in [
            ("hi @Ann, and (@bob_2)!", vec!["ann", "bob_2"]),
            ("ann@example.com", vec![]),
            ("@ann.", vec!["ann", "ann."]),
            ("@a.b-c", vec!["a.b-c"]),
            ("@ @@ann \u{fc}@eve", vec!["ann"]),
            ("@", vec![]),
        ] {
            assert_eq!(names(content).0, expected, "{content}");
        }
        assert_eq!(names("@here @channel"), (vec![], true, true));
    }

    #[test]
    fn a_content_without_an_at_sign_mentions_nobody() {
        assert!(!Mentions::are_possible("hello"));
        assert!(Mentions::are_possible("a@b"));
    }
}
