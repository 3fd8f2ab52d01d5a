//! A node of the cluster, as a process of its own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;

use super::process::Process;
use super::{await_port, free_port};

/// A node: its settings outlive its process.
pub struct Node {
    pub name: String,
    pub address: SocketAddr,
    binary: PathBuf,
    dir: PathBuf,
    settings: BTreeMap<String, String>,
    process: Option<Process>,
    http: reqwest::Client,
}

impl Node {
    /// Starts one on a free port, in open mode, on this Redis.
    pub async fn start(
        dir: &Path,
        binary: &Path,
        name: &str,
        redis: &str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let port = free_port();
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        let fixed = [
            ("SERVER_HOST", "127.0.0.1"),
            ("AUTH_MODE", "open"),
            ("HISTORY_SIZE", "20000"),
            ("REDIS_URL", redis),
        ];
        for (key, value) in fixed.iter().chain(settings) {
            all.insert((*key).to_owned(), (*value).to_owned());
        }
        all.insert("SERVER_PORT".into(), port.to_string());
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(5))
            .pool_max_idle_per_host(0)
            .build()?;
        let mut node = Self {
            name: name.to_owned(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            settings: all,
            process: None,
            http,
        };
        node.run().await?;
        Ok(node)
    }

    /// Starts its process (again), and waits until it listens.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.binary);
        // Nothing of this environment, and no `.env` of this directory.
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .arg("serve")
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", path)
            .envs(&self.settings);
        self.process = Some(Process::start(
            &mut command,
            &self.dir.join(format!("{}.log", self.name)),
        )?);
        await_port(self.address.port()).await
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Asks it to end, and waits for that.
    pub async fn stop(&mut self, patience: Duration) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        process.terminate();
        super::eventually("the node ends", patience, async || process.has_ended()).await
    }

    /// Freezes or thaws it.
    pub fn freeze(&self, frozen: bool) {
        if let Some(process) = &self.process {
            if frozen {
                process.freeze()
            } else {
                process.thaw()
            }
        }
    }

    /// Its resident memory in KB.
    pub fn memory_kb(&self) -> u64 {
        self.process.as_ref().map_or(0, Process::memory_kb)
    }

    /// Whether it says that it can serve.
    pub async fn is_ready(&self) -> bool {
        self.status("/health").await == 200
    }

    /// The status of a GET; 0 without an answer.
    pub async fn status(&self, path: &str) -> u16 {
        let answer = self
            .http
            .get(format!("http://{}{path}", self.address))
            .send()
            .await;
        answer.map_or(0, |answer| answer.status().as_u16())
    }

    /// The body of a GET that must succeed.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self
            .http
            .get(format!("http://{}{path}", self.address))
            .send()
            .await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// A number of `/metrics`: the sum of the samples whose line begins so.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self
            .http
            .get(format!("http://{}/metrics", self.address))
            .send()
            .await?
            .text()
            .await?;
        let samples = text.lines().filter(|line| line.starts_with(name));
        Ok(samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }
}
