//! Nodes that die, and nodes that stand still.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::stage::Stage;
use crate::lab::redis::Redis;
use crate::lab::{Lab, PATIENCE, eventually};

/// One of three nodes is killed under load. Its clients come back elsewhere and resume; nobody hears of that. Who doesn't
/// come back is told to be offline, once, within 20 s.
pub async fn killed(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut stage = Stage::usual(lab, &redis).await?;
    stage.calm_but(0);
    stage
        .load_for(lab.pick(Duration::from_secs(4), Duration::from_secs(15)))
        .await?;

    let gone: Vec<usize> = stage
        .alone_on(0)
        .into_iter()
        .filter(|index| index % 4 == 3)
        .take(6)
        .collect();
    let users: Vec<String> = gone
        .iter()
        .map(|index| stage.crowd.members[*index].part.user.clone())
        .collect();
    lab.step("node-0 is killed; some of its clients don't come back");
    gone.iter()
        .for_each(|index| stage.crowd.members[*index].end());
    stage.nodes[0].kill();
    users.iter().for_each(|user| lab.changed(user, false));
    let began = Instant::now();
    let back = stage.crowd.all_back(PATIENCE).await?;
    lab.figure(
        "clients of the dead node back after",
        format!("{:.1} s", back.as_secs_f64()),
    );

    let other = &stage.nodes[1];
    for user in &users {
        let offline = async || {
            other
                .get(&format!("/users/{user}/status"))
                .await
                .is_ok_and(|state| state["is_online"] == false)
        };
        eventually(
            &format!("{user} is offline"),
            Duration::from_secs(30),
            offline,
        )
        .await?;
    }
    let told = began.elapsed();
    lab.figure(
        "who stayed away is offline after",
        format!("{:.1} s", told.as_secs_f64()),
    );
    lab.require(
        told < Duration::from_secs(20),
        format!("the dead node's users were offline only after {told:?}"),
    );
    // Whatever else the reaping might bring.
    sleep(Duration::from_secs(lab.pick(5, 15))).await;
    stage.settle(lab).await
}

/// A node stands still for less, then for more than its lease. Less: nobody hears of it. More: its users go and come
/// back, once each, though their connections never broke.
pub async fn frozen(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut stage = Stage::usual(lab, &redis).await?;
    stage.calm_but(0);
    stage.load_for(Duration::from_secs(3)).await?;

    lab.step("node-0 stands still for 5 s");
    stage.nodes[0].freeze(true);
    sleep(Duration::from_secs(5)).await;
    stage.nodes[0].freeze(false);
    stage.all_ready(Duration::from_secs(10)).await?;
    sleep(Duration::from_secs(5)).await;

    lab.step("node-0 stands still for longer than its lease");
    stage.nodes[0].freeze(true);
    let users = stage.users_alone_on(0);
    users.iter().for_each(|user| lab.changed(user, false));
    sleep(Duration::from_secs(lab.pick(24, 40))).await;
    stage.nodes[0].freeze(false);
    users.iter().for_each(|user| lab.changed(user, true));
    let woke = Instant::now();
    let (other, all) = (&stage.nodes[1], &users);
    let online = async || {
        for user in all {
            if !other
                .get(&format!("/users/{user}/status"))
                .await
                .is_ok_and(|state| state["is_online"] == true)
            {
                return false;
            }
        }
        true
    };
    eventually(
        "the users of the node that stood still are online again",
        Duration::from_secs(20),
        online,
    )
    .await?;
    lab.figure(
        "users online again after",
        format!("{:.1} s", woke.elapsed().as_secs_f64()),
    );
    sleep(Duration::from_secs(3)).await;
    stage.settle(lab).await
}
