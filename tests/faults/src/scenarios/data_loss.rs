//! Redis comes back without some of its data, or without all of it: a new epoch begins, and every
//! client that has seen lost messages must be notified.

use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;

use super::test_cluster::TestCluster;
use crate::history::Fact;
use crate::lab::redis::Redis;
use crate::lab::{Lab, Link, Proxy};

const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// A snapshot is saved, further messages are sent, and Redis comes back with the snapshot.
pub async fn rolled_back(lab: &mut Lab) -> anyhow::Result<()> {
    let mut redis = Redis::without_persistence(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &redis).await?;
    for round in 0..lab.by_form(1, 4) {
        cluster.send_for(Duration::from_secs(3)).await?;
        lab.recorder.record_lab(Fact::DataSaved);
        redis.cli(&["SAVE"])?;
        let snapshot = redis.dir().join("kept.rdb");
        std::fs::copy(redis.dir().join("dump.rdb"), &snapshot)?;
        sleep(Duration::from_secs(4)).await;
        lab.step(format!(
            "round {round}: Redis is killed, and comes back with a snapshot that is 4 s old"
        ));
        redis.kill();
        lab.recorder.record_lab(Fact::DataLost);
        std::fs::copy(&snapshot, redis.dir().join("dump.rdb"))?;
        redis.run().await?;
        cluster.wait_nodes_ready(READY_TIMEOUT).await?;
        sleep(Duration::from_secs(4)).await;
    }
    cluster.finish(lab).await
}

/// All data is deleted under load.
pub async fn flushed(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::without_persistence(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &redis).await?;
    for round in 0..lab.by_form(2, 5) {
        cluster.send_for(Duration::from_secs(4)).await?;
        lab.step(format!("round {round}: FLUSHALL"));
        lab.recorder.record_lab(Fact::DataLost);
        redis.cli(&["FLUSHALL"])?;
    }
    sleep(Duration::from_secs(6)).await;
    cluster.finish(lab).await
}

/// The primary dies while its replica is behind, and the replica is promoted.
pub async fn stale_replica(lab: &mut Lab) -> anyhow::Result<()> {
    let mut primary = Redis::without_persistence(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &primary).await?;
    for round in 0..lab.by_form(1, 4) {
        let replica = Redis::without_persistence(&lab.dir).await?;
        let replication = Proxy::start(primary.port).await?;
        replica.replicate_from(replication.address.port()).await?;
        cluster.send_for(Duration::from_secs(3)).await?;
        lab.step(format!("round {round}: the replica falls behind"));
        replication.set(Link::Blackhole);
        sleep(Duration::from_secs(3)).await;
        lab.step("the primary is killed, and the replica is promoted");
        primary.kill();
        lab.recorder.record_lab(Fact::DataLost);
        replica.cli(&["REPLICAOF", "NO", "ONE"])?;
        for proxy in &cluster.proxies {
            proxy.redirect_to(replica.port);
        }
        cluster
            .wait_nodes_ready(READY_TIMEOUT)
            .await
            .context("after the promotion")?;
        primary = replica;
        sleep(Duration::from_secs(4)).await;
    }
    cluster.finish(lab).await
}
