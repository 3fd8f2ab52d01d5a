//! Logs: text on a terminal, JSON elsewhere, levels by `RUST_LOG`. No token ever gets into them.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

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
    // What is under plain WebSockets would write every message down, and with it the tokens of `authenticate`, whatever is asked.
    let filter = format!("fred=error,{filter},tungstenite=debug,tokio_tungstenite=debug");
    let filter = EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("RUST_LOG: {error}"))?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if format == LogFormat::Json || (format == LogFormat::Auto && !terminal) {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(terminal).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("logging could not be started: {error}"))
}
