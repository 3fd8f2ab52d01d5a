//! Redis goes away and comes back with all its data.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::stage::Stage;
use crate::lab::redis::Redis;
use crate::lab::{Lab, eventually};

/// Killed under load, with every command in its file, and back after 5 s.
pub async fn killed(lab: &mut Lab) -> anyhow::Result<()> {
    let mut redis = Redis::durable(&lab.dir).await?;
    let mut stage = Stage::usual(lab, &redis).await?;
    stage.calm_all();
    for round in 0..lab.pick(2, 6) {
        stage.load_for(Duration::from_secs(4)).await?;
        lab.step(format!("round {round}: Redis is killed"));
        redis.kill();
        sleep(Duration::from_secs(5)).await;
        redis.run().await?;
        let ready = stage.all_ready(Duration::from_secs(20)).await?;
        lab.figure(
            "nodes ready after its return",
            format!("{:.1} s", ready.as_secs_f64()),
        );
    }
    sleep(Duration::from_secs(4)).await;
    stage.settle(lab).await
}

/// Stopped for longer than a lease.
pub async fn frozen(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut stage = Stage::usual(lab, &redis).await?;
    stage.calm_all();
    stage.load_for(Duration::from_secs(4)).await?;
    lab.step("Redis stands still");
    redis.freeze(true);
    let began = Instant::now();
    for node in &stage.nodes {
        eventually(
            "the node is not ready",
            Duration::from_secs(10),
            async || node.status("/health").await == 503,
        )
        .await?;
    }
    let noticed = began.elapsed();
    lab.figure("not ready after", format!("{:.1} s", noticed.as_secs_f64()));
    lab.require(
        noticed < Duration::from_secs(8),
        format!("not ready only after {noticed:?}"),
    );
    for node in &stage.nodes {
        let status = node.status("/livez").await;
        lab.require(status == 200, format!("/livez says {status}"));
    }
    sleep(Duration::from_secs(15).saturating_sub(began.elapsed())).await;
    redis.freeze(false);
    let ready = stage.all_ready(Duration::from_secs(20)).await?;
    lab.figure(
        "nodes ready after its return",
        format!("{:.1} s", ready.as_secs_f64()),
    );
    // Leases of living nodes that ran out meanwhile would show by now.
    sleep(Duration::from_secs(lab.pick(8, 15))).await;
    stage.settle(lab).await
}

/// Only the subscriptions are killed, every few seconds; and once more just before a room's very last message.
pub async fn pubsub_killed(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut stage = Stage::usual(lab, &redis).await?;
    stage.calm_all();
    for _ in 0..lab.pick(5, 24) {
        stage
            .load_for(lab.pick(Duration::from_secs(2), Duration::from_secs(5)))
            .await?;
        let killed: usize = redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"])?.parse()?;
        lab.require(killed > 0, "no subscription was there to be killed");
    }
    stage.rest().await?;
    let mut longest = Duration::ZERO;
    for round in 0..lab.pick(5, 20) {
        lab.step(format!("last message {round}"));
        redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"])?;
        let room = stage.rooms[round % stage.rooms.len()].clone();
        let speaker = stage
            .crowd
            .members
            .iter()
            .find(|member| member.part.rooms.contains(&room));
        speaker.into_iter().for_each(|member| member.say(&room));
        let began = Instant::now();
        stage.rest().await?;
        longest = longest.max(began.elapsed());
    }
    lab.figure(
        "the very last message has come everywhere after, at most",
        format!("{:.1} s", longest.as_secs_f64()),
    );
    stage.settle(lab).await
}
