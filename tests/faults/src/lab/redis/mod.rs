//! Real redis-servers: a single one, one with a replica and Sentinels, or a cluster of six.

mod cluster;
mod sentinel;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

pub use self::cluster::RedisCluster;
pub use self::sentinel::SentinelGroup;
use super::eventually;
use super::process::Process;
use super::system::{free_port, wait_for_port};

const LOAD_TIMEOUT: Duration = Duration::from_secs(30);
const REPLICATION_TIMEOUT: Duration = Duration::from_secs(20);

/// A redis-server. Its port and its directory outlive its process.
pub struct Redis {
    pub port: u16,
    dir: PathBuf,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl Redis {
    /// Starts a server that writes each command to its append-only file before it answers
    /// (`appendfsync always`).
    pub async fn durable(dir: &Path) -> anyhow::Result<Self> {
        let arguments = [
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--no-appendfsync-on-rewrite",
            "no",
        ];
        Self::start(dir, &arguments).await
    }

    /// Starts a server that persists nothing, except by the command `SAVE`.
    pub async fn without_persistence(dir: &Path) -> anyhow::Result<Self> {
        Self::start(dir, &["--appendonly", "no"]).await
    }

    /// Starts a server with these additional arguments.
    pub async fn start(dir: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let port = free_port();
        let dir = dir.join(format!("redis-{port}"));
        std::fs::create_dir_all(&dir)?;
        let mut server = Self {
            port,
            dir,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            process: None,
        };
        server.run().await?;
        Ok(server)
    }

    /// Starts the server's process, also after an earlier one has ended: with the same port and
    /// directory. Waits until it answers.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1"])
            .args(["--save", ""])
            .args(["--maxmemory-policy", "noeviction"])
            .args(["--repl-diskless-sync-delay", "0"])
            .arg("--dir")
            .arg(&self.dir)
            .args(&self.arguments);
        self.process = Some(Process::start(&mut command, &self.dir.join("log"))?);
        wait_for_port(self.port).await?;
        // While it loads its data, it listens and answers with an error.
        let answers = async || self.cli(&["PING"]).is_ok_and(|answer| answer == "PONG");
        eventually("Redis answers", LOAD_TIMEOUT, answers).await
    }

    /// Kills the server (SIGKILL).
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Suspends the server (SIGSTOP), if it is running.
    pub fn suspend(&self) {
        if let Some(process) = &self.process {
            process.suspend();
        }
    }

    /// Lets the server continue (SIGCONT), if it is running.
    pub fn resume(&self) {
        if let Some(process) = &self.process {
            process.resume();
        }
    }

    /// The directory with its data.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The value for `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs a command on the server.
    pub fn cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        cli(self.port, arguments)
    }

    /// Makes the server a replica of the server behind this port, and waits until it is in sync.
    pub async fn replicate_from(&self, port: u16) -> anyhow::Result<()> {
        self.cli(&["REPLICAOF", "127.0.0.1", &port.to_string()])?;
        eventually("the replica is in sync", REPLICATION_TIMEOUT, async || {
            self.is_replica_in_sync()
        })
        .await
    }

    fn is_replica_in_sync(&self) -> bool {
        self.cli(&["INFO", "replication"])
            .is_ok_and(|info| info.contains("master_link_status:up"))
    }
}

/// Runs a command on the server with this port.
fn cli(port: u16, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("timeout")
        .args(["5", "redis-cli", "-p", &port.to_string()])
        .args(arguments)
        .output()
        .context("redis-cli can't be started")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(
        output.status.success(),
        "redis-cli {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}
