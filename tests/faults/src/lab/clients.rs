//! All clients of a run.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Node;
use crate::clients::{
    BackgroundRuntime, Client, ClientConfig, ClientState, Latencies, OfficialClients, RestPoster,
};
use crate::history::{Fact, Recorder};

/// How long the clients are observed after the last message has arrived, for events that should not
/// come. Longer than the two seconds after which nodes compare their state with Redis again.
const OBSERVATION_TIME: Duration = Duration::from_secs(3);

/// All clients of a run. Dropping them ends the history.
pub struct Clients {
    /// The clients that speak the protocol by themselves.
    pub simulated: Vec<Client>,
    pub posters: Vec<RestPoster>,
    pub official: Vec<OfficialClients>,
    pub latencies: Latencies,
    sending: watch::Sender<bool>,
    background: BackgroundRuntime,
    recovery_timeout: Duration,
    recorder: Recorder,
    rng: ChaCha8Rng,
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.recorder.close();
    }
}

impl Clients {
    pub fn new(recorder: Recorder, recovery_timeout: Duration, seed: u64) -> anyhow::Result<Self> {
        let (sending, _) = watch::channel(false);
        Ok(Self {
            simulated: Vec::new(),
            posters: Vec::new(),
            official: Vec::new(),
            latencies: Latencies::default(),
            sending,
            background: BackgroundRuntime::new()?,
            recovery_timeout,
            recorder,
            rng: ChaCha8Rng::seed_from_u64(seed),
        })
    }

    /// Starts a client.
    pub fn add(&mut self, config: ClientConfig) {
        // Clients that measure latencies must not wait for the work of the others: real clients run
        // on machines of their own.
        let _background = if config.measures_latency {
            None
        } else {
            self.background.enter()
        };
        self.simulated.push(Client::start(
            config,
            self.rng.random(),
            self.recorder.clone(),
            self.sending.subscribe(),
            self.latencies.clone(),
        ));
    }

    /// Starts a backend service that posts to these rooms.
    pub fn add_poster(
        &mut self,
        name: &str,
        rooms: &[String],
        addresses: &[SocketAddr],
        interval: Duration,
    ) -> anyhow::Result<()> {
        self.posters.push(RestPoster::start(
            name,
            rooms.to_vec(),
            addresses.to_vec(),
            interval,
            self.recorder.clone(),
            self.sending.subscribe(),
        )?);
        Ok(())
    }

    /// Starts official JavaScript clients: this many of each major version. Their log is a file in
    /// `dir`.
    pub fn add_official(
        &mut self,
        prefix: &str,
        count_per_version: usize,
        rooms: &[String],
        addresses: &[SocketAddr],
        send_interval: Duration,
        dir: &Path,
    ) -> anyhow::Result<()> {
        self.official.push(OfficialClients::start(
            prefix,
            count_per_version,
            rooms,
            addresses,
            send_interval,
            &self.recorder,
            &dir.join(format!("{prefix}.log")),
        )?);
        Ok(())
    }

    /// The names and states of all clients but the posters.
    fn states(&self) -> impl Iterator<Item = (&str, &ClientState)> {
        let simulated = self
            .simulated
            .iter()
            .map(|client| (client.config.name.as_str(), &*client.state));
        let official = self.official.iter().flat_map(|clients| &clients.states);
        simulated.chain(official.map(|(name, state)| (name.as_str(), &**state)))
    }

    pub async fn start_sending(&mut self) -> anyhow::Result<()> {
        self.sending.send_replace(true);
        for clients in &mut self.official {
            clients.start_sending().await?;
        }
        Ok(())
    }

    pub async fn stop_sending(&mut self) -> anyhow::Result<()> {
        self.sending.send_replace(false);
        for clients in &mut self.official {
            clients.stop_sending().await?;
        }
        Ok(())
    }

    /// The names of the clients that aren't connected, or haven't joined all their rooms yet.
    fn not_ready(&self) -> Vec<&str> {
        self.states()
            .filter(|(_, state)| !state.has_ended() && !state.is_ready())
            .map(|(name, _)| name)
            .collect()
    }

    /// Waits until all clients are connected and have joined their rooms. Returns how long it took.
    pub async fn wait_ready(&self, timeout: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            let not_ready = self.not_ready();
            if not_ready.is_empty() {
                return Ok(began.elapsed());
            }
            if began.elapsed() > timeout {
                let some: Vec<_> = not_ready.iter().take(10).collect();
                bail!(
                    "{} clients are not back after {timeout:?}: {some:?}",
                    not_ready.len()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Records that no fault will touch the clients that the predicate selects: they must be
    /// notified of each change separately.
    pub fn mark_unaffected(&self, predicate: impl Fn(&ClientConfig) -> bool) {
        for client in &self.simulated {
            if predicate(&client.config) {
                let client = client.config.name.clone();
                self.recorder.record_lab(Fact::Unaffected { client });
            }
        }
    }

    /// Stops sending, and waits until all messages are acknowledged and all clients have received
    /// the last message of each of their rooms, as the node reports it. After the timeout it
    /// returns all the same, and does not wait again: the checker finds the missing messages.
    /// Returns how long it took.
    pub async fn quiesce(&mut self, node: &Node) -> anyhow::Result<Duration> {
        self.stop_sending().await?;
        let began = Instant::now();
        let rooms = self.rooms();
        while !self.is_quiescent(node, &rooms).await {
            if began.elapsed() > self.recovery_timeout {
                self.recovery_timeout = Duration::ZERO;
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(began.elapsed())
    }

    /// Quiesces, and records the final state as the node reports it. This is the last step of every
    /// scenario. Returns how long the clients took to quiesce.
    pub async fn finish(&mut self, node: &Node) -> anyhow::Result<Duration> {
        let took = self.quiesce(node).await?;
        tokio::time::sleep(OBSERVATION_TIME).await;
        for room in self.rooms() {
            let head = node.head(&room).await?;
            self.recorder.record_lab(Fact::FinalHead {
                room: room.clone(),
                epoch: head.epoch,
                seq: head.seq,
            });
            let users = self.users_of_room(node, &room).await?;
            self.recorder.record_lab(Fact::FinalMembers { room, users });
        }
        for target in self.watched_users() {
            let status = node.get(&format!("/users/{target}/status")).await?;
            self.recorder.record_lab(Fact::FinalStatus {
                target,
                online: status["is_online"] == true,
                version: status["version"].as_u64().unwrap_or(0),
            });
        }
        Ok(took)
    }

    async fn users_of_room(&self, node: &Node, room: &str) -> anyhow::Result<Vec<String>> {
        let mut users = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/rooms/{room}/users?limit=1000{cursor}");
            let page = node.get(&path).await?;
            for user in page["users"].as_array().context("no users")? {
                users.extend(user["user_id"].as_str().map(str::to_owned));
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(users),
            }
        }
    }

    fn rooms(&self) -> BTreeSet<String> {
        self.states()
            .flat_map(|(_, state)| state.positions().into_keys())
            .collect()
    }

    fn watched_users(&self) -> BTreeSet<String> {
        self.simulated
            .iter()
            .flat_map(|client| client.config.watches.iter().cloned())
            .collect()
    }

    async fn is_quiescent(&self, node: &Node, rooms: &BTreeSet<String>) -> bool {
        if !self.not_ready().is_empty() {
            return false;
        }
        let posters = self.posters.iter().map(|poster| &*poster.state);
        let clients = self.states().map(|(_, state)| state);
        if clients.chain(posters).any(ClientState::has_unacknowledged) {
            return false;
        }
        let mut heads = HashMap::new();
        for room in rooms {
            let Ok(head) = node.head(room).await else {
                return false;
            };
            heads.insert(room.as_str(), head.seq);
        }
        let is_at_heads = |state: &ClientState| {
            state
                .positions()
                .iter()
                .all(|(room, position)| heads.get(room.as_str()) == Some(&position.seq))
        };
        self.states()
            .all(|(_, state)| state.has_ended() || is_at_heads(state))
    }
}
