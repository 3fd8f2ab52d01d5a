//! The lab: real processes, the faults that it injects, and the results that it notes.

mod archive;
mod changes;
mod chats;
mod clients;
pub mod database;
mod neighbour;
mod node;
mod process;
mod proxy;
pub mod redis;
mod system;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

pub use clients::Clients;
pub use neighbour::Neighbour;
pub use node::Node;
pub use process::Process;
pub use proxy::{Link, Proxy};
pub use system::{faketime_library, free_port};

use crate::checker::{Promises, Stats};
use crate::history::{Fact, Recorder};

/// The time in which the cluster and its clients must recover from a fault, unless `--timeout` says
/// otherwise.
pub const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);
const NODE_START_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// One run of one scenario.
pub struct Lab {
    /// The directory of all files of this run.
    pub dir: PathBuf,
    pub recorder: Recorder,
    pub rng: ChaCha8Rng,
    /// The full form of the scenario instead of the short one.
    pub full: bool,
    /// The promises that the checker verifies.
    pub promises: Promises,
    /// Names and values of measurements, for the summary.
    pub measurements: Vec<(String, String)>,
    /// The duration of the scenario `chaos`.
    pub chaos_duration: Duration,
    /// The time to wait at the end for messages that have not arrived yet.
    pub recovery_timeout: Duration,
    /// Faults that the scenario itself found.
    pub faults: Vec<String>,
    /// Conditions on the history. If one does not hold, the run did not test the subject of the
    /// scenario, and fails.
    pub coverage: Vec<Coverage>,
    /// Settings of all nodes.
    pub settings: Vec<(String, String)>,
    /// The archive behind the rooms, if there is one.
    pub archive: Option<database::ArchiveReader>,
    binary: PathBuf,
}

/// Something that must have happened in a run.
pub struct Coverage {
    pub description: &'static str,
    pub happened: fn(&Stats) -> bool,
}

impl Lab {
    pub fn new(dir: &Path, binary: &Path, recorder: Recorder, seed: u64, full: bool) -> Self {
        Self {
            dir: dir.to_owned(),
            recorder,
            rng: ChaCha8Rng::seed_from_u64(seed),
            full,
            promises: Promises::default(),
            measurements: Vec::new(),
            chaos_duration: Duration::from_secs(60),
            recovery_timeout: RECOVERY_TIMEOUT,
            faults: Vec::new(),
            coverage: Vec::new(),
            settings: Vec::new(),
            archive: None,
            binary: binary.to_owned(),
        }
    }

    /// Selects the value for the short or for the full form.
    pub fn by_form<T>(&self, short: T, full: T) -> T {
        if self.full { full } else { short }
    }

    /// Records a step of the scenario.
    pub fn step(&self, text: impl Into<String>) {
        self.recorder.record_lab(Fact::Step { text: text.into() });
    }

    /// Adds a measurement to the summary.
    pub fn report(&mut self, name: &str, value: impl Display) {
        self.measurements.push((name.to_owned(), value.to_string()));
    }

    /// Adds a duration to the summary, in seconds.
    pub fn report_seconds(&mut self, name: &str, time: Duration) {
        self.report(name, format!("{:.1} s", time.as_secs_f64()));
    }

    /// Adds a fault unless the condition holds.
    pub fn require(&mut self, condition: bool, fault: impl Display) {
        if !condition {
            let at = self.recorder.elapsed_millis();
            self.faults.push(format!("[{at} ms] {fault}"));
        }
    }

    /// Fails the run unless this happened in it.
    pub fn require_coverage(&mut self, description: &'static str, happened: fn(&Stats) -> bool) {
        self.coverage.push(Coverage {
            description,
            happened,
        });
    }

    /// Records that these users go offline now: each watcher must be notified.
    pub fn users_went_offline(&self, users: &[String]) {
        self.record_presence(users, false);
    }

    /// Records that these users come online now: each watcher must be notified.
    pub fn users_came_online(&self, users: &[String]) {
        self.record_presence(users, true);
    }

    fn record_presence(&self, users: &[String], online: bool) {
        for user in users {
            let target = user.clone();
            self.recorder
                .record_lab(Fact::PresenceChanged { target, online });
        }
    }

    /// Starts a node on this Redis, and waits until it is ready.
    pub async fn start_node(
        &self,
        name: &str,
        redis_url: &str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Node> {
        // Without an archive, unless the scenario has one.
        let defaults = [("DATABASE_URL", "none"), ("REDIS_URL", redis_url)];
        self.start(name, &defaults, settings).await
    }

    /// Starts a node without Redis, and waits until it is ready.
    pub async fn start_lone_node(&self, name: &str) -> anyhow::Result<Node> {
        self.start(name, &[], &[]).await
    }

    async fn start(
        &self,
        name: &str,
        defaults: &[(&str, &str)],
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Node> {
        let mut all_settings = defaults.to_vec();
        for (key, value) in &self.settings {
            all_settings.push((key, value));
        }
        all_settings.extend(settings);
        let node = Node::start(&self.dir, &self.binary, name, &all_settings).await?;
        node.wait_ready(NODE_START_TIMEOUT).await?;
        Ok(node)
    }

    /// Starts nodes on one Redis.
    pub async fn start_nodes(&self, count: usize, redis_url: &str) -> anyhow::Result<Vec<Node>> {
        let mut nodes = Vec::new();
        for index in 0..count {
            let name = format!("node-{index}");
            nodes.push(self.start_node(&name, redis_url, &[]).await?);
        }
        Ok(nodes)
    }

    /// Creates an empty set of clients.
    pub fn create_clients(&mut self) -> anyhow::Result<Clients> {
        Clients::new(
            self.recorder.clone(),
            self.recovery_timeout,
            self.rng.random(),
        )
    }
}

/// Waits until the condition holds.
///
/// # Errors
/// It did not hold before the timeout.
pub async fn eventually(
    description: &str,
    timeout: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    while !condition().await {
        if Instant::now() > deadline {
            bail!("not within {timeout:?}: {description}");
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}
