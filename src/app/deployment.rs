//! Notices other deployments that use the database of a node.
//!
//! The database has the name of one deployment. Each node compares it with that of its own deployment,
//! at its start and then again and again, and replaces it if it is another one. So two deployments that
//! run at once keep finding each other's names. A deployment that has ended is found once, and its
//! successor is not stopped.
//!
//! The name of a deployment with Redis changes when Redis loses its data. A node reads it for each
//! check, so it knows a change of its own name from another deployment.

use std::sync::Arc;
use std::time::Duration;

use crate::backplane::Lifecycle;
use crate::store::sql::SqlStore;
use crate::store::{ArchiveTransfer as _, Result};

/// The time between two checks. Each of two deployments finds the other's name within two intervals of
/// its start: one until the other has replaced the name, and one until its own next check.
const INTERVAL: Duration = Duration::from_secs(30);
/// The time between two checks before the first one that succeeds.
const FIRST_INTERVAL: Duration = Duration::from_secs(5);
/// The beginning of the names of deployments without Redis. The number of the run follows.
const LONE: &str = "memory ";

/// Compares the name of the deployment in the database with that of this node's own.
pub(super) struct DeploymentWatch {
    store: Arc<SqlStore>,
    backplane: Arc<dyn Lifecycle>,
    /// The run of a lone node; not used with Redis.
    run: u64,
    /// The name of this node's deployment at the last check, when it was also recorded in the database.
    last: Option<String>,
}

/// Another name that was recorded in the database.
#[derive(Debug, PartialEq, Eq)]
struct Replaced {
    found: String,
    own: String,
    meaning: Meaning,
}

#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// The number of an earlier run of a lone node, as at every restart.
    EarlierRun,
    /// The first check of this node: the other deployment may have ended.
    EarlierDeployment,
    /// The name of this node's deployment has changed since its last check.
    Renamed,
    /// Another deployment has recorded its name since the last check.
    OtherDeployment,
}

impl DeploymentWatch {
    /// Makes the first check, unless Redis is down. `run` is the run of a lone node.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn start(
        store: Arc<SqlStore>,
        backplane: Arc<dyn Lifecycle>,
        run: u64,
    ) -> Result<Self> {
        let mut watch = Self {
            store,
            backplane,
            run,
            last: None,
        };
        watch.check_and_report().await?;
        Ok(watch)
    }

    /// Repeats the check for ever.
    pub async fn run(mut self) {
        loop {
            let interval = match self.last {
                Some(_) => INTERVAL,
                None => FIRST_INTERVAL,
            };
            tokio::time::sleep(interval).await;
            // After an error the next check tries again.
            let _ = self.check_and_report().await;
        }
    }

    async fn check_and_report(&mut self) -> Result<()> {
        if let Some(replaced) = self.check().await? {
            replaced.report();
        }
        Ok(())
    }

    /// Records the name of this node's deployment. Returns the name that was recorded before, if it was
    /// another one. Does nothing while Redis is down.
    async fn check(&mut self) -> Result<Option<Replaced>> {
        loop {
            // This node reads its own name last, and replaces only the name that it has read before:
            // so after Redis has lost its data, no node replaces the new name by the former one.
            let recorded = self.store.recorded_log().await?;
            let Some(own) = self.own_name().await else {
                return Ok(None);
            };
            if recorded.as_ref() == Some(&own) {
                self.last = Some(own);
                return Ok(None);
            }
            if self.store.record_log(&own, recorded.as_deref()).await? {
                let last = self.last.replace(own.clone());
                return Ok(recorded.map(|found| Replaced::new(found, own, last.as_deref())));
            }
            // Another node has recorded a name meanwhile.
        }
    }

    /// The name of this node's deployment; `None` while Redis is down.
    async fn own_name(&self) -> Option<String> {
        let shared = self.backplane.deployment().await.ok()?;
        Some(shared.unwrap_or_else(|| format!("{LONE}{}", self.run)))
    }
}

impl Replaced {
    /// `last` is the name of this node's deployment at its last check.
    fn new(found: String, own: String, last: Option<&str>) -> Self {
        let meaning = match last {
            None if found.starts_with(LONE) && own.starts_with(LONE) => Meaning::EarlierRun,
            None => Meaning::EarlierDeployment,
            Some(last) if last != own => Meaning::Renamed,
            Some(_) => Meaning::OtherDeployment,
        };
        Self {
            found,
            own,
            meaning,
        }
    }

    fn report(&self) {
        let Self { found, own, .. } = self;
        match self.meaning {
            Meaning::EarlierRun => {}
            Meaning::EarlierDeployment => tracing::warn!(
                found,
                own,
                "another deployment has used this database: each deployment needs a database of its \
                 own, unless the other one has ended or is this one before Redis lost its data"
            ),
            Meaning::Renamed => tracing::info!(
                found,
                own,
                "this deployment has another id, because Redis has lost its data"
            ),
            Meaning::OtherDeployment => tracing::error!(
                found,
                own,
                "another deployment uses this database now: rooms mix and messages are lost. Stop one \
                 of the two, and give it a database of its own"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
