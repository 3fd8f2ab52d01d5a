//! Clients that lose their connections, that stop reading, and that all reconnect at once.

use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep};

use super::test_cluster::{ClusterSize, TestCluster};
use crate::checker::Presence;
use crate::clients::{ClientConfig, Percentile};
use crate::lab::redis::Redis;
use crate::lab::{Clients, Lab, Node, RECOVERY_TIMEOUT};

/// Every client loses its connection for up to 2 s at random moments, for minutes. Every message
/// must arrive.
pub async fn flaky(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &redis).await?;
    // A user that is away for longer than the grace is offline, and the lab knows the length of an
    // absence only roughly.
    lab.promises.presence = Presence::FinalState;
    cluster.clients.start_sending().await?;
    let end = Instant::now() + Duration::from_secs(lab.by_form(20, 180));
    let mut lost_connections = 0;
    while Instant::now() < end {
        sleep(Duration::from_millis(50)).await;
        for client in &cluster.clients.simulated {
            // Every eight seconds per client, on average.
            if lab.rng.random_bool(0.05 / 8.0) {
                let millis = lab.rng.random_range(0..2000);
                client.disconnect_for(Duration::from_millis(millis));
                lost_connections += 1;
            }
        }
        if lab.rng.random_bool(0.01) {
            for clients in &mut cluster.clients.official {
                let time = Duration::from_millis(1500);
                clients.drop_connections_within(time).await?;
            }
        }
    }
    lab.report("lost connections", lost_connections);
    cluster.finish(lab).await
}

/// The log is short, so clients and a node that are away for long find that messages which they
/// missed are no longer kept. They must be notified of exactly these messages; clients that were
/// away for less must not miss any.
pub async fn short_log(lab: &mut Lab) -> anyhow::Result<()> {
    const KEPT: u64 = 100;
    lab.settings.push(("HISTORY_SIZE".into(), KEPT.to_string()));
    lab.promises.gaps = Some(KEPT);
    lab.promises.presence = Presence::FinalState;
    lab.require_coverage("a gap", |stats| stats.gaps > 0);
    lab.require_coverage("a resume without a gap", |stats| stats.resumes > 0);
    lab.require_coverage("a node that is behind the start of the log", |stats| {
        stats.resets > 0
    });
    let redis = Redis::durable(&lab.dir).await?;
    // Few clients that send so often that two seconds bring more messages than are kept.
    let size = ClusterSize {
        clients_per_node: lab.by_form(16, 40),
        rooms: 2,
        send_interval: Duration::from_millis(200),
        ..ClusterSize::default_for(lab)
    };
    let mut cluster = TestCluster::start_with_size(lab, &redis, size).await?;
    for round in 0..lab.by_form(1, 6) {
        cluster.send_for(Duration::from_secs(1)).await?;
        lab.step(format!(
            "round {round}: some clients disconnect for up to 6 s, and node-0 is cut off for 8 s"
        ));
        cluster.disconnect_some(lab, 6000);
        cluster.cut_off(0, Duration::from_secs(8)).await?;
        cluster.clients.wait_ready(RECOVERY_TIMEOUT).await?;
    }
    cluster.finish(lab).await
}

/// Some of the clients of busy rooms stop reading. Their connections must be closed, and the others
/// must not be slowed down.
pub async fn slow_readers(lab: &mut Lab) -> anyhow::Result<()> {
    let count = lab.by_form(200, 1000);
    let slow = lab.by_form(10, 50);
    let phase = Duration::from_secs(lab.by_form(17, 30));
    let redis = Redis::durable(&lab.dir).await?;
    let node = lab.start_node("node-0", &redis.url(), &[]).await?;
    let mut clients = lab.create_clients()?;
    add_readers(&mut clients, &node, count, slow);
    clients.wait_ready(RECOVERY_TIMEOUT).await?;
    clients.start_sending().await?;
    sleep(Duration::from_secs(3)).await;
    let from = lab.recorder.elapsed_millis();
    sleep(phase).await;
    let p99_before = clients.latencies.p99(from, lab.recorder.elapsed_millis());
    let memory_before = node.memory_kb();

    lab.step(format!("{slow} clients stop reading"));
    let began = Instant::now();
    let from = lab.recorder.elapsed_millis();
    for client in &clients.simulated[count - slow..] {
        // Longer than this phase, so that they come back after it.
        client.stop_reading_for(phase + Duration::from_secs(5));
    }
    let mut closed_after = None;
    let mut max_memory = memory_before;
    while began.elapsed() < phase {
        sleep(Duration::from_millis(200)).await;
        max_memory = max_memory.max(node.memory_kb());
        let health = node.get("/health").await?;
        let connected = health["connectedClients"].as_u64().unwrap_or(0);
        if closed_after.is_none() && connected <= (count - slow) as u64 {
            closed_after = Some(began.elapsed());
        }
    }
    let p99_during = clients.latencies.p99(from, lab.recorder.elapsed_millis());

    check_closed(lab, closed_after);
    check_latencies(lab, p99_before, p99_during);
    // Per slow client 2 MB: its outbox, and buffers of the same size. In total 32 MB more.
    let max_growth = u64::try_from(slow)? * 2 * 1024 + 32 * 1024;
    check_memory(lab, memory_before, max_memory, max_growth);
    finish(lab, &mut clients, &node).await
}

/// Adds clients that receive 100 KB/s each: in each of ten rooms 20 messages of 5 KB per second. The
/// last `slow` of them have a small receive window.
fn add_readers(clients: &mut Clients, node: &Node, count: usize, slow: usize) {
    const ROOMS: usize = 10;
    const SENDERS: usize = 20;
    for index in 0..count {
        let is_slow = index >= count - slow;
        let mut config = ClientConfig {
            name: format!("c{index}"),
            user: format!("u{index}"),
            rooms: vec![format!("room-{}", index % ROOMS)],
            addresses: vec![node.address],
            content_bytes: 5000,
            measures_latency: !is_slow,
            ..ClientConfig::default()
        };
        if index < SENDERS {
            config.send_interval = Some(Duration::from_millis(100));
        }
        if is_slow {
            // The receive window of a phone, instead of the megabytes of the loopback interface.
            config.receive_window = Some(16 * 1024);
        }
        clients.add(config);
    }
}

fn check_closed(lab: &mut Lab, closed_after: Option<Duration>) {
    match closed_after {
        Some(time) => lab.report_seconds("connections closed after", time),
        None => lab.report("connections closed after", "never"),
    }
    lab.require(
        closed_after.is_some_and(|time| time < Duration::from_secs(15)),
        "the connections of clients that don't read were not closed within 15 s",
    );
}

fn check_latencies(lab: &mut Lab, before: Percentile, during: Percentile) {
    lab.report(
        "p99 of the other clients, before and during",
        format!(
            "{:.1} and {:.1} ms ({} and {} deliveries)",
            before.millis, during.millis, before.count, during.count
        ),
    );
    if lab.full {
        // If the p99 is below 2 ms, the ratio shows only the noise of the machine.
        lab.require(
            during.millis <= 1.5 * before.millis.max(2.0),
            format!(
                "p99 of the other clients is {:.1} ms, and was {:.1} ms before",
                during.millis, before.millis
            ),
        );
    }
}

fn check_memory(lab: &mut Lab, before: u64, max: u64, max_growth: u64) {
    lab.report(
        "memory before, and at most",
        format!("{} and {} MB", before / 1024, max / 1024),
    );
    lab.require(
        max < before + max_growth,
        format!("the memory grew from {before} to {max} KB"),
    );
}

/// Most clients lose their connections at once, and reconnect as the official clients do: after a
/// second, plus or minus 50 %.
pub async fn reconnect_storm(lab: &mut Lab) -> anyhow::Result<()> {
    const ROOMS: usize = 50;
    let staying = lab.by_form(120, 500);
    let dropped = lab.by_form(600, 5000);
    let redis = Redis::durable(&lab.dir).await?;
    let nodes = lab.start_nodes(2, &redis.url()).await?;
    let mut clients = lab.create_clients()?;
    for index in 0..dropped + staying {
        clients.add(storm_client(index, staying, ROOMS, &nodes));
        if index % 500 == 499 {
            clients.wait_ready(RECOVERY_TIMEOUT).await?;
        }
    }
    clients.wait_ready(RECOVERY_TIMEOUT).await?;
    clients.start_sending().await?;
    sleep(Duration::from_secs(5)).await;

    let reads_before = count_log_reads(&nodes).await?;
    let from = lab.recorder.elapsed_millis();
    lab.step(format!("{dropped} clients lose their connections at once"));
    for client in &clients.simulated[staying..] {
        // The delay of an official client before its first attempt.
        let millis = lab.rng.random_range(500..1500);
        client.disconnect_for(Duration::from_millis(millis));
    }
    // Time for the clients to notice, so that none counts as ready that is still connected.
    let notice_time = Duration::from_millis(400);
    sleep(notice_time).await;
    let back_after = clients.wait_ready(Duration::from_secs(90)).await? + notice_time;
    let p99 = clients.latencies.p99(from, lab.recorder.elapsed_millis());
    let reads = count_log_reads(&nodes).await? - reads_before;

    lab.report_seconds("all clients back after", back_after);
    lab.require(
        back_after < Duration::from_secs(30),
        format!("all clients were back only after {back_after:?}"),
    );
    lab.report(
        "p99 of the clients that stayed connected",
        format!("{:.1} ms ({} deliveries)", p99.millis, p99.count),
    );
    if lab.full {
        let millis = p99.millis;
        lab.require(
            millis < 250.0,
            format!("p99 of the clients that stayed connected is {millis:.1} ms"),
        );
    }
    lab.report(
        "reads of logs, on both nodes together",
        format!("{reads} ({ROOMS} rooms)"),
    );
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let max_reads = (ROOMS * nodes.len()) as f64;
    lab.require(
        reads <= max_reads,
        format!("{reads} reads of logs, more than one per room and node"),
    );
    finish(lab, &mut clients, &nodes[0]).await
}

/// The configuration of a client of the storm. The first `staying` clients stay connected and
/// measure latencies; ten of them send, in ten rooms.
fn storm_client(index: usize, staying: usize, rooms: usize, nodes: &[Node]) -> ClientConfig {
    const SENDERS: usize = 10;
    let mut config = ClientConfig {
        name: format!("c{index}"),
        user: format!("u{index}"),
        rooms: vec![format!("room-{}", index % rooms)],
        addresses: nodes.iter().map(|node| node.address).collect(),
        home_node: index % nodes.len(),
        measures_latency: index < staying,
        ..ClientConfig::default()
    };
    if index < SENDERS {
        config.send_interval = Some(Duration::from_millis(200));
    }
    config
}

async fn finish(lab: &mut Lab, clients: &mut Clients, node: &Node) -> anyhow::Result<()> {
    let took = clients.finish(node).await?;
    lab.report_seconds("all messages arrived after", took);
    Ok(())
}

/// The number of reads of rooms' logs, on all nodes together.
async fn count_log_reads(nodes: &[Node]) -> anyhow::Result<f64> {
    let mut reads = 0.0;
    for node in nodes {
        reads += node.metric("hubbub_replay_reads_total").await?;
        reads += node.metric("hubbub_catch_ups_total").await?;
    }
    Ok(reads)
}
