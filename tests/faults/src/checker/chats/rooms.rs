//! The announcements in the rooms of chats, as the archive has them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::faults::{FaultKind, Faults};
use super::expected::{Expected, Sequence, Step};
use super::{ChatHistory, Entry};
use crate::history::chats::{ChatEvent, Role, room_of};

pub(super) struct RoomCheck<'r, 'a> {
    pub history: &'r ChatHistory<'a>,
    pub expected: &'r Expected<'a>,
    pub faults: &'r mut Faults,
    pub at: u64,
}

impl<'a> RoomCheck<'_, 'a> {
    pub fn check(mut self) {
        self.check_entries();
        let chats: BTreeSet<&'a str> = self.expected.first_names.keys().copied().collect();
        for chat in &chats {
            self.check_members(chat);
            self.check_updates(chat);
        }
        self.check_unknown(&chats);
        self.check_tables(&chats);
    }

    /// Numbers begin with 1 and have no hole, and no id comes twice.
    fn check_entries(&mut self) {
        let mut ids: HashMap<&str, (&str, u64)> = HashMap::new();
        for (room, entries) in &self.history.entries {
            for (index, entry) in entries.iter().enumerate() {
                if entry.seq != index as u64 + 1 {
                    self.faults.add(FaultKind::ArchiveHole, self.at, || {
                        format!("entry {} of {room} has the number {}", index + 1, entry.seq)
                    });
                    break;
                }
                if let Some((other, seq)) = ids.insert(entry.id, (room, entry.seq)) {
                    self.faults.add(FaultKind::ArchivedTwice, self.at, || {
                        format!("{room} has at {} what {other} has at {seq}", entry.seq)
                    });
                }
            }
        }
    }

    /// Each user was added and removed as often, and in the order, as the changes say.
    fn check_members(&mut self, chat: &'a str) {
        let mut found: BTreeMap<&str, Vec<Step>> = BTreeMap::new();
        for entry in self.history.entries_of(&room_of(chat)) {
            match entry.event {
                ChatEvent::MemberAdded { user, role, .. } => {
                    let role = role.unwrap_or(Role::Member);
                    found.entry(user).or_default().push(Step::Added(role));
                }
                ChatEvent::MemberRemoved { user, .. } => {
                    found.entry(user).or_default().push(Step::Removed);
                }
                _ => {}
            }
        }
        let is_announced = |step: &Step| matches!(step, Step::Added(_) | Step::Removed);
        for ((of, user), steps) in &self.expected.steps {
            if *of != chat {
                continue;
            }
            let found = found.remove(user).unwrap_or_default();
            let subject = || format!("{user} in the room of {chat}");
            steps
                .filtered(is_announced)
                .compare(&found, self.at, self.faults, subject);
        }
        for (user, steps) in found {
            let subject = || format!("{user} in the room of {chat}, without any change");
            Sequence::default().compare(&steps, self.at, self.faults, subject);
        }
    }

    /// Each new name is announced once, in the order of the changes, and each change of a role once.
    fn check_updates(&mut self, chat: &'a str) {
        let mut names: Vec<&str> = Vec::new();
        let mut updates = 0;
        let mut current = self.expected.first_name(chat);
        for entry in self.history.entries_of(&room_of(chat)) {
            let ChatEvent::ChatUpdated { title, .. } = entry.event else {
                continue;
            };
            let title = title.as_deref().unwrap_or_default();
            if title == current {
                updates += 1;
            } else {
                names.push(title);
                current = title;
            }
        }
        let none = Sequence::default();
        let renames = self.expected.renames.get(chat).unwrap_or(&none);
        let subject = || format!("names in the room of {chat}");
        renames.compare(&names, self.at, self.faults, subject);
        let none = Sequence::default();
        let roles = self.expected.role_changes.get(chat).unwrap_or(&none);
        let subject = || format!("changes of roles in the room of {chat}");
        roles.compare(&vec![(); updates], self.at, self.faults, subject);
    }

    /// There are no entries of chats that no driver has opened.
    fn check_unknown(&mut self, chats: &BTreeSet<&str>) {
        for room in self.history.entries.keys() {
            if let Some(chat) = room.strip_prefix("chat:")
                && !chats.contains(chat)
            {
                self.faults.add(FaultKind::TablesDiffer, self.at, || {
                    format!("the archive has the room of {chat}, which no driver has opened")
                });
            }
        }
    }

    /// The announcements, one after another, lead to the tables.
    fn check_tables(&mut self, chats: &BTreeSet<&'a str>) {
        let mut folded: BTreeSet<(&str, &str)> = BTreeSet::new();
        for chat in chats {
            let entries = self.history.entries_of(&room_of(chat));
            let users = members_after(entries);
            let name = name_after(entries).unwrap_or(self.expected.first_name(chat));
            folded.extend(users.iter().map(|user| (*chat, *user)));
            let kept = self.history.chats.get(chat).copied();
            let folded = (!users.is_empty()).then_some(Some(name));
            if kept != folded {
                self.faults.add(FaultKind::TablesDiffer, self.at, || {
                    format!("{chat} is {kept:?} in its table, and {folded:?} as announced")
                });
            }
        }
        let kept: BTreeSet<(&str, &str)> = self.history.members.keys().copied().collect();
        for (chat, user) in kept.symmetric_difference(&folded) {
            let is_kept = kept.contains(&(*chat, *user));
            self.faults.add(FaultKind::TablesDiffer, self.at, || {
                let (there, here) = match is_kept {
                    true => ("a member in the table", "no member as announced"),
                    false => ("no member in the table", "a member as announced"),
                };
                format!("{user} is {there} of {chat}, and {here}")
            });
        }
    }
}

fn members_after<'a>(entries: &[Entry<'a>]) -> BTreeSet<&'a str> {
    let mut members = BTreeSet::new();
    for entry in entries {
        match entry.event {
            ChatEvent::MemberAdded { user, .. } => {
                members.insert(user.as_str());
            }
            ChatEvent::MemberRemoved { user, .. } => {
                members.remove(user.as_str());
            }
            _ => {}
        }
    }
    members
}

fn name_after<'a>(entries: &[Entry<'a>]) -> Option<&'a str> {
    entries.iter().rev().find_map(|entry| match entry.event {
        ChatEvent::ChatUpdated { title, .. } => title.as_deref(),
        _ => None,
    })
}
