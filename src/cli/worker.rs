//! `hubbub worker`: publishes the outbox's rows and runs its jobs until a signal ends it.

use std::process::ExitCode;

use super::serve::runtime;
use super::signals::Signals;
use crate::app::OutboxWorker;
use crate::config::Config;
use crate::telemetry::log;

pub(super) fn work(config: &Config) -> anyhow::Result<ExitCode> {
    log::start(&config.log)?;
    runtime()?.block_on(run(config))
}

async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let worker = OutboxWorker::start(config).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        "hubbub works on the outbox"
    );
    signals.next().await;
    tokio::select! {
        () = worker.stop() => {
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        // A second signal ends the process at once.
        _ = signals.next() => Ok(ExitCode::FAILURE),
    }
}
