//! The definition of a configuration key. Parsing, `hubbub config`, `.env.example` and
//! docs/configuration.md all follow from it.

/// One configuration key: its name, its default and its documentation.
///
/// A section lists its keys as constants of this type and reads each of them once, through
/// [`Values`](super::values::Values).
#[derive(Debug)]
pub(crate) struct Key {
    /// The name in the environment and in `.env`. The TOML file has it in lower case.
    pub name: &'static str,
    pub default: KeyDefault,
    pub unit: Unit,
    /// The description: one sentence or two, in Markdown.
    pub summary: &'static str,
    /// The rest of the description: accepted forms, limits and consequences. May be empty.
    pub help: &'static str,
    /// The value shown in `.env.example` for a key without a fixed default. May be empty.
    pub example: &'static str,
    /// A document under `docs/` with more about the key, with or without an anchor. May be empty.
    pub see: &'static str,
    /// A deployment keeps the value in its secret store.
    pub secret: bool,
    /// Makes the value printable for `hubbub config`.
    pub show: fn(&str) -> String,
}

impl Key {
    /// A key without a default whose value is printed as it is. Definitions start from it.
    pub const PLAIN: Self = Self {
        name: "",
        default: KeyDefault::Unset,
        unit: Unit::None,
        summary: "",
        help: "",
        example: "",
        see: "",
        secret: false,
        show: as_it_is,
    };

    /// A key whose value is never printed.
    pub const SECRET: Self = Self {
        secret: true,
        show: hidden,
        ..Self::PLAIN
    };

    /// Whether `name` is this key's name in lower case.
    pub fn is_named(&self, name: &str) -> bool {
        self.name.len() == name.len()
            && self
                .name
                .bytes()
                .zip(name.bytes())
                .all(|(own, other)| own.to_ascii_lowercase() == other)
    }

    /// The value that `.env.example` shows.
    pub fn example(&self) -> &'static str {
        match self.default {
            KeyDefault::Value(value) if self.example.is_empty() => value,
            _ => self.example,
        }
    }
}

/// The value that is in force while no source sets the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyDefault {
    /// A fixed value, parsed in the same way as one from a source.
    Value(&'static str),
    /// A value that follows from other keys; the text describes it in Markdown.
    Derived(&'static str),
    /// None: without a value the feature is off.
    Unset,
}

/// The unit of a key's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    None,
    Bytes,
    Seconds,
    Milliseconds,
    PerSecond,
    BytesPerSecond,
    Hours,
    Days,
}

impl Unit {
    /// The unit as documentation writes it after a number.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::PerSecond => "per second",
            Self::BytesPerSecond => "bytes per second",
            Self::Hours => "hours",
            Self::Days => "days",
        }
    }
}

/// Keys that belong together: one file of this module, one table in docs/configuration.md.
#[derive(Debug)]
pub(crate) struct Section {
    pub title: &'static str,
    /// Printed below the title. May be empty.
    pub intro: &'static str,
    pub keys: &'static [&'static Key],
}

fn as_it_is(value: &str) -> String {
    value.to_owned()
}

fn hidden(_: &str) -> String {
    "***".to_owned()
}

/// A URL without the values of its query: a webhook's URL may carry a key there.
pub(super) fn url_without_query(url: &str) -> String {
    match url.split_once('?') {
        Some((address, _)) => format!("{address}?***"),
        None => url.to_owned(),
    }
}

/// The URL with its password, and every parameter that may be a password, hidden.
pub(super) fn url_without_password(url: &str) -> String {
    let Ok(mut url) = url::Url::parse(url) else {
        return "***".to_owned();
    };
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return "***".to_owned();
    }
    // A fragment has no meaning in these URLs. It may be the rest of a password with a '#'.
    url.set_fragment(None);
    let parameters: Vec<(String, String)> = url
        .query_pairs()
        .map(|(key, value)| {
            let is_secret = key.to_lowercase().contains("password");
            let value = if is_secret { "***".into() } else { value };
            (key.into_owned(), value.into_owned())
        })
        .collect();
    if !parameters.is_empty() {
        url.query_pairs_mut().clear().extend_pairs(parameters);
    }
    url.to_string()
}
