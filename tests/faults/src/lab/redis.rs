//! Real redis-servers: alone, with replicas and a Sentinel, or six as a cluster.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::process::Process;
use super::{await_port, free_port};

/// One redis-server, with a directory of its own that outlives restarts.
pub struct Redis {
    /// Where it listens.
    pub port: u16,
    dir: PathBuf,
    settings: Vec<String>,
    process: Option<Process>,
}

impl Redis {
    /// Starts one that writes each command to its file before it answers.
    pub async fn durable(dir: &Path) -> anyhow::Result<Self> {
        Self::start(
            dir,
            &[
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--no-appendfsync-on-rewrite",
                "no",
            ],
        )
        .await
    }

    /// Starts one that keeps nothing but what `SAVE` writes.
    pub async fn forgetful(dir: &Path) -> anyhow::Result<Self> {
        Self::start(dir, &["--appendonly", "no"]).await
    }

    /// Starts one with these settings.
    pub async fn start(dir: &Path, settings: &[&str]) -> anyhow::Result<Self> {
        let port = free_port();
        let dir = dir.join(format!("redis-{port}"));
        std::fs::create_dir_all(&dir)?;
        let mut server = Self {
            port,
            dir,
            settings: settings.iter().map(ToString::to_string).collect(),
            process: None,
        };
        server.run().await?;
        Ok(server)
    }

    /// Starts it (again): same port, same directory.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &self.port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ]);
        command.args([
            "--maxmemory-policy",
            "noeviction",
            "--repl-diskless-sync-delay",
            "0",
        ]);
        command.arg("--dir").arg(&self.dir).args(&self.settings);
        self.process = Some(Process::start(&mut command, &self.dir.join("log"))?);
        await_port(self.port).await?;
        // It may still be loading.
        super::eventually("redis answers", Duration::from_secs(30), async || {
            self.cli(&["PING"]).is_ok_and(|answer| answer == "PONG")
        })
        .await
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.process = None;
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

    /// The directory with its data.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its address for `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs a command.
    pub fn cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        cli(self.port, arguments)
    }
}

/// Runs a command on the server of that port.
pub fn cli(port: u16, arguments: &[&str]) -> anyhow::Result<String> {
    let out = Command::new("timeout")
        .args(["5", "redis-cli", "-p", &port.to_string()])
        .args(arguments)
        .output();
    let out = out.context("redis-cli is installed")?;
    let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    ensure!(
        out.status.success(),
        "redis-cli {arguments:?}: {text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(text)
}

/// A primary, a replica, and three Sentinels that watch them.
pub struct Watched {
    /// In the order of their start; the first one begins as the primary.
    pub servers: Vec<Redis>,
    /// Ports of the Sentinels.
    pub sentinels: Vec<u16>,
    _processes: Vec<Process>,
}

impl Watched {
    /// Starts them all; a primary that is silent for a second is given up.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let first = Redis::durable(dir).await?;
        let second = Redis::durable(dir).await?;
        second.cli(&["REPLICAOF", "127.0.0.1", &first.port.to_string()])?;
        super::eventually("the replica follows", Duration::from_secs(20), async || {
            second
                .cli(&["INFO", "replication"])
                .is_ok_and(|text| text.contains("master_link_status:up"))
        })
        .await?;
        let (mut sentinels, mut processes) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let port = free_port();
            let dir = dir.join(format!("sentinel-{port}"));
            std::fs::create_dir_all(&dir)?;
            let settings = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor hub 127.0.0.1 {} 2\nsentinel down-after-milliseconds hub 1000\n\
                 sentinel failover-timeout hub 5000\nsentinel parallel-syncs hub 1\n",
                dir.display(),
                first.port
            );
            std::fs::write(dir.join("sentinel.conf"), settings)?;
            let mut command = Command::new("redis-server");
            command.arg(dir.join("sentinel.conf")).arg("--sentinel");
            processes.push(Process::start(&mut command, &dir.join("log"))?);
            await_port(port).await?;
            sentinels.push(port);
        }
        let port = sentinels[0];
        super::eventually(
            "the Sentinels know each other",
            Duration::from_secs(30),
            async || {
                cli(port, &["SENTINEL", "CKQUORUM", "hub"]).is_ok_and(|text| text.contains("OK 3"))
                    && cli(port, &["SENTINEL", "REPLICAS", "hub"])
                        .is_ok_and(|text| text.contains("slave-priority"))
            },
        )
        .await?;
        Ok(Self {
            servers: vec![first, second],
            sentinels,
            _processes: processes,
        })
    }

    /// For `REDIS_URL`.
    pub fn url(&self) -> String {
        let [first, rest @ ..] = &self.sentinels[..] else {
            unreachable!("three were started")
        };
        let nodes: Vec<String> = rest
            .iter()
            .map(|port| format!("node=127.0.0.1:{port}"))
            .collect();
        format!(
            "redis-sentinel://127.0.0.1:{first}?sentinelServiceName=hub&{}",
            nodes.join("&")
        )
    }

    /// The port of the primary, as the Sentinels have it.
    pub fn primary(&self) -> anyhow::Result<u16> {
        let text = cli(
            self.sentinels[0],
            &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "hub"],
        )?;
        text.lines()
            .nth(1)
            .and_then(|port| port.trim().parse().ok())
            .context("no primary")
    }
}

/// Six servers: three primaries, each with a replica.
pub struct Sharded {
    /// In the order of their start.
    pub servers: Vec<Redis>,
}

impl Sharded {
    /// Starts them, and waits until all slots are served.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let mut servers = Vec::new();
        for _ in 0..6 {
            let settings = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "2000",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ];
            servers.push(Redis::start(dir, &settings).await?);
        }
        let addresses: Vec<String> = servers
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.port))
            .collect();
        let mut command = Command::new("redis-cli");
        command
            .args(["--cluster", "create"])
            .args(&addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"]);
        let out = tokio::task::spawn_blocking(move || command.output()).await??;
        ensure!(
            out.status.success(),
            "no cluster: {}",
            String::from_utf8_lossy(&out.stdout)
        );
        let cluster = Self { servers };
        super::eventually("the cluster serves", Duration::from_secs(30), async || {
            cluster.servers.iter().all(|server| {
                server.cli(&["CLUSTER", "INFO"]).is_ok_and(|text| {
                    text.contains("cluster_state:ok") && text.contains("cluster_known_nodes:6")
                })
            }) && cluster.roles("slave").len() == 3
        })
        .await?;
        Ok(cluster)
    }

    /// For `REDIS_URL`.
    pub fn url(&self) -> String {
        let nodes: Vec<String> = self.servers[1..3]
            .iter()
            .map(|server| format!("node=127.0.0.1:{}", server.port))
            .collect();
        format!(
            "redis-cluster://127.0.0.1:{}?{}",
            self.servers[0].port,
            nodes.join("&")
        )
    }

    /// Indices of the servers that say they have this role (`master` or `slave`) and are in step.
    pub fn roles(&self, role: &str) -> Vec<usize> {
        let has = |server: &Redis| {
            server.cli(&["INFO", "replication"]).is_ok_and(|text| {
                text.contains(&format!("role:{role}"))
                    && (role == "master" || text.contains("master_link_status:up"))
            })
        };
        (0..self.servers.len())
            .filter(|index| has(&self.servers[*index]))
            .collect()
    }

    /// The id by which the cluster knows a server.
    pub fn id(&self, index: usize) -> anyhow::Result<String> {
        self.servers[index].cli(&["CLUSTER", "MYID"])
    }
}
