//! Section: the log.

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section};
use super::parse::{Parsed, text};
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

pub(super) const SECTION: Section = Section {
    title: "Logging",
    intro: "",
    keys: &[&FORMAT, &FILTER],
};

/// The filter's syntax is checked when logging starts.
pub(super) fn parse(values: &mut Values) -> Result<LogSettings, ConfigError> {
    Ok(LogSettings {
        format: values.required(&FORMAT, format)?,
        filter: values.required(&FILTER, text)?,
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
