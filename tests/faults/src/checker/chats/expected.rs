//! The announcements that follow from the changes.

use std::collections::BTreeMap;

use super::super::faults::{FaultKind, Faults};
use super::{Change, ChatHistory};
use crate::history::chats::{ChatEvent, Role, Wanted};

/// A step in the life of a user's membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The chat was created with the user. Only in the user's feed.
    Created(Role),
    Added(Role),
    /// Only in the user's feed: the room's announcement does not name the user.
    RoleSet(Role),
    Removed,
}

/// Something that is expected for sure, or only possible: its change was never acknowledged.
#[derive(Debug, Clone, Copy)]
struct Maybe<T> {
    value: T,
    certain: bool,
}

/// A list of things in the order of their changes.
#[derive(Debug)]
pub(super) struct Sequence<T>(Vec<Maybe<T>>);

impl<T> Default for Sequence<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// All that is expected, by chat, or by chat and user.
#[derive(Default)]
pub(super) struct Expected<'a> {
    pub steps: BTreeMap<(&'a str, &'a str), Sequence<Step>>,
    /// By chat and user: the times of the first attempts to add the user.
    pub added_at: BTreeMap<(&'a str, &'a str), Vec<u64>>,
    /// The name of the chat at its creation.
    pub first_names: BTreeMap<&'a str, &'a str>,
    pub renames: BTreeMap<&'a str, Sequence<&'a str>>,
    /// The number of changes of roles.
    pub role_changes: BTreeMap<&'a str, Sequence<()>>,
}

impl<T: Copy + PartialEq + std::fmt::Debug> Sequence<T> {
    pub fn push(&mut self, value: T, certain: bool) {
        self.0.push(Maybe { value, certain });
    }

    /// All values, also those that are only possible.
    pub fn all(&self) -> Vec<T> {
        self.0.iter().map(|maybe| maybe.value).collect()
    }

    /// The values that are expected for sure.
    pub fn certain(&self) -> Vec<T> {
        let certain = self.0.iter().filter(|maybe| maybe.certain);
        certain.map(|maybe| maybe.value).collect()
    }

    /// As this one, with the values that pass.
    pub fn filtered(&self, passes: impl Fn(&T) -> bool) -> Self {
        let kept = self.0.iter().filter(|maybe| passes(&maybe.value));
        Self(kept.copied().collect())
    }

    /// Compares this with what was announced.
    pub fn compare(
        &self,
        found: &[T],
        at: u64,
        faults: &mut Faults,
        subject: impl FnOnce() -> String,
    ) {
        let (certain, all) = (self.certain(), self.all());
        if found == certain || found == all {
            return;
        }
        let count = |values: &[T], wanted: &T| values.iter().filter(|v| *v == wanted).count();
        let doubled = found
            .iter()
            .find(|value| count(found, value) > count(&all, value));
        let lost = certain
            .iter()
            .find(|value| count(found, value) < count(&certain, value));
        let same = found.iter().zip(&all).take_while(|(a, b)| a == b).count();
        let (kind, text) = match (lost, doubled) {
            (Some(lost), _) => (
                FaultKind::LostAnnouncement,
                format!("{lost:?} is missing, after {same} equal ones"),
            ),
            (None, Some(doubled)) => (
                FaultKind::DoubledAnnouncement,
                format!("{doubled:?} comes too often, after {same} equal ones"),
            ),
            (None, None) => (
                FaultKind::AnnouncementOrder,
                format!("another order, after {same} equal ones"),
            ),
        };
        faults.add(kind, at, || {
            format!(
                "{}: {text}; {} announced, {} expected: {:?}, expected {:?}",
                subject(),
                found.len(),
                all.len(),
                excerpt(found, same),
                excerpt(&all, same),
            )
        });
    }
}

/// Some values around this index.
fn excerpt<T>(values: &[T], index: usize) -> &[T] {
    let start = index.saturating_sub(2).min(values.len());
    let end = (index + 3).min(values.len());
    &values[start..end]
}

impl<'a> Expected<'a> {
    pub fn of(history: &ChatHistory<'a>) -> Self {
        let mut expected = Self::default();
        for change in &history.changes {
            expected.add(history, change);
        }
        expected
    }

    /// The name of the chat at its creation.
    pub fn first_name(&self, chat: &str) -> &'a str {
        self.first_names.get(chat).copied().unwrap_or_default()
    }

    fn add(&mut self, history: &ChatHistory<'a>, change: &Change<'a>) {
        let certain = change.acked.is_some();
        match change.wanted {
            Wanted::Open { name, users } => {
                let Some(chat) = change.acked.or_else(|| created_as(history, name)) else {
                    return;
                };
                self.first_names.insert(chat, name);
                for (index, user) in users.iter().enumerate() {
                    let role = if index == 0 {
                        Role::Owner
                    } else {
                        Role::Member
                    };
                    self.step(chat, user, Step::Created(role), certain);
                    self.step(chat, user, Step::Added(role), certain);
                    self.added_at
                        .entry((chat, user))
                        .or_default()
                        .push(change.at);
                }
            }
            Wanted::Rename { chat, name } => {
                self.renames.entry(chat).or_default().push(name, certain);
            }
            Wanted::Add { chat, user, role } => {
                self.step(chat, user, Step::Added(*role), certain);
                self.added_at
                    .entry((chat, user))
                    .or_default()
                    .push(change.at);
            }
            Wanted::SetRole { chat, user, role } => {
                self.step(chat, user, Step::RoleSet(*role), certain);
                self.role_changes.entry(chat).or_default().push((), certain);
            }
            Wanted::Remove { chat, user } => self.step(chat, user, Step::Removed, certain),
            Wanted::Delete { chat, users } => {
                for user in users {
                    self.step(chat, user, Step::Removed, certain);
                }
            }
        }
    }

    fn step(&mut self, chat: &'a str, user: &'a str, step: Step, certain: bool) {
        let steps = self.steps.entry((chat, user)).or_default();
        steps.push(step, certain);
    }
}

/// The chat that an unacknowledged change has created, if it took effect.
fn created_as<'a>(history: &ChatHistory<'a>, name: &str) -> Option<&'a str> {
    let mut events = history.entries.values().flatten().map(|entry| entry.event);
    events.find_map(|event| match event {
        ChatEvent::ChatCreated { chat, title, .. } if title.as_deref() == Some(name) => {
            Some(chat.as_str())
        }
        _ => None,
    })
}
