//! A node of the cluster, in a process of its own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;

use super::process::Process;
use super::system::{free_port, wait_for_port};
use crate::history::Position;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A node. Its address and settings outlive its process.
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
    /// Starts a node on a free port, with `AUTH_MODE=open` and these settings, and waits until it
    /// listens.
    pub async fn start(
        dir: &Path,
        binary: &Path,
        name: &str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let port = free_port();
        let mut all_settings: BTreeMap<String, String> = BTreeMap::new();
        let defaults = [
            ("SERVER_HOST", "127.0.0.1"),
            ("AUTH_MODE", "open"),
            ("HISTORY_SIZE", "20000"),
        ];
        for (key, value) in defaults.iter().chain(settings) {
            all_settings.insert((*key).to_owned(), (*value).to_owned());
        }
        all_settings.insert("SERVER_PORT".into(), port.to_string());
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .pool_max_idle_per_host(0)
            .build()?;
        let mut node = Self {
            name: name.to_owned(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            settings: all_settings,
            process: None,
            http,
        };
        node.run().await?;
        Ok(node)
    }

    /// Starts the node's process, also after an earlier one has ended, and waits until it listens.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.binary);
        // The node must see no other setting: neither of the lab's environment nor of a `.env` in
        // its working directory.
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .arg("serve")
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", path)
            .envs(&self.settings);
        let log = self.dir.join(format!("{}.log", self.name));
        self.process = Some(Process::start(&mut command, &log)?);
        wait_for_port(self.address.port()).await
    }

    /// Kills the node (SIGKILL).
    pub fn kill(&mut self) {
        self.process = None;
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Terminates the node (SIGTERM), and waits until it has exited.
    pub async fn stop(&mut self, timeout: Duration) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        process.terminate();
        super::eventually("the node exits", timeout, async || process.has_exited()).await
    }

    /// Suspends the node (SIGSTOP), if it is running.
    pub fn suspend(&self) {
        if let Some(process) = &self.process {
            process.suspend();
        }
    }

    /// Lets the node continue (SIGCONT), if it is running.
    pub fn resume(&self) {
        if let Some(process) = &self.process {
            process.resume();
        }
    }

    /// The resident memory of the node, in KB.
    pub fn memory_kb(&self) -> u64 {
        self.process.as_ref().map_or(0, Process::memory_kb)
    }

    /// Whether the node reports that it is ready.
    pub async fn is_ready(&self) -> bool {
        self.status("/health").await == 200
    }

    /// Waits until the node reports that it is ready.
    pub async fn wait_ready(&self, timeout: Duration) -> anyhow::Result<()> {
        super::eventually(&format!("{} is ready", self.name), timeout, async || {
            self.is_ready().await
        })
        .await
    }

    /// Waits until the node reports that it is not ready.
    pub async fn wait_not_ready(&self, timeout: Duration) -> anyhow::Result<()> {
        super::eventually(
            &format!("{} is not ready", self.name),
            timeout,
            async || self.status("/health").await == 503,
        )
        .await
    }

    /// The HTTP status of a GET. 0 if there is no response.
    pub async fn status(&self, path: &str) -> u16 {
        let response = self.http.get(self.url(path)).send().await;
        response.map_or(0, |response| response.status().as_u16())
    }

    /// The status and the body of `/health`. `None` if there is no response.
    pub async fn health(&self) -> Option<(u16, Value)> {
        let response = self.http.get(self.url("/health")).send().await.ok()?;
        Some((response.status().as_u16(), response.json().await.ok()?))
    }

    /// The body of a GET.
    ///
    /// # Errors
    /// There is no response, or its status isn't 2xx.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let response = self.http.get(self.url(path)).send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Sends a POST with this JSON body.
    ///
    /// # Errors
    /// There is no response, or its status isn't 2xx.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let request = self.http.post(self.url(path)).json(body);
        let status = request.send().await?.status();
        ensure!(status.is_success(), "POST {path}: {status}");
        Ok(())
    }

    /// The head of a room: its epoch and its last number.
    pub async fn head(&self, room: &str) -> anyhow::Result<Position> {
        let answer = self.get(&format!("/rooms/{room}/messages?limit=1")).await?;
        Ok(Position {
            epoch: answer["epoch"].as_str().unwrap_or_default().to_owned(),
            seq: answer["seq"].as_u64().unwrap_or(0),
        })
    }

    /// Whether the node reports that the user is online. `None` if it gives no answer.
    pub async fn is_online(&self, user: &str) -> Option<bool> {
        let status = self.get(&format!("/users/{user}/status")).await.ok()?;
        status["is_online"].as_bool()
    }

    /// A value of `/metrics`: the sum of all samples whose line begins with this name.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let response = self.http.get(self.url("/metrics")).send().await?;
        let text = response.text().await?;
        let samples = text.lines().filter(|line| line.starts_with(name));
        Ok(samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}
