//! A driver: adds and removes members, changes roles and names, opens chats and deletes them.
//!
//! Each driver has users of its own. No other driver changes their memberships, so the order of the
//! changes of one user in one chat is known.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use tokio::sync::watch;
use tokio::time::sleep;

use super::account::Account;
use super::editor::Editor;
use crate::history::chats::{ChatFact, Role, Wanted, room_of};

/// A removed user finds nothing after this time.
const REMOVAL_TIME: Duration = Duration::from_millis(1050);
/// The most chats of its own that a driver has at once.
const MAX_OWN_CHATS: usize = 2;

pub struct DriverConfig {
    /// An owner of all chats, for good.
    pub owner: Account,
    pub users: Vec<Account>,
    /// Chats that other drivers change, too.
    pub shared: Vec<String>,
    /// Whether it renames the shared chats. One driver does.
    pub renames: bool,
    /// The mean time between two changes.
    pub interval: Duration,
}

pub struct Driver {
    config: DriverConfig,
    editor: Editor,
    chats: Vec<DrivenChat>,
}

struct DrivenChat {
    id: String,
    is_own: bool,
    /// By index: the roles of the driver's users that are members.
    roles: BTreeMap<usize, Role>,
    /// Users whose membership is unknown, because a change was given up.
    unknown: Vec<usize>,
}

impl Driver {
    pub fn new(config: DriverConfig, editor: Editor) -> Self {
        let mut chats = Vec::new();
        for id in &config.shared {
            chats.push(DrivenChat {
                id: id.clone(),
                is_own: false,
                roles: BTreeMap::new(),
                unknown: Vec::new(),
            });
        }
        Self {
            config,
            editor,
            chats,
        }
    }

    /// Makes changes while `changing` is true.
    pub async fn run(mut self, changing: watch::Receiver<bool>) {
        while *changing.borrow() {
            match self.editor.rng.random_range(0..20) {
                0 | 1 => self.open().await,
                2 => self.delete().await,
                3 => self.rename().await,
                _ => self.change_member().await,
            }
            let factor = self.editor.rng.random_range(0.5..1.5);
            sleep(self.config.interval.mul_f64(factor)).await;
        }
    }

    async fn open(&mut self) {
        let own = self.chats.iter().filter(|chat| chat.is_own).count();
        if own >= MAX_OWN_CHATS {
            return self.delete().await;
        }
        let mut roles = BTreeMap::new();
        let mut users = vec![self.config.owner.id.clone()];
        for (index, user) in self.config.users.iter().enumerate() {
            if self.editor.rng.random_bool(0.5) {
                roles.insert(index, Role::Member);
                users.push(user.id.clone());
            }
        }
        let name = self.editor.new_title();
        let wanted = Wanted::Open { name, users };
        if let Some(id) = self.editor.perform(&self.config.owner, wanted).await {
            self.chats.push(DrivenChat {
                id,
                is_own: true,
                roles,
                unknown: Vec::new(),
            });
        }
    }

    async fn delete(&mut self) {
        let is_own = |chat: &DrivenChat| chat.is_own && chat.unknown.is_empty();
        let Some(index) = self.chats.iter().position(is_own) else {
            return;
        };
        let chat = self.chats.remove(index);
        let members = chat.roles.keys();
        let mut users = vec![self.config.owner.id.clone()];
        users.extend(members.map(|index| self.config.users[*index].id.clone()));
        let wanted = Wanted::Delete {
            chat: chat.id,
            users,
        };
        self.editor.perform(&self.config.owner, wanted).await;
    }

    async fn rename(&mut self) {
        let index = self.editor.rng.random_range(0..self.chats.len());
        let chat = &self.chats[index];
        if !chat.is_own && !self.config.renames {
            return;
        }
        let wanted = Wanted::Rename {
            chat: chat.id.clone(),
            name: self.editor.new_title(),
        };
        if self
            .editor
            .perform(&self.config.owner, wanted)
            .await
            .is_none()
        {
            self.chats.remove(index);
        }
    }

    /// Changes the membership of one user in one chat.
    async fn change_member(&mut self) {
        let index = self.editor.rng.random_range(0..self.chats.len());
        let number = self.editor.rng.random_range(0..self.config.users.len());
        if self.chats[index].unknown.contains(&number) {
            return;
        }
        let chat = self.chats[index].id.clone();
        let user = self.config.users[number].id.clone();
        let present = self.chats[index].roles.get(&number).copied();
        let random_role = match self.editor.rng.random_bool(0.3) {
            true => Role::Owner,
            false => Role::Member,
        };
        let mut actor = self.config.owner.clone();
        let (wanted, role) = match present {
            None => {
                let role = random_role;
                (Wanted::Add { chat, user, role }, Some(role))
            }
            Some(Role::Member) if random_role == Role::Owner => {
                let role = Role::Owner;
                (Wanted::SetRole { chat, user, role }, Some(role))
            }
            Some(Role::Owner) if random_role == Role::Owner => {
                let role = Role::Member;
                (Wanted::SetRole { chat, user, role }, Some(role))
            }
            Some(_) => {
                if self.editor.rng.random_bool(0.3) {
                    // The user leaves.
                    actor = self.config.users[number].clone();
                }
                (Wanted::Remove { chat, user }, None)
            }
        };
        let is_done = self.editor.perform(&actor, wanted).await.is_some();
        let driven = &mut self.chats[index];
        match role {
            _ if !is_done => driven.unknown.push(number),
            Some(role) => {
                driven.roles.insert(number, role);
            }
            None => {
                driven.roles.remove(&number);
                if self.editor.rng.random_bool(0.2) {
                    self.read_after_removal(index, number).await;
                }
            }
        }
    }

    /// Requests the chat's messages at each node in the name of a user that was removed.
    async fn read_after_removal(&self, index: usize, number: usize) {
        sleep(REMOVAL_TIME).await;
        let user = &self.config.users[number];
        let chat = &self.chats[index].id;
        let path = format!("/api/v1/rooms/{}/messages?limit=1", room_of(chat));
        for (node, address) in self.editor.addresses.iter().enumerate() {
            let answer = user.get(*address, &path).await;
            self.editor.record(ChatFact::ReadAfterRemoval {
                chat: chat.clone(),
                user: user.id.clone(),
                node,
                status: answer.status,
            });
        }
    }
}
