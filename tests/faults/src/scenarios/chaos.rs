//! All faults at random.

use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep};

use super::archive;
use super::test_cluster::{ClusterSize, TestCluster};
use crate::checker::{Archive, Presence};
use crate::lab::database::{DatabaseKind, DatabaseServer};
use crate::lab::redis::Redis;
use crate::lab::{Lab, Link};

/// One fault after another, sometimes two at once, for `--seconds`. Redis keeps its data, so no
/// message may be lost, and no loss may be announced.
pub async fn random(lab: &mut Lab) -> anyhow::Result<()> {
    run(lab, None).await
}

/// As [`random`], with an archive whose database fails, too, and with a short log.
pub async fn random_with_archive(lab: &mut Lab) -> anyhow::Result<()> {
    let kind = DatabaseKind::Postgres;
    let database = archive::start_archive(lab, kind, Archive::AckAfterArchive).await?;
    archive::shorten_log(lab);
    run(lab, Some(database)).await
}

async fn run(lab: &mut Lab, mut database: Option<DatabaseServer>) -> anyhow::Result<()> {
    let mut redis = Redis::durable(&lab.dir).await?;
    // Few clients that send rarely: the checker must hold the history of an hour in memory.
    let size = ClusterSize {
        nodes: 3,
        clients_per_node: 24,
        rooms: 4,
        official_per_version: 2,
        send_interval: Duration::from_secs(1),
        ..ClusterSize::default_for(lab)
    };
    let mut cluster = TestCluster::start_with_size(lab, &redis, size).await?;
    lab.promises.presence = Presence::FinalState;
    cluster.clients.start_sending().await?;
    let end = Instant::now() + lab.chaos_duration;
    let mut injected = 0;
    while Instant::now() < end {
        match &mut database {
            Some(database) if lab.rng.random_bool(0.25) => inject_outage(lab, database).await?,
            _ => inject_fault(lab, &mut cluster, &mut redis).await?,
        }
        injected += 1;
        sleep(Duration::from_millis(lab.rng.random_range(0..4000))).await;
        if injected % 10 == 0 {
            // All messages arrive before the next fault, so that a violation is found close to its
            // cause.
            wait_healthy(&mut cluster).await?;
            cluster.quiesce().await?;
            cluster.clients.start_sending().await?;
        }
    }
    wait_healthy(&mut cluster).await?;
    sleep(Duration::from_secs(25)).await;
    lab.report("faults injected", injected);
    cluster.finish(lab).await
}

/// The database is away for a random time.
async fn inject_outage(lab: &mut Lab, database: &mut DatabaseServer) -> anyhow::Result<()> {
    let time = Duration::from_millis(lab.rng.random_range(0..10_000));
    if lab.rng.random_bool(0.5) {
        lab.step(format!("the database is killed, and back after {time:?}"));
        database.kill();
        sleep(time).await;
        database.run().await
    } else {
        lab.step(format!("the database is suspended for {time:?}"));
        database.suspend();
        sleep(time).await;
        database.resume();
        Ok(())
    }
}

/// Injects a random fault, and waits until it is over (but not until the cluster has recovered).
async fn inject_fault(
    lab: &mut Lab,
    cluster: &mut TestCluster,
    redis: &mut Redis,
) -> anyhow::Result<()> {
    let index = lab.rng.random_range(0..cluster.nodes.len());
    let time = Duration::from_millis(lab.rng.random_range(0..15_000));
    let half_time = time / 2;
    match lab.rng.random_range(0..9) {
        0 => {
            lab.step(format!("node-{index} is killed, and back after {time:?}"));
            cluster.nodes[index].kill();
            sleep(time).await;
            cluster.nodes[index].run().await?;
        }
        1 => {
            lab.step(format!("node-{index} is restarted"));
            cluster.nodes[index].stop(Duration::from_secs(60)).await?;
            cluster.nodes[index].run().await?;
        }
        2 => {
            lab.step(format!("node-{index} is suspended for {time:?}"));
            cluster.nodes[index].suspend();
            sleep(time).await;
            cluster.nodes[index].resume();
        }
        3 => {
            lab.step(format!("Redis is killed, and back after {half_time:?}"));
            redis.kill();
            sleep(half_time).await;
            redis.run().await?;
        }
        4 => {
            lab.step(format!("Redis is suspended for {half_time:?}"));
            redis.suspend();
            sleep(half_time).await;
            redis.resume();
        }
        5 => {
            let conditions = [
                Link::Blackhole,
                Link::BlackholeToServer,
                Link::BlackholeToClient,
                Link::Reset,
                Link::Delay(Duration::from_millis(200)),
            ];
            let link = conditions[lab.rng.random_range(0..conditions.len())];
            lab.step(format!(
                "the link from node-{index} to Redis is in the condition {link:?} for {time:?}"
            ));
            cluster.proxies[index].set(link);
            sleep(time).await;
            cluster.proxies[index].set(Link::Healthy);
        }
        6 => {
            lab.step("the subscriptions are killed");
            redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"])?;
        }
        7 => {
            lab.step(format!(
                "node-{index} is cut off from Redis for {time:?}, and another node is killed \
                 meanwhile"
            ));
            cluster.proxies[index].set(Link::Blackhole);
            let other = (index + 1) % cluster.nodes.len();
            cluster.nodes[other].kill();
            sleep(time).await;
            cluster.nodes[other].run().await?;
            cluster.proxies[index].set(Link::Healthy);
        }
        _ => {
            lab.step("half of the clients lose their connections");
            for client in &cluster.clients.simulated {
                if lab.rng.random_bool(0.5) {
                    let millis = lab.rng.random_range(0..6000);
                    client.disconnect_for(Duration::from_millis(millis));
                }
            }
            for clients in &mut cluster.clients.official {
                let time = Duration::from_secs(3);
                clients.drop_connections_within(time).await?;
            }
        }
    }
    Ok(())
}

/// Repairs all links, and waits until all nodes and clients have recovered.
async fn wait_healthy(cluster: &mut TestCluster) -> anyhow::Result<()> {
    for proxy in &cluster.proxies {
        proxy.set(Link::Healthy);
    }
    cluster.wait_nodes_ready(Duration::from_secs(30)).await?;
    cluster.clients.wait_ready(Duration::from_secs(60)).await?;
    Ok(())
}
