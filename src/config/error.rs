//! The reasons for which a configuration is refused.

use super::key::Key;

/// A configuration that cannot be used. The text names the key and its source, never the value:
/// a secret may have been put at the wrong key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key's value cannot be used. `problem` continues a sentence that begins with the key.
    #[error("{key} {problem}{}", in_source(.source_name.as_deref()))]
    Invalid {
        /// The key, or several joined by "and".
        key: String,
        /// The fault, for example "must be a whole number".
        problem: String,
        /// The source that set the key; `None` when no source set it.
        source_name: Option<String>,
    },
    /// A source holds a key that hubbub does not have.
    #[error("{name} is not a key of hubbub (in {source_name}){}", did_you_mean(*.nearest))]
    UnknownKey {
        /// The key, unless it may be a part of a secret.
        name: String,
        /// The source that holds it.
        source_name: &'static str,
        /// The key that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A key of hubbub has a value that is not UTF-8. Ignoring it would leave a secret unset.
    #[error("{0} in the environment is not UTF-8")]
    NotUtf8(String),
    /// `.env` exists and cannot be read.
    #[error(".env can't be read: {0}")]
    UnreadableDotenv(String),
    /// The parser's own message would quote the line, which may hold a secret.
    #[error(".env has a line that isn't KEY=value (quote values with spaces)")]
    MalformedDotenv,
    /// The TOML file cannot be read, or is not TOML.
    #[error("HUBBUB_CONFIG names a file that can't be used: {0}")]
    File(String),
}

impl ConfigError {
    /// A fault of a key that no source sets, or of several keys together.
    pub(super) fn of(key: &Key, problem: impl Into<String>) -> Self {
        Self::Invalid {
            key: key.name.to_owned(),
            problem: problem.into(),
            source_name: None,
        }
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    match nearest {
        Some(key) => format!("; did you mean {key}?"),
        None => String::new(),
    }
}

fn in_source(source_name: Option<&str>) -> String {
    match source_name {
        Some(source_name) => format!(" (in {source_name})"),
        None => String::new(),
    }
}
