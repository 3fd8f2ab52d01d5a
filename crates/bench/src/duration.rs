//! Durations on the command line.

use std::time::Duration;

/// 100 years in seconds. A longer duration is a mistake, and would overflow the clock.
const LONGEST_SECS: u64 = 3_155_760_000;

/// Parses a whole number of seconds, or a number with the unit `s`, `m`, `h` or `d`.
///
/// # Errors
/// If the unit is unknown, the number is missing or zero, or the duration exceeds 100 years (36,525
/// days). The text is for the terminal.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor: u64 = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("must be a number of seconds, or end in s, m, h or d".to_owned()),
    };
    let seconds = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    match seconds {
        Some(seconds) if (1..=LONGEST_SECS).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be from 1 second to 36525 days".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_known_unit_and_a_value_within_bounds() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in ["", "0", "h", "5w", "-1", "99999999999999999999", "36526d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
