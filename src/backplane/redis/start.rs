//! The checks at the start of a node: the URL, the password, and the settings of Redis.

use std::path::Path;
use std::time::Duration;

use fred::error::ErrorKind;
use fred::interfaces::ClientLike;
use fred::prelude::{Client, Config};

use super::archive::Archive;
use super::checks::check_all;
use super::keys::{Keys, LAYOUT_VERSION};
use super::link::{client_settings, database};
use super::rights::is_denial;
use super::{RedisSettings, tls};

/// The reason for which a node must not start with this Redis.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StartError {
    /// The URL is malformed.
    #[error("the Redis URL is invalid: {0}")]
    BadUrl(String),
    /// The authority can't be read from its file, or the URL doesn't use TLS.
    #[error("REDIS_CA is invalid: {0}")]
    BadCa(String),
    /// Redis refuses the password, or requires one.
    #[error("Redis refuses the password: {0}")]
    WrongPassword(String),
    /// Redis may evict keys, and with them messages and members.
    #[error("Redis must be set to maxmemory-policy noeviction, and is set to {0}")]
    Policy(String),
    /// The user may not do everything that a node does.
    #[error("Redis denies a right: {0}")]
    Rights(String),
    /// The data in Redis has another version of the layout.
    #[error(
        "the data in Redis has layout {0}, and this release uses layout {LAYOUT_VERSION}: start a \
         release with layout {0}, set another REDIS_PREFIX or database, or convert the data as \
         docs/operations.md describes"
    )]
    Layout(String),
    /// The messages of the data in Redis are archived in another database than this node's.
    #[error(
        "the messages in this Redis are archived in database {found}, and this node {own}: set \
         DATABASE_URL to the same database on all nodes; or, to use this Redis without that database, \
         stop all nodes and run DEL {key}"
    )]
    Archive {
        /// The id of the archive that Redis names.
        found: String,
        /// The archive of this node.
        own: String,
        /// The key that names it.
        key: String,
    },
    /// Redis isn't of the kind that the URL's scheme names.
    #[error("this Redis doesn't fit the URL: {0}")]
    Unfit(String),
}

/// The schemes of Redis URLs. fred would take any other scheme for a single server.
const SCHEMES: [&str; 6] = [
    "redis",
    "rediss",
    "redis-sentinel",
    "rediss-sentinel",
    "redis-cluster",
    "rediss-cluster",
];

/// How long the goodbye to the server may take.
const QUIT_TIMEOUT: Duration = Duration::from_millis(500);

/// Parses the URL, and loads the authority to trust.
pub(super) fn client_config(url: &str, ca: Option<&Path>) -> Result<Config, StartError> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    if !SCHEMES.contains(&scheme) {
        return Err(StartError::BadUrl(format!(
            "it must begin with one of {}",
            SCHEMES.map(|name| format!("{name}://")).join(", ")
        )));
    }
    let parse = |url: &str| {
        let config = Config::from_url(url)
            .map_err(|error| StartError::BadUrl(error.details().to_owned()))?;
        if config.server.is_clustered() && names_database(url) {
            return Err(StartError::BadUrl(
                "a cluster has no databases; set REDIS_PREFIX to share it".to_owned(),
            ));
        }
        Ok(config)
    };
    let Some(ca) = ca else { return parse(url) };
    let Some(rest) = url.strip_prefix("rediss") else {
        return Err(StartError::BadCa(
            "the Redis URL doesn't use TLS".to_owned(),
        ));
    };
    // The URL is parsed as one without TLS: otherwise fred would require the system's authorities,
    // which need not exist.
    let mut config = parse(&format!("redis{rest}"))?;
    config.tls = Some(tls::trust_only(ca)?);
    Ok(config)
}

/// Whether the URL names another database than the first one.
fn names_database(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| !["", "/", "/0"].contains(&url.path()))
}

/// Opens one connection to find the errors that must end the start. Returns whether Redis is there:
/// one that can't be reached is no such error.
pub(super) async fn probe(
    config: &Config,
    settings: &RedisSettings,
    archive: &Archive,
) -> Result<bool, StartError> {
    let (performance, connection, _) = client_settings(settings, 32);
    let client = Client::new(config.clone(), Some(performance), Some(connection), None);
    let keys = Keys::new(&settings.prefix, database(config));
    let connected = tokio::time::timeout(settings.connect_timeout * 2, client.init()).await;
    let result = match connected {
        Err(_) => Ok(false),
        Ok(Ok(_)) => check_all(&client, &keys, &settings.prefix, archive)
            .await
            .map(|()| true),
        Ok(Err(error)) => match fatal(&error) {
            Some(fatal) => Err(fatal),
            None => {
                tracing::warn!(%error, "redis: not reachable yet");
                Ok(false)
            }
        },
    };
    // The reply may never come: see `checks.rs` about subscriptions.
    tokio::spawn(async move { tokio::time::timeout(QUIT_TIMEOUT, client.quit()).await });
    result
}

/// The reason not to start, if the error of the first connection is one.
fn fatal(error: &fred::error::Error) -> Option<StartError> {
    let text = error.details();
    match error.kind() {
        ErrorKind::Auth => Some(StartError::WrongPassword(text.to_owned())),
        ErrorKind::Config => Some(StartError::Unfit(text.to_owned())),
        _ if is_denial(text) => Some(StartError::Rights(text.to_owned())),
        _ if text.contains("without any password configured") => {
            Some(StartError::WrongPassword(text.to_owned()))
        }
        _ => None,
    }
}

/// The kind and the addresses of Redis, without credentials.
pub(super) fn describe(config: &Config) -> String {
    let kind = if config.server.is_clustered() {
        "cluster"
    } else if config.server.is_sentinel() {
        "sentinel"
    } else {
        "single"
    };
    let hosts: Vec<_> = config
        .server
        .hosts()
        .iter()
        .map(ToString::to_string)
        .collect();
    format!("redis {kind} {}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_redis_are_accepted() {
        for url in [
            "redis://a",
            "rediss://a:1/2",
            "redis-cluster://a:1?node=b:2",
            "redis-sentinel://a?sentinelServiceName=m",
        ] {
            assert!(client_config(url, None).is_ok(), "{url}");
        }
        for url in ["", "a:6379", "http://a", "redis-sentinel://a", "redis://"] {
            assert!(
                matches!(client_config(url, None), Err(StartError::BadUrl(_))),
                "{url}"
            );
        }
    }

    #[test]
    fn an_authority_requires_tls_and_a_certificate() {
        let refusal = |url, ca: &str| {
            client_config(url, Some(Path::new(ca)))
                .unwrap_err()
                .to_string()
        };
        assert!(refusal("redis://a", "/dev/null").contains("doesn't use TLS"));
        assert!(refusal("rediss://a", "/dev/null").contains("/dev/null: contains no certificate"));
        assert!(
            refusal("rediss-cluster://a", "/nonexistent/ca.pem").contains("/nonexistent/ca.pem")
        );
    }

    #[test]
    fn the_description_contains_no_password() {
        let config = Config::from_url("redis://user:secret@cache.example:6380/2").unwrap();
        assert_eq!(describe(&config), "redis single cache.example:6380");
    }
}
