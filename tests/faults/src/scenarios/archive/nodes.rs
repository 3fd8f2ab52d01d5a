//! Nodes that die while they archive.

use std::time::Duration;

use tokio::time::sleep;

use super::{shorten_log, start_archive};
use crate::checker::{Archive, Presence};
use crate::lab::database::DatabaseKind;
use crate::lab::redis::Redis;
use crate::lab::{Lab, RECOVERY_TIMEOUT};
use crate::scenarios::test_cluster::{ClusterSize, TestCluster};

/// Acknowledgements come before the commit: what a dead node did not commit, another one archives.
pub async fn killed_postgres(lab: &mut Lab) -> anyhow::Result<()> {
    killed(lab, DatabaseKind::Postgres, Archive::AckAfterLog).await
}

/// Acknowledgements wait for the commit.
pub async fn killed_mariadb(lab: &mut Lab) -> anyhow::Result<()> {
    killed(lab, DatabaseKind::MariaDb, Archive::AckAfterArchive).await
}

/// One node after another is killed under load, and restarted. In every second round the database is
/// suspended before, so that the dead node leaves messages that it has not committed.
async fn killed(lab: &mut Lab, kind: DatabaseKind, promise: Archive) -> anyhow::Result<()> {
    let database = start_archive(lab, kind, promise).await?;
    shorten_log(lab);
    lab.promises.presence = Presence::FinalState;
    let redis = Redis::durable(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &redis).await?;
    for round in 0..lab.by_form(3, 12) {
        cluster.send_for(Duration::from_secs(3)).await?;
        let index = round % cluster.nodes.len();
        if round % 2 == 0 {
            lab.step("the database is suspended for 2 s");
            database.suspend();
            sleep(Duration::from_secs(1)).await;
        }
        lab.step(format!("round {round}: node-{index} is killed"));
        cluster.nodes[index].kill();
        sleep(Duration::from_secs(1)).await;
        database.resume();
        cluster.nodes[index].run().await?;
        cluster.wait_nodes_ready(RECOVERY_TIMEOUT).await?;
    }
    cluster.finish(lab).await
}

/// Clients and a node are away while many more messages are sent than the log keeps: they resume all
/// the same, from the archive. No gap is allowed.
pub async fn away_for_longer_than_the_log(lab: &mut Lab) -> anyhow::Result<()> {
    let _database = start_archive(lab, DatabaseKind::Postgres, Archive::AckAfterLog).await?;
    shorten_log(lab);
    lab.promises.presence = Presence::FinalState;
    lab.require_coverage("a resume", |stats| stats.resumes > 0);
    let redis = Redis::durable(&lab.dir).await?;
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
            "round {round}: some clients disconnect for up to 8 s, and node-0 is cut off for 8 s"
        ));
        cluster.disconnect_some(lab, 8000);
        cluster.cut_off(0, Duration::from_secs(8)).await?;
        cluster.clients.wait_ready(RECOVERY_TIMEOUT).await?;
    }
    cluster.finish(lab).await
}
