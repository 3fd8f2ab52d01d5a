//! Redis in several servers: Sentinel and Cluster.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};

use super::stage::{Size, Stage};
use crate::history::Fact;
use crate::lab::redis::{Sharded, Watched};
use crate::lab::{Lab, eventually};

/// The primary is killed under load; the Sentinels promote the replica. What the replica had not got yet is lost, and
/// that is said.
pub async fn sentinel(lab: &mut Lab) -> anyhow::Result<()> {
    let mut redis = Watched::start(&lab.dir).await?;
    let size = Size::usual(lab);
    let mut stage = Stage::at(lab, &redis.url(), size).await?;
    for round in 0..lab.pick(1, 3) {
        stage.load_for(Duration::from_secs(4)).await?;
        let old = redis.primary()?;
        lab.step(format!("round {round}: the primary {old} is killed"));
        lab.history.write("lab", Fact::DataLost);
        let killed = Instant::now();
        let index = redis
            .servers
            .iter()
            .position(|server| server.port == old)
            .context("an unknown primary")?;
        redis.servers[index].kill();
        eventually(
            "there is another primary",
            Duration::from_secs(30),
            async || redis.primary().is_ok_and(|port| port != old),
        )
        .await?;
        stage.all_ready(Duration::from_secs(30)).await?;
        lab.figure(
            "nodes ready after the kill",
            format!("{:.1} s", killed.elapsed().as_secs_f64()),
        );
        redis.servers[index].run().await?;
        sleep(Duration::from_secs(lab.pick(6, 12))).await;
    }
    stage.settle(lab).await
}

/// One primary of three is killed under load; its replica takes over its slots.
pub async fn cluster(lab: &mut Lab) -> anyhow::Result<()> {
    let mut redis = Sharded::start(&lab.dir).await?;
    let size = Size::usual(lab);
    let mut stage = Stage::at(lab, &redis.url(), size).await?;
    for round in 0..lab.pick(1, 3) {
        stage.load_for(Duration::from_secs(4)).await?;
        let primaries = redis.roles("master");
        let victim = primaries[round % primaries.len()];
        lab.step(format!(
            "round {round}: the primary {} is killed",
            redis.servers[victim].port
        ));
        lab.history.write("lab", Fact::DataLost);
        let killed = Instant::now();
        redis.servers[victim].kill();
        let healed = async || {
            redis.roles("master").len() == 3
                && redis
                    .servers
                    .iter()
                    .enumerate()
                    .filter(|(index, _)| *index != victim)
                    .all(|(_, server)| {
                        server
                            .cli(&["CLUSTER", "INFO"])
                            .is_ok_and(|text| text.contains("cluster_state:ok"))
                    })
        };
        eventually("the replica takes over", Duration::from_secs(30), healed).await?;
        stage.all_ready(Duration::from_secs(30)).await?;
        lab.figure(
            "nodes ready after the kill",
            format!("{:.1} s", killed.elapsed().as_secs_f64()),
        );
        redis.servers[victim].run().await?;
        eventually(
            "the server is back as a replica",
            Duration::from_secs(30),
            async || redis.roles("slave").len() == 3,
        )
        .await?;
        sleep(Duration::from_secs(3)).await;
    }
    stage.settle(lab).await
}

/// Slots move between primaries under load, keys and all. Nothing is lost by that, and nothing may be said to be.
pub async fn migration(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Sharded::start(&lab.dir).await?;
    // `room-6` is among the first thousand slots.
    let size = Size {
        rooms: 8,
        ..Size::usual(lab)
    };
    let mut stage = Stage::at(lab, &redis.url(), size).await?;
    stage.calm_all();
    for round in 0..lab.pick(1, 4) {
        stage.load_for(Duration::from_secs(2)).await?;
        let primaries = redis.roles("master");
        let (from, to) = (primaries[round % 3], primaries[(round + 1) % 3]);
        lab.step(format!(
            "round {round}: slots move from {} to {}",
            redis.servers[from].port, redis.servers[to].port
        ));
        let logs = || anyhow::Ok(redis.servers[to].cli(&["KEYS", "*}h:*"])?.lines().count());
        let before = logs()?;
        let began = Instant::now();
        let mut command = Command::new("redis-cli");
        command.args([
            "--cluster",
            "reshard",
            &format!("127.0.0.1:{}", redis.servers[from].port),
            "--cluster-yes",
        ]);
        command.args([
            "--cluster-from",
            &redis.id(from)?,
            "--cluster-to",
            &redis.id(to)?,
        ]);
        command.args(["--cluster-slots", lab.pick("1000", "5000")]);
        let out = tokio::task::spawn_blocking(move || command.output()).await??;
        ensure!(
            out.status.success(),
            "no migration: {}",
            String::from_utf8_lossy(&out.stdout)
        );
        let after = logs()?;
        lab.require(
            after > before,
            format!("no room's log was among what moved: {before} before, {after} now"),
        );
        lab.figure(
            "slots moved in",
            format!("{:.1} s", began.elapsed().as_secs_f64()),
        );
        sleep(Duration::from_secs(3)).await;
    }
    stage.settle(lab).await
}
