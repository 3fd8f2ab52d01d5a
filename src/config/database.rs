//! Section: the database that keeps every message.

use std::path::PathBuf;
use std::time::Duration;

use super::accounts::KeyPlace;
use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section, Unit, url_without_password};
use super::parse::{Parsed, number, path, text};
use super::secrets::password_weakness;
use super::values::Values;
use crate::archive::ArchiveSettings;
use crate::store::DatabaseSettings;
use crate::store::sql::{DatabaseUrl, SqliteLocation};

/// The name of the database file in `DATA_DIR`.
const FILE_NAME: &str = "hubbub.db";
const SECONDS_PER_DAY: u64 = 86_400;

pub(super) const URL: Key = Key {
    name: "DATABASE_URL",
    default: KeyDefault::Derived(
        "`sqlite://<DATA_DIR>/hubbub.db` on a node without Redis, `none` with Redis",
    ),
    summary: "The database that keeps every message of every room.",
    help: "`sqlite://path` (for a node without Redis; with `?synchronous=full` a commit survives a \
           power cut too), `postgres://user:password@host/name`, \
           `mysql://user:password@host/name` (MySQL 8, MariaDB 10.6 or newer), `sqlite::memory:` \
           for tests, or `none`: then rooms keep what `HISTORY_SIZE` and `HISTORY_TTL_SECS` allow, \
           and a node without Redis forgets everything at a restart.",
    example: "postgres://hubbub@127.0.0.1/hubbub",
    see: "database.md",
    secret: true,
    show: url_or_none,
    ..Key::PLAIN
};
const DSN: Key = Key {
    name: "MYSQL_DSN",
    summary: "The MySQL or MariaDB database, for a node without `DATABASE_URL`.",
    help: "A URL, or the form of Go's driver: `user:password@tcp(host:3306)/name`. Of the latter's \
           parameters only `tls` has an effect.",
    example: "hubbub@tcp(127.0.0.1:3306)/hubbub",
    see: "database.md#addresses",
    secret: true,
    show: dsn_without_password,
    ..Key::PLAIN
};
const DATA_DIR: Key = Key {
    name: "DATA_DIR",
    default: KeyDefault::Value("./data"),
    summary: "Directory of the database file of a node that has neither Redis nor a database.",
    help: "It is created when it is missing, for the node's user only (mode 700).",
    ..Key::PLAIN
};
const ACK_AFTER: Key = Key {
    name: "ACK_AFTER",
    default: KeyDefault::Derived("`log` with Redis, `archive` without"),
    summary: "When a message is acknowledged: once it is in the room's log (`log`), or once the \
              database has committed it too (`archive`).",
    help: "With Redis, `archive` makes acknowledged messages survive the loss of Redis; sends then \
           fail while the database is down.",
    example: "archive",
    see: "database.md#what-an-acknowledgement-means",
    ..Key::PLAIN
};
const BACKLOG: Key = Key {
    name: "ARCHIVE_BACKLOG",
    default: KeyDefault::Value("100000"),
    summary: "Messages of a node that may wait for the database. Beyond it, or beyond 256 MiB, the \
              node refuses sends with `unavailable`.",
    ..Key::PLAIN
};
const RETENTION: Key = Key {
    name: "RETENTION_DAYS",
    default: KeyDefault::Value("0"),
    unit: Unit::Days,
    summary: "Age at which messages are deleted from the database. `0`: never.",
    help: "At most 36500.",
    see: "database.md#retention",
    ..Key::PLAIN
};
const WORKERS: Key = Key {
    name: "WORKERS",
    default: KeyDefault::Value("on"),
    summary: "Whether this node publishes the announcements in the outbox of the database, and runs its \
              jobs, such as mails: `on`, or `off` where other nodes or `hubbub worker` do it.",
    help: "A node publishes its own announcements at once. Those of a node with `off` are found by the \
           workers of others, which ask the database four times a second: so a removal or a log-out \
           takes effect up to 0.25 s later. With `off` on every node, and without `hubbub worker`, no \
           announcement is published, and no mail is sent.",
    see: "accounts.md#the-outbox",
    ..Key::PLAIN
};
const MIGRATE: Key = Key {
    name: "MIGRATE",
    default: KeyDefault::Value("on"),
    summary: "Whether a node applies pending migrations of the database when it starts: `on`, or \
              `off` where `hubbub migrate up` does it.",
    help: "With `off` a pending migration ends the start.",
    see: "database.md#upgrades",
    ..Key::PLAIN
};
const POOL: Key = Key {
    name: "DATABASE_POOL",
    default: KeyDefault::Value("8"),
    summary: "Connections to the database that a node has at most. The writer of messages has one \
              more.",
    help: "1 to 1000.",
    see: "database.md#sizing",
    ..Key::PLAIN
};
pub(super) const SECTION: Section = Section {
    title: "Database",
    intro: "A database keeps every message, so that clients resume and read back as far as it \
            reaches.",
    keys: &[
        &URL, &DSN, &DATA_DIR, &ACK_AFTER, &BACKLOG, &RETENTION, &MIGRATE, &WORKERS, &POOL,
    ],
};

/// How rooms are kept in a database.
#[derive(Debug)]
pub(super) struct DurableSettings {
    /// `None`: rooms are not archived.
    pub database: Option<DatabaseSettings>,
    pub archive: ArchiveSettings,
    pub runs_workers: bool,
    /// `DATA_DIR`, which need not exist.
    data_dir: PathBuf,
}

impl DurableSettings {
    /// Where the key of accounts is kept if none is configured.
    pub fn key_place(&self, has_redis: bool) -> KeyPlace {
        match &self.database {
            _ if has_redis => KeyPlace::None,
            Some(DatabaseSettings {
                url: DatabaseUrl::Sqlite(url),
                ..
            }) if url.location == SqliteLocation::Memory => KeyPlace::Memory,
            _ => KeyPlace::DataDir(self.data_dir.clone()),
        }
    }
}

/// The value of `DATABASE_URL`.
enum Location {
    Database {
        url: DatabaseUrl,
        password: Option<String>,
    },
    None,
}

pub(super) fn parse(
    values: &mut Values,
    has_redis: bool,
    warnings: &mut Vec<String>,
) -> Result<DurableSettings, ConfigError> {
    let data_dir = values.required(&DATA_DIR, path)?;
    let (url, created) = locate(values, has_redis, data_dir.clone(), warnings)?;
    let acknowledge_commits = values.optional(&ACK_AFTER, acknowledges_commits)?;
    let pool = values.required(&POOL, number(1, 1000))?;
    let migrates = values.required(&MIGRATE, on_or_off)?;
    let runs_workers = values.required(&WORKERS, on_or_off)?;
    let days: u64 = values.required(&RETENTION, number(0, 36_500))?;
    let backlog = values.required(&BACKLOG, number(1, u64::MAX))?;
    if url.is_none() && acknowledge_commits.is_some() {
        warnings.push("ACK_AFTER has no effect without a database".to_owned());
    }
    if url.is_none() && days > 0 {
        warnings.push("RETENTION_DAYS has no effect without a database".to_owned());
    }
    let acknowledge_commits = url.is_some() && acknowledge_commits.unwrap_or(!has_redis);
    let shown = if acknowledge_commits {
        "archive"
    } else {
        "log"
    };
    values.record(&ACK_AFTER, Some(shown.to_owned()));
    Ok(DurableSettings {
        database: url.map(|url| DatabaseSettings {
            url,
            data_dir: created,
            pool,
            migrates,
        }),
        archive: ArchiveSettings {
            acknowledge_commits,
            backlog,
            retention: (days > 0).then(|| Duration::from_secs(days * SECONDS_PER_DAY)),
        },
        runs_workers,
        data_dir,
    })
}

/// The database, and the directory to create for its file.
fn locate(
    values: &mut Values,
    has_redis: bool,
    data_dir: PathBuf,
    warnings: &mut Vec<String>,
) -> Result<(Option<DatabaseUrl>, Option<PathBuf>), ConfigError> {
    let location = values.optional(&URL, location)?;
    // Only text: beside DATABASE_URL it may belong to another program.
    let dsn = values.optional(&DSN, text)?;
    if location.is_some() && dsn.is_some() {
        warnings.push("MYSQL_DSN has no effect: DATABASE_URL, which is set too, counts".to_owned());
    }
    let (url, password) = match (location, dsn) {
        (Some(Location::None), _) => return Ok((None, None)),
        (Some(Location::Database { url, password }), _) => (url, password),
        (None, Some(dsn)) => {
            let parts = DatabaseUrl::parse_dsn(&dsn);
            parts.map_err(|error| values.error(&DSN, error.to_string()))?
        }
        (None, None) if has_redis => {
            values.record(&URL, Some("none".to_owned()));
            return Ok((None, None));
        }
        (None, None) => {
            let url = DatabaseUrl::sqlite(&data_dir.join(FILE_NAME));
            values.record(&URL, Some(url.to_string()));
            return Ok((Some(url), Some(data_dir)));
        }
    };
    if has_redis && matches!(url, DatabaseUrl::Sqlite(_)) {
        return Err(values.error(
            &URL,
            "is SQLite, which serves a single node: nodes that share a Redis can't share its file. \
             Use postgres:// or mysql://, none, or a node without Redis",
        ));
    }
    let weakness = password.as_deref().and_then(password_weakness);
    if let Some(weakness) = weakness
        && url.is_remote()
    {
        warnings.push(format!("the password of the database {weakness}"));
    }
    Ok((Some(url), None))
}

fn location(text: &str) -> Parsed<Location> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Location::None);
    }
    match DatabaseUrl::parse_with_password(text) {
        Ok((url, password)) => Ok(Location::Database { url, password }),
        Err(error) if text.contains("://") || text.starts_with("sqlite:") => Err(error.to_string()),
        Err(_) => Err("must begin with sqlite://, postgres:// or mysql://, or be none".to_owned()),
    }
}

fn acknowledges_commits(text: &str) -> Parsed<bool> {
    match text {
        "log" => Ok(false),
        "archive" => Ok(true),
        _ => Err("must be log or archive".to_owned()),
    }
}

fn on_or_off(text: &str) -> Parsed<bool> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("must be on or off".to_owned()),
    }
}

/// The data source name as a URL without its password.
fn dsn_without_password(text: &str) -> String {
    match DatabaseUrl::parse_dsn(text) {
        Ok((url, _)) => url.to_string(),
        Err(_) => "***".to_owned(),
    }
}

fn url_or_none(text: &str) -> String {
    if text.eq_ignore_ascii_case("none") || text.starts_with("sqlite:") {
        return text.to_owned();
    }
    url_without_password(text)
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use std::collections::BTreeMap;

    fn load(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment: BTreeMap<String, String> = environment
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Config::from_sources(environment, std::path::Path::new("/nonexistent/.env"))
    }

    /// The database as it is shown, and whether an acknowledgement waits for it.
    fn durable(environment: &[(&str, &str)]) -> (Option<String>, bool) {
        let config = load(environment).unwrap();
        (
            config.database.map(|settings| settings.url.to_string()),
            config.archive.acknowledge_commits,
        )
    }

    const REDIS: (&str, &str) = ("REDIS_URL", "redis://127.0.0.1");
    const POSTGRES: (&str, &str) = ("DATABASE_URL", "postgres://ann:hunter2@127.0.0.1/hubbub");

    #[test]
    fn a_node_without_redis_keeps_its_messages_in_a_file_of_its_data_directory() {
        let config = load(&[]).unwrap();
        let database = config.database.unwrap();
        assert_eq!(database.url.to_string(), "sqlite://./data/hubbub.db");
        assert_eq!(database.data_dir, Some(PathBuf::from("./data")));
        assert!(config.archive.acknowledge_commits && database.migrates);
        assert_eq!(config.archive.retention, None);

        let elsewhere = load(&[("DATA_DIR", "/var/lib/hubbub")]).unwrap();
        let url = elsewhere.database.unwrap().url.to_string();
        assert_eq!(url, "sqlite:///var/lib/hubbub/hubbub.db");
    }

    #[test]
    fn a_node_with_redis_has_a_database_only_if_one_is_named() {
        assert_eq!(durable(&[REDIS]), (None, false));
        assert!(
            load(&[REDIS])
                .unwrap()
                .render()
                .contains("DATABASE_URL=none\n")
        );
        let shown = Some("postgres://ann@127.0.0.1:5432/hubbub".to_owned());
        assert_eq!(durable(&[REDIS, POSTGRES]), (shown.clone(), false));
        let archive = ("ACK_AFTER", "archive");
        assert_eq!(durable(&[REDIS, POSTGRES, archive]), (shown.clone(), true));
        assert_eq!(durable(&[POSTGRES]), (shown.clone(), true));
        assert_eq!(durable(&[POSTGRES, ("ACK_AFTER", "log")]), (shown, false));
        assert_eq!(durable(&[("DATABASE_URL", "NONE")]), (None, false));
    }

    #[test]
    fn sqlite_beside_redis_is_refused() {
        let file = ("DATABASE_URL", "sqlite://hubbub.db");
        let error = load(&[REDIS, file]).unwrap_err().to_string();
        assert!(
            error.starts_with("DATABASE_URL is SQLite, which serves a single node"),
            "{error}"
        );
    }

    #[test]
    fn the_data_source_name_is_used_unless_there_is_a_url() {
        let dsn = (
            "MYSQL_DSN",
            "ann:hunter2@tcp(db:3306)/hubbub?parseTime=true",
        );
        let config = load(&[REDIS, dsn]).unwrap();
        let shown = config.render();
        assert!(shown.contains("# DATABASE_URL is not set\n"), "{shown}");
        assert!(
            shown.contains("MYSQL_DSN=mysql://ann@db:3306/hubbub\n"),
            "{shown}"
        );
        let url = config.database.unwrap().url;
        assert!(matches!(url, DatabaseUrl::MySql(_)));
        let url = load(&[POSTGRES, dsn]).unwrap().database.unwrap().url;
        assert!(matches!(url, DatabaseUrl::Postgres(_)));
        // Beside DATABASE_URL it may be that of another program.
        let other = ("MYSQL_DSN", "hunter2");
        let config = load(&[POSTGRES, other]).unwrap();
        assert!(!config.render().contains("hunter2"));
        assert!(
            load(&[other])
                .unwrap_err()
                .to_string()
                .starts_with("MYSQL_DSN must be")
        );
    }

    #[test]
    fn retention_is_given_in_days() {
        let config = load(&[("RETENTION_DAYS", "30")]).unwrap();
        let month = Duration::from_secs(30 * 86_400);
        assert_eq!(config.archive.retention, Some(month));
    }

    #[test]
    fn values_that_mean_nothing_are_refused() {
        for (key, value) in [
            ("ACK_AFTER", "database"),
            ("ARCHIVE_BACKLOG", "0"),
            ("RETENTION_DAYS", "36501"),
            ("MIGRATE", "yes"),
            ("DATABASE_POOL", "0"),
            ("DATABASE_POOL", "1001"),
            ("DATABASE_URL", "mongodb://db/hubbub"),
            ("DATABASE_URL", "postgres://db"),
        ] {
            let error = load(&[(key, value)]).unwrap_err().to_string();
            assert!(error.starts_with(key), "{key}={value}: {error}");
        }
    }

    #[test]
    fn settings_without_durable_messages_cause_warnings() {
        let strong = [
            ("JWT_SECRET", "5f0cbb2fb1c6a1f6e1d0b4f4a1c7e9d8"),
            ("ALLOWED_ORIGINS", "https://chat.example.com"),
        ];
        let warnings = |changes: &[(&str, &str)]| {
            let settings = [&strong, changes].concat();
            load(&settings).unwrap().warnings
        };
        assert_eq!(warnings(&[]), Vec::<String>::new());
        for (changes, expected) in [
            (
                &[("DATABASE_URL", "none")][..],
                "a restart loses every message",
            ),
            (
                &[("DATABASE_URL", "sqlite::memory:")],
                "a restart loses every message",
            ),
            (
                &[REDIS, ("ACK_AFTER", "archive")],
                "ACK_AFTER has no effect",
            ),
            (
                &[REDIS, ("RETENTION_DAYS", "30")],
                "RETENTION_DAYS has no effect",
            ),
            (
                &[POSTGRES, ("MYSQL_DSN", "ann@tcp(db)/hubbub")],
                "MYSQL_DSN has no effect",
            ),
            (
                &[("DATABASE_URL", "postgres://ann:c4kP1xw9@db/hubbub")],
                "sslmode=require",
            ),
            (
                &[("MYSQL_DSN", "ann:c4kP1xw9@tcp(db)/hubbub")],
                "ssl-mode=required",
            ),
            (
                &[(
                    "DATABASE_URL",
                    "postgres://ann:changeme@db/hubbub?sslmode=verify-full",
                )],
                "the password of the database looks like the placeholder",
            ),
        ] {
            let found = warnings(changes);
            assert_eq!(found.len(), 1, "{changes:?}: {found:?}");
            assert!(found[0].contains(expected), "{changes:?}: {found:?}");
        }
        for fine in [
            "postgres://ann:changeme@localhost/hubbub",
            "postgres:///hubbub?host=/run/postgresql",
            "mysql://ann:c4kP1xw9@db/hubbub?ssl-mode=verify_identity",
        ] {
            assert_eq!(
                warnings(&[("DATABASE_URL", fine)]),
                Vec::<String>::new(),
                "{fine}"
            );
        }
    }
}
