//! The log: text on a terminal, JSON elsewhere, on standard error. No token is ever logged.

use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer};

/// The format of log lines (`LOG_FORMAT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For log collectors.
    Json,
}

/// How to log.
#[derive(Debug, Clone)]
pub struct LogSettings {
    pub format: LogFormat,
    /// Levels by module, in the syntax of `RUST_LOG`.
    pub filter: String,
    /// Lines about connections that are written per second, and as many about HTTP requests.
    pub lines_per_sec: u32,
}

/// Logging that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The parser's own message may quote the value, which may be a misplaced secret.
    #[error("RUST_LOG must be a list of log levels, such as info or info,hubbub=debug")]
    Filter,
    #[error("logging could not be started: {0}")]
    AlreadyStarted(#[from] TryInitError),
}

/// Starts logging to standard error.
///
/// # Errors
/// When the filter cannot be parsed, or logging was started before.
pub fn start(settings: &LogSettings) -> Result<(), LogError> {
    // The Redis client warns of every reconnect. The node itself logs the consequence once.
    // A filter may ask for more.
    let filter = format!("fred=error,{}", settings.filter);
    let filter = EnvFilter::try_new(filter).map_err(|_| LogError::Filter)?;
    let is_terminal = std::io::stderr().is_terminal();
    let is_json = match settings.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !is_terminal,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    if is_json {
        let lines = lines.json().flatten_event(true);
        let lines = lines.with_filter(filter_fn(may_be_logged));
        registry.with(lines).try_init()?;
    } else {
        let lines = lines.with_ansi(is_terminal);
        let lines = lines.with_filter(filter_fn(may_be_logged));
        registry.with(lines).try_init()?;
    }
    Ok(())
}

/// False for the trace level of the WebSocket library: it would log every message, and with it the
/// tokens of `authenticate`, even if the filter asks for it.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let is_websocket_library = ["tungstenite", "tokio_tungstenite"]
        .iter()
        .any(|library| metadata.target().starts_with(library));
    !(is_websocket_library && *metadata.level() == Level::TRACE)
}
