//! Changes of chats and of their members, while nodes are killed.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use rand::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::kill_rounds::{KilledNodes, NODES};
use crate::clients::chat::{Account, Driver, DriverConfig, Editor, Member, MemberConfig};
use crate::history::chats::{ChatFact, Role, Wanted, room_of};
use crate::lab::database::{ArchiveReader, DatabaseKind, DatabaseServer};
use crate::lab::redis::Redis;
use crate::lab::{Lab, RECOVERY_TIMEOUT, eventually};

/// This many of the chats that drivers have opened, or at most all, are asked for at the end.
const SOME_OTHER_CHATS: usize = 3;

/// Acknowledgements come before the commit.
pub async fn killed_postgres(lab: &mut Lab) -> anyhow::Result<()> {
    killed(lab, DatabaseKind::Postgres, "log").await
}

/// Acknowledgements wait for the commit.
pub async fn killed_mariadb(lab: &mut Lab) -> anyhow::Result<()> {
    killed(lab, DatabaseKind::MariaDb, "archive").await
}

/// Random nodes are killed at random moments and restarted, while drivers change chats and members at
/// all nodes.
async fn killed(lab: &mut Lab, kind: DatabaseKind, ack_after: &str) -> anyhow::Result<()> {
    lab.require_coverage("50 changes", |stats| stats.changes >= 50);
    lab.require_coverage("a repeated change", |stats| stats.changes_repeated > 0);
    lab.require_coverage("a refused read after a removal", |stats| {
        stats.reads_refused > 0
    });
    lab.require_coverage("rights that are granted and refused", |stats| {
        stats.rights_granted > 0 && stats.rights_refused > 0
    });
    let database = DatabaseServer::start(&lab.dir, kind).await?;
    let redis = Redis::durable(&lab.dir).await?;
    let nodes = KilledNodes::start(lab, &redis, &database, ack_after).await?;
    let mut cluster = ChatCluster::start(lab, nodes).await?;
    cluster.nodes.kill(lab, Duration::ZERO).await?;
    cluster.finish(lab, &database).await
}

struct ChatCluster {
    nodes: KilledNodes,
    addresses: Vec<SocketAddr>,
    accounts: Vec<Account>,
    /// The chats that exist from the start to the end.
    chats: Vec<String>,
    /// By node: a client of a member that stays in these chats.
    watchers: Vec<Member>,
    members: Vec<Member>,
    drivers: JoinSet<()>,
    changing: watch::Sender<bool>,
    sending: watch::Sender<bool>,
}

#[derive(Clone, Copy)]
struct Size {
    chats: usize,
    drivers: usize,
    users_per_driver: usize,
    change_interval: Duration,
    send_interval: Duration,
}

impl ChatCluster {
    async fn start(lab: &mut Lab, nodes: KilledNodes) -> anyhow::Result<Self> {
        let size = Size {
            chats: lab.by_form(3, 6),
            drivers: lab.by_form(4, 6),
            users_per_driver: lab.by_form(2, 4),
            change_interval: Duration::from_millis(60),
            send_interval: Duration::from_millis(300),
        };
        let addresses = nodes.addresses();
        let (changing, _) = watch::channel(true);
        let (sending, _) = watch::channel(true);
        let mut cluster = Self {
            nodes,
            addresses,
            accounts: Vec::new(),
            chats: Vec::new(),
            watchers: Vec::new(),
            members: Vec::new(),
            drivers: JoinSet::new(),
            changing,
            sending,
        };
        cluster.sign_up(lab, size).await?;
        let (watchers, rest) = cluster.accounts.split_at(NODES);
        let (owners, users) = rest.split_at(size.drivers);
        let (watchers, owners, users) = (watchers.to_vec(), owners.to_vec(), users.to_vec());
        cluster.open_chats(lab, size, &owners, &watchers).await?;
        cluster.start_watchers(lab, size, &watchers).await?;
        for (index, user) in users.iter().enumerate() {
            let member = cluster.start_member(lab, size, index, user, false);
            cluster.members.push(member);
        }
        for (index, owner) in owners.iter().enumerate() {
            let config = DriverConfig {
                owner: owner.clone(),
                users: users[index * size.users_per_driver..][..size.users_per_driver].to_vec(),
                shared: cluster.chats.clone(),
                renames: index == 0,
                interval: size.change_interval,
            };
            let editor = cluster.editor(lab, &format!("driver-{index}"));
            let driver = Driver::new(config, editor);
            let changing = cluster.changing.subscribe();
            cluster.drivers.spawn(driver.run(changing));
        }
        Ok(cluster)
    }

    /// Signs up all users, at all nodes: first the watchers, then the drivers' owners, then the drivers'
    /// users.
    async fn sign_up(&mut self, lab: &Lab, size: Size) -> anyhow::Result<()> {
        let deadline = Instant::now() + lab.recovery_timeout;
        let count = NODES + size.drivers * (1 + size.users_per_driver);
        // The first account is an admin's. It has no part in the chats.
        for index in 0..=count {
            let name = format!("user-{index}");
            let account = Account::sign_up(&name, &self.addresses, index, deadline).await?;
            if index > 0 {
                self.accounts.push(account);
            }
        }
        Ok(())
    }

    fn editor(&self, lab: &mut Lab, name: &str) -> Editor {
        Editor::new(
            name,
            self.addresses.clone(),
            lab.recorder.clone(),
            lab.rng.random(),
            lab.recovery_timeout,
        )
    }

    /// Opens the chats that all drivers change, with all owners and watchers.
    async fn open_chats(
        &mut self,
        lab: &mut Lab,
        size: Size,
        owners: &[Account],
        watchers: &[Account],
    ) -> anyhow::Result<()> {
        let mut editor = self.editor(lab, "opener");
        let first = &owners[0];
        for _ in 0..size.chats {
            let all = owners.iter().chain(watchers);
            let wanted = Wanted::Open {
                name: editor.new_title(),
                users: all.map(|user| user.id.clone()).collect(),
            };
            let chat = editor.perform(first, wanted).await;
            let chat = chat.context("a chat can't be opened")?;
            for owner in &owners[1..] {
                let wanted = Wanted::SetRole {
                    chat: chat.clone(),
                    user: owner.id.clone(),
                    role: Role::Owner,
                };
                let done = editor.perform(first, wanted).await;
                ensure!(done.is_some(), "an owner can't be made");
            }
            self.chats.push(chat);
        }
        Ok(())
    }

    async fn start_watchers(
        &mut self,
        lab: &mut Lab,
        size: Size,
        watchers: &[Account],
    ) -> anyhow::Result<()> {
        for (index, account) in watchers.iter().enumerate() {
            let watcher = self.start_member(lab, size, index, account, true);
            for chat in &self.chats {
                lab.record_chat(ChatFact::Watcher {
                    client: watcher.name.clone(),
                    chat: chat.clone(),
                });
            }
            self.watchers.push(watcher);
        }
        eventually("the watchers join", RECOVERY_TIMEOUT, async || {
            let joined = |watcher: &Member| watcher.has_joined(&self.chats);
            self.watchers.iter().all(joined)
        })
        .await
    }

    fn start_member(
        &self,
        lab: &mut Lab,
        size: Size,
        index: usize,
        account: &Account,
        stays: bool,
    ) -> Member {
        let kind = if stays { "watcher" } else { "member" };
        let config = MemberConfig {
            name: format!("{kind}-{index}"),
            account: account.clone(),
            addresses: self.addresses.clone(),
            home_node: index,
            chats: self.chats.clone(),
            stays,
            send_interval: size.send_interval,
        };
        let (recorder, sending) = (lab.recorder.clone(), self.sending.subscribe());
        Member::start(config, lab.rng.random(), recorder, sending)
    }

    /// Ends the changes, and records the final state.
    async fn finish(&mut self, lab: &mut Lab, database: &DatabaseServer) -> anyhow::Result<()> {
        lab.step("the drivers end");
        self.changing.send_replace(false);
        while let Some(ended) = self.drivers.join_next().await {
            ended?;
        }
        self.sending.send_replace(false);
        let archive = database.reader();
        lab.record_outbox(&archive).await?;
        let chats = self.chats_to_ask_for(&archive).await?;
        let began = Instant::now();
        let heads = lab
            .record_rights(&self.accounts, &chats, &self.addresses)
            .await?;
        lab.report_seconds("rights read in", began.elapsed());
        // The checker finds out what is missing.
        let timeout = lab.recovery_timeout;
        let _ = eventually("the watchers have everything", timeout, async || {
            let has_all = |watcher: &Member| {
                !watcher.has_unacknowledged()
                    && self
                        .chats
                        .iter()
                        .all(|chat| heads.get(&room_of(chat)) == Some(&watcher.position(chat)))
            };
            self.watchers.iter().all(has_all)
        })
        .await;
        lab.record_chat_tables(&archive, &heads).await?;
        lab.recorder.close();
        Ok(())
    }

    /// The chats that exist from the start to the end, and some of the others, deleted ones among them.
    async fn chats_to_ask_for(&self, archive: &ArchiveReader) -> anyhow::Result<Vec<String>> {
        let mut chats = self.chats.clone();
        let others = archive.archived_chats().await?;
        let others = others.into_iter().filter(|chat| !self.chats.contains(chat));
        chats.extend(others.take(SOME_OTHER_CHATS));
        Ok(chats)
    }
}
