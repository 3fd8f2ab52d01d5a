//! Three deployments on one Redis: with the same prefix in two databases, with two prefixes in one
//! database, and one that began as a copy of another one's data. All have the same rooms and users.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use super::test_cluster::{ClusterSize, TestCluster};
use crate::lab::redis::Redis;
use crate::lab::{Lab, Neighbour, Node};

const NODES: usize = 2;
/// Messages in each room before the copy is made.
const COPIED_MESSAGES: usize = 20;
const DISCONNECT_INTERVAL: Duration = Duration::from_millis(500);

/// All three run under load, and none may notice the others: not by a message, a change of presence
/// or a lost connection. Each is judged by its own history.
pub async fn on_one_redis(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::without_persistence(&lab.dir).await?;
    let size = ClusterSize {
        nodes: NODES,
        clients_per_node: 20,
        rooms: 4,
        official_per_version: 1,
        send_interval: Duration::from_millis(400),
        ..ClusterSize::default_for(lab)
    };
    // Fewer clients, so that some users exist in the first deployment only.
    let smaller = ClusterSize {
        clients_per_node: size.clients_per_node / 2,
        ..size
    };
    let nodes = start_nodes(lab, &redis, 0, "hubbub:").await?;
    fill_rooms(&nodes[0], size.rooms).await?;
    copy_data(&redis)?;
    let mut copy = lab.neighbour("copy")?;
    let mut other = lab.neighbour("other-prefix")?;
    let copy_nodes = start_nodes(&copy.lab, &redis, 1, "hubbub:").await?;
    let other_nodes = start_nodes(&other.lab, &redis, 0, "hubbub:other:").await?;

    let mut cluster = TestCluster::with_nodes(lab, nodes, size).await?;
    let mut copy_cluster = TestCluster::with_nodes(&mut copy.lab, copy_nodes, smaller).await?;
    let mut other_cluster = TestCluster::with_nodes(&mut other.lab, other_nodes, smaller).await?;
    for cluster in [&mut cluster, &mut copy_cluster, &mut other_cluster] {
        cluster.mark_all_unaffected();
        cluster.clients.start_sending().await?;
    }
    // Users of the first deployment that the others don't have.
    let strangers = cluster
        .users_only_on(0)
        .into_iter()
        .filter(|user| !copy_cluster.users_only_on(0).contains(user))
        .collect::<Vec<_>>();
    ensure!(!strangers.is_empty(), "every user exists everywhere");
    let load = lab.by_form(Duration::from_secs(15), Duration::from_secs(600));
    let began = Instant::now();
    let (mut round, mut disconnects) = (0, 0);
    while began.elapsed() < load {
        let user = &strangers[round % strangers.len()];
        for cluster in [&copy_cluster, &other_cluster] {
            let path = format!("/users/{user}/disconnect");
            // A node on a busy machine may answer late. The request took effect all the same.
            if cluster.nodes[0].post(&path, &json!({})).await.is_ok() {
                disconnects += 1;
            }
        }
        round += 1;
        tokio::time::sleep(DISCONNECT_INTERVAL).await;
    }
    lab.report("users disconnected elsewhere", disconnects);
    lab.require(disconnects > 0, "no user was disconnected elsewhere");
    cluster.finish(lab).await?;
    copy_cluster.finish(&mut copy.lab).await?;
    other_cluster.finish(&mut other.lab).await?;
    lab.require_coverage("no connection was lost", |stats| stats.disconnects == 0);
    drop((copy_cluster, other_cluster));
    for neighbour in [copy, other] {
        add_verdict(lab, neighbour).await?;
    }
    Ok(())
}

async fn start_nodes(
    lab: &Lab,
    redis: &Redis,
    database: usize,
    prefix: &str,
) -> anyhow::Result<Vec<Node>> {
    let url = format!("{}/{database}", redis.url());
    let mut nodes = Vec::new();
    for index in 0..NODES {
        let name = format!("node-{index}");
        let settings = [("REDIS_PREFIX", prefix)];
        nodes.push(lab.start_node(&name, &url, &settings).await?);
    }
    Ok(nodes)
}

/// Posts messages to each room, so that the copy continues the same epochs.
async fn fill_rooms(node: &Node, rooms: usize) -> anyhow::Result<()> {
    for room in 0..rooms {
        for index in 0..COPIED_MESSAGES {
            let body = json!({
                "room_id": format!("room-{room}"),
                "content": format!("before the copy, {index}"),
            });
            node.post("/messages", &body).await?;
        }
    }
    Ok(())
}

/// Copies database 0 to database 1.
fn copy_data(redis: &Redis) -> anyhow::Result<()> {
    let keys = redis.cli(&["KEYS", "*"])?;
    ensure!(keys.contains("h:"), "there is no log to copy: {keys}");
    for key in keys.lines() {
        redis.cli(&["COPY", key, key, "DB", "1"])?;
    }
    Ok(())
}

/// Adds the faults of a neighbour to those of the lab.
async fn add_verdict(lab: &mut Lab, neighbour: Neighbour) -> anyhow::Result<()> {
    let name = neighbour.name;
    let verdict = neighbour.judge().await?;
    let stats = &verdict.stats;
    lab.report(
        name,
        format!(
            "{} acknowledged, {} delivered",
            stats.acknowledged, stats.delivered
        ),
    );
    lab.require(
        stats.delivered > 0,
        format!("{name}: nothing was delivered"),
    );
    lab.require(
        stats.disconnects == 0,
        format!("{name}: {} connections were lost", stats.disconnects),
    );
    for fault in verdict.faults {
        lab.require(false, format!("{name}: {fault}"));
    }
    Ok(())
}
