//! Data source names in the form of Go's MySQL driver:
//! `user:password@tcp(host:3306)/name?parameter=value`.
//!
//! Nothing in it is percent-encoded but the name and the values of the parameters, so the password
//! may have any character: it ends at the last `@` before the last `/`.

use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};

use super::url::{UrlError, decoded};

/// The port of MySQL.
const DEFAULT_PORT: u16 = 3306;
/// The socket that Go's driver uses when none is named.
const DEFAULT_SOCKET: &str = "/tmp/mysql.sock";

/// A data source name.
pub(super) struct DataSource {
    pub options: MySqlConnectOptions,
    /// The options keep theirs to themselves.
    pub password: Option<String>,
}

/// Where the server listens.
enum Listener {
    Tcp { host: String, port: u16 },
    Unix(String),
}

/// Whether a text has the address in Go's form: in brackets, mostly with the protocol in front of it.
pub(super) fn has_protocol(text: &str) -> bool {
    let is_before_address = |protocol: &str| match text.find(&format!("{protocol}(")) {
        Some(0) => true,
        Some(at) => text[..at].ends_with(['@', '/']),
        None => false,
    };
    let is_without_protocol = || {
        let address = text.rsplit_once('@').map(|(_, address)| address);
        address.is_some_and(|address| address.starts_with('('))
    };
    is_before_address("tcp") || is_before_address("unix") || is_without_protocol()
}

/// Parses the text. The parameters of Go's driver have no meaning here, except `tls`.
pub(super) fn parse(text: &str) -> Result<DataSource, UrlError> {
    let form = || {
        UrlError::new(
            "must be a URL, or have the form user:password@tcp(host:3306)/name with the name of a \
             database",
        )
    };
    let (before, after) = text.rsplit_once('/').ok_or_else(form)?;
    let (name, parameters) = after.split_once('?').unwrap_or((after, ""));
    let name = decoded(name).filter(|name| !name.is_empty());
    let name = name.ok_or_else(form)?;
    let (credentials, address) = before.rsplit_once('@').unwrap_or(("", before));
    let listener = listener(address)?;
    let mode = tls_mode(parameters)?;
    let mut options = MySqlConnectOptions::new().database(&name).ssl_mode(mode);
    options = match listener {
        Listener::Tcp { host, port } => options.host(&host).port(port),
        Listener::Unix(path) => options.socket(path),
    };
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    if !user.is_empty() {
        options = options.username(user);
    }
    if password.is_empty() {
        return Ok(DataSource {
            options,
            password: None,
        });
    }
    Ok(DataSource {
        options: options.password(password),
        password: Some(password.to_owned()),
    })
}

/// Parses `tcp(host:port)` or `unix(path)`; without an address the driver's default.
fn listener(text: &str) -> Result<Listener, UrlError> {
    let fault = || UrlError::new("must have an address such as tcp(host:3306) or unix(/path)");
    let (protocol, address) = match text.split_once('(') {
        Some((protocol, rest)) => (protocol, rest.strip_suffix(')').ok_or_else(fault)?),
        None => (text, ""),
    };
    match protocol {
        "unix" if address.is_empty() => Ok(Listener::Unix(DEFAULT_SOCKET.to_owned())),
        "unix" => Ok(Listener::Unix(address.to_owned())),
        "" | "tcp" if address.is_empty() => Ok(Listener::Tcp {
            host: "127.0.0.1".to_owned(),
            port: DEFAULT_PORT,
        }),
        "" | "tcp" | "tcp4" | "tcp6" => host_and_port(address).ok_or_else(fault),
        _ => Err(fault()),
    }
}

/// `None` if the port is no number, or the host is empty or has other characters than hosts have.
fn host_and_port(address: &str) -> Option<Listener> {
    let (host, port) = match address.rsplit_once(':') {
        // An IPv6 address without a port.
        Some(_) if address.ends_with(']') => (address, DEFAULT_PORT),
        Some((host, port)) => (host, port.parse().ok()?),
        None => (address, DEFAULT_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_host)).then(|| Listener::Tcp {
        host: host.to_owned(),
        port,
    })
}

/// The mode that the parameter `tls` selects. Without it TLS is used if the server has it.
fn tls_mode(parameters: &str) -> Result<MySqlSslMode, UrlError> {
    let mut mode = MySqlSslMode::Preferred;
    for (name, value) in url::form_urlencoded::parse(parameters.as_bytes()) {
        if name != "tls" {
            continue;
        }
        mode = match value.to_ascii_lowercase().as_str() {
            "true" | "1" => MySqlSslMode::VerifyIdentity,
            "skip-verify" => MySqlSslMode::Required,
            "preferred" => MySqlSslMode::Preferred,
            "false" | "0" => MySqlSslMode::Disabled,
            _ => {
                return Err(UrlError::new(
                    "has a tls parameter that is none of true, false, preferred and skip-verify; \
                     for certificates of your own use a URL with ssl-mode and ssl-ca",
                ));
            }
        };
    }
    Ok(mode)
}

#[cfg(test)]
mod tests {
    use super::super::DatabaseUrl;
    use super::*;

    #[test]
    fn data_source_names_are_read_as_go_reads_them() {
        for (text, user, password, host, port, name) in [
            (
                "ann:hunter2@tcp(db.example:3307)/hubbub?parseTime=true&loc=Europe%2FBerlin",
                "ann",
                Some("hunter2"),
                "db.example",
                3307,
                "hubbub",
            ),
            ("ann@tcp(db)/a", "ann", None, "db", 3306, "a"),
            ("ann:x@(db:3307)/a", "ann", Some("x"), "db", 3307, "a"),
            (
                "ann:p@ss:w/rd@tcp([::1]:3306)/a",
                "ann",
                Some("p@ss:w/rd"),
                "::1",
                3306,
                "a",
            ),
            ("/hubbub", "root", None, "127.0.0.1", 3306, "hubbub"),
            (
                "ann:x@/hubbub",
                "ann",
                Some("x"),
                "127.0.0.1",
                3306,
                "hubbub",
            ),
            ("ann@tcp/my%2Fdb", "ann", None, "127.0.0.1", 3306, "my/db"),
        ] {
            let source = parse(text).unwrap();
            let options = &source.options;
            assert_eq!(options.get_username(), user, "{text}");
            assert_eq!(source.password.as_deref(), password, "{text}");
            assert_eq!(options.get_host(), host, "{text}");
            assert_eq!(options.get_port(), port, "{text}");
            assert_eq!(options.get_database(), Some(name), "{text}");
        }
    }

    #[test]
    fn a_name_may_have_a_socket() {
        let source = parse("ann@unix(/run/mysqld/mysqld.sock)/hubbub").unwrap();
        let socket = source.options.get_socket().unwrap();
        assert_eq!(socket.to_str(), Some("/run/mysqld/mysqld.sock"));
    }

    #[test]
    fn the_parameter_tls_decides_about_tls() {
        for (parameters, requires_tls) in [
            ("", false),
            ("?tls=preferred", false),
            ("?tls=false", false),
            ("?tls=skip-verify", true),
            ("?parseTime=true&tls=true", true),
        ] {
            let text = format!("ann@tcp(db)/hubbub{parameters}");
            let (url, _) = DatabaseUrl::parse_dsn(&text).unwrap();
            assert_eq!(url.requires_tls(), requires_tls, "{parameters}");
        }
        assert!(parse("ann@tcp(db)/hubbub?tls=custom").is_err());
    }

    #[test]
    fn names_that_would_not_work_are_refused_without_quoting_them() {
        for text in [
            "",
            "hunter2",
            "ann:hunter2@tcp(db:3306)",
            "ann:hunter2@tcp(db:3306)/",
            "ann:hunter2@tcp(db:hunter2)/hubbub",
            "ann:hunter2@udp(db:3306)/hubbub",
            "ann:hunter2@tcp(db:3306/hubbub",
            "ann:hunter2@tcp(a b)/hubbub",
        ] {
            let message = parse(text).map(|_| ()).unwrap_err().to_string();
            assert!(!message.contains("hunter2"), "{text}: {message}");
        }
    }
}
