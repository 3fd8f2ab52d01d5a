//! Faults with an archive behind the rooms: the checker compares its content with the observations of
//! the clients.

pub mod databases;
pub mod lone;
pub mod nodes;
pub mod redis;

use super::test_cluster::ClusterSize;
use crate::checker::Archive;
use crate::lab::Lab;
use crate::lab::database::{DatabaseKind, DatabaseServer};

/// Starts a database, and puts an archive in it behind the rooms of all nodes that follow.
pub async fn start_archive(
    lab: &mut Lab,
    kind: DatabaseKind,
    promise: Archive,
) -> anyhow::Result<DatabaseServer> {
    let database = DatabaseServer::start(&lab.dir, kind).await?;
    lab.archive_in(&database, promise);
    Ok(database)
}

/// Shortens the log, so that resumes and pages reach into the archive. Not for scenarios that lose
/// Redis's data: a client that has seen lost messages is sent only what the log keeps.
pub fn shorten_log(lab: &mut Lab) {
    lab.settings.push(("HISTORY_SIZE".into(), "100".into()));
}

/// One node, without watchers: a node without Redis forgets the presence of its users when it
/// restarts.
fn lone_size(lab: &Lab) -> ClusterSize {
    ClusterSize {
        nodes: 1,
        watchers_per_node: 0,
        ..ClusterSize::default_for(lab)
    }
}
