//! A node without Redis, with its archive in an SQLite file: the file is all that survives it.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{lone_size, shorten_log};
use crate::checker::{Archive, Presence};
use crate::history::Fact;
use crate::lab::database::{SqliteLock, sqlite_file};
use crate::lab::{Lab, RECOVERY_TIMEOUT};
use crate::scenarios::test_cluster::TestCluster;

/// The node is killed under load, again and again. Everything that was acknowledged is there after
/// the restart, and a send that is repeated then is still a repeat. In every second round the database
/// is locked before, so that the node dies with messages that it has not committed.
pub async fn killed(lab: &mut Lab) -> anyhow::Result<()> {
    let file = sqlite_file(&data_dir(lab));
    // More than a client misses, and little enough for a replay to all clients after each kill.
    lab.settings.push(("HISTORY_SIZE".into(), "500".into()));
    let mut cluster = start(lab).await?;
    let rounds = lab.by_form(4, 20);
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        cluster.send_for(Duration::from_secs(3)).await?;
        let mut lock = None;
        if round % 2 == 0 {
            lab.step("the database is locked");
            lock = Some(SqliteLock::acquire(&file).await?);
            sleep(Duration::from_secs(1)).await;
        }
        lab.step(format!("round {round}: the node is killed"));
        cluster.nodes[0].kill();
        lab.recorder.record_lab(Fact::DataLost);
        if let Some(lock) = lock {
            lock.release().await?;
        }
        let began = Instant::now();
        cluster.nodes[0].run().await?;
        cluster.wait_nodes_ready(RECOVERY_TIMEOUT).await?;
        longest = longest.max(began.elapsed());
        cluster.clients.wait_ready(RECOVERY_TIMEOUT).await?;
    }
    lab.report("kills", rounds);
    lab.report_seconds("ready again after, at most", longest);
    cluster.finish(lab).await
}

/// The node is stopped and started under load: it goes on in the same epochs. No loss may be
/// announced, although the log keeps fewer messages than clients missed.
pub async fn restarted(lab: &mut Lab) -> anyhow::Result<()> {
    shorten_log(lab);
    lab.settings.push(("DRAIN_SECS".into(), "3".into()));
    let mut cluster = start(lab).await?;
    for round in 0..lab.by_form(2, 8) {
        cluster.send_for(Duration::from_secs(3)).await?;
        let before = cluster.heads().await?;
        lab.step(format!("round {round}: the node is restarted"));
        cluster.nodes[0].stop(Duration::from_secs(60)).await?;
        cluster.nodes[0].run().await?;
        cluster.wait_nodes_ready(RECOVERY_TIMEOUT).await?;
        let after = cluster.heads().await?;
        for (room, head) in &before {
            let epoch = &after[room].epoch;
            lab.require(
                *epoch == head.epoch,
                format!("{room} went on in {epoch}, and was in {}", head.epoch),
            );
        }
        cluster.clients.wait_ready(RECOVERY_TIMEOUT).await?;
    }
    cluster.finish(lab).await
}

async fn start(lab: &mut Lab) -> anyhow::Result<TestCluster> {
    lab.archive_below(&data_dir(lab), Archive::AckAfterArchive);
    lab.promises.presence = Presence::FinalState;
    let node = lab.start_lone_node("node-0").await?;
    let size = lone_size(lab);
    TestCluster::with_nodes(lab, vec![node], size).await
}

fn data_dir(lab: &Lab) -> PathBuf {
    lab.dir.join("data")
}
