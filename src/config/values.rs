//! The merged values of all sources, and the one way in which sections read them.

use std::collections::BTreeMap;

use super::error::ConfigError;
use super::key::{Key, KeyDefault};
use super::parse::{Parsed, number};

/// The text that a source gave for a key.
pub(super) struct Given {
    pub text: String,
    /// The source, as error messages name it.
    pub source_name: String,
}

/// The values of all sources. Remembers the text in force for each key that was read.
pub(super) struct Values {
    /// By the key's name in lower case.
    given: BTreeMap<String, Given>,
    /// The text in force by the key's name; `None` for a key without a value.
    effective: BTreeMap<&'static str, Option<String>>,
}

impl Values {
    pub fn new(given: BTreeMap<String, Given>) -> Self {
        Self {
            given,
            effective: BTreeMap::new(),
        }
    }

    /// The value of a key with a fixed default.
    pub fn required<T>(
        &mut self,
        key: &'static Key,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Result<T, ConfigError> {
        let KeyDefault::Value(default) = key.default else {
            unreachable!("{} is read as a key with a fixed default", key.name);
        };
        let text = self.text(key).unwrap_or(default).to_owned();
        let value = parse(&text).map_err(|problem| self.error(key, problem))?;
        self.record(key, Some(text));
        Ok(value)
    }

    /// The value of a key that may be left out. An empty value counts as left out.
    pub fn optional<T>(
        &mut self,
        key: &'static Key,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(key).filter(|text| !text.is_empty()) else {
            self.record(key, None);
            return Ok(None);
        };
        let text = text.to_owned();
        let value = parse(&text).map_err(|problem| self.error(key, problem))?;
        self.record(key, Some(text));
        Ok(Some(value))
    }

    /// A number with a default that follows from other keys.
    pub fn derived(&mut self, key: &'static Key, default: u64) -> Result<u64, ConfigError> {
        let given = self.optional(key, number(0, u64::MAX))?;
        let value = given.unwrap_or(default);
        self.record(key, Some(value.to_string()));
        Ok(value)
    }

    /// Sets the text that `hubbub config` prints for a key.
    pub fn record(&mut self, key: &'static Key, text: Option<String>) {
        self.effective.insert(key.name, text);
    }

    /// An error about the key's value, with the source that set it.
    pub fn error(&self, key: &Key, problem: impl Into<String>) -> ConfigError {
        let source_name = self
            .given
            .get(&key.name.to_ascii_lowercase())
            .map(|given| given.source_name.clone());
        ConfigError::Invalid {
            key: key.name.to_owned(),
            problem: problem.into(),
            source_name,
        }
    }

    /// The text in force for each key that was read.
    pub fn into_effective(self) -> BTreeMap<&'static str, Option<String>> {
        self.effective
    }

    fn text(&self, key: &Key) -> Option<&str> {
        self.given
            .get(&key.name.to_ascii_lowercase())
            .map(|given| given.text.as_str())
    }
}
