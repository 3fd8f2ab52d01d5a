//! Redis fails, and comes back with all its data.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::test_cluster::TestCluster;
use crate::lab::Lab;
use crate::lab::redis::Redis;

const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Redis is killed under load, with every command in its append-only file, and is back after 5 s.
pub async fn redis_killed(lab: &mut Lab) -> anyhow::Result<()> {
    let mut redis = Redis::durable(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &redis).await?;
    cluster.mark_all_unaffected();
    for round in 0..lab.by_form(2, 6) {
        cluster.send_for(Duration::from_secs(4)).await?;
        lab.step(format!("round {round}: Redis is killed"));
        redis.kill();
        sleep(Duration::from_secs(5)).await;
        redis.run().await?;
        let ready = cluster.wait_nodes_ready(READY_TIMEOUT).await?;
        lab.report_seconds("nodes ready after the return of Redis", ready);
    }
    sleep(Duration::from_secs(4)).await;
    cluster.finish(lab).await
}

/// Redis is suspended for longer than a lease.
pub async fn redis_frozen(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &redis).await?;
    cluster.mark_all_unaffected();
    cluster.send_for(Duration::from_secs(4)).await?;
    lab.step("Redis is suspended");
    redis.suspend();
    let began = Instant::now();
    for node in &cluster.nodes {
        node.wait_not_ready(Duration::from_secs(10)).await?;
    }
    let not_ready_after = began.elapsed();
    lab.report_seconds("not ready after", not_ready_after);
    lab.require(
        not_ready_after < Duration::from_secs(8),
        format!("the nodes were not ready only after {not_ready_after:?}"),
    );
    for node in &cluster.nodes {
        let status = node.status("/livez").await;
        lab.require(status == 200, format!("/livez answers with {status}"));
    }
    sleep(Duration::from_secs(15).saturating_sub(began.elapsed())).await;
    redis.resume();
    let ready = cluster.wait_nodes_ready(READY_TIMEOUT).await?;
    lab.report_seconds("nodes ready after the return of Redis", ready);
    // Time for wrong events in case leases of living nodes ran out meanwhile.
    sleep(Duration::from_secs(lab.by_form(8, 15))).await;
    cluster.finish(lab).await
}

/// Only the subscriptions are killed: every few seconds, and then several times directly before the
/// last message of a room. (No later message shows the hole after a lost last message.)
pub async fn subscriptions_killed(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &redis).await?;
    cluster.mark_all_unaffected();
    for _ in 0..lab.by_form(5, 24) {
        let load_time = lab.by_form(Duration::from_secs(2), Duration::from_secs(5));
        cluster.send_for(load_time).await?;
        let killed: usize = redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"])?.parse()?;
        lab.require(killed > 0, "there was no subscription to kill");
    }
    cluster.quiesce().await?;
    let mut longest = Duration::ZERO;
    for round in 0..lab.by_form(5, 20) {
        lab.step(format!("last message {round}"));
        redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"])?;
        let room = cluster.rooms[round % cluster.rooms.len()].clone();
        let sender = cluster
            .clients
            .simulated
            .iter()
            .find(|client| client.config.rooms.contains(&room));
        if let Some(sender) = sender {
            sender.send_one(&room);
        }
        let began = Instant::now();
        cluster.quiesce().await?;
        longest = longest.max(began.elapsed());
    }
    lab.report_seconds(
        "the last message of a room arrived everywhere after, at most",
        longest,
    );
    cluster.finish(lab).await
}
