//! Nodes that die, and nodes that are suspended.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::test_cluster::TestCluster;
use crate::lab::redis::Redis;
use crate::lab::{Lab, RECOVERY_TIMEOUT, eventually};

/// One of three nodes is killed under load. Its clients reconnect to other nodes and resume, and no
/// client is notified of that. The users whose clients don't come back are reported offline, once,
/// within 20 s.
pub async fn killed(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &redis).await?;
    cluster.mark_unaffected_except_on(0);
    let load_time = lab.by_form(Duration::from_secs(4), Duration::from_secs(15));
    cluster.send_for(load_time).await?;

    lab.step("node-0 is killed; some of its clients don't come back");
    let gone: Vec<usize> = cluster
        .sole_clients_of(0)
        .into_iter()
        .filter(|index| index % 4 == 3)
        .take(6)
        .collect();
    let mut users = Vec::new();
    for index in gone {
        let client = &cluster.clients.simulated[index];
        client.end();
        users.push(client.config.user.clone());
    }
    cluster.nodes[0].kill();
    lab.users_went_offline(&users);
    let began = Instant::now();
    let back = cluster.clients.wait_ready(RECOVERY_TIMEOUT).await?;
    lab.report_seconds("clients of the dead node back after", back);

    let other_node = &cluster.nodes[1];
    for user in &users {
        eventually(
            &format!("{user} is offline"),
            Duration::from_secs(30),
            async || other_node.is_online(user).await == Some(false),
        )
        .await?;
    }
    let offline_after = began.elapsed();
    lab.report_seconds("users that stayed away offline after", offline_after);
    lab.require(
        offline_after < Duration::from_secs(20),
        format!("the dead node's users were offline only after {offline_after:?}"),
    );
    // Time for wrong events that the removal of the dead node's connections might cause.
    sleep(Duration::from_secs(lab.by_form(5, 15))).await;
    cluster.finish(lab).await
}

/// A node is suspended, first for less, then for more than its lease. After less no client is
/// notified. After more its users go offline and come back online, once each, although their
/// connections never broke.
pub async fn frozen(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &redis).await?;
    cluster.mark_unaffected_except_on(0);
    cluster.send_for(Duration::from_secs(3)).await?;

    lab.step("node-0 is suspended for 5 s");
    cluster.nodes[0].suspend();
    sleep(Duration::from_secs(5)).await;
    cluster.nodes[0].resume();
    cluster.wait_nodes_ready(Duration::from_secs(10)).await?;
    sleep(Duration::from_secs(5)).await;

    lab.step("node-0 is suspended for longer than its lease");
    cluster.nodes[0].suspend();
    let users = cluster.users_only_on(0);
    lab.users_went_offline(&users);
    sleep(Duration::from_secs(lab.by_form(24, 40))).await;
    cluster.nodes[0].resume();
    lab.users_came_online(&users);
    let resumed = Instant::now();
    let other_node = &cluster.nodes[1];
    let all_online = async || {
        for user in &users {
            if other_node.is_online(user).await != Some(true) {
                return false;
            }
        }
        true
    };
    eventually(
        "the users of the suspended node are online again",
        Duration::from_secs(20),
        all_online,
    )
    .await?;
    lab.report_seconds("users online again after", resumed.elapsed());
    sleep(Duration::from_secs(3)).await;
    cluster.finish(lab).await
}
