//! `DATABASE_URL`, parsed once into what connecting needs.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;

/// A database to connect to.
#[derive(Clone)]
pub enum DatabaseUrl {
    /// SQLite, in this process.
    Sqlite(SqliteUrl),
    /// A PostgreSQL server.
    Postgres(Box<PgConnectOptions>),
    /// A MySQL or MariaDB server.
    MySql(Box<MySqlConnectOptions>),
}

/// A database of SQLite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteUrl {
    /// Where the data is.
    pub location: SqliteLocation,
    /// When a commit counts as done.
    pub synchronous: Synchronous,
}

/// Where SQLite keeps a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqliteLocation {
    /// In a file, with its log (`-wal`) beside it.
    File(PathBuf),
    /// In the memory of this process: gone with it.
    Memory,
}

/// When a commit of SQLite counts as done (`?synchronous=` of the URL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// Once the operating system has it: a power cut may lose the last commits, the end of the
    /// process none.
    #[default]
    Normal,
    /// Once the disk has it.
    Full,
}

/// Why a `DATABASE_URL` was refused. No text contains the URL's password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The scheme is none of the supported ones.
    #[error("{0:?} is not a supported database: use sqlite:, postgres:// or mysql://")]
    Scheme(String),
    /// The URL is malformed.
    #[error("{0}")]
    Malformed(String),
    /// A parameter after `?` is unknown or has an invalid value.
    #[error("the parameter {0:?} is not supported")]
    Parameter(String),
}

impl DatabaseUrl {
    /// Parses `sqlite://path`, `sqlite::memory:`, `postgres://…`, `postgresql://…`, `mysql://…` or
    /// `mariadb://…`.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url
            .split_once(':')
            .ok_or_else(|| UrlError::Malformed("a database URL begins with a scheme".to_owned()))?;
        match scheme {
            "sqlite" => Ok(Self::Sqlite(SqliteUrl::parse(rest)?)),
            "postgres" | "postgresql" => {
                let options = PgConnectOptions::from_str(url).map_err(malformed)?;
                Ok(Self::Postgres(Box::new(options)))
            }
            "mysql" | "mariadb" => {
                let options =
                    MySqlConnectOptions::from_str(&format!("mysql:{rest}")).map_err(malformed)?;
                Ok(Self::MySql(Box::new(options)))
            }
            scheme => Err(UrlError::Scheme(scheme.to_owned())),
        }
    }
}

impl SqliteUrl {
    /// Parses the part after `sqlite:`.
    fn parse(rest: &str) -> Result<Self, UrlError> {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.strip_prefix("//").unwrap_or(path);
        let location = match path {
            "" => return Err(UrlError::Malformed("sqlite: needs a path".to_owned())),
            ":memory:" => SqliteLocation::Memory,
            path => SqliteLocation::File(PathBuf::from(path)),
        };
        let mut synchronous = Synchronous::default();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            synchronous = match (&*key, &*value) {
                ("synchronous", "full") => Synchronous::Full,
                ("synchronous", "normal") => Synchronous::Normal,
                _ => return Err(UrlError::Parameter(format!("{key}={value}"))),
            };
        }
        Ok(Self {
            location,
            synchronous,
        })
    }
}

/// Without the password.
impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(url) => url.fmt(f),
            Self::Postgres(options) => write!(
                f,
                "postgres://{}:{}/{}",
                options.get_host(),
                options.get_port(),
                options.get_database().unwrap_or_default()
            ),
            Self::MySql(options) => write!(
                f,
                "mysql://{}:{}/{}",
                options.get_host(),
                options.get_port(),
                options.get_database().unwrap_or_default()
            ),
        }
    }
}

fn malformed(error: sqlx::Error) -> UrlError {
    match error {
        sqlx::Error::Configuration(source) => UrlError::Malformed(source.to_string()),
        error => UrlError::Malformed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_of_a_url_decides_its_database() {
        for (text, is_right) in [
            (
                "sqlite://data/hubbub.db",
                (|url| matches!(url, DatabaseUrl::Sqlite(_))) as fn(&DatabaseUrl) -> bool,
            ),
            ("postgres://u:p@h/d", |url| {
                matches!(url, DatabaseUrl::Postgres(_))
            }),
            ("postgresql://u:p@h/d", |url| {
                matches!(url, DatabaseUrl::Postgres(_))
            }),
            ("mysql://u:p@h/d", |url| {
                matches!(url, DatabaseUrl::MySql(_))
            }),
            ("mariadb://u:p@h/d", |url| {
                matches!(url, DatabaseUrl::MySql(_))
            }),
        ] {
            assert!(is_right(&DatabaseUrl::parse(text).unwrap()), "{text}");
        }
        let refused = DatabaseUrl::parse("mongodb://h/d").unwrap_err();
        assert_eq!(refused, UrlError::Scheme("mongodb".to_owned()));
    }

    #[test]
    fn a_url_of_sqlite_has_a_path_and_may_ask_for_full_synchronisation() {
        let parsed = |text| match DatabaseUrl::parse(text) {
            Ok(DatabaseUrl::Sqlite(url)) => url,
            other => panic!("{text}: {other:?}"),
        };
        let file = parsed("sqlite:///var/lib/hubbub.db");
        assert_eq!(
            file.location,
            SqliteLocation::File("/var/lib/hubbub.db".into())
        );
        assert_eq!(file.synchronous, Synchronous::Normal);
        let full = parsed("sqlite:hubbub.db?synchronous=full");
        assert_eq!(full.location, SqliteLocation::File("hubbub.db".into()));
        assert_eq!(full.synchronous, Synchronous::Full);
        assert_eq!(parsed("sqlite::memory:").location, SqliteLocation::Memory);
        assert!(DatabaseUrl::parse("sqlite:a.db?mode=ro").is_err());
        assert!(DatabaseUrl::parse("sqlite:").is_err());
    }

    #[test]
    fn a_password_is_not_printed() {
        let url = DatabaseUrl::parse("postgres://u:s3cret@h/d").unwrap();
        assert!(!format!("{url:?}").contains("s3cret"));
    }
}
