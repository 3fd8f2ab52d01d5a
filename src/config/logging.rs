//! Section: the log.

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section, Unit};
use super::parse::{Parsed, number, text};
use super::values::Values;
use crate::telemetry::log::{LogFormat, LogSettings};

const FORMAT: Key = Key {
    name: "LOG_FORMAT",
    default: KeyDefault::Value("auto"),
    summary: "`text`, `json`, or `auto`: text on a terminal, JSON elsewhere.",
    ..Key::PLAIN
};
const FILTER: Key = Key {
    name: "RUST_LOG",
    default: KeyDefault::Value("info"),
    summary: "Levels of the log, by module: `info,hubbub=debug`, for example.",
    ..Key::PLAIN
};
const LINES: Key = Key {
    name: "LOG_LINES_PER_SEC",
    default: KeyDefault::Value("500"),
    unit: Unit::PerSecond,
    summary: "Lines about connections that are written at `info`, and as many about HTTP requests.",
    help: "A line that counts the others follows a second later. The level `debug` shows all lines. \
           0: none.",
    see: "operations.md#logs",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "Logging",
    intro: "",
    keys: &[&FORMAT, &FILTER, &LINES],
};

/// The filter's syntax is checked when logging starts.
pub(super) fn parse(values: &mut Values) -> Result<LogSettings, ConfigError> {
    Ok(LogSettings {
        format: values.required(&FORMAT, format)?,
        filter: values.required(&FILTER, text)?,
        lines_per_sec: values.required(&LINES, number(0, u32::MAX.into()))?,
    })
}

fn format(text: &str) -> Parsed<LogFormat> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be auto, text or json".to_owned()),
    }
}
