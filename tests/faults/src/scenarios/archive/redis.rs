//! Redis loses data, or splits in two, with an archive behind it.

use std::time::Duration;

use tokio::time::sleep;

use super::start_archive;
use crate::checker::{Archive, Presence};
use crate::history::Fact;
use crate::lab::database::DatabaseKind;
use crate::lab::redis::Redis;
use crate::lab::{Lab, RECOVERY_TIMEOUT};
use crate::scenarios::data_loss;
use crate::scenarios::test_cluster::TestCluster;

/// FLUSHALL under load: no acknowledged message is lost.
pub async fn flushed(lab: &mut Lab) -> anyhow::Result<()> {
    let _database = start_archive(lab, DatabaseKind::Postgres, Archive::AckAfterArchive).await?;
    data_loss::flushed(lab).await
}

/// FLUSHALL under load: acknowledged messages are lost only if they were not committed yet.
pub async fn flushed_log(lab: &mut Lab) -> anyhow::Result<()> {
    let _database = start_archive(lab, DatabaseKind::MariaDb, Archive::AckAfterLog).await?;
    data_loss::flushed(lab).await
}

/// Redis comes back with an older snapshot.
pub async fn rolled_back(lab: &mut Lab) -> anyhow::Result<()> {
    let _database = start_archive(lab, DatabaseKind::MariaDb, Archive::AckAfterArchive).await?;
    data_loss::rolled_back(lab).await
}

/// A replica without the newest data is promoted.
pub async fn stale_replica(lab: &mut Lab) -> anyhow::Result<()> {
    let _database = start_archive(lab, DatabaseKind::Postgres, Archive::AckAfterArchive).await?;
    data_loss::stale_replica(lab).await
}

/// A replica is promoted while its primary goes on, each with nodes and clients. Both number the same
/// rooms; the archive takes each number once.
pub async fn two_primaries(lab: &mut Lab) -> anyhow::Result<()> {
    let _database = start_archive(lab, DatabaseKind::Postgres, Archive::AckAfterArchive).await?;
    lab.promises.presence = Presence::FinalState;
    lab.promises.two_primaries = true;
    let mut old = Redis::without_persistence(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &old).await?;
    for round in 0..lab.by_form(1, 4) {
        let new = Redis::without_persistence(&lab.dir).await?;
        new.replicate_from(old.port).await?;
        cluster.send_for(Duration::from_secs(3)).await?;
        lab.step(format!(
            "round {round}: the replica is promoted; node-0 stays with the old primary"
        ));
        lab.recorder.record_lab(Fact::DataLost);
        new.cli(&["REPLICAOF", "NO", "ONE"])?;
        for proxy in &cluster.proxies[1..] {
            proxy.redirect_to(new.port);
        }
        sleep(Duration::from_secs(lab.by_form(8, 20))).await;
        lab.step("the old primary ends, and node-0 follows the others");
        old.kill();
        cluster.proxies[0].redirect_to(new.port);
        cluster.wait_nodes_ready(RECOVERY_TIMEOUT).await?;
        sleep(Duration::from_secs(4)).await;
        old = new;
    }
    cluster.finish(lab).await
}
