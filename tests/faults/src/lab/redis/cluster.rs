//! Redis Cluster.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;

use super::Redis;
use crate::lab::eventually;

const SERVERS: usize = 6;
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Six servers: three primaries, each with a replica.
pub struct RedisCluster {
    pub servers: Vec<Redis>,
}

impl RedisCluster {
    /// Starts the servers, and waits until all slots are served.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let mut servers = Vec::new();
        for _ in 0..SERVERS {
            let arguments = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "2000",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ];
            servers.push(Redis::start(dir, &arguments).await?);
        }
        let addresses = servers
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.port));
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(addresses).args([
            "--cluster-replicas",
            "1",
            "--cluster-yes",
        ]);
        run(create).await?;
        let cluster = Self { servers };
        let is_complete = async || {
            cluster.servers.iter().all(Redis::serves_cluster) && cluster.replicas().len() == 3
        };
        eventually("the cluster is complete", START_TIMEOUT, is_complete).await?;
        Ok(cluster)
    }

    /// The value for `REDIS_URL`.
    pub fn url(&self) -> String {
        let [first, second, third, ..] = &self.servers[..] else {
            unreachable!("the cluster has six servers")
        };
        format!(
            "redis-cluster://127.0.0.1:{}?node=127.0.0.1:{}&node=127.0.0.1:{}",
            first.port, second.port, third.port
        )
    }

    /// The indices of the servers that report the role of a primary.
    pub fn primaries(&self) -> Vec<usize> {
        self.servers_where(|info| info.contains("role:master"))
    }

    /// The indices of the servers that report the role of a replica, and are in sync.
    pub fn replicas(&self) -> Vec<usize> {
        self.servers_where(|info| {
            info.contains("role:slave") && info.contains("master_link_status:up")
        })
    }

    /// The indices of the servers whose `INFO replication` satisfies the predicate.
    fn servers_where(&self, predicate: impl Fn(&str) -> bool) -> Vec<usize> {
        let mut indices = Vec::new();
        for (index, server) in self.servers.iter().enumerate() {
            let info = server.cli(&["INFO", "replication"]);
            if info.is_ok_and(|info| predicate(&info)) {
                indices.push(index);
            }
        }
        indices
    }

    /// Moves slots between two primaries, with their keys.
    pub async fn move_slots(&self, from: usize, to: usize, count: &str) -> anyhow::Result<()> {
        let address = format!("127.0.0.1:{}", self.servers[from].port);
        let mut reshard = Command::new("redis-cli");
        reshard
            .args(["--cluster", "reshard", &address, "--cluster-yes"])
            .args(["--cluster-from", &self.servers[from].cluster_id()?])
            .args(["--cluster-to", &self.servers[to].cluster_id()?])
            .args(["--cluster-slots", count]);
        run(reshard).await
    }
}

impl Redis {
    /// Whether the server reports that the cluster is in order.
    pub fn reports_cluster_ok(&self) -> bool {
        self.cli(&["CLUSTER", "INFO"])
            .is_ok_and(|info| info.contains("cluster_state:ok"))
    }

    /// Whether the server reports that the cluster is in order, and knows all its servers.
    fn serves_cluster(&self) -> bool {
        self.cli(&["CLUSTER", "INFO"]).is_ok_and(|info| {
            info.contains("cluster_state:ok")
                && info.contains(&format!("cluster_known_nodes:{SERVERS}"))
        })
    }

    /// The identifier of the server in the cluster.
    fn cluster_id(&self) -> anyhow::Result<String> {
        self.cli(&["CLUSTER", "MYID"])
    }
}

async fn run(mut command: Command) -> anyhow::Result<()> {
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(
        output.status.success(),
        "redis-cli --cluster failed: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}
