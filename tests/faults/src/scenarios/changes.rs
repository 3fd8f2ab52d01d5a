//! Changes of messages, while nodes are killed: clients fold all events that they receive, through reconnects to
//! other nodes, and end with the state that each node's history shows.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use reqwest::Method;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::kill_rounds::KilledNodes;
use crate::clients::changes::{Device, DeviceConfig};
use crate::clients::chat::Account;
use crate::history::changes::ChangeFact;
use crate::lab::database::{DatabaseKind, DatabaseServer};
use crate::lab::redis::Redis;
use crate::lab::{Lab, RECOVERY_TIMEOUT, eventually};

/// At most 5: a thread shows no more participants.
const USERS: usize = 4;
const EMOJIS_PER_DEVICE: usize = 2;

/// Acknowledgements come before the commit.
pub async fn killed_postgres(lab: &mut Lab) -> anyhow::Result<()> {
    killed(lab, DatabaseKind::Postgres, "log").await
}

/// Acknowledgements wait for the commit.
pub async fn killed_mariadb(lab: &mut Lab) -> anyhow::Result<()> {
    killed(lab, DatabaseKind::MariaDb, "archive").await
}

/// Random nodes are killed at random moments and restarted, while devices change messages at all nodes.
async fn killed(lab: &mut Lab, kind: DatabaseKind, ack_after: &str) -> anyhow::Result<()> {
    lab.require_coverage("50 edits", |stats| stats.edits >= 50);
    lab.require_coverage("5 conflicts", |stats| stats.conflicts >= 5);
    lab.require_coverage("5 deletions", |stats| stats.deletions >= 5);
    lab.require_coverage("40 reactions", |stats| stats.reactions >= 40);
    lab.require_coverage("5 pins", |stats| stats.pins >= 5);
    lab.require_coverage("10 replies", |stats| stats.replies >= 10);
    lab.require_coverage("a repeated change", |stats| {
        stats.message_changes_repeated > 0
    });
    lab.require_coverage("20 resumes", |stats| stats.resumes >= 20);
    lab.require_coverage("a history that is read after a gap", |stats| stats.gaps > 0);
    let database = DatabaseServer::start(&lab.dir, kind).await?;
    let redis = Redis::durable(&lab.dir).await?;
    let nodes = KilledNodes::start(lab, &redis, &database, ack_after).await?;
    let mut cluster = ChangeCluster::start(lab, nodes).await?;
    // A room whose announcements a dead node has claimed waits for the end of its lease.
    let calm = Duration::from_secs(lab.by_form(6, 10));
    sleep(calm).await;
    cluster.nodes.kill(lab, calm).await?;
    cluster.finish(lab, &database).await
}

struct ChangeCluster {
    nodes: KilledNodes,
    addresses: Vec<SocketAddr>,
    /// The first one owns the rooms.
    accounts: Vec<Account>,
    rooms: Vec<String>,
    devices: Vec<Device>,
    changing: watch::Sender<bool>,
}

impl ChangeCluster {
    async fn start(lab: &mut Lab, nodes: KilledNodes) -> anyhow::Result<Self> {
        let (changing, _) = watch::channel(false);
        let mut cluster = Self {
            addresses: nodes.addresses(),
            nodes,
            accounts: Vec::new(),
            rooms: Vec::new(),
            devices: Vec::new(),
            changing,
        };
        cluster.sign_up(lab).await?;
        for number in 0..lab.by_form(3, 6) {
            let room = cluster.open_room(number).await?;
            cluster.rooms.push(room);
        }
        for device in 0..lab.by_form(2, 3) {
            for user in 0..USERS {
                let device = cluster.start_device(lab, user, device);
                cluster.devices.push(device);
            }
        }
        eventually("the devices join", RECOVERY_TIMEOUT, async || {
            cluster.devices.iter().all(Device::is_ready)
        })
        .await?;
        cluster.changing.send_replace(true);
        Ok(cluster)
    }

    async fn sign_up(&mut self, lab: &Lab) -> anyhow::Result<()> {
        let deadline = Instant::now() + lab.recovery_timeout;
        // The first account is an admin's. It has no part in the rooms.
        for index in 0..=USERS {
            let name = format!("user-{index}");
            let account = Account::sign_up(&name, &self.addresses, index, deadline).await?;
            if index > 0 {
                self.accounts.push(account);
            }
        }
        Ok(())
    }

    /// Opens a chat of all users. Returns its room.
    async fn open_room(&self, number: usize) -> anyhow::Result<String> {
        let owner = &self.accounts[0];
        let others = self.accounts[1..].iter().map(|account| &account.id);
        let body =
            json!({"user_ids": others.collect::<Vec<_>>(), "name": format!("room-{number}")});
        let path = "/api/v1/chats";
        let opened = owner.request(Method::POST, self.addresses[0], path, None, Some(&body));
        let opened = opened.await;
        let room = opened.body["room_id"].as_str().map(str::to_owned);
        room.with_context(|| format!("a chat can't be opened: {opened:?}"))
    }

    fn start_device(&self, lab: &mut Lab, user: usize, device: usize) -> Device {
        let emojis = (0..EMOJIS_PER_DEVICE).map(|number| format!(":wave-{device}-{number}:"));
        // The last device of each user reads the history where it has missed too much.
        let is_last = device + 1 == lab.by_form(2, 3);
        let config = DeviceConfig {
            name: format!("device-{user}-{device}"),
            account: self.accounts[user].clone(),
            addresses: self.addresses.clone(),
            home_node: user + device,
            rooms: self.rooms.clone(),
            is_moderator: user == 0,
            emojis: emojis.collect(),
            replay_limit: is_last.then_some(3),
            change_interval: Duration::from_millis(lab.by_form(150, 200)),
            // Longer than the log reaches back, in the full form.
            longest_absence: Duration::from_secs(lab.by_form(3, 15)),
            timeout: lab.recovery_timeout,
        };
        let changing = self.changing.subscribe();
        Device::start(config, lab.rng.random(), lab.recorder.clone(), changing)
    }

    /// Ends the changes, and records the final state.
    async fn finish(&mut self, lab: &mut Lab, database: &DatabaseServer) -> anyhow::Result<()> {
        lab.step("the changes end");
        self.changing.send_replace(false);
        let timeout = lab.recovery_timeout;
        eventually("the changes end", timeout, async || {
            !self.devices.iter().any(Device::is_changing)
        })
        .await?;
        let archive = database.reader();
        lab.record_outbox_of_changes(&archive).await?;
        let first = self.addresses[0];
        let heads = lab.heads_of(first, &self.accounts[0], &self.rooms).await?;
        // The checker finds missing events.
        let _ = eventually("the devices have everything", timeout, async || {
            let has_all = |device: &Device| {
                let mut heads = heads.iter();
                device.is_ready() && heads.all(|(room, head)| device.position(room) == *head)
            };
            self.devices.iter().all(has_all)
        })
        .await;
        lab.wait_for_archive(&archive, &heads).await?;
        lab.record_histories(&self.addresses, &self.accounts[0], &self.rooms)
            .await?;
        for device in &self.devices {
            for room in &self.rooms {
                lab.record_change(ChangeFact::Final {
                    observer: device.name.clone(),
                    is_history: false,
                    room: room.clone(),
                    messages: device.final_messages(room),
                });
            }
        }
        lab.recorder.close();
        Ok(())
    }
}
