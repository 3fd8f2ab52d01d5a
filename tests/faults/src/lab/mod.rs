//! The laboratory: real processes, the faults that befall them, and what is noted on the way.

mod node;
mod process;
mod proxy;
pub mod redis;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::watch;
use tokio::time::Instant;

pub use node::Node;
pub use process::Process;
pub use proxy::{Proxy, Weather};

use crate::checker::{Figures, Promises};
use crate::crowd::{Aside, Fleet, Latencies, Member, Part, Poster, Standing};
use crate::history::{Fact, History};

/// How long it is waited for what must come, unless the run says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long all is watched on once it has come to rest.
const QUIET: Duration = Duration::from_secs(3);

/// Whether a history has something.
pub type Seen = fn(&Figures) -> bool;

/// One run of one scenario.
pub struct Lab {
    /// Everything of this run lies here.
    pub dir: PathBuf,
    pub history: History,
    pub rng: ChaCha8Rng,
    /// The whole thing, and not the short form.
    pub long: bool,
    /// What the checker is to hold the cluster to.
    pub promises: Promises,
    /// What was measured, for the summary.
    pub figures: Vec<(String, String)>,
    /// How long the scenario of all faults at random goes on.
    pub chaos_for: Duration,
    /// How long it is waited for what is still owed.
    pub patience: Duration,
    /// What the lab itself found wanting.
    pub faults: Vec<String>,
    /// What the history must have, or the scenario didn't try what it is for.
    pub must_see: Vec<(&'static str, Seen)>,
    /// Settings that all nodes get.
    pub settings: Vec<(String, String)>,
    binary: PathBuf,
}

impl Lab {
    pub fn new(dir: &Path, binary: &Path, history: History, seed: u64, long: bool) -> Self {
        Self {
            dir: dir.to_owned(),
            history,
            rng: ChaCha8Rng::seed_from_u64(seed),
            long,
            promises: Promises::default(),
            figures: Vec::new(),
            chaos_for: Duration::from_secs(60),
            patience: PATIENCE,
            faults: Vec::new(),
            must_see: Vec::new(),
            settings: Vec::new(),
            binary: binary.to_owned(),
        }
    }

    /// One value for the short form, another for the long one.
    pub fn pick<T>(&self, short: T, long: T) -> T {
        if self.long { long } else { short }
    }

    /// Notes a step of the scenario.
    pub fn step(&self, text: impl Into<String>) {
        self.history.write("lab", Fact::Step { text: text.into() });
    }

    /// Notes a figure for the summary.
    pub fn figure(&mut self, name: &str, value: impl Display) {
        self.figures.push((name.to_owned(), value.to_string()));
    }

    /// Notes a fault unless this holds.
    pub fn require(&mut self, holds: bool, what: impl Display) {
        if !holds {
            self.faults
                .push(format!("[{} ms] {what}", self.history.now()));
        }
    }

    /// The truth about a user: it came or went, and its watchers are owed that.
    pub fn changed(&self, user: &str, online: bool) {
        self.history.write(
            "lab",
            Fact::Change {
                target: user.to_owned(),
                online,
            },
        );
    }

    /// Starts a node, and waits until it can serve.
    pub async fn node(
        &self,
        name: &str,
        redis: &str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Node> {
        let common = self
            .settings
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let settings: Vec<(&str, &str)> = common.chain(settings.iter().copied()).collect();
        let node = Node::start(&self.dir, &self.binary, name, redis, &settings).await?;
        eventually("the node is ready", Duration::from_secs(20), async || {
            node.is_ready().await
        })
        .await?;
        Ok(node)
    }

    /// Starts so many nodes on one Redis.
    pub async fn nodes(&self, count: usize, redis: &str) -> anyhow::Result<Vec<Node>> {
        let mut nodes = Vec::new();
        for index in 0..count {
            nodes.push(self.node(&format!("node-{index}"), redis, &[]).await?);
        }
        Ok(nodes)
    }

    /// A crowd without anybody yet.
    pub fn crowd(&mut self) -> anyhow::Result<Crowd> {
        let (loud, _) = watch::channel(false);
        Ok(Crowd {
            members: Vec::new(),
            posters: Vec::new(),
            fleets: Vec::new(),
            latencies: Latencies::default(),
            loud,
            aside: Aside::new()?,
            patience: self.patience,
            history: self.history.clone(),
            rng: ChaCha8Rng::seed_from_u64(self.rng.random()),
        })
    }
}

/// All clients of a run.
pub struct Crowd {
    pub members: Vec<Member>,
    pub posters: Vec<Poster>,
    pub fleets: Vec<Fleet>,
    pub latencies: Latencies,
    loud: watch::Sender<bool>,
    aside: Aside,
    patience: Duration,
    history: History,
    rng: ChaCha8Rng,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.history.close();
    }
}

impl Crowd {
    /// Starts a client; its index.
    pub fn add(&mut self, part: Part) -> usize {
        let (seed, history) = (self.rng.random(), self.history.clone());
        // Those who measure must not wait for the others' work, which real clients do on machines of their own.
        let _aside = if part.measures {
            None
        } else {
            self.aside.enter()
        };
        self.members.push(Member::start(
            part,
            seed,
            history,
            self.loud.subscribe(),
            self.latencies.clone(),
        ));
        self.members.len() - 1
    }

    /// Starts a backend service that posts to these rooms.
    pub fn add_poster(
        &mut self,
        name: &str,
        rooms: &[String],
        doors: &[SocketAddr],
        pace: Duration,
    ) -> anyhow::Result<()> {
        let loud = self.loud.subscribe();
        self.posters.push(Poster::start(
            name,
            rooms.to_vec(),
            doors.to_vec(),
            pace,
            self.history.clone(),
            loud,
        )?);
        Ok(())
    }

    /// Starts so many official JavaScript clients of each major version.
    pub fn add_fleet(
        &mut self,
        name: &str,
        each: usize,
        rooms: &[String],
        doors: &[SocketAddr],
        pace: Duration,
        dir: &Path,
    ) -> anyhow::Result<()> {
        let log = dir.join(format!("{name}.log"));
        self.fleets.push(Fleet::start(
            name,
            each,
            rooms,
            doors,
            pace,
            &self.history,
            &log,
        )?);
        Ok(())
    }

    fn standings(&self) -> impl Iterator<Item = (String, &Standing)> {
        let members = self
            .members
            .iter()
            .map(|member| (member.part.name.clone(), &*member.standing));
        let fleets = self.fleets.iter().flat_map(|fleet| &fleet.standings);
        members.chain(fleets.map(|(name, standing)| (name.clone(), &**standing)))
    }

    /// Lets all senders send, or none.
    pub async fn speak(&mut self, loud: bool) -> anyhow::Result<()> {
        self.loud.send_replace(loud);
        for fleet in &mut self.fleets {
            fleet.order(if loud { "loud" } else { "quiet" }).await?;
        }
        Ok(())
    }

    /// How many are not connected with all rooms joined.
    pub fn missing(&self) -> Vec<String> {
        self.standings()
            .filter(|(_, standing)| !standing.has_ended() && !standing.is_back())
            .map(|(name, _)| name)
            .collect()
    }

    /// Waits until everybody is connected and has joined; how long it took.
    pub async fn all_back(&self, patience: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while !self.missing().is_empty() {
            if began.elapsed() > patience {
                bail!(
                    "not back after {patience:?}: {:?}",
                    self.missing().iter().take(10).collect::<Vec<_>>()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(began.elapsed())
    }

    /// From now on these are told of each change singly.
    pub fn calm(&self, members: impl IntoIterator<Item = usize>) {
        for index in members {
            self.history.write(
                "lab",
                Fact::Calm {
                    client: self.members[index].part.name.clone(),
                },
            );
        }
    }

    /// Everybody falls silent; waits until all is acknowledged and everybody has seen the last message of each room, as a
    /// node tells it. What is still missing after the patience is for the checker to say, and not waited for again. Returns
    /// how long it took.
    pub async fn rest(&mut self, node: &Node) -> anyhow::Result<Duration> {
        self.speak(false).await?;
        let began = Instant::now();
        let rooms = self.rooms();
        while !self.is_settled(node, &rooms).await {
            if began.elapsed() > self.patience {
                self.patience = Duration::ZERO;
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(began.elapsed())
    }

    /// Comes to rest, and writes down how things are in the end: the last thing that a scenario does.
    pub async fn settle(&mut self, node: &Node) -> anyhow::Result<Duration> {
        let took = self.rest(node).await?;
        let (rooms, users) = (self.rooms(), self.users());
        // What comes too much comes late: nodes compare what they know with Redis every two seconds.
        tokio::time::sleep(QUIET).await;
        for room in &rooms {
            let head = node.get(&format!("/rooms/{room}/messages?limit=1")).await?;
            let (epoch, seq) = (
                head["epoch"].as_str().unwrap_or_default().to_owned(),
                head["seq"].as_u64().unwrap_or(0),
            );
            self.history.write(
                "lab",
                Fact::Head {
                    room: room.clone(),
                    epoch,
                    seq,
                },
            );
            let users = self.members_of(node, room).await?;
            self.history.write(
                "lab",
                Fact::Members {
                    room: room.clone(),
                    users,
                },
            );
        }
        for target in users {
            let state = node.get(&format!("/users/{target}/status")).await?;
            let (online, version) = (
                state["is_online"] == true,
                state["version"].as_u64().unwrap_or(0),
            );
            self.history.write(
                "lab",
                Fact::State {
                    target,
                    online,
                    version,
                },
            );
        }
        Ok(took)
    }

    async fn members_of(&self, node: &Node, room: &str) -> anyhow::Result<Vec<String>> {
        let (mut users, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = node
                .get(&format!("/rooms/{room}/users?limit=1000{cursor}"))
                .await?;
            let found = page["users"].as_array().context("no users")?;
            users.extend(
                found
                    .iter()
                    .filter_map(|user| Some(user["user_id"].as_str()?.to_owned())),
            );
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(users),
            }
        }
    }

    fn rooms(&self) -> BTreeSet<String> {
        self.standings()
            .flat_map(|(_, standing)| standing.positions().into_keys())
            .collect()
    }

    fn users(&self) -> BTreeSet<String> {
        self.members
            .iter()
            .flat_map(|member| member.part.watches.clone())
            .collect()
    }

    async fn is_settled(&self, node: &Node, rooms: &BTreeSet<String>) -> bool {
        if !self.missing().is_empty() {
            return false;
        }
        let waits = |standing: &Standing| standing.unanswered() > 0;
        if self.standings().any(|(_, standing)| waits(standing))
            || self.posters.iter().any(|poster| waits(&poster.standing))
        {
            return false;
        }
        let mut heads = HashMap::new();
        for room in rooms {
            let Ok(head) = node.get(&format!("/rooms/{room}/messages?limit=1")).await else {
                return false;
            };
            heads.insert(room.clone(), head["seq"].as_u64().unwrap_or(0));
        }
        self.standings()
            .filter(|(_, standing)| !standing.has_ended())
            .all(|(_, standing)| {
                standing
                    .positions()
                    .iter()
                    .all(|(room, at)| heads.get(room) == Some(&at.seq))
            })
    }
}

/// Waits until that is so.
///
/// # Errors
/// It never was.
pub async fn eventually(
    what: &str,
    patience: Duration,
    mut check: impl AsyncFnMut() -> bool,
) -> anyhow::Result<()> {
    let end = Instant::now() + patience;
    while !check().await {
        if Instant::now() > end {
            bail!("never: {what}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn await_port(port: u16) -> anyhow::Result<()> {
    let connects = async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
    };
    eventually(
        &format!("something listens on {port}"),
        Duration::from_secs(10),
        connects,
    )
    .await
}

/// A port that nobody listens on just now, low enough for a cluster's second port, and given to nobody else in this run:
/// scenarios go on beside each other, and one must not take another's Redis for its own.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = rand::rng().random_range(11_000..32_000);
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) && GIVEN.lock().insert(port) {
            return port;
        }
    }
}

/// The library that shifts a process's clock.
///
/// # Errors
/// It isn't installed.
pub fn faked_time() -> anyhow::Result<String> {
    let places = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib",
    ];
    let found = places.map(|place| format!("{place}/faketime/libfaketimeMT.so.1"));
    found
        .into_iter()
        .find(|path| Path::new(path).exists())
        .context("libfaketime is not installed (Debian: faketime)")
}
