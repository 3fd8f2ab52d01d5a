//! One line on the terminal that shows the progress of a run.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Minimum time between two updates.
const UPDATE_INTERVAL: Duration = Duration::from_millis(500);

/// The line. Nothing is written if standard error is not a terminal.
pub(crate) struct ProgressLine {
    is_terminal: bool,
    updated_at: Instant,
}

impl ProgressLine {
    pub(crate) fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            updated_at: Instant::now(),
        }
    }

    /// Replaces the line, unless the last update was less than 500 ms ago. The text is formatted
    /// only if it is written.
    pub(crate) fn update(&mut self, text: impl FnOnce() -> String) {
        if self.is_terminal && self.updated_at.elapsed() > UPDATE_INTERVAL {
            self.updated_at = Instant::now();
            self.write(&text());
        }
    }

    /// Erases the line.
    pub(crate) fn clear(&self) {
        if self.is_terminal {
            self.write("");
        }
    }

    fn write(&self, text: &str) {
        // A terminal that was closed is no reason to stop the run.
        let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
    }
}
