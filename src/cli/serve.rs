//! `hubbub serve`: runs a node until a signal ends it.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::SignalKind;

use super::signals::Signals;
use crate::app::App;
use crate::config::Config;
use crate::telemetry::log;

/// The drain after Ctrl-C: nobody waits for a paced drain in a terminal.
const INTERRUPT_DRAIN: Duration = Duration::from_secs(1);

pub(super) fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    log::start(&config.log)?;
    // Each connection takes a file. The soft limit is raised to the hard limit; a low hard limit was
    // set on purpose, so the node does not fail because of it.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
    runtime()?.block_on(run(config))
}

/// A runtime for as many cores as this process may use.
///
/// With one core tokio's current-thread scheduler is better: it has one queue, first come, first
/// served. The multi-thread scheduler has a short queue for each thread, and tasks that do not fit
/// into it run after all tasks that do.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = match cores {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}

async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let app = App::start(config).await?;
    tracing::info!(
        address = %app.address(),
        backplane = app.describe_backplane(),
        auth = config.identity.mode.name(),
        version = env!("CARGO_PKG_VERSION"),
        "hubbub listens"
    );
    let drain = if signals.next().await == SignalKind::interrupt() {
        INTERRUPT_DRAIN
    } else {
        config.server.drain
    };
    tokio::select! {
        () = app.drain(drain) => {
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        // A second signal ends the process at once.
        _ = signals.next() => Ok(ExitCode::FAILURE),
    }
}
