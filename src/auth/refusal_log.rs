//! Logs refused tokens, at a bounded rate: anyone can send any number of them.

use std::time::Instant;

use parking_lot::Mutex;

use crate::domain::{Cost, Limiter, Rate, Rates, Refusal};

/// Lines per second, and at once after a pause.
const LINES: Rate = Rate {
    per_sec: 1,
    burst: 20,
};

#[derive(Default)]
pub(super) struct RefusalLog(Mutex<State>);

#[derive(Default)]
struct State {
    limiter: Limiter,
    /// Refusals without a line since the last line.
    unlogged: u64,
}

impl RefusalLog {
    /// Logs a refusal of a token, for a fault of the token.
    pub fn record(&self, refusal: &Refusal) {
        let Some(fault) = refusal.reason else {
            return;
        };
        if let Some(unlogged) = self.may_log(Instant::now()) {
            tracing::info!(
                reason = fault.as_str(),
                error = %refusal.text,
                unlogged,
                "a token was refused"
            );
        }
    }

    /// Whether a line may be written now, and if so, the number of refusals without one before it.
    fn may_log(&self, now: Instant) -> Option<u64> {
        let rates = Rates {
            events: LINES,
            ..Rates::default()
        };
        let mut state = self.0.lock();
        if state.limiter.spend(&rates, Cost::event(0), now).is_err() {
            state.unlogged += 1;
            return None;
        }
        Some(std::mem::take(&mut state.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_have_a_rate_and_state_how_many_refusals_had_none() {
        let (log, start) = (RefusalLog::default(), Instant::now());
        let lines = (0..1000).filter_map(|_| log.may_log(start));
        assert_eq!(lines.collect::<Vec<_>>(), [0; 20]);
        let later = start + Duration::from_secs(1);
        assert_eq!(log.may_log(later), Some(980));
        assert_eq!(log.may_log(later), None);
    }
}
