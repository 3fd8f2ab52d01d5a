//! Where values come from, and which keys may stand there.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{ConfigError, Settings};

/// Names the TOML file.
const FILE_KEY: &str = "hubbub_config";
/// What some platforms call `SERVER_PORT`.
const PORT_KEY: &str = "port";

/// Keys and values as they were written, never guessed to be anything but text.
struct Texts {
    name: String,
    values: BTreeMap<String, String>,
}

impl Provider for Texts {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let values = self
            .values
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(value.clone())))
            .collect();
        Ok(Profile::Default.collect(values))
    }
}

pub(super) fn known(key: &str) -> bool {
    key == FILE_KEY || key == PORT_KEY || Settings::KEYS.contains(&key)
}

/// Lower-case keys. `PORT` becomes `SERVER_PORT`, unless that is there too.
fn texts(name: &str, pairs: impl IntoIterator<Item = (String, String)>) -> Texts {
    let mut values: BTreeMap<String, String> = pairs
        .into_iter()
        .map(|(key, value)| (key.to_lowercase(), value))
        .filter(|(key, _)| known(key))
        .collect();
    // An empty value is as if it weren't there: so a template may leave one blank.
    values.retain(|_, value| !value.is_empty());
    if let Some(port) = values.remove(PORT_KEY) {
        values.entry("server_port".to_owned()).or_insert(port);
    }
    Texts {
        name: name.to_owned(),
        values,
    }
}

fn read_dotenv(path: &Path) -> Result<Vec<(String, String)>, ConfigError> {
    let pairs = match dotenvy::from_path_iter(path) {
        Err(dotenvy::Error::Io(error)) if error.kind() == ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(ConfigError(format!(".env can't be read: {error}"))),
        Ok(pairs) => pairs,
    };
    // The error of a line would quote it, and the line may hold a secret.
    let pairs: Vec<_> = pairs.collect::<Result<_, _>>().map_err(|_| {
        ConfigError(".env has a line that isn't KEY=value (quote values with spaces)".to_owned())
    })?;
    for (key, _) in &pairs {
        if !known(&key.to_lowercase()) {
            return Err(ConfigError(format!("{key} in .env is not a key of hubbub")));
        }
    }
    Ok(pairs)
}

/// All sources, the environment winning over `.env`, and that over the TOML file.
pub(super) fn figment(
    environment: BTreeMap<String, String>,
    dotenv: &Path,
) -> Result<Figment, ConfigError> {
    let environment = texts("the environment", environment);
    let dotenv = texts(".env", read_dotenv(dotenv)?);
    let mut figment = Figment::new();
    if let Some(path) = environment
        .values
        .get(FILE_KEY)
        .or_else(|| dotenv.values.get(FILE_KEY))
    {
        let wrong = |what: String| ConfigError(format!("HUBBUB_CONFIG: {path}: {what}"));
        let content = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let toml = Toml::string(&content);
        // The rest of the message quotes the line, which may hold a secret.
        let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        let data = toml
            .data()
            .map_err(|error| wrong(first_line(error.kind.to_string())))?;
        for key in data.values().flat_map(Dict::keys) {
            if !known(key) {
                return Err(wrong(format!("{key} is not a key of hubbub")));
            }
        }
        figment = figment.merge(toml);
        if figment.find_value(PORT_KEY).is_ok() && figment.find_value("server_port").is_err() {
            let port = figment
                .find_value(PORT_KEY)
                .map_err(|error| wrong(error.to_string()))?;
            figment = figment.merge(("server_port", port));
        }
    }
    Ok(figment.merge(dotenv).merge(environment))
}

pub(super) fn address(host: &str, port: u16) -> io::Result<SocketAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (host, port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::from(ErrorKind::NotFound))
}

/// The parts as one URL; the password may hold anything.
pub(super) fn redis_url(host: &str, port: u16, password: Option<&str>) -> String {
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    match password {
        None => format!("redis://{host}:{port}"),
        Some(password) => {
            let password: String =
                url::form_urlencoded::byte_serialize(password.as_bytes()).collect();
            format!("redis://:{}@{host}:{port}", password.replace('+', "%20"))
        }
    }
}

/// The URL with its password, and every parameter that may be one, hidden.
pub(super) fn without_password(url: &str) -> String {
    let Ok(mut url) = url::Url::parse(url) else {
        return "***".to_owned();
    };
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return "***".to_owned();
    }
    // It means nothing here, so whatever it is got there by mistake.
    url.set_fragment(None);
    let hidden: Vec<(String, String)> = url
        .query_pairs()
        .map(|(key, value)| {
            let secret = key.to_lowercase().contains("password");
            (
                key.into_owned(),
                if secret {
                    "***".to_owned()
                } else {
                    value.into_owned()
                },
            )
        })
        .collect();
    if !hidden.is_empty() {
        url.query_pairs_mut().clear().extend_pairs(hidden);
    }
    url.to_string()
}
