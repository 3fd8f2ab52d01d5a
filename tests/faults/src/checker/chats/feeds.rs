//! The announcements in the personal feeds, as the archive has them. Only they name the user of a
//! changed role.

use std::collections::{BTreeMap, BTreeSet};

use super::super::faults::{FaultKind, Faults};
use super::ChatHistory;
use super::expected::{Expected, Sequence, Step};
use crate::history::chats::{ChatEvent, Role, feed_of, room_of};

pub(super) struct FeedCheck<'r, 'a> {
    pub history: &'r ChatHistory<'a>,
    pub expected: &'r Expected<'a>,
    pub faults: &'r mut Faults,
    pub at: u64,
}

/// What a feed has about one chat.
#[derive(Default)]
struct Told<'a> {
    steps: Vec<Step>,
    role: Option<Role>,
    /// The names of the updates that did not change the role.
    names: Vec<&'a str>,
}

impl<'a> FeedCheck<'_, 'a> {
    pub fn check(mut self) {
        let users: BTreeSet<&'a str> = self.expected.steps.keys().map(|(_, user)| *user).collect();
        for user in users {
            self.check_feed(user);
        }
    }

    fn check_feed(&mut self, user: &'a str) {
        let mut told = self.read(user);
        for ((chat, of), steps) in &self.expected.steps {
            if *of != user {
                continue;
            }
            let told = told.remove(chat).unwrap_or_default();
            let subject = || format!("{chat} in the feed of {user}");
            steps.compare(&told.steps, self.at, self.faults, subject);
            self.check_names(chat, user, &told);
            let kept = self.history.members.get(&(*chat, user)).copied();
            if kept != told.role {
                self.faults.add(FaultKind::TablesDiffer, self.at, || {
                    format!(
                        "{user} is {kept:?} of {chat} in the table, and {:?} as announced",
                        told.role
                    )
                });
            }
        }
        for (chat, told) in told {
            let subject = || format!("{chat} in the feed of {user}, without any change");
            Sequence::default().compare(&told.steps, self.at, self.faults, subject);
        }
    }

    /// By chat: what the user's feed has about it.
    fn read(&self, user: &str) -> BTreeMap<&'a str, Told<'a>> {
        let mut chats: BTreeMap<&'a str, Told<'a>> = BTreeMap::new();
        for entry in self.history.entries_of(&feed_of(user)) {
            let (chat, step) = match entry.event {
                ChatEvent::Message { .. } => continue,
                ChatEvent::ChatCreated { chat, role, .. } => (chat, role.map(Step::Created)),
                ChatEvent::MemberAdded { chat, role, .. } => (chat, role.map(Step::Added)),
                ChatEvent::MemberRemoved { chat, .. } => (chat, Some(Step::Removed)),
                ChatEvent::ChatUpdated { chat, title, role } => {
                    let told = chats.entry(chat).or_default();
                    if *role == told.role {
                        told.names.push(title.as_deref().unwrap_or_default());
                        continue;
                    }
                    (chat, role.map(Step::RoleSet))
                }
            };
            let told = chats.entry(chat).or_default();
            match step {
                Some(Step::Added(role) | Step::RoleSet(role)) => told.role = Some(role),
                Some(Step::Removed) => told.role = None,
                Some(Step::Created(_)) | None => {}
            }
            told.steps.extend(step);
        }
        chats
    }

    /// Each new name is announced once to all users that are members at that moment: the room has all
    /// changes in their order.
    fn check_names(&mut self, chat: &'a str, user: &'a str, told: &Told<'a>) {
        let mut names = Sequence::default();
        let mut is_member = false;
        let mut current = self.expected.first_name(chat);
        for entry in self.history.entries_of(&room_of(chat)) {
            match entry.event {
                ChatEvent::MemberAdded { user: added, .. } if added == user => is_member = true,
                ChatEvent::MemberRemoved { user: removed, .. } if removed == user => {
                    is_member = false;
                }
                ChatEvent::ChatUpdated { title, .. } => {
                    let title = title.as_deref().unwrap_or_default();
                    if title != current && is_member {
                        names.push(title, true);
                    }
                    current = title;
                }
                _ => {}
            }
        }
        let subject = || format!("names of {chat} in the feed of {user}");
        names.compare(&told.names, self.at, self.faults, subject);
    }
}
