//! A primary with a replica, watched by Sentinels.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::{Redis, cli};
use crate::lab::eventually;
use crate::lab::process::Process;
use crate::lab::system::{free_port, wait_for_port};

/// The name of the primary in the configuration of the Sentinels.
const SERVICE: &str = "hub";
const SENTINELS: usize = 3;
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A primary, a replica, and three Sentinels that watch them.
pub struct SentinelGroup {
    /// The first one is the primary at the start.
    pub servers: Vec<Redis>,
    sentinel_ports: Vec<u16>,
    _sentinels: Vec<Process>,
}

impl SentinelGroup {
    /// Starts all of them. The Sentinels fail over when the primary does not answer for a second.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let primary = Redis::durable(dir).await?;
        let replica = Redis::durable(dir).await?;
        replica.replicate_from(primary.port).await?;
        let mut sentinel_ports = Vec::new();
        let mut sentinels = Vec::new();
        for _ in 0..SENTINELS {
            let port = free_port();
            sentinels.push(start_sentinel(dir, port, primary.port)?);
            wait_for_port(port).await?;
            sentinel_ports.push(port);
        }
        let first = sentinel_ports[0];
        let is_complete = async || {
            let quorum = cli(first, &["SENTINEL", "CKQUORUM", SERVICE]);
            let replicas = cli(first, &["SENTINEL", "REPLICAS", SERVICE]);
            quorum.is_ok_and(|text| text.contains(&format!("OK {SENTINELS}")))
                && replicas.is_ok_and(|text| text.contains("slave-priority"))
        };
        eventually(
            "the Sentinels know each other and the replica",
            START_TIMEOUT,
            is_complete,
        )
        .await?;
        Ok(Self {
            servers: vec![primary, replica],
            sentinel_ports,
            _sentinels: sentinels,
        })
    }

    /// The value for `REDIS_URL`.
    pub fn url(&self) -> String {
        let mut others = String::new();
        for port in &self.sentinel_ports[1..] {
            others.push_str(&format!("&node=127.0.0.1:{port}"));
        }
        let first = self.sentinel_ports[0];
        format!("redis-sentinel://127.0.0.1:{first}?sentinelServiceName={SERVICE}{others}")
    }

    /// The port of the primary, as the Sentinels report it.
    pub fn primary_port(&self) -> anyhow::Result<u16> {
        let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE];
        let address = cli(self.sentinel_ports[0], &command)?;
        address
            .lines()
            .nth(1)
            .and_then(|port| port.trim().parse().ok())
            .context("the Sentinels know no primary")
    }
}

fn start_sentinel(dir: &Path, port: u16, primary_port: u16) -> anyhow::Result<Process> {
    let dir = dir.join(format!("sentinel-{port}"));
    std::fs::create_dir_all(&dir)?;
    let file = dir.join("sentinel.conf");
    let config = format!(
        "port {port}\n\
         bind 127.0.0.1\n\
         dir {}\n\
         sentinel monitor {SERVICE} 127.0.0.1 {primary_port} 2\n\
         sentinel down-after-milliseconds {SERVICE} 1000\n\
         sentinel failover-timeout {SERVICE} 5000\n\
         sentinel parallel-syncs {SERVICE} 1\n",
        dir.display(),
    );
    std::fs::write(&file, config)?;
    let mut command = Command::new("redis-server");
    command.arg(file).arg("--sentinel");
    Process::start(&mut command, &dir.join("log"))
}
