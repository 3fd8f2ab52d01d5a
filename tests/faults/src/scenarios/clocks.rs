//! Nodes that disagree about the time. Redis has the only clock that counts.

use std::time::Duration;

use tokio::time::sleep;

use super::stage::{Size, Stage};
use crate::lab::redis::Redis;
use crate::lab::{Lab, eventually, faked_time};

/// One node's clock is an hour behind, another's an hour ahead; then the one behind is killed and comes back.
pub async fn apart(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let library = faked_time()?;
    let mut nodes = Vec::new();
    for (index, offset) in ["-3600s", "+3600s", "+0s"].into_iter().enumerate() {
        // Only the clock on the wall: what an interval lasts is the same everywhere.
        let settings = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME", offset),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        nodes.push(
            lab.node(&format!("node-{index}"), &redis.url(), &settings)
                .await?,
        );
    }
    let size = Size::usual(lab);
    let mut stage = Stage::populate(lab, nodes, Vec::new(), size).await?;
    let mut times = Vec::new();
    for node in &stage.nodes {
        let message = node
            .get(&format!("/rooms/{}/users", stage.rooms[0]))
            .await?;
        times.push(message["total"].clone());
    }
    lab.require(
        times.windows(2).all(|pair| pair[0] == pair[1]),
        format!("the nodes disagree on who is there: {times:?}"),
    );
    stage.calm_but(0);
    stage.load_for(Duration::from_secs(lab.pick(8, 30))).await?;
    lab.step("the node with the slow clock is killed, and starts anew");
    stage.nodes[0].kill();
    sleep(Duration::from_secs(3)).await;
    stage.nodes[0].run().await?;
    let node = &stage.nodes[0];
    eventually("it is ready", Duration::from_secs(20), async || {
        node.is_ready().await
    })
    .await?;
    // Longer than a lease: what its clock might spoil would show.
    sleep(Duration::from_secs(lab.pick(15, 30))).await;
    stage.settle(lab).await
}
