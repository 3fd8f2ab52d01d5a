//! Rounds in which a node is killed, and its link to Redis, or that of another node, is broken before.

use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep};

use crate::lab::database::DatabaseServer;
use crate::lab::redis::Redis;
use crate::lab::{Lab, Link, Node, Proxy, RECOVERY_TIMEOUT};

pub const NODES: usize = 3;
const SECRET: &str = "a secret of the lab, of at least 32 bytes";
/// The delay of a slow link, on which announcements queue up.
const SLOW_LINK: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
enum Round {
    /// The node's commands reach Redis, and it gets no answers: it leaves announcements that are
    /// published, and still in the outbox.
    WithoutAnswers,
    /// Nothing of the node reaches Redis: it leaves announcements that it has claimed.
    CutOff,
    /// Another node is cut off.
    OtherCutOff,
    /// All links are healthy.
    Plain,
}

/// The short form has the first three.
const ROUNDS: [Round; 5] = [
    Round::WithoutAnswers,
    Round::OtherCutOff,
    Round::WithoutAnswers,
    Round::CutOff,
    Round::Plain,
];

/// Three nodes with accounts and an archive, each with a proxy between it and Redis.
pub struct KilledNodes {
    pub nodes: Vec<Node>,
    proxies: Vec<Proxy>,
}

impl KilledNodes {
    pub async fn start(
        lab: &mut Lab,
        redis: &Redis,
        database: &DatabaseServer,
        ack_after: &str,
    ) -> anyhow::Result<Self> {
        for (name, value) in [
            ("DATABASE_URL", database.url().as_str()),
            ("ACK_AFTER", ack_after),
            ("JWT_SECRET", SECRET),
            ("RATE_EVENTS_PER_SEC", "0"),
            // Shorter than the history: resumes reach into the archive.
            ("HISTORY_SIZE", "100"),
        ] {
            lab.settings.push((name.into(), value.into()));
        }
        let mut nodes = Vec::new();
        let mut proxies = Vec::new();
        for index in 0..NODES {
            let proxy = Proxy::start(redis.port).await?;
            let redis_url = format!("redis://{}", proxy.address);
            let name = format!("node-{index}");
            nodes.push(lab.start_node(&name, &redis_url, &[]).await?);
            proxies.push(proxy);
        }
        Ok(Self { nodes, proxies })
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// Kills random nodes at random moments, and restarts them. After each round nothing is broken for this
    /// time.
    pub async fn kill(&mut self, lab: &mut Lab, calm: Duration) -> anyhow::Result<()> {
        let rounds = lab.by_form(3, 20);
        let mut longest = Duration::ZERO;
        for (number, round) in ROUNDS.into_iter().cycle().take(rounds).enumerate() {
            sleep(random_millis(lab, 500..1500)).await;
            let killed = lab.rng.random_range(0..NODES);
            let (cut_off, link) = match round {
                Round::WithoutAnswers => (killed, Link::BlackholeToClient),
                Round::CutOff => (killed, Link::Blackhole),
                Round::OtherCutOff => ((killed + 1) % NODES, Link::Blackhole),
                Round::Plain => (killed, Link::Healthy),
            };
            lab.step(format!(
                "{round:?}: node-{cut_off} has a slow link, then {link:?}"
            ));
            self.proxies[cut_off].set(Link::Delay(SLOW_LINK));
            sleep(random_millis(lab, 500..1000)).await;
            self.proxies[cut_off].set(link);
            sleep(random_millis(lab, 300..800)).await;
            lab.step(format!("round {number}: node-{killed} is killed"));
            self.nodes[killed].kill();
            sleep(random_millis(lab, 200..1200)).await;
            self.proxies[cut_off].set(Link::Healthy);
            let began = Instant::now();
            self.nodes[killed].run().await?;
            for node in &self.nodes {
                node.wait_ready(RECOVERY_TIMEOUT).await?;
            }
            longest = longest.max(began.elapsed());
            sleep(calm).await;
        }
        lab.report("kills", rounds);
        lab.report_seconds("ready again after, at most", longest);
        Ok(())
    }
}

fn random_millis(lab: &mut Lab, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(lab.rng.random_range(range))
}
