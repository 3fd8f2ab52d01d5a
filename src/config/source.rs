//! Where values come from: the command line, the environment, `.env` and a TOML file, and which keys
//! each may hold.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::ConfigError;
use super::key::{Key, Section};
use super::nearest::{is_service_link, nearest_key};
use super::values::{Given, Values};
use super::{keys, server};

const COMMAND_LINE: &str = "the command line";
const ENVIRONMENT: &str = "the environment";
const DOTENV: &str = ".env";
const FILE: &str = "the TOML file";
/// The name of `SERVER_PORT` in lower case, which `PORT` stands in for.
const SERVER_PORT: &str = "server_port";
/// The longest unknown key that an error message shows.
const SHOWN_KEY_BYTES: usize = 40;

const HUBBUB_CONFIG: Key = Key {
    name: "HUBBUB_CONFIG",
    summary: "TOML file with the same keys in lower case.",
    help: "It is read when the environment or `.env` names it.",
    example: "hubbub.toml",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "Configuration file",
    intro: "",
    keys: &[&HUBBUB_CONFIG],
};

/// The values of one source under its name, with keys in lower case.
struct Source {
    name: &'static str,
    values: Dict,
}

impl Source {
    /// Keeps the keys that hubbub has. `PORT` becomes `SERVER_PORT`, unless the source has that too.
    fn new(name: &'static str, mut values: Dict) -> Self {
        values.retain(|key, _| is_known(key));
        let port = values
            .keys()
            .find(|key| server::PORT.is_named(key))
            .cloned();
        if let Some(port) = port.and_then(|key| values.remove(&key)) {
            values.entry(SERVER_PORT.to_owned()).or_insert(port);
        }
        Self { name, values }
    }

    /// A source of texts. An empty value counts as left out, so that a template may leave one blank.
    fn of_texts(name: &'static str, pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let pairs = pairs.into_iter();
        let mut values: Dict = pairs
            .map(|(key, value)| (key.to_lowercase(), Value::from(value)))
            .collect();
        values.retain(|_, value| value.as_str() != Some(""));
        Self::new(name, values)
    }

    /// The path of the TOML file, if this source names one.
    fn file(&self) -> Option<&str> {
        let (_, path) = self
            .values
            .iter()
            .find(|(key, _)| HUBBUB_CONFIG.is_named(key))?;
        path.as_str()
    }
}

impl Provider for Source {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// Whether hubbub has a key of this name in lower case.
pub(super) fn is_known(name: &str) -> bool {
    keys().any(|key| key.is_named(name))
}

/// A warning for each key of the environment that is no key of hubbub, but is spelt almost like one.
/// Most keys of the environment belong to other programs, so none is an error.
pub(super) fn misspelt_keys(environment: &BTreeMap<String, String>) -> Vec<String> {
    let unknown = environment
        .iter()
        .filter(|(key, value)| !is_known(&key.to_lowercase()) && !is_service_link(key, value));
    unknown
        .filter_map(|(key, _)| {
            let nearest = nearest_key(key)?;
            Some(format!(
                "{key} in {ENVIRONMENT} is not a key of hubbub and has no effect; did you mean \
                 {nearest}?"
            ))
        })
        .collect()
}

/// The values of all sources. The command line takes precedence over the environment, the
/// environment over `.env`, and `.env` over the TOML file.
pub(super) fn read(
    command_line: impl IntoIterator<Item = (String, String)>,
    environment: BTreeMap<String, String>,
    dotenv: &Path,
) -> Result<Values, ConfigError> {
    let environment = Source::of_texts(ENVIRONMENT, environment);
    let dotenv = Source::of_texts(DOTENV, read_dotenv(dotenv)?);
    let mut figment = Figment::new();
    if let Some(path) = environment.file().or(dotenv.file()) {
        figment = figment.merge(read_toml(Path::new(path))?);
    }
    let command_line = Source::of_texts(COMMAND_LINE, command_line);
    texts(&figment.merge(dotenv).merge(environment).merge(command_line))
}

/// The pairs of the `.env` file, which need not exist.
fn read_dotenv(path: &Path) -> Result<Vec<(String, String)>, ConfigError> {
    let lines = match dotenvy::from_path_iter(path) {
        Ok(lines) => lines,
        Err(dotenvy::Error::Io(error)) if error.kind() == ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        Err(dotenvy::Error::Io(error)) => {
            return Err(ConfigError::UnreadableDotenv(error.to_string()));
        }
        Err(_) => return Err(ConfigError::MalformedDotenv),
    };
    let pairs: Vec<(String, String)> = lines
        .collect::<Result<_, _>>()
        .map_err(|_| ConfigError::MalformedDotenv)?;
    for (key, _) in &pairs {
        if !is_known(&key.to_lowercase()) {
            return Err(unknown_key(key, DOTENV));
        }
    }
    Ok(pairs)
}

fn read_toml(path: &Path) -> Result<Source, ConfigError> {
    let content =
        std::fs::read_to_string(path).map_err(|error| ConfigError::File(error.to_string()))?;
    let data = Toml::string(&content).data().map_err(|error| {
        // The rest of the message quotes the line, which may hold a secret.
        let text = error.kind.to_string();
        ConfigError::File(text.lines().next().unwrap_or_default().to_owned())
    })?;
    for key in data.values().flat_map(Dict::keys) {
        if !is_known(key) {
            return Err(unknown_key(key, FILE));
        }
    }
    let values = data.into_values().flatten().collect();
    Ok(Source::new(FILE, values))
}

/// An error that shows the unknown key only if it looks like a misspelt key, and not like a part of
/// a secret: letters of one case and underscores, with digits only beside an underscore.
fn unknown_key(key: &str, source_name: &'static str) -> ConfigError {
    let has_one_case = key.to_uppercase() == key || key.to_lowercase() == key;
    let is_word = key
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let may_be_encoded = key.contains(|c: char| c.is_ascii_digit()) && !key.contains('_');
    let name = if has_one_case && is_word && !may_be_encoded && key.len() <= SHOWN_KEY_BYTES {
        key.to_owned()
    } else {
        "an entry whose name is not shown, as it may be a secret,".to_owned()
    };
    ConfigError::UnknownKey {
        name,
        source_name,
        nearest: nearest_key(key),
    }
}

/// The merged values as text, each with its source.
fn texts(figment: &Figment) -> Result<Values, ConfigError> {
    let data = figment
        .data()
        .map_err(|_| ConfigError::File("its values can't be merged".to_owned()))?;
    let mut given = BTreeMap::new();
    for (key, value) in data.into_values().flatten() {
        let source_name = match figment.get_metadata(value.tag()) {
            Some(metadata) => metadata.name.clone().into_owned(),
            None => FILE.to_owned(),
        };
        let Some(text) = text_of(&value) else {
            return Err(ConfigError::Invalid {
                key: key.to_uppercase(),
                problem: "must be a text or a number".to_owned(),
                source_name: Some(source_name),
            });
        };
        given.insert(key, Given { text, source_name });
    }
    Ok(Values::new(given))
}

/// TOML has numbers and booleans too; `None` for its tables, lists and dates.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Char(_, character) => Some(character.to_string()),
        Value::Bool(_, flag) => Some(flag.to_string()),
        Value::Num(_, number) => {
            let unsigned = number.to_u128().map(|number| number.to_string());
            let signed = || number.to_i128().map(|number| number.to_string());
            let float = || number.to_f64().map(|number| number.to_string());
            unsigned.or_else(signed).or_else(float)
        }
        Value::Empty(..) | Value::Dict(..) | Value::Array(..) => None,
    }
}
