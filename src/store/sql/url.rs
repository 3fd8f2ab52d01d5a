//! The address of a database, from a URL or from a data source name in the form of Go's MySQL
//! driver, parsed once into the options of its driver.
//!
//! An error continues a sentence that begins with the key, and never quotes the address: any part of
//! it may be a part of a password.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use super::dsn;

/// The parameters of a PostgreSQL URL that the driver reads.
const POSTGRES_PARAMETERS: [&str; 13] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "statement-cache-capacity",
];
/// Parameters of other PostgreSQL clients that don't change the stored data. They are left out.
const POSTGRES_IGNORED: [&str; 3] = ["channel_binding", "connect_timeout", "gssencmode"];
/// The parameters of a MySQL URL that the driver reads.
const MYSQL_PARAMETERS: [&str; 7] = [
    "ssl-mode",
    "sslmode",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "socket",
    "statement-cache-capacity",
];
/// Parameters of other MySQL clients that don't change the stored data. They are left out.
const MYSQL_IGNORED: [&str; 6] = [
    "charset",
    "collation",
    "parseTime",
    "loc",
    "timezone",
    "connect_timeout",
];

/// A database to connect to. Its `Display` and `Debug` hide the password.
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

/// Why an address can't be used, as the rest of a sentence that begins with its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(pub(super) String);

impl UrlError {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// The [`ServerAddress`] in the options of a driver. A macro, because the options of the two drivers
/// have the same methods but no common trait.
macro_rules! server_address {
    ($scheme:literal, $options:expr) => {
        ServerAddress {
            scheme: $scheme,
            user: $options.get_username(),
            host: $options.get_host(),
            port: $options.get_port(),
            socket: $options.get_socket(),
            name: $options.get_database(),
        }
    };
}

impl DatabaseUrl {
    /// Parses `sqlite://path`, `sqlite::memory:`, `postgres://…`, `postgresql://…`, `mysql://…` or
    /// `mariadb://…`.
    ///
    /// # Errors
    /// Names the fault without quoting the URL.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (url, _) = Self::parse_with_password(text)?;
        Ok(url)
    }

    /// As [`parse`](Self::parse); returns the password in the URL too.
    ///
    /// # Errors
    /// Names the fault without quoting the URL.
    pub fn parse_with_password(text: &str) -> Result<(Self, Option<String>), UrlError> {
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        match scheme.to_ascii_lowercase().as_str() {
            "sqlite" => Ok((sqlite(rest)?, None)),
            "postgres" | "postgresql" => postgres(text),
            "mysql" | "mariadb" => match rest.strip_prefix("//") {
                // Some tools put a scheme in front of Go's form.
                Some(source) if dsn::has_protocol(source) => Self::parse_dsn(source),
                _ => mysql(text),
            },
            _ => Err(UrlError::new(
                "must begin with sqlite://, postgres:// or mysql://",
            )),
        }
    }

    /// Parses the value of `MYSQL_DSN`: a URL of MySQL, or `user:password@tcp(host:3306)/name` in
    /// the form of Go's MySQL driver. Returns the password in it too.
    ///
    /// # Errors
    /// Names the fault without quoting the text.
    pub fn parse_dsn(text: &str) -> Result<(Self, Option<String>), UrlError> {
        let lower = text.to_ascii_lowercase();
        if ["postgres://", "postgresql://", "sqlite:"]
            .iter()
            .any(|scheme| lower.starts_with(scheme))
        {
            return Err(UrlError::new(
                "is for MySQL and MariaDB: name a database of another kind with DATABASE_URL",
            ));
        }
        if lower.starts_with("mysql://") || lower.starts_with("mariadb://") {
            return Self::parse_with_password(text);
        }
        let source = dsn::parse(text)?;
        Ok((Self::MySql(Box::new(source.options)), source.password))
    }

    /// The database in a file of SQLite.
    #[must_use]
    pub fn sqlite(path: &Path) -> Self {
        Self::Sqlite(SqliteUrl {
            location: SqliteLocation::File(path.to_owned()),
            synchronous: Synchronous::default(),
        })
    }

    /// The file of the database; `None` for a server, and for a database in memory.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(SqliteUrl {
                location: SqliteLocation::File(path),
                ..
            }) => Some(path),
            _ => None,
        }
    }

    /// Whether the database ends with this process.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        matches!(self, Self::Sqlite(_)) && self.file().is_none()
    }

    /// Whether messages pass a network on their way to the database.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(options) => server_address!("postgres", options).is_remote(),
            Self::MySql(options) => server_address!("mysql", options).is_remote(),
        }
    }

    /// Whether there is never a connection to a server without TLS.
    #[must_use]
    pub fn requires_tls(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(options) => matches!(
                options.get_ssl_mode(),
                PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull
            ),
            Self::MySql(options) => matches!(
                options.get_ssl_mode(),
                MySqlSslMode::Required | MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity
            ),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(url) => write!(f, "{url}"),
            Self::Postgres(options) => server_address!("postgres", options).fmt(f),
            Self::MySql(options) => server_address!("mysql", options).fmt(f),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SqliteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            SqliteLocation::File(path) => write!(f, "sqlite://{}", path.display())?,
            SqliteLocation::Memory => f.write_str("sqlite::memory:")?,
        }
        match self.synchronous {
            Synchronous::Normal => Ok(()),
            Synchronous::Full => f.write_str("?synchronous=full"),
        }
    }
}

/// A database of a server, for logs and error texts.
struct ServerAddress<'a> {
    scheme: &'static str,
    user: &'a str,
    host: &'a str,
    port: u16,
    socket: Option<&'a PathBuf>,
    name: Option<&'a str>,
}

impl ServerAddress<'_> {
    fn is_remote(&self) -> bool {
        self.socket.is_none() && !is_this_machine(self.host)
    }
}

impl fmt::Display for ServerAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}@", self.scheme, self.user)?;
        match self.socket {
            Some(path) => write!(f, "{}", path.display())?,
            None if self.host.contains(':') && !self.host.starts_with('[') => {
                write!(f, "[{}]:{}", self.host, self.port)?;
            }
            None => write!(f, "{}:{}", self.host, self.port)?,
        }
        write!(f, "/{}", self.name.unwrap_or_default())
    }
}

fn sqlite(rest: &str) -> Result<DatabaseUrl, UrlError> {
    let (location, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let location = location.strip_prefix("//").unwrap_or(location);
    let mut synchronous = Synchronous::default();
    for (name, value) in url::form_urlencoded::parse(parameters.as_bytes()) {
        match (&*name, value.to_ascii_lowercase().as_str()) {
            ("synchronous", "full") => synchronous = Synchronous::Full,
            ("synchronous", "normal") => synchronous = Synchronous::Normal,
            // Other programs need it for a file that is missing. hubbub creates it in any case.
            ("mode", "rwc" | "rw") => {}
            _ => {
                return Err(UrlError::new(
                    "has a parameter that is not known; known is synchronous=normal or =full",
                ));
            }
        }
    }
    let location = match location {
        ":memory:" => SqliteLocation::Memory,
        path => SqliteLocation::File(file_path(path)?),
    };
    Ok(DatabaseUrl::Sqlite(SqliteUrl {
        location,
        synchronous,
    }))
}

fn file_path(encoded: &str) -> Result<PathBuf, UrlError> {
    let fault = || {
        UrlError::new("must have the path of a file, such as sqlite://data/hubbub.db, or :memory:")
    };
    let text = decoded(encoded).ok_or_else(fault)?;
    let has_name = !text.is_empty() && !text.ends_with('/');
    // SQLite would read both as something else than a path.
    let is_special = text.starts_with("file:") || text.starts_with(':');
    if !has_name || is_special || text.contains(|c: char| c.is_control() || c == '\u{fffd}') {
        return Err(fault());
    }
    Ok(PathBuf::from(text))
}

fn postgres(text: &str) -> Result<(DatabaseUrl, Option<String>), UrlError> {
    let url = server_url(text, &POSTGRES_PARAMETERS, &POSTGRES_IGNORED)?;
    let options = PgConnectOptions::from_str(url.as_str())
        .map_err(|_| UrlError::new("has a parameter with a value that PostgreSQL doesn't know"))?;
    let socket = Some(options.get_host()).filter(|host| host.starts_with('/'));
    let options = match socket.map(PathBuf::from) {
        Some(socket) => options.socket(socket),
        None => options,
    };
    if options.get_database().is_none_or(str::is_empty) {
        return Err(UrlError::new(
            "must name a database, as in postgres://user@host/hubbub",
        ));
    }
    Ok((DatabaseUrl::Postgres(Box::new(options)), password_of(&url)))
}

fn mysql(text: &str) -> Result<(DatabaseUrl, Option<String>), UrlError> {
    let url = server_url(text, &MYSQL_PARAMETERS, &MYSQL_IGNORED)?;
    let options = MySqlConnectOptions::from_str(url.as_str())
        .map_err(|_| UrlError::new("has a parameter with a value that MySQL doesn't know"))?;
    if options.get_database().is_none_or(str::is_empty) {
        return Err(UrlError::new(
            "must name a database, as in mysql://user@host/hubbub",
        ));
    }
    Ok((DatabaseUrl::MySql(Box::new(options)), password_of(&url)))
}

/// The URL of a server with known parameters only, without those to ignore.
fn server_url(text: &str, known: &[&str], ignored: &[&str]) -> Result<Url, UrlError> {
    let mut url = Url::parse(text).map_err(|_| {
        if let Some(port) = port_above_all(text) {
            return UrlError(format!("has the port {port}: the highest port is 65535"));
        }
        UrlError::new(
            "is no valid URL; characters of a password that have a meaning in URLs are written as \
             %40 for @, %3A for :, %2F for /, %3F for ? and %23 for #",
        )
    })?;
    if url.fragment().is_some() {
        return Err(UrlError::new(
            "has a #, which in a password is written as %23",
        ));
    }
    if !url.has_host() && url.query().is_none() && !text.contains(":///") {
        return Err(UrlError::new("must have a host"));
    }
    let several = url.host_str().unwrap_or_default().contains(',');
    if several {
        return Err(UrlError::new("must name one host only"));
    }
    let parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    for (name, _) in &parameters {
        if !known.contains(&name.as_str()) && !ignored.contains(&name.as_str()) {
            return Err(UrlError(format!(
                "has a parameter that is not known; known are {}",
                known.join(", ")
            )));
        }
    }
    let mut kept = parameters;
    kept.retain(|(name, _)| !ignored.contains(&name.as_str()));
    url.set_query(None);
    if !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
    Ok(url)
}

/// A port that is too large. It is no part of a password: it follows the last `@`.
fn port_above_all(text: &str) -> Option<&str> {
    let (_, after) = text.rsplit_once('@')?;
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let (_, port) = after[..end].rsplit_once(':')?;
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && port.parse::<u16>().is_err()).then_some(port)
}

fn password_of(url: &Url) -> Option<String> {
    match url.query_pairs().find(|(name, _)| name == "password") {
        Some((_, password)) => Some(password.into_owned()),
        None => decoded(url.password()?),
    }
}

/// A part of a URL with its percent-encoding undone.
pub(super) fn decoded(part: &str) -> Option<String> {
    let text = format!("={}", part.replace('+', "%2B").replace('&', "%26"));
    let (_, value) = url::form_urlencoded::parse(text.as_bytes()).next()?;
    Some(value.into_owned())
}

/// Whether the host is this machine, so that nothing passes a network.
fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests;
