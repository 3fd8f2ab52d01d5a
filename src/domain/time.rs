//! Timestamps in milliseconds, and their text on the wire.

use std::cell::Cell;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::macros::format_description;

/// Milliseconds since 1970 in UTC. In a cluster they come from Redis's clock, never from a node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This machine's clock, for the embedded backplane, where it is the only clock.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// RFC 3339 in UTC with milliseconds: `2026-01-31T10:00:00.000Z`.
    #[must_use]
    pub fn text(self) -> TimestampText {
        let millis_since_1970 = self.0.min(LAST_FORMATTED);
        let (second, millis) = (millis_since_1970 / 1000, millis_since_1970 % 1000);
        // Every message carries its time, and most share their second with the message before.
        let (_, mut text) = LAST_SECOND
            .get()
            .filter(|(last, _)| *last == second)
            .unwrap_or_else(|| {
                let written = (second, format_second(second));
                LAST_SECOND.set(Some(written));
                written
            });
        for (place, divisor) in [(20, 100), (21, 10), (22, 1)] {
            text[place] = b'0' + (millis / divisor % 10) as u8;
        }
        TimestampText(text)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

/// The text of a timestamp.
#[derive(Debug, Clone, Copy)]
pub struct TimestampText(TextBytes);

impl TimestampText {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The end of the year 9999; later times have no text of four digits for the year.
const LAST_FORMATTED: u64 = 253_402_300_799_999;

/// The bytes of a timestamp's text.
type TextBytes = [u8; 24];

thread_local! {
    /// The second that was formatted last, and its text.
    static LAST_SECOND: Cell<Option<(u64, TextBytes)>> = const { Cell::new(None) };
}

/// Formats a second of Unix time up to [`LAST_FORMATTED`], with `.000` for the milliseconds.
fn format_second(second: u64) -> TextBytes {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].000Z");
    let text = i64::try_from(second)
        .ok()
        .and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok())
        .and_then(|at| at.format(format).ok())
        .and_then(|text| text.into_bytes().try_into().ok());
    text.expect("a time before the year 10000 can be formatted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_rfc_3339_with_milliseconds() {
        assert_eq!(
            Timestamp(1_769_853_600_007).to_string(),
            "2026-01-31T10:00:00.007Z"
        );
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            Timestamp(1_769_853_600_999).to_string(),
            "2026-01-31T10:00:00.999Z"
        );
        assert_eq!(
            Timestamp(1_769_853_601_000).to_string(),
            "2026-01-31T10:00:01.000Z"
        );
        assert_eq!(
            Timestamp(253_402_300_799_999).to_string(),
            "9999-12-31T23:59:59.999Z"
        );
        assert_eq!(Timestamp(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
