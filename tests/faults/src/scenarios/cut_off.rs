//! One node of three loses its way to Redis; its clients stay with it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::stage::Stage;
use crate::checker::Presence;
use crate::lab::redis::Redis;
use crate::lab::{Lab, PATIENCE, Weather, eventually};

/// For 2, 8 and 60 s, by silence and by reset.
pub async fn by_silence_and_reset(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut stage = Stage::usual(lab, &redis).await?;
    stage.calm_but(0);
    let longest = lab.pick(25, 60);
    for weather in [Weather::Silent, Weather::Refusing] {
        for seconds in [2, 8, longest] {
            cut(lab, &mut stage, weather, seconds).await?;
        }
    }
    stage.settle(lab).await
}

/// It hears Redis, and can't speak to it, for longer than a lease.
pub async fn mute(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut stage = Stage::usual(lab, &redis).await?;
    stage.calm_but(0);
    cut(lab, &mut stage, Weather::SilentToServer, lab.pick(25, 60)).await?;
    stage.settle(lab).await
}

/// It speaks to Redis, and can't hear it. Redis may well hear that it lives, so whether its users are taken for gone is
/// left open; they are connected, after all.
pub async fn deaf(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut stage = Stage::usual(lab, &redis).await?;
    lab.promises.presence = Presence::FinalState;
    cut(lab, &mut stage, Weather::SilentToClient, lab.pick(25, 60)).await?;
    stage.settle(lab).await
}

/// Each piece takes half a second from the node to Redis and back; nothing is lost, and nobody goes.
pub async fn slow(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut stage = Stage::usual(lab, &redis).await?;
    stage.calm_all();
    stage.load_for(Duration::from_secs(3)).await?;
    lab.step("the way of node-0 takes half a second");
    stage.ways[0].set(Weather::Slow(Duration::from_millis(250)));
    sleep(Duration::from_secs(lab.pick(10, 60))).await;
    stage.ways[0].set(Weather::Fine);
    sleep(Duration::from_secs(2)).await;
    stage.settle(lab).await
}

async fn cut(
    lab: &mut Lab,
    stage: &mut Stage,
    weather: Weather,
    seconds: u64,
) -> anyhow::Result<()> {
    stage.load_for(Duration::from_secs(3)).await?;
    lab.step(format!("node-0 is cut off for {seconds} s: {weather:?}"));
    let began = Instant::now();
    stage.ways[0].set(weather);
    // Longer than the lease, the beat and the grace: its users are taken for gone, and come back with it.
    let users = if seconds > 20 {
        stage.users_alone_on(0)
    } else {
        Vec::new()
    };
    users.iter().for_each(|user| lab.changed(user, false));
    if seconds >= 8 {
        let node = &stage.nodes[0];
        eventually(
            "the node is not ready",
            Duration::from_secs(20),
            async || node.status("/health").await == 503,
        )
        .await?;
        let noticed = began.elapsed();
        lab.figure("not ready after", format!("{:.1} s", noticed.as_secs_f64()));
        lab.require(
            noticed < Duration::from_secs(8),
            format!("{weather:?}: not ready only after {noticed:?}"),
        );
        lab.require(
            node.status("/livez").await == 200,
            "/livez fails on a node that is cut off",
        );
    }
    sleep(Duration::from_secs(seconds).saturating_sub(began.elapsed())).await;

    stage.ways[0].set(Weather::Fine);
    users.iter().for_each(|user| lab.changed(user, true));
    let healed = Instant::now();
    let mut heads = HashMap::new();
    for room in &stage.rooms {
        let head = stage.nodes[1]
            .get(&format!("/rooms/{room}/messages?limit=1"))
            .await?;
        heads.insert(room.clone(), head["seq"].as_u64().unwrap_or(0));
    }
    let own: Vec<_> = stage
        .crowd
        .members
        .iter()
        .filter(|member| member.part.home == 0)
        .map(|member| member.standing.clone())
        .collect();
    let caught_up = async || {
        own.iter().all(|standing| {
            standing
                .positions()
                .iter()
                .all(|(room, at)| at.seq >= heads[room])
        })
    };
    eventually("its clients have caught up", PATIENCE, caught_up).await?;
    let took = healed.elapsed();
    lab.figure(
        &format!("{weather:?} for {seconds} s, caught up after"),
        format!("{:.1} s", took.as_secs_f64()),
    );
    // The short form shares the machine with others, which makes it slower than that.
    let most = lab.pick(Duration::from_secs(45), Duration::from_secs(3));
    lab.require(
        took < most,
        format!("{weather:?} for {seconds} s: caught up only after {took:?}"),
    );
    // Long enough for what the reaping of a living node would bring.
    sleep(Duration::from_secs(5)).await;
    Ok(())
}
