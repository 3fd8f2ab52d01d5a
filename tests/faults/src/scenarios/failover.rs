//! Redis with several servers: Sentinel and Cluster.

use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use super::test_cluster::{ClusterSize, TestCluster};
use crate::history::Fact;
use crate::lab::redis::{Redis, RedisCluster, SentinelGroup};
use crate::lab::{Lab, eventually};

const FAILOVER_TIMEOUT: Duration = Duration::from_secs(30);

/// The primary is killed under load, and the Sentinels promote the replica. Messages that had not
/// been replicated are lost, and their loss must be announced.
pub async fn sentinel(lab: &mut Lab) -> anyhow::Result<()> {
    let mut redis = SentinelGroup::start(&lab.dir).await?;
    let size = ClusterSize::default_for(lab);
    let mut cluster = TestCluster::start_direct(lab, &redis.url(), size).await?;
    for round in 0..lab.by_form(1, 3) {
        cluster.send_for(Duration::from_secs(4)).await?;
        let old_port = redis.primary_port()?;
        let old = redis
            .servers
            .iter()
            .position(|server| server.port == old_port)
            .context("the Sentinels report a primary that is not part of the group")?;
        lab.step(format!("round {round}: the primary {old_port} is killed"));
        lab.recorder.record_lab(Fact::DataLost);
        let killed = Instant::now();
        redis.servers[old].kill();
        eventually("there is another primary", FAILOVER_TIMEOUT, async || {
            redis.primary_port().is_ok_and(|port| port != old_port)
        })
        .await?;
        cluster.wait_nodes_ready(FAILOVER_TIMEOUT).await?;
        lab.report_seconds("nodes ready after the kill", killed.elapsed());
        redis.servers[old].run().await?;
        sleep(Duration::from_secs(lab.by_form(6, 12))).await;
    }
    cluster.finish(lab).await
}

/// One of three primaries is killed under load, and its replica takes over its slots.
pub async fn cluster(lab: &mut Lab) -> anyhow::Result<()> {
    let mut redis = RedisCluster::start(&lab.dir).await?;
    let size = ClusterSize::default_for(lab);
    let mut cluster = TestCluster::start_direct(lab, &redis.url(), size).await?;
    for round in 0..lab.by_form(1, 3) {
        cluster.send_for(Duration::from_secs(4)).await?;
        let primaries = redis.primaries();
        let victim = primaries[round % primaries.len()];
        lab.step(format!(
            "round {round}: the primary {} is killed",
            redis.servers[victim].port
        ));
        lab.recorder.record_lab(Fact::DataLost);
        let killed = Instant::now();
        redis.servers[victim].kill();
        let has_failed_over = async || {
            let mut others = redis.servers.iter().enumerate();
            redis.primaries().len() == 3
                && others.all(|(index, server)| index == victim || server.reports_cluster_ok())
        };
        eventually("the replica takes over", FAILOVER_TIMEOUT, has_failed_over).await?;
        cluster.wait_nodes_ready(FAILOVER_TIMEOUT).await?;
        lab.report_seconds("nodes ready after the kill", killed.elapsed());
        redis.servers[victim].run().await?;
        eventually(
            "the killed server is back as a replica",
            FAILOVER_TIMEOUT,
            async || redis.replicas().len() == 3,
        )
        .await?;
        sleep(Duration::from_secs(3)).await;
    }
    cluster.finish(lab).await
}

/// Slots move between primaries under load, with their keys. No message is lost, and no loss may be
/// announced.
pub async fn migration(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = RedisCluster::start(&lab.dir).await?;
    // With eight rooms: the slot of `room-6` is among the first thousand.
    let size = ClusterSize {
        rooms: 8,
        ..ClusterSize::default_for(lab)
    };
    let mut cluster = TestCluster::start_direct(lab, &redis.url(), size).await?;
    cluster.mark_all_unaffected();
    for round in 0..lab.by_form(1, 4) {
        cluster.send_for(Duration::from_secs(2)).await?;
        let primaries = redis.primaries();
        let from = primaries[round % 3];
        let to = primaries[(round + 1) % 3];
        lab.step(format!(
            "round {round}: slots move from {} to {}",
            redis.servers[from].port, redis.servers[to].port
        ));
        let logs_before = count_logs(&redis.servers[to])?;
        let began = Instant::now();
        redis
            .move_slots(from, to, lab.by_form("1000", "5000"))
            .await?;
        let logs_after = count_logs(&redis.servers[to])?;
        lab.require(
            logs_after > logs_before,
            format!("no room's log was moved: the server has {logs_after}, and had {logs_before}"),
        );
        lab.report_seconds("slots moved in", began.elapsed());
        sleep(Duration::from_secs(3)).await;
    }
    cluster.finish(lab).await
}

/// The number of rooms' logs on a server.
fn count_logs(server: &Redis) -> anyhow::Result<usize> {
    Ok(server.cli(&["KEYS", "*}h:*"])?.lines().count())
}
