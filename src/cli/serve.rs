//! Runs a node until it is told to end.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::config::Config;
use crate::telemetry::log;

/// Who presses Ctrl-C doesn't want to wait for a paced drain.
const HASTY_DRAIN: Duration = Duration::from_secs(1);

pub(super) fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    log::start(config.log_format, &config.settings.rust_log)?;
    // Each connection takes a file; who set a hard limit meant that one.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
    runtime()?.block_on(run(config))
}

/// A runtime for as many cores as this process may use. For one of them tokio's other scheduler is the better: it has one queue,
/// first come, first served. The one for several has a short queue for each thread, and what doesn't fit there comes after
/// everything that does.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = match cores {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}

async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let app = App::start(config).await?;
    tracing::info!(
        address = %app.address(),
        backplane = app.describe_backplane(),
        auth = format!("{:?}", config.auth_mode).to_lowercase(),
        version = env!("CARGO_PKG_VERSION"),
        "hubbub listens"
    );
    let over = tokio::select! {
        _ = terminate.recv() => Duration::from_secs(config.settings.drain_secs),
        _ = interrupt.recv() => HASTY_DRAIN,
    };
    tokio::select! {
        () = app.drain(over) => {
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        // Told twice: at once.
        _ = terminate.recv() => Ok(ExitCode::FAILURE),
        _ = interrupt.recv() => Ok(ExitCode::FAILURE),
    }
}
