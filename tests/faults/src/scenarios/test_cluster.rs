//! The cluster that most scenarios use: three nodes on one Redis, with a proxy between each of them
//! and Redis, and clients on all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use tokio::time::Instant;

use crate::clients::{Client, ClientConfig};
use crate::history::Position;
use crate::lab::redis::Redis;
use crate::lab::{Clients, Lab, Link, Node, Proxy, RECOVERY_TIMEOUT};

/// At most this many users of each node are watched.
const MAX_WATCHED_USERS: usize = 20;

pub struct TestCluster {
    /// The first field, so that it is dropped first: the shutdown of the nodes must not be part of
    /// the history.
    pub clients: Clients,
    pub nodes: Vec<Node>,
    /// By node: the proxy between it and Redis. Empty if the nodes connect to Redis directly.
    pub proxies: Vec<Proxy>,
    pub rooms: Vec<String>,
}

#[derive(Clone, Copy)]
pub struct ClusterSize {
    pub nodes: usize,
    pub clients_per_node: usize,
    pub rooms: usize,
    /// The number of official clients of each of the three major versions.
    pub official_per_version: usize,
    /// The mean time between two messages of one sender.
    pub send_interval: Duration,
    pub watchers_per_node: usize,
}

impl ClusterSize {
    /// The size that most scenarios use.
    pub fn default_for(lab: &Lab) -> Self {
        Self {
            nodes: 3,
            clients_per_node: lab.by_form(40, 100),
            rooms: lab.by_form(4, 8),
            official_per_version: lab.by_form(2, 5),
            send_interval: Duration::from_millis(400),
            watchers_per_node: 3,
        }
    }
}

impl TestCluster {
    /// Starts a cluster of the default size, with proxies.
    pub async fn start(lab: &mut Lab, redis: &Redis) -> anyhow::Result<Self> {
        let size = ClusterSize::default_for(lab);
        Self::start_with_size(lab, redis, size).await
    }

    /// Starts a cluster of this size, with proxies.
    pub async fn start_with_size(
        lab: &mut Lab,
        redis: &Redis,
        size: ClusterSize,
    ) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        let mut proxies = Vec::new();
        for index in 0..size.nodes {
            let proxy = Proxy::start(redis.port).await?;
            let redis_url = format!("redis://{}", proxy.address);
            let name = format!("node-{index}");
            nodes.push(lab.start_node(&name, &redis_url, &[]).await?);
            proxies.push(proxy);
        }
        let mut cluster = Self::with_nodes(lab, nodes, size).await?;
        cluster.proxies = proxies;
        Ok(cluster)
    }

    /// Starts a cluster of this size without proxies.
    pub async fn start_direct(
        lab: &mut Lab,
        redis_url: &str,
        size: ClusterSize,
    ) -> anyhow::Result<Self> {
        let nodes = lab.start_nodes(size.nodes, redis_url).await?;
        Self::with_nodes(lab, nodes, size).await
    }

    /// Starts clients on these nodes, and waits until all are ready. Every third simulated client
    /// sends, and every tenth user has a second client on the next node. Watchers on each node watch
    /// users of all nodes.
    pub async fn with_nodes(
        lab: &mut Lab,
        nodes: Vec<Node>,
        size: ClusterSize,
    ) -> anyhow::Result<Self> {
        let rooms: Vec<String> = (0..size.rooms)
            .map(|index| format!("room-{index}"))
            .collect();
        let mut cluster = Self {
            clients: lab.create_clients()?,
            nodes,
            proxies: Vec::new(),
            rooms,
        };
        cluster.add_members(size);
        let addresses = cluster.addresses();
        cluster.clients.add_official(
            "js-",
            size.official_per_version,
            &cluster.rooms[..2.min(cluster.rooms.len())],
            &addresses,
            size.send_interval,
            &lab.dir,
        )?;
        cluster
            .clients
            .add_poster("poster", &cluster.rooms, &addresses, size.send_interval)?;
        cluster
            .clients
            .wait_ready(RECOVERY_TIMEOUT)
            .await
            .context("at the start")?;
        // After all others, so that the watchers are not notified of their users' first
        // connections.
        cluster.add_watchers(size);
        cluster
            .clients
            .wait_ready(RECOVERY_TIMEOUT)
            .await
            .context("at the start of the watchers")?;
        Ok(cluster)
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    fn add_members(&mut self, size: ClusterSize) {
        let addresses = self.addresses();
        for home_node in 0..self.nodes.len() {
            for index in 0..size.clients_per_node {
                let mut config = ClientConfig {
                    name: format!("c{home_node}-{index}"),
                    user: user_name(home_node, index),
                    rooms: vec![
                        self.rooms[index % self.rooms.len()].clone(),
                        self.rooms[(index + 1) % self.rooms.len()].clone(),
                    ],
                    addresses: addresses.clone(),
                    home_node,
                    measures_latency: index % 5 == 1,
                    ..ClientConfig::default()
                };
                if index % 10 == 0 {
                    self.clients.add(ClientConfig {
                        name: format!("c{home_node}-{index}-twin"),
                        home_node: (home_node + 1) % self.nodes.len(),
                        ..config.clone()
                    });
                }
                if index % 3 == 0 {
                    config.send_interval = Some(size.send_interval);
                }
                self.clients.add(config);
            }
        }
    }

    fn add_watchers(&mut self, size: ClusterSize) {
        let addresses = self.addresses();
        let mut watched = Vec::new();
        for home_node in 0..self.nodes.len() {
            for index in 0..size.clients_per_node.min(MAX_WATCHED_USERS) {
                watched.push(user_name(home_node, index));
            }
        }
        for home_node in 0..self.nodes.len() {
            for index in 0..size.watchers_per_node {
                self.clients.add(ClientConfig {
                    name: format!("w{home_node}-{index}"),
                    user: format!("watcher-{home_node}-{index}"),
                    watches: watched.clone(),
                    addresses: addresses.clone(),
                    home_node,
                    ..ClientConfig::default()
                });
            }
        }
    }

    /// Lets all clients send, and waits for this time. They continue to send afterwards.
    pub async fn send_for(&mut self, time: Duration) -> anyhow::Result<()> {
        self.clients.start_sending().await?;
        tokio::time::sleep(time).await;
        Ok(())
    }

    /// Marks all simulated clients (watchers and members of rooms) as unaffected, except those of
    /// this node.
    pub fn mark_unaffected_except_on(&self, node: usize) {
        self.clients
            .mark_unaffected(|config| config.home_node != node);
    }

    /// Marks all simulated clients as unaffected.
    pub fn mark_all_unaffected(&self) {
        self.clients.mark_unaffected(|_| true);
    }

    /// The indices of the simulated clients of a node whose users have no other client. Watchers
    /// are left out.
    pub fn sole_clients_of(&self, node: usize) -> Vec<usize> {
        let clients = &self.clients.simulated;
        let mut indices = Vec::new();
        for (index, client) in clients.iter().enumerate() {
            let config = &client.config;
            if config.home_node != node || !config.watches.is_empty() {
                continue;
            }
            let is_of_user = |other: &&Client| other.config.user == config.user;
            if clients.iter().filter(is_of_user).count() == 1 {
                indices.push(index);
            }
        }
        indices
    }

    /// The users whose only connection is to this node, including those of official clients.
    pub fn users_only_on(&self, node: usize) -> Vec<String> {
        let mut users = Vec::new();
        for index in self.sole_clients_of(node) {
            users.push(self.clients.simulated[index].config.user.clone());
        }
        for clients in &self.clients.official {
            for (user, first_address) in &clients.users {
                if first_address % self.nodes.len() == node {
                    users.push(user.clone());
                }
            }
        }
        users
    }

    /// Breaks the connections of some simulated clients, which come back within this time.
    pub fn disconnect_some(&self, lab: &mut Lab, within_millis: u64) {
        for client in &self.clients.simulated {
            if lab.rng.random_bool(0.3) {
                let millis = lab.rng.random_range(0..within_millis);
                client.disconnect_for(Duration::from_millis(millis));
            }
        }
    }

    /// Cuts a node off from Redis for this time, and waits until it is ready again.
    pub async fn cut_off(&self, node: usize, time: Duration) -> anyhow::Result<()> {
        self.proxies[node].set(Link::Blackhole);
        tokio::time::sleep(time).await;
        self.proxies[node].set(Link::Healthy);
        self.wait_nodes_ready(RECOVERY_TIMEOUT).await?;
        Ok(())
    }

    /// By room: the head.
    pub async fn heads(&self) -> anyhow::Result<BTreeMap<String, Position>> {
        let node = &self.nodes[self.running_node()?];
        let mut heads = BTreeMap::new();
        for room in &self.rooms {
            heads.insert(room.clone(), node.head(room).await?);
        }
        Ok(heads)
    }

    /// The number of messages in all rooms.
    pub async fn sum_of_heads(&self) -> anyhow::Result<u64> {
        Ok(self.heads().await?.values().map(|head| head.seq).sum())
    }

    fn running_node(&self) -> anyhow::Result<usize> {
        self.nodes
            .iter()
            .position(Node::is_running)
            .context("no node is running")
    }

    /// Stops sending, waits until everything has arrived, and records the final state. The last
    /// step of a scenario.
    pub async fn finish(&mut self, lab: &mut Lab) -> anyhow::Result<()> {
        let node = self.running_node()?;
        let took = self.clients.finish(&self.nodes[node]).await?;
        lab.report_seconds("all messages arrived after", took);
        lab.record_archive(&self.nodes[node], &self.rooms).await
    }

    /// Stops sending, and waits until everything has arrived.
    pub async fn quiesce(&mut self) -> anyhow::Result<()> {
        let node = self.running_node()?;
        self.clients.quiesce(&self.nodes[node]).await?;
        Ok(())
    }

    /// Waits until every running node is ready. Returns how long it took.
    pub async fn wait_nodes_ready(&self, timeout: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        for node in &self.nodes {
            if node.is_running() {
                node.wait_ready(timeout).await?;
            }
        }
        Ok(began.elapsed())
    }
}

fn user_name(home_node: usize, index: usize) -> String {
    format!("u{home_node}-{index}")
}
