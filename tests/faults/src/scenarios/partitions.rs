//! One of three nodes loses its link to Redis. Its clients stay connected to it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::test_cluster::TestCluster;
use crate::checker::Presence;
use crate::clients::ClientState;
use crate::lab::redis::Redis;
use crate::lab::{Lab, Link, RECOVERY_TIMEOUT, eventually};

/// A node that is cut off for longer than this is longer away than its lease, the interval of the
/// heartbeats and the grace together: its users go offline, and come back online with it.
const OFFLINE_AFTER_SECS: u64 = 20;
/// A node that is cut off for at least this long must report that it is not ready.
const NOT_READY_AFTER_SECS: u64 = 8;

/// For 2, 8 and 60 s, by lost packets and by resets.
pub async fn both_directions(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &redis).await?;
    cluster.mark_unaffected_except_on(0);
    for link in [Link::Blackhole, Link::Reset] {
        for seconds in [2, 8, longest_partition(lab)] {
            cut_off(lab, &mut cluster, link, seconds).await?;
        }
    }
    cluster.finish(lab).await
}

/// The node receives from Redis and can't send to it, for longer than its lease.
pub async fn to_redis(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &redis).await?;
    cluster.mark_unaffected_except_on(0);
    let seconds = longest_partition(lab);
    cut_off(lab, &mut cluster, Link::BlackholeToServer, seconds).await?;
    cluster.finish(lab).await
}

/// The node sends to Redis and can't receive from it. Its heartbeats may reach Redis, so its users
/// may stay online (they are connected, after all) or go offline: both are accepted.
pub async fn from_redis(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &redis).await?;
    lab.promises.presence = Presence::FinalState;
    let seconds = longest_partition(lab);
    cut_off(lab, &mut cluster, Link::BlackholeToClient, seconds).await?;
    cluster.finish(lab).await
}

/// A round trip from the node to Redis takes half a second. No message is lost, and no user goes
/// offline.
pub async fn slow_link(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &redis).await?;
    cluster.mark_all_unaffected();
    cluster.send_for(Duration::from_secs(3)).await?;
    lab.step("the round trip from node-0 to Redis takes half a second");
    cluster.proxies[0].set(Link::Delay(Duration::from_millis(250)));
    sleep(Duration::from_secs(lab.by_form(10, 60))).await;
    cluster.proxies[0].set(Link::Healthy);
    sleep(Duration::from_secs(2)).await;
    cluster.finish(lab).await
}

fn longest_partition(lab: &Lab) -> u64 {
    lab.by_form(25, 60)
}

/// Cuts node-0 off from Redis for some seconds.
async fn cut_off(
    lab: &mut Lab,
    cluster: &mut TestCluster,
    link: Link,
    seconds: u64,
) -> anyhow::Result<()> {
    cluster.send_for(Duration::from_secs(3)).await?;
    lab.step(format!(
        "node-0 is cut off from Redis for {seconds} s: {link:?}"
    ));
    let began = Instant::now();
    cluster.proxies[0].set(link);
    let mut users = Vec::new();
    if seconds > OFFLINE_AFTER_SECS {
        users = cluster.users_only_on(0);
    }
    lab.users_went_offline(&users);
    if seconds >= NOT_READY_AFTER_SECS {
        check_not_ready(lab, cluster, link, began).await?;
    }
    sleep(Duration::from_secs(seconds).saturating_sub(began.elapsed())).await;

    cluster.proxies[0].set(Link::Healthy);
    lab.users_came_online(&users);
    let caught_up_after = wait_caught_up(cluster).await?;
    lab.report_seconds(
        &format!("{link:?} for {seconds} s, caught up after"),
        caught_up_after,
    );
    // The short form shares the machine with other scenarios, which makes it slower.
    let limit = lab.by_form(Duration::from_secs(45), Duration::from_secs(3));
    lab.require(
        caught_up_after < limit,
        format!("{link:?} for {seconds} s: caught up only after {caught_up_after:?}"),
    );
    // Time for wrong events in case the node's connections are removed although the node lives.
    sleep(Duration::from_secs(5)).await;
    Ok(())
}

async fn check_not_ready(
    lab: &mut Lab,
    cluster: &TestCluster,
    link: Link,
    began: Instant,
) -> anyhow::Result<()> {
    let node = &cluster.nodes[0];
    node.wait_not_ready(Duration::from_secs(20)).await?;
    let not_ready_after = began.elapsed();
    lab.report_seconds("not ready after", not_ready_after);
    lab.require(
        not_ready_after < Duration::from_secs(8),
        format!("{link:?}: not ready only after {not_ready_after:?}"),
    );
    lab.require(
        node.status("/livez").await == 200,
        "/livez fails on a node that is cut off",
    );
    Ok(())
}

/// Waits until the simulated clients of node-0 have received everything up to the present heads of
/// the rooms. Returns how long it took.
async fn wait_caught_up(cluster: &TestCluster) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut heads = HashMap::new();
    for room in &cluster.rooms {
        let head = cluster.nodes[1].head(room).await?;
        heads.insert(room.as_str(), head.seq);
    }
    let has_caught_up = |state: &ClientState| {
        state
            .positions()
            .iter()
            .all(|(room, position)| position.seq >= heads[room.as_str()])
    };
    let clients = &cluster.clients.simulated;
    let all_caught_up = async || {
        clients
            .iter()
            .filter(|client| client.config.home_node == 0)
            .all(|client| has_caught_up(&client.state))
    };
    eventually(
        "the clients of node-0 have caught up",
        RECOVERY_TIMEOUT,
        all_caught_up,
    )
    .await?;
    Ok(began.elapsed())
}
