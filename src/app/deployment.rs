//! Notices other deployments that use the database of a node.
//!
//! Each node records the name of its deployment in the database when it starts, and records it again
//! when it finds another one: so of two deployments that run at once, both notice it. A deployment
//! that has ended is noticed once, and its successor is not stopped.

use std::sync::Arc;
use std::time::Duration;

use crate::backplane::redis;
use crate::config::Config;
use crate::store::ArchiveTransfer as _;
use crate::store::sql::SqlStore;

/// The time between two checks.
const INTERVAL: Duration = Duration::from_secs(60);
/// The beginning of the names of deployments without Redis. The number of the run follows.
const LONE: &str = "memory ";

/// The name of this node's deployment. `run` is the run of a lone node.
///
/// # Errors
/// If `REDIS_URL` can't be used.
pub(super) fn name(config: &Config, run: u64) -> anyhow::Result<String> {
    Ok(match &config.redis {
        Some(settings) => redis::deployment(settings)?,
        None => format!("{LONE}{run}"),
    })
}

/// Records the name of the deployment at the start of a node, and warns if another one was recorded.
///
/// # Errors
/// The error of the store.
pub(super) async fn claim(store: &SqlStore, own: &str) -> crate::store::Result<()> {
    let Some(found) = store.claim_log(own).await? else {
        return Ok(());
    };
    if !is_earlier_run(&found, own) {
        tracing::warn!(
            found,
            own,
            "another deployment has used this database: each deployment needs a database of its own, \
             unless the other one has ended"
        );
    }
    Ok(())
}

/// Checks again and again that no other deployment has started on the database.
pub(super) async fn watch(store: Arc<SqlStore>, own: String) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Ok(Some(found)) = store.claim_log(&own).await {
            tracing::error!(
                found,
                own,
                "another deployment uses this database now: rooms mix and messages are lost. Stop one \
                 of the two, and give it a database of its own"
            );
        }
    }
}

/// Whether a lone node was started after another one, as at every restart.
fn is_earlier_run(found: &str, own: &str) -> bool {
    found.starts_with(LONE) && own.starts_with(LONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_of_a_lone_node_is_no_other_deployment() {
        assert!(is_earlier_run("memory 1", "memory 2"));
        assert!(!is_earlier_run("memory 1", "redis hubbub: 0"));
        assert!(!is_earlier_run("redis hubbub: 0", "redis hubbub: 1"));
    }
}
