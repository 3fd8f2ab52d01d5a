//! The worker of the outbox in a process of its own, which listens to nothing.

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::build::Parts;
use crate::config::Config;

/// A process that publishes the outbox's rows, and runs its jobs.
pub struct OutboxWorker {
    parts: Parts,
    /// Becomes true when nothing more is to be begun.
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    /// Tasks that may be stopped at any time.
    removals: Vec<JoinHandle<()>>,
}

impl OutboxWorker {
    /// Starts the worker. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Without a database or without Redis: a node without Redis has its rooms to itself.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        anyhow::ensure!(
            config.database.is_some(),
            "a worker needs a database (DATABASE_URL)"
        );
        anyhow::ensure!(
            config.redis.is_some(),
            "a worker needs Redis (REDIS_URL): without it each node has its rooms to itself, and \
             works on the outbox itself"
        );
        let parts = Parts::start(config).await?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Vec::new();
        if let Some(outbox) = parts.outbox.clone() {
            tasks.push(tokio::spawn(outbox.run_until(stopped.clone())));
        }
        if let Some(jobs) = parts.jobs.clone() {
            tasks.push(tokio::spawn(jobs.run(stopped)));
        }
        let removals = parts.start_removals();
        Ok(Self {
            parts,
            stop,
            tasks,
            removals,
        })
    }

    /// Claims no more rows, waits for those that are claimed, and stops.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        self.removals.iter().for_each(JoinHandle::abort);
        for task in self.tasks {
            let _ = task.await;
        }
        self.parts.stop().await;
    }
}
