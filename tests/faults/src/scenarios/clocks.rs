//! Nodes that disagree about the time. Redis's clock is the only one that the cluster uses.

use std::time::Duration;

use tokio::time::sleep;

use super::test_cluster::{ClusterSize, TestCluster};
use crate::lab::redis::Redis;
use crate::lab::{Lab, faketime_library};

/// One node's clock is an hour behind, and another's an hour ahead. Then the node with the
/// slow clock is killed and restarted.
pub async fn skewed(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let library = faketime_library()?;
    let mut nodes = Vec::new();
    for (index, offset) in ["-3600s", "+3600s", "+0s"].into_iter().enumerate() {
        // Only the system clock is changed: the monotonic clock, and so the length of intervals, is
        // the same on all nodes.
        let settings = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME", offset),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        let name = format!("node-{index}");
        nodes.push(lab.start_node(&name, &redis.url(), &settings).await?);
    }
    let size = ClusterSize::default_for(lab);
    let mut cluster = TestCluster::with_nodes(lab, nodes, size).await?;
    let mut totals = Vec::new();
    for node in &cluster.nodes {
        let path = format!("/rooms/{}/users", cluster.rooms[0]);
        totals.push(node.get(&path).await?["total"].clone());
    }
    lab.require(
        totals.windows(2).all(|pair| pair[0] == pair[1]),
        format!("the nodes disagree about the number of users in a room: {totals:?}"),
    );
    cluster.mark_unaffected_except_on(0);
    let load_time = Duration::from_secs(lab.by_form(8, 30));
    cluster.send_for(load_time).await?;
    lab.step("the node with the slow clock is killed, and restarted");
    cluster.nodes[0].kill();
    sleep(Duration::from_secs(3)).await;
    cluster.nodes[0].run().await?;
    cluster.nodes[0].wait_ready(Duration::from_secs(20)).await?;
    // Longer than a lease, as time for wrong events that its clock might cause.
    sleep(Duration::from_secs(lab.by_form(15, 30))).await;
    cluster.finish(lab).await
}
