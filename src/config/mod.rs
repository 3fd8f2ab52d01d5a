//! Configuration: the command line, the environment, `.env` and a TOML file, in falling precedence.
//!
//! Every key is defined once, as a [`key::Key`] in the file of its section, and parsed once, into
//! the settings type of the part that uses it. docs/configuration.md and `.env.example` are
//! generated from the same definitions ([`docs`]).

pub(crate) mod accounts;
mod admission;
mod authorization;
mod connections;
mod database;
pub(crate) mod docs;
mod error;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
pub(crate) mod generated;
mod history;
mod identity;
mod key;
mod limits;
mod logging;
pub(crate) mod mail;
mod nearest;
mod origins;
mod parse;
mod rates;
mod redis;
mod secrets;
mod server;
mod source;
#[cfg(test)]
mod tests;
mod tokens;
mod values;
mod warnings;

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::archive::ArchiveSettings;
use crate::auth::Webhook;
use crate::backplane::BackplaneLimits;
use crate::backplane::redis::RedisSettings;
use crate::domain::Limits;
use crate::server::admission::Caps;
use crate::store::DatabaseSettings;
use crate::telemetry::log::LogSettings;

use accounts::AccountsConfig;
use connections::ConnectionSettings;
use identity::IdentitySettings;
use key::{Key, Section};
use mail::MailConfig;
use origins::OriginSettings;
use rates::{Basis, RateSettings};
use server::ServerSettings;
use values::Values;

pub(crate) use accounts::AccountKey;
pub use error::ConfigError;

/// All sections, in the order of the documentation.
const SECTIONS: [Section; 16] = [
    server::SECTION,
    origins::SECTION,
    redis::SECTION,
    database::SECTION,
    identity::SECTION,
    tokens::SECTION,
    accounts::SECTION,
    mail::SECTION,
    authorization::SECTION,
    connections::SECTION,
    limits::SECTION,
    history::SECTION,
    admission::SECTION,
    rates::SECTION,
    logging::SECTION,
    source::SECTION,
];

/// All keys, in the order of the documentation.
fn keys() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys).copied()
}

/// The values that the command line sets, in place of their keys. They are parsed as those are.
#[derive(Debug, Clone, Default)]
pub struct CommandLine {
    /// `SERVER_HOST`.
    pub host: Option<String>,
    /// `SERVER_PORT`.
    pub port: Option<String>,
    /// `REDIS_URL`.
    pub redis_url: Option<String>,
    /// `DATABASE_URL`.
    pub database_url: Option<String>,
}

impl CommandLine {
    /// The values that are set, by the names of their keys.
    fn values(&self) -> impl Iterator<Item = (String, String)> {
        let values = [
            (server::HOST.name, &self.host),
            (server::SERVER_PORT.name, &self.port),
            (redis::URL.name, &self.redis_url),
            (database::URL.name, &self.database_url),
        ];
        values
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)))
    }
}

/// A whole configuration. Every value has its final type and has been checked.
pub struct Config {
    pub(crate) server: ServerSettings,
    pub(crate) origins: OriginSettings,
    /// `None`: the node runs alone, with the embedded backplane.
    pub(crate) redis: Option<RedisSettings>,
    /// `None`: rooms are not archived.
    pub(crate) database: Option<DatabaseSettings>,
    pub(crate) archive: ArchiveSettings,
    /// Whether this node publishes the outbox's rows.
    pub(crate) runs_workers: bool,
    pub(crate) identity: IdentitySettings,
    /// `None`: there are no accounts.
    pub(crate) accounts: Option<AccountsConfig>,
    /// `None`: no mails can be sent.
    pub(crate) mail: Option<MailConfig>,
    /// The address of the application, without `/` at its end.
    pub(crate) public_url: Option<String>,
    /// Decides about joins and sends; `None`: every user may.
    pub(crate) webhook: Option<Arc<Webhook>>,
    pub(crate) connections: ConnectionSettings,
    pub(crate) limits: Limits,
    pub(crate) backplane: BackplaneLimits,
    pub(crate) caps: Caps,
    pub(crate) rates: RateSettings,
    pub(crate) log: LogSettings,
    /// Weak settings, each with its consequence.
    pub(crate) warnings: Vec<String>,
    /// The text in force by the key's name; `None` for a key without a value.
    effective: BTreeMap<&'static str, Option<String>>,
}

impl fmt::Debug for Config {
    /// As `hubbub config` prints it, without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

impl Config {
    /// Reads the process's environment, `.env` in the working directory, and the TOML file that
    /// `HUBBUB_CONFIG` names.
    ///
    /// # Errors
    /// Names the key, its source, and the fault; never the value.
    pub fn load() -> Result<Self, ConfigError> {
        Self::load_with(&CommandLine::default())
    }

    /// As [`Config::load`], with the values of the command line before all other sources.
    ///
    /// # Errors
    /// Names the key, its source, and the fault; never the value.
    pub fn load_with(command_line: &CommandLine) -> Result<Self, ConfigError> {
        Self::read(command_line, environment()?, Path::new(".env"))
    }

    /// The settings of the database alone, for commands that need nothing else: a migration need not
    /// know the node's secrets.
    ///
    /// # Errors
    /// Names the key, its source, and the fault; never the value.
    pub(crate) fn load_database(
        command_line: &CommandLine,
    ) -> Result<Option<DatabaseSettings>, ConfigError> {
        Ok(Self::load_durable(command_line)?.database)
    }

    /// How long messages are kept; `None`: for ever.
    ///
    /// # Errors
    /// Names the key, its source, and the fault; never the value.
    pub(crate) fn load_retention(
        command_line: &CommandLine,
    ) -> Result<Option<Duration>, ConfigError> {
        Ok(Self::load_durable(command_line)?.archive.retention)
    }

    fn load_durable(command_line: &CommandLine) -> Result<database::DurableSettings, ConfigError> {
        let mut values = source::read(command_line.values(), environment()?, Path::new(".env"))?;
        // A database that the command line names need not be that of the node.
        let has_redis = redis::parse(&mut values)?.is_some() && command_line.database_url.is_none();
        database::parse(&mut values, has_redis, &mut Vec::new())
    }

    /// The Redis that has the rooms' logs before the database that is configured, and the limits of
    /// these logs. `None` without Redis, and for a database that the command line names: it need not
    /// be that of the nodes.
    ///
    /// # Errors
    /// Names the key, its source, and the fault; never the value.
    pub(crate) fn load_redis(
        command_line: &CommandLine,
    ) -> Result<Option<(RedisSettings, BackplaneLimits)>, ConfigError> {
        if command_line.database_url.is_some() {
            return Ok(None);
        }
        let mut values = source::read(command_line.values(), environment()?, Path::new(".env"))?;
        let Some(redis) = redis::parse(&mut values)? else {
            return Ok(None);
        };
        Ok(Some((redis, history::parse(&mut values)?)))
    }

    /// Reads the given environment, the given `.env` file, which need not exist, and the TOML file
    /// that one of them names.
    ///
    /// # Errors
    /// Names the key, its source, and the fault; never the value.
    pub fn from_sources(
        environment: BTreeMap<String, String>,
        dotenv: &Path,
    ) -> Result<Self, ConfigError> {
        Self::read(&CommandLine::default(), environment, dotenv)
    }

    fn read(
        command_line: &CommandLine,
        environment: BTreeMap<String, String>,
        dotenv: &Path,
    ) -> Result<Self, ConfigError> {
        let warnings = source::misspelt_keys(&environment);
        let values = source::read(command_line.values(), environment, dotenv)?;
        Self::parse(values, warnings)
    }

    fn parse(mut values: Values, mut warnings: Vec<String>) -> Result<Self, ConfigError> {
        let server = server::parse(&mut values)?;
        let is_public = server.is_public();
        let redis = redis::parse(&mut values)?;
        let durable = database::parse(&mut values, redis.is_some(), &mut warnings)?;
        let has_database = durable.database.is_some();
        let tokens = tokens::parse(&mut values, has_database, &mut warnings)?;
        let webhook = authorization::parse(&mut values, &mut warnings)?;
        let secrets = tokens.as_ref().map(|tokens| tokens.secrets.clone());
        let place = durable.key_place(redis.is_some());
        let accounts = accounts::parse(&mut values, secrets.unwrap_or_default(), place)?;
        let mut accounts = accounts.filter(|_| durable.database.is_some());
        if accounts.is_some() {
            tokens::check_issuers(&mut values)?;
        }
        let identity = identity::parse(&mut values, tokens, is_public, &mut warnings)?;
        let origins = origins::parse(&mut values, identity.mode, is_public, &mut warnings)?;
        let place = mail::Server {
            is_public,
            is_proxied: origins.has_proxies(),
            port: server.address.port(),
        };
        let mail::MailSettings { mail, public_url } =
            mail::parse(&mut values, &place, &mut warnings)?;
        if let Some(accounts) = &mut accounts {
            accounts.settings.sends_mails = mail.is_some();
        }
        let sizes = limits::parse(&mut values)?;
        let connections = connections::parse(&mut values, sizes.event_bytes)?;
        let backplane = history::parse(&mut values)?;
        let basis = Basis {
            content_bytes: sizes.content_bytes,
            sockets_per_user: backplane.sockets_per_user,
            knows_addresses: origins.proxies.is_some(),
        };
        let rates = rates::parse(&mut values, &basis)?;
        let mut config = Self {
            server,
            origins,
            redis,
            database: durable.database,
            archive: durable.archive,
            runs_workers: durable.runs_workers,
            webhook,
            connections,
            limits: sizes.into_limits(&rates, identity.timeout),
            identity,
            accounts,
            mail,
            public_url,
            backplane,
            caps: admission::parse(&mut values, rates.address)?,
            rates,
            log: logging::parse(&mut values)?,
            warnings,
            effective: values.into_effective(),
        };
        let weak = warnings::find(&config);
        config.warnings.extend(weak);
        Ok(config)
    }

    /// Every key with the value in force, one per line, in the form of `.env`; secrets are hidden.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for key in keys() {
            // Absent: the two keys that only steer the reading of the sources.
            let Some(value) = self.effective.get(key.name) else {
                continue;
            };
            // Writing to a string does not fail.
            let _ = match value.as_deref() {
                None | Some("") => writeln!(out, "# {} is not set", key.name),
                Some(value) => writeln!(out, "{}={}", key.name, (key.show)(value)),
            };
        }
        out
    }
}

/// The variables of the environment, except those that are not UTF-8 and no keys of hubbub.
fn environment() -> Result<BTreeMap<String, String>, ConfigError> {
    let mut environment = BTreeMap::new();
    for (key, value) in std::env::vars_os() {
        let Ok(key) = key.into_string() else { continue };
        match value.into_string() {
            Ok(value) => {
                environment.insert(key, value);
            }
            // Ignoring the value would leave a secret unset.
            Err(_) if source::is_known(&key.to_lowercase()) => {
                return Err(ConfigError::NotUtf8(key));
            }
            Err(_) => {}
        }
    }
    Ok(environment)
}
