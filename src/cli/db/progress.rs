//! Progress on a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The time between two updates of the line.
const INTERVAL: Duration = Duration::from_millis(200);

/// A line on stderr that shows how far a command is, if stderr is a terminal.
pub(super) struct Progress {
    what: &'static str,
    total: Option<u64>,
    done: u64,
    began: Instant,
    /// `None` if nothing is shown.
    drawn: Option<Instant>,
}

impl Progress {
    /// Counts messages, of `total` if that is known.
    pub fn new(what: &'static str, total: Option<u64>) -> Self {
        let began = Instant::now();
        let is_shown = std::io::stderr().is_terminal();
        Self {
            what,
            total,
            done: 0,
            began,
            drawn: is_shown.then_some(began),
        }
    }

    pub fn add(&mut self, messages: u64) {
        self.done += messages;
        let Some(drawn) = self.drawn else { return };
        if drawn.elapsed() >= INTERVAL {
            self.drawn = Some(Instant::now());
            let line = line(self.what, self.done, self.total, self.began.elapsed());
            // A terminal that is gone is no reason to end the work.
            let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, total: Option<u64>, took: Duration) -> String {
    let rate = done as f64 / took.as_secs_f64().max(0.001);
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{what}: {done} messages, {rate:.0}/s");
    };
    let percent = (done * 100 / total).min(100);
    let left = total.saturating_sub(done) as f64 / rate.max(1.0);
    format!("{what}: {done} of {total} messages ({percent} %), {rate:.0}/s, {left:.0} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_what_is_known() {
        let took = Duration::from_secs(2);
        let unknown = line("checking", 100, None, took);
        assert_eq!(unknown, "checking: 100 messages, 50/s");
        let known = line("copying", 100, Some(400), took);
        assert_eq!(known, "copying: 100 of 400 messages (25 %), 50/s, 6 s left");
    }
}
