//! Redis comes back without some of its data, or without all of it: a new epoch, and nobody is left in the belief that
//! nothing is missing.

use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;

use super::stage::Stage;
use crate::history::Fact;
use crate::lab::redis::Redis;
use crate::lab::{Lab, Weather, eventually};

/// A snapshot is taken, more is said, and Redis comes back with the snapshot.
pub async fn rolled_back(lab: &mut Lab) -> anyhow::Result<()> {
    let mut redis = Redis::forgetful(&lab.dir).await?;
    let mut stage = Stage::usual(lab, &redis).await?;
    for round in 0..lab.pick(1, 4) {
        stage.load_for(Duration::from_secs(3)).await?;
        lab.history.write("lab", Fact::Saved);
        redis.cli(&["SAVE"])?;
        let kept = redis.dir().join("kept.rdb");
        std::fs::copy(redis.dir().join("dump.rdb"), &kept)?;
        sleep(Duration::from_secs(4)).await;
        lab.step(format!(
            "round {round}: Redis is killed, and comes back as it was 4 s ago"
        ));
        redis.kill();
        lab.history.write("lab", Fact::DataLost);
        std::fs::copy(&kept, redis.dir().join("dump.rdb"))?;
        redis.run().await?;
        stage.all_ready(Duration::from_secs(20)).await?;
        sleep(Duration::from_secs(4)).await;
    }
    stage.settle(lab).await
}

/// All data goes, while everybody goes on.
pub async fn flushed(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::forgetful(&lab.dir).await?;
    let mut stage = Stage::usual(lab, &redis).await?;
    for round in 0..lab.pick(2, 5) {
        stage.load_for(Duration::from_secs(4)).await?;
        lab.step(format!("round {round}: FLUSHALL"));
        lab.history.write("lab", Fact::DataLost);
        redis.cli(&["FLUSHALL"])?;
    }
    sleep(Duration::from_secs(6)).await;
    stage.settle(lab).await
}

/// The primary dies while its replica is behind, and the replica is promoted.
pub async fn stale_replica(lab: &mut Lab) -> anyhow::Result<()> {
    let mut first = Redis::forgetful(&lab.dir).await?;
    let mut stage = Stage::usual(lab, &first).await?;
    for round in 0..lab.pick(1, 4) {
        let second = Redis::forgetful(&lab.dir).await?;
        let way = crate::lab::Proxy::to(first.port).await?;
        second.cli(&["REPLICAOF", "127.0.0.1", &way.address.port().to_string()])?;
        let follows = async || {
            second
                .cli(&["INFO", "replication"])
                .is_ok_and(|text| text.contains("master_link_status:up"))
        };
        eventually("the replica follows", Duration::from_secs(20), follows).await?;
        stage.load_for(Duration::from_secs(3)).await?;
        lab.step(format!("round {round}: the replica falls behind"));
        way.set(Weather::Silent);
        sleep(Duration::from_secs(3)).await;
        lab.step("the primary dies, the replica takes its place");
        first.kill();
        lab.history.write("lab", Fact::DataLost);
        second.cli(&["REPLICAOF", "NO", "ONE"])?;
        for way in &stage.ways {
            way.lead_to(second.port);
        }
        stage
            .all_ready(Duration::from_secs(20))
            .await
            .context("after the promotion")?;
        first = second;
        sleep(Duration::from_secs(4)).await;
    }
    stage.settle(lab).await
}
