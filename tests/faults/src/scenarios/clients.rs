//! Clients that drop, that don't read, and that all come at once.

use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep};

use super::stage::{Size, Stage};
use crate::checker::Presence;
use crate::crowd::Part;
use crate::lab::redis::Redis;
use crate::lab::{Crowd, Lab, Node, PATIENCE, Weather};

/// Every client drops for up to 2 s at random moments, for minutes. Everything arrives.
pub async fn flaky(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut stage = Stage::usual(lab, &redis).await?;
    // Who is away for longer than the grace is offline, and how long one was away is known only roughly.
    lab.promises.presence = Presence::FinalState;
    stage.crowd.speak(true).await?;
    let end = Instant::now() + Duration::from_secs(lab.pick(20, 180));
    let mut drops = 0;
    while Instant::now() < end {
        sleep(Duration::from_millis(50)).await;
        for member in &stage.crowd.members {
            // Each about every eight seconds.
            if lab.rng.random_bool(0.05 / 8.0) {
                member.leave_for(Duration::from_millis(lab.rng.random_range(0..2000)));
                drops += 1;
            }
        }
        if lab.rng.random_bool(0.01) {
            for fleet in &mut stage.crowd.fleets {
                fleet.order("drop 1500").await?;
            }
        }
    }
    lab.figure("drops", drops);
    stage.settle(lab).await
}

/// The log is short: who is away for long, and a node that is cut off for long, find that what they missed is no longer
/// kept. They are told so, each of exactly that; who was away for less misses nothing.
pub async fn short_log(lab: &mut Lab) -> anyhow::Result<()> {
    const KEPT: u64 = 100;
    lab.settings.push(("HISTORY_SIZE".into(), KEPT.to_string()));
    lab.promises.gaps = Some(KEPT);
    lab.promises.presence = Presence::FinalState;
    lab.must_see.push(("a gap", |figures| figures.gaps > 0));
    lab.must_see
        .push(("a resume without one", |figures| figures.resumes > 0));
    lab.must_see
        .push(("a node that was behind for too long", |figures| {
            figures.resets > 0
        }));
    let redis = Redis::durable(&lab.dir).await?;
    // Few who say much: in two seconds more than is kept.
    let pace = Duration::from_millis(200);
    let size = Size {
        clients_a_node: lab.pick(16, 40),
        rooms: 2,
        pace,
        ..Size::usual(lab)
    };
    let mut stage = Stage::on(lab, &redis, size).await?;
    for round in 0..lab.pick(1, 6) {
        stage.load_for(Duration::from_secs(1)).await?;
        lab.step(format!(
            "round {round}: some leave for up to 6 s, and node-0 is cut off for 8 s"
        ));
        for member in &stage.crowd.members {
            if lab.rng.random_bool(0.3) {
                member.leave_for(Duration::from_millis(lab.rng.random_range(0..6000)));
            }
        }
        stage.ways[0].set(Weather::Silent);
        sleep(Duration::from_secs(8)).await;
        stage.ways[0].set(Weather::Fine);
        stage.all_ready(PATIENCE).await?;
        stage.crowd.all_back(PATIENCE).await?;
    }
    stage.settle(lab).await
}

/// Some of the clients of a busy room stop reading. They are cut off; the others notice nothing.
pub async fn slow_readers(lab: &mut Lab) -> anyhow::Result<()> {
    let (clients, slow, seconds) = (lab.pick(200, 1000), lab.pick(10, 50), lab.pick(17, 30));
    let redis = Redis::durable(&lab.dir).await?;
    let node = lab.node("node-0", &redis.url(), &[]).await?;
    let mut crowd = lab.crowd()?;
    // 100 KB/s to each: ten rooms, each with 20 messages of 5 KB a second.
    for index in 0..clients {
        crowd.add(Part {
            name: format!("c{index}"),
            user: format!("u{index}"),
            rooms: vec![format!("room-{}", index % 10)],
            doors: vec![node.address],
            pace: (index < 20).then(|| Duration::from_millis(100)),
            size: 5000,
            // A phone's window, not the megabytes that loopback would take.
            window: (index >= clients - slow).then_some(16 * 1024),
            measures: index < clients - slow,
            ..Part::default()
        });
    }
    crowd.all_back(PATIENCE).await?;
    crowd.speak(true).await?;
    sleep(Duration::from_secs(3)).await;
    let calm_from = lab.history.now();
    sleep(Duration::from_secs(seconds)).await;
    let (calm, calm_count) = crowd.latencies.p99(calm_from, lab.history.now());
    let before = node.memory_kb();

    lab.step(format!("{slow} clients stop reading"));
    let began = Instant::now();
    let from = lab.history.now();
    for member in &crowd.members[clients - slow..] {
        // Longer than the run: they are back after it.
        member.stop_reading(Duration::from_secs(seconds + 5));
    }
    let (mut cut_off, mut most) = (None, before);
    while began.elapsed() < Duration::from_secs(seconds) {
        sleep(Duration::from_millis(200)).await;
        most = most.max(node.memory_kb());
        let left = node.get("/health").await?["connectedClients"]
            .as_u64()
            .unwrap_or(0);
        if cut_off.is_none() && left <= (clients - slow) as u64 {
            cut_off = Some(began.elapsed());
        }
    }
    let (disturbed, count) = crowd.latencies.p99(from, lab.history.now());
    lab.figure(
        "p99 of the others, undisturbed and disturbed",
        format!("{calm:.1} and {disturbed:.1} ms ({calm_count} and {count} deliveries)"),
    );
    lab.figure(
        "memory before, and at most",
        format!("{} and {} MB", before / 1024, most / 1024),
    );
    lab.figure(
        "cut off after",
        cut_off.map_or("never".into(), |time| {
            format!("{:.1} s", time.as_secs_f64())
        }),
    );
    lab.require(
        cut_off.is_some_and(|time| time < Duration::from_secs(15)),
        "clients that don't read are not cut off within 15 s",
    );
    if lab.long {
        // Below a millisecond or two, the ratio says nothing but how the machine felt.
        lab.require(
            disturbed <= 1.5 * calm.max(2.0),
            format!("p99 of the others is {disturbed:.1} ms, undisturbed it is {calm:.1} ms"),
        );
    }
    let bound = before + u64::try_from(slow)? * 2 * 1024 + 32 * 1024;
    lab.require(
        most < bound,
        format!("memory rose from {before} to {most} KB"),
    );
    settle(lab, &mut crowd, &node).await
}

/// Most clients drop at once, and come back as the official clients do: a second later, give or take a half.
pub async fn storm(lab: &mut Lab) -> anyhow::Result<()> {
    let (dropped, staying, rooms) = (lab.pick(600, 5000), lab.pick(120, 500), 50);
    let redis = Redis::durable(&lab.dir).await?;
    let mut nodes = Vec::new();
    for index in 0..2 {
        nodes.push(
            lab.node(&format!("node-{index}"), &redis.url(), &[])
                .await?,
        );
    }
    let mut crowd = lab.crowd()?;
    for index in 0..dropped + staying {
        crowd.add(Part {
            name: format!("c{index}"),
            user: format!("u{index}"),
            rooms: vec![format!("room-{}", index % rooms)],
            doors: nodes.iter().map(|node| node.address).collect(),
            home: index % 2,
            // Ten who stay speak, in ten rooms.
            pace: (index < 10).then(|| Duration::from_millis(200)),
            measures: index < staying,
            ..Part::default()
        });
        if index % 500 == 499 {
            crowd.all_back(PATIENCE).await?;
        }
    }
    crowd.all_back(PATIENCE).await?;
    crowd.speak(true).await?;
    sleep(Duration::from_secs(5)).await;

    let reads = log_reads(&nodes).await?;
    let from = lab.history.now();
    lab.step(format!("{dropped} clients drop at once"));
    for member in &crowd.members[staying..] {
        // What an official client waits before its first attempt.
        member.leave_for(Duration::from_millis(lab.rng.random_range(500..1500)));
    }
    sleep(Duration::from_millis(400)).await;
    let back = crowd.all_back(Duration::from_secs(90)).await? + Duration::from_millis(400);
    let (p99, count) = crowd.latencies.p99(from, lab.history.now());
    let read = log_reads(&nodes).await? - reads;
    lab.figure("all back after", format!("{:.1} s", back.as_secs_f64()));
    lab.figure(
        "p99 of those who stayed",
        format!("{p99:.1} ms ({count} deliveries)"),
    );
    lab.figure(
        "reads of the log, both nodes together",
        format!("{read} ({rooms} rooms)"),
    );
    lab.require(
        back < Duration::from_secs(30),
        format!("all were back only after {back:?}"),
    );
    if lab.long {
        lab.require(
            p99 < 250.0,
            format!("p99 of those who stayed is {p99:.1} ms"),
        );
    }
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    lab.require(
        read <= (rooms * nodes.len()) as f64,
        format!("{read} reads of the log"),
    );
    settle(lab, &mut crowd, &nodes[0]).await
}

async fn settle(lab: &mut Lab, crowd: &mut Crowd, node: &Node) -> anyhow::Result<()> {
    let took = crowd.settle(node).await?;
    lab.figure("settled after", format!("{:.1} s", took.as_secs_f64()));
    Ok(())
}

/// How often the nodes have read a room's log.
async fn log_reads(nodes: &[Node]) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for node in nodes {
        sum += node.metric("hubbub_replay_reads_total").await?
            + node.metric("hubbub_catch_ups_total").await?;
    }
    Ok(sum)
}
