//! Everything at random.

use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep};

use super::stage::{Size, Stage};
use crate::checker::Presence;
use crate::lab::redis::Redis;
use crate::lab::{Lab, Weather};

/// One fault after another, sometimes two at once, for as long as was asked. Redis keeps its data: nothing may be lost,
/// and nothing may even be said to be.
pub async fn random(lab: &mut Lab) -> anyhow::Result<()> {
    let mut redis = Redis::durable(&lab.dir).await?;
    // Few and slow, as an hour of it has to fit into memory to be judged.
    let size = Size {
        nodes: 3,
        clients_a_node: 24,
        rooms: 4,
        official: 2,
        pace: Duration::from_secs(1),
    };
    let mut stage = Stage::on(lab, &redis, size).await?;
    lab.promises.presence = Presence::FinalState;
    stage.crowd.speak(true).await?;
    let end = Instant::now() + lab.chaos_for;
    let mut faults = 0;
    while Instant::now() < end {
        one(lab, &mut stage, &mut redis).await?;
        faults += 1;
        sleep(Duration::from_millis(lab.rng.random_range(0..4000))).await;
        if faults % 10 == 0 {
            // A moment of peace: everything comes to its end, so that a fault is found near to its cause.
            heal(&mut stage).await?;
            stage.rest().await?;
            stage.crowd.speak(true).await?;
        }
    }
    heal(&mut stage).await?;
    sleep(Duration::from_secs(25)).await;
    lab.figure("faults", faults);
    stage.settle(lab).await
}

async fn one(lab: &mut Lab, stage: &mut Stage, redis: &mut Redis) -> anyhow::Result<()> {
    let home = lab.rng.random_range(0..stage.nodes.len());
    let millis = Duration::from_millis(lab.rng.random_range(0..15_000));
    match lab.rng.random_range(0..9) {
        0 => {
            lab.step(format!("node-{home} is killed, and back after {millis:?}"));
            stage.nodes[home].kill();
            sleep(millis).await;
            stage.nodes[home].run().await?;
        }
        1 => {
            lab.step(format!("node-{home} is replaced"));
            stage.nodes[home].stop(Duration::from_secs(60)).await?;
            stage.nodes[home].run().await?;
        }
        2 => {
            lab.step(format!("node-{home} stands still for {millis:?}"));
            stage.nodes[home].freeze(true);
            sleep(millis).await;
            stage.nodes[home].freeze(false);
        }
        3 => {
            lab.step(format!("Redis is killed, and back after {:?}", millis / 2));
            redis.kill();
            sleep(millis / 2).await;
            redis.run().await?;
        }
        4 => {
            lab.step(format!("Redis stands still for {:?}", millis / 2));
            redis.freeze(true);
            sleep(millis / 2).await;
            redis.freeze(false);
        }
        5 => {
            let kinds = [
                Weather::Silent,
                Weather::SilentToServer,
                Weather::SilentToClient,
                Weather::Refusing,
                Weather::Slow(Duration::from_millis(200)),
            ];
            let weather = kinds[lab.rng.random_range(0..kinds.len())];
            lab.step(format!("node-{home} and Redis: {weather:?} for {millis:?}"));
            stage.ways[home].set(weather);
            sleep(millis).await;
            stage.ways[home].set(Weather::Fine);
        }
        6 => {
            lab.step("the subscriptions are killed");
            redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"])?;
        }
        7 => {
            lab.step(format!(
                "node-{home} is cut off from Redis, and another killed meanwhile"
            ));
            stage.ways[home].set(Weather::Silent);
            let other = (home + 1) % stage.nodes.len();
            stage.nodes[other].kill();
            sleep(millis).await;
            stage.nodes[other].run().await?;
            stage.ways[home].set(Weather::Fine);
        }
        _ => {
            lab.step("half of the clients drop");
            for member in &stage.crowd.members {
                if lab.rng.random_bool(0.5) {
                    member.leave_for(Duration::from_millis(lab.rng.random_range(0..6000)));
                }
            }
            for fleet in &mut stage.crowd.fleets {
                fleet.order("drop 3000").await?;
            }
        }
    }
    Ok(())
}

async fn heal(stage: &mut Stage) -> anyhow::Result<()> {
    stage.ways.iter().for_each(|way| way.set(Weather::Fine));
    stage.all_ready(Duration::from_secs(30)).await?;
    stage.crowd.all_back(Duration::from_secs(60)).await?;
    Ok(())
}
