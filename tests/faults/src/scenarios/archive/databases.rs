//! The database is away: killed, suspended, or locked by another process.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{lone_size, shorten_log, start_archive};
use crate::checker::{Archive, Presence};
use crate::lab::database::{DatabaseKind, DatabaseServer, SqliteLock, sqlite_file};
use crate::lab::redis::Redis;
use crate::lab::{Lab, Node, RECOVERY_TIMEOUT, eventually};
use crate::scenarios::test_cluster::TestCluster;

/// The nodes must report within this time that the database is down.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(20);
/// The time in which messages must, or must not, be sent while the database is down.
const OBSERVED_OUTAGE: Duration = Duration::from_secs(4);

pub async fn postgres_killed(lab: &mut Lab) -> anyhow::Result<()> {
    server_away(
        lab,
        DatabaseKind::Postgres,
        Fault::Kill,
        Archive::AckAfterLog,
    )
    .await
}

pub async fn postgres_stopped(lab: &mut Lab) -> anyhow::Result<()> {
    let promise = Archive::AckAfterArchive;
    server_away(lab, DatabaseKind::Postgres, Fault::Suspend, promise).await
}

pub async fn mariadb_killed(lab: &mut Lab) -> anyhow::Result<()> {
    let promise = Archive::AckAfterArchive;
    server_away(lab, DatabaseKind::MariaDb, Fault::Kill, promise).await
}

pub async fn mariadb_stopped(lab: &mut Lab) -> anyhow::Result<()> {
    server_away(
        lab,
        DatabaseKind::MariaDb,
        Fault::Suspend,
        Archive::AckAfterLog,
    )
    .await
}

/// A fault of a database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// `kill -9` of all its processes.
    Kill,
    /// SIGSTOP of all its processes: connections stay open, and nothing answers.
    Suspend,
}

/// The database server fails under load, and comes back.
async fn server_away(
    lab: &mut Lab,
    kind: DatabaseKind,
    fault: Fault,
    promise: Archive,
) -> anyhow::Result<()> {
    let mut database = start_archive(lab, kind, promise).await?;
    shorten_log(lab);
    lab.promises.presence = Presence::FinalState;
    let redis = Redis::durable(&lab.dir).await?;
    let mut cluster = TestCluster::start(lab, &redis).await?;
    for round in 0..lab.by_form(1, 4) {
        cluster.send_for(Duration::from_secs(3)).await?;
        lab.step(format!("round {round}: the database is away: {fault:?}"));
        inject(&mut database, fault);
        observe_outage(lab, &cluster, promise).await?;
        repair(&mut database, fault).await?;
        lab.step("the database is back");
        wait_back(lab, &cluster).await?;
    }
    cluster.finish(lab).await
}

fn inject(database: &mut DatabaseServer, fault: Fault) {
    match fault {
        Fault::Kill => database.kill(),
        Fault::Suspend => database.suspend(),
    }
}

async fn repair(database: &mut DatabaseServer, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::Kill => database.run().await?,
        Fault::Suspend => database.resume(),
    }
    Ok(())
}

/// Another process holds the write lock of the SQLite database of a node without Redis, as a backup
/// or a shell would that was forgotten.
pub async fn sqlite_locked(lab: &mut Lab) -> anyhow::Result<()> {
    sqlite_away(lab, Archive::AckAfterArchive).await
}

/// As [`sqlite_locked`], and acknowledgements don't wait for the commit.
pub async fn sqlite_locked_log(lab: &mut Lab) -> anyhow::Result<()> {
    sqlite_away(lab, Archive::AckAfterLog).await
}

async fn sqlite_away(lab: &mut Lab, promise: Archive) -> anyhow::Result<()> {
    let data_dir: PathBuf = lab.dir.join("data");
    lab.archive_below(&data_dir, promise);
    shorten_log(lab);
    let node = lab.start_lone_node("node-0").await?;
    let size = lone_size(lab);
    let mut cluster = TestCluster::with_nodes(lab, vec![node], size).await?;
    for round in 0..lab.by_form(1, 4) {
        cluster.send_for(Duration::from_secs(3)).await?;
        lab.step(format!("round {round}: the database is locked"));
        let lock = SqliteLock::acquire(&sqlite_file(&data_dir)).await?;
        observe_outage(lab, &cluster, promise).await?;
        lock.release().await?;
        lab.step("the database is unlocked");
        wait_back(lab, &cluster).await?;
    }
    cluster.finish(lab).await
}

/// Waits until all nodes report that the database is down, and checks what goes on without it.
async fn observe_outage(
    lab: &mut Lab,
    cluster: &TestCluster,
    promise: Archive,
) -> anyhow::Result<()> {
    let began = Instant::now();
    for node in &cluster.nodes {
        let reports = async || reports_down(node, promise).await;
        let description = format!("{} reports that the database is down", node.name);
        eventually(&description, DETECTION_TIMEOUT, reports).await?;
    }
    lab.report_seconds("reported as down after", began.elapsed());
    // What was on its way before is placed now.
    sleep(Duration::from_secs(1)).await;
    let before = cluster.sum_of_heads().await?;
    sleep(OBSERVED_OUTAGE).await;
    let sent = cluster.sum_of_heads().await? - before;
    lab.report("messages placed in 4 s without the database", sent);
    match promise {
        Archive::AckAfterLog => {
            lab.require(
                sent > 0,
                "no message was placed while the database was down",
            );
        }
        Archive::AckAfterArchive => {
            lab.require(
                sent == 0,
                format!("{sent} messages were placed, and could not be acknowledged"),
            );
        }
    }
    Ok(())
}

/// Whether `/health` says that the database is down, with the status that the promise demands.
async fn reports_down(node: &Node, promise: Archive) -> bool {
    let expected = match promise {
        Archive::AckAfterLog => (200, "degraded"),
        Archive::AckAfterArchive => (503, "unhealthy"),
    };
    let Some((status, health)) = node.health().await else {
        return false;
    };
    let body = (&health["status"], &health["database"]);
    (status, body.0.as_str()) == (expected.0, Some(expected.1)) && body.1 == "down"
}

async fn wait_back(lab: &mut Lab, cluster: &TestCluster) -> anyhow::Result<()> {
    let began = Instant::now();
    for node in &cluster.nodes {
        let description = format!("{} reports that the database is back", node.name);
        let is_back = async || {
            node.health()
                .await
                .is_some_and(|(status, health)| status == 200 && health["database"] == "ok")
        };
        eventually(&description, RECOVERY_TIMEOUT, is_back).await?;
    }
    lab.report_seconds("reported as back after", began.elapsed());
    Ok(())
}
