//! Logs: text on a terminal, JSON elsewhere, levels by `RUST_LOG`. No token ever gets into them.

use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// How lines look (`LOG_FORMAT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For collectors.
    Json,
}

/// Starts logging to standard error. `filter` is `RUST_LOG`'s syntax.
///
/// # Errors
/// When the filter can't be understood, or logging was started before.
pub fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    // The Redis client warns of every reconnect; the node says itself, once, what that means. A filter may ask for more.
    let filter = format!("fred=error,{filter}");
    let filter =
        EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("RUST_LOG: {error}"))?;
    let terminal = std::io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let started = if format == LogFormat::Json || (format == LogFormat::Auto && !terminal) {
        registry
            .with(
                layer
                    .json()
                    .flatten_event(true)
                    .with_filter(filter_fn(is_harmless)),
            )
            .try_init()
    } else {
        registry
            .with(
                layer
                    .with_ansi(terminal)
                    .with_filter(filter_fn(is_harmless)),
            )
            .try_init()
    };
    started.map_err(|error| anyhow::anyhow!("logging could not be started: {error}"))
}

/// What is under plain WebSockets would write every message down, and with it the tokens of `authenticate`, whatever the filter asks.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    let is_under = ["tungstenite", "tokio_tungstenite"]
        .iter()
        .any(|under| metadata.target().starts_with(under));
    !(is_under && *metadata.level() == Level::TRACE)
}
