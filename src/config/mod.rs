//! Configuration: the environment, `.env`, and a TOML file, in falling precedence; every value checked at the start.

#[cfg(test)]
mod fuzz;
mod identity;
mod rates;
mod source;
mod value;
mod warnings;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use figment::Figment;
use serde::Deserialize;

use crate::auth::{ApiKeys, Authenticator, NotADigest, WebhookSettings};
use crate::backplane::BackplaneLimits;
use crate::domain::Limits;
use crate::gateway::access::Origins;
use crate::server::TrustedProxies;
use crate::server::admission::Caps;
use crate::server::tls::TlsFiles;
use crate::telemetry::log::LogFormat;

pub use identity::Tokens;

/// A configuration that can't be used, in words for whoever wrote it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr, $with:literal;)*) => {
        /// Every key, in the units of its name. `None` is "not set".
        #[derive(Clone, Deserialize)]
        #[serde(default)]
        pub struct Settings {
            $($(#[$doc])* #[serde(deserialize_with = $with)] pub $name: $type,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Settings {
            /// Every key, in lower case, in the order of the documentation.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($name)),*];

            /// Every key with its effective value.
            fn shown(&self) -> Vec<(&'static str, String)> {
                vec![$((stringify!($name), value::Show::show(&self.$name))),*]
            }
        }
    };
}

settings! {
    /// Where to listen.
    server_host: String = "127.0.0.1".into(), "value::text";
    /// At which port.
    server_port: u16 = 8080, "value::number";
    /// The node's certificate and those between it and a root, a PEM file; without it the node speaks no TLS.
    tls_cert: Option<String> = None, "value::optional";
    /// The certificate's private key, a PEM file.
    tls_key: Option<String> = None, "value::optional";
    /// Redis as a URL; wins over its parts.
    redis_url: Option<String> = None, "value::optional";
    /// Redis's host.
    redis_host: Option<String> = None, "value::optional";
    /// Redis's port.
    redis_port: u16 = 6379, "value::number";
    /// Redis's password.
    redis_password: Option<String> = None, "value::optional";
    /// The authority that signed Redis's certificate, a PEM file.
    redis_ca: Option<String> = None, "value::optional";
    /// `open` or `jwt`.
    auth_mode: Option<String> = None, "value::optional";
    /// The secret of HS256 tokens.
    jwt_secret: Option<String> = None, "value::optional";
    /// The one before, while it is being changed.
    jwt_secret_previous: Option<String> = None, "value::optional";
    /// Understood for `jwt_secret`.
    better_auth_secret: Option<String> = None, "value::optional";
    /// By which tokens may be signed, comma-separated: `HS256`, or of `RS256`, `ES256`, `EdDSA`.
    jwt_algorithm: Option<String> = None, "value::optional";
    /// A file with the public key of tokens, as PEM.
    jwt_public_key_file: Option<String> = None, "value::optional";
    /// A file with a JWK set.
    jwt_jwks_file: Option<String> = None, "value::optional";
    /// Where a JWK set is published.
    jwt_jwks_url: Option<String> = None, "value::optional";
    /// One of these, comma-separated, must be in `aud`.
    jwt_audience: Option<String> = None, "value::optional";
    /// One of these, comma-separated, must be `iss`.
    jwt_issuer: Option<String> = None, "value::optional";
    /// Granted on `exp` and `nbf`.
    jwt_leeway_secs: u64 = 0, "value::number";
    /// Keys of services, comma-separated.
    api_keys: Option<String> = None, "value::optional";
    /// Who is asked about joins and sends.
    authorize_url: Option<String> = None, "value::optional";
    /// What it knows this node by.
    authorize_secret: Option<String> = None, "value::optional";
    /// How long its answer may take.
    authorize_timeout_ms: u64 = 1_000, "value::number";
    /// How long an answer counts.
    authorize_cache_secs: u64 = 30, "value::number";
    /// Comma-separated origins, or `*`.
    allowed_origins: Option<String> = None, "value::optional";
    /// Roles of which a token must have one to broadcast, comma-separated.
    broadcast_roles: Option<String> = None, "value::optional";
    /// Networks whose `X-Forwarded-For` counts, comma-separated, or `none`.
    trusted_proxies: Option<String> = None, "value::optional";
    /// How long a connection may stay without an identity.
    auth_timeout_secs: u64 = 10, "value::number";
    /// How long the paced end of connections takes.
    drain_secs: u64 = 30, "value::number";
    /// Between two heartbeats.
    ping_interval_ms: u64 = 25_000, "value::number";
    /// How late the answer to one may be.
    ping_timeout_ms: u64 = 20_000, "value::number";
    /// `auto`, `text` or `json`.
    log_format: String = "auto".into(), "value::text";
    /// Levels of the log.
    rust_log: String = "info".into(), "value::text";
    /// An address of its own for `/metrics`.
    metrics_addr: Option<String> = None, "value::optional";
    /// The largest packet.
    max_packet_bytes: usize = 1_048_576, "value::number";
    /// The largest message of a plain client that doesn't chat.
    ws_max_message: usize = 512, "value::number";
    /// How long a plain client may be silent.
    ws_idle_secs: u64 = 60, "value::number";
    /// The largest payload of an event.
    max_event_bytes: usize = 65_536, "value::number";
    /// The longest `content`.
    max_content_bytes: usize = 16_384, "value::number";
    /// The longest `payload`, as JSON.
    max_payload_bytes: usize = 16_384, "value::number";
    /// Rooms one socket may be in.
    max_rooms_per_socket: usize = 100, "value::number";
    /// Users one socket may watch.
    max_status_subscriptions: usize = 200, "value::number";
    /// Live sockets of one user in the cluster.
    max_sockets_per_user: usize = 20, "value::number";
    /// Events a second and socket.
    rate_events_per_sec: u32 = 50, "value::number";
    /// Events a socket may send at once.
    rate_events_burst: u32 = 400, "value::number";
    /// Joins a second of a socket; 0 is no limit, as in all that follow.
    rate_joins_per_sec: Option<u64> = None, "value::optional_number";
    /// Bytes of events a second of a socket.
    rate_bytes_per_sec: Option<u64> = None, "value::optional_number";
    /// When so many events beyond the rate were refused, the socket is closed.
    max_rate_refusals: u64 = 1_000, "value::number";
    /// Events a second of a user, in the cluster.
    rate_user_events_per_sec: Option<u64> = None, "value::optional_number";
    /// Joins a second of a user, in the cluster.
    rate_user_joins_per_sec: Option<u64> = None, "value::optional_number";
    /// Bytes of events a second of a user, in the cluster.
    rate_user_bytes_per_sec: Option<u64> = None, "value::optional_number";
    /// Connections that a user begins a second, in the cluster.
    rate_user_connects_per_sec: Option<u64> = None, "value::optional_number";
    /// Events and requests a second of an address.
    rate_ip_events_per_sec: Option<u64> = None, "value::optional_number";
    /// Joins a second of an address.
    rate_ip_joins_per_sec: Option<u64> = None, "value::optional_number";
    /// Bytes of events a second of an address.
    rate_ip_bytes_per_sec: Option<u64> = None, "value::optional_number";
    /// Handshakes a second of an address.
    rate_ip_handshakes_per_sec: Option<u64> = None, "value::optional_number";
    /// `POST /messages` a second of a caller.
    rate_posts_per_sec: Option<u64> = None, "value::optional_number";
    /// `POST /api/broadcast` a second of a caller.
    rate_broadcasts_per_sec: Option<u64> = None, "value::optional_number";
    /// Connections of this node.
    max_connections: usize = 200_000, "value::number";
    /// Connections of one address; 0 is no limit.
    max_connections_per_ip: usize = 0, "value::number";
    /// Connections of this node that haven't said who they are.
    max_unauthenticated: usize = 20_000, "value::number";
    /// Handshakes a second of this node.
    max_handshakes_per_sec: u32 = 5_000, "value::number";
    /// What may be unwritten of one connection.
    max_outbox_bytes: usize = 1_048_576, "value::number";
    /// How long it may stay so without progress.
    write_timeout_secs: u64 = 10, "value::number";
    /// Messages kept for a room.
    history_size: usize = 1_000, "value::number";
    /// How long they are kept after the last one.
    history_ttl_secs: u64 = 86_400, "value::number";
    /// How long a room's `seq` and `epoch` live on.
    room_ttl_secs: u64 = 604_800, "value::number";
    /// How long a send is remembered.
    dedupe_ttl_secs: u64 = 600, "value::number";
    /// How long a lost connection still counts.
    presence_grace_ms: u64 = 2_000, "value::number";
    /// Rooms with more members send no joins and leaves.
    room_events_limit: u64 = 500, "value::number";
    /// Rooms that the embedded backplane holds.
    max_rooms: usize = 100_000, "value::number";
}

impl std::fmt::Debug for Settings {
    /// Values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

/// Keys whose values are never shown.
const SECRETS: &[&str] = &[
    "redis_password",
    "jwt_secret",
    "jwt_secret_previous",
    "better_auth_secret",
    "api_keys",
    "authorize_secret",
];

/// Whoever connects says who it is, or a token does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Anyone may be anyone.
    Open,
    /// By token.
    Jwt,
}

/// A whole, checked configuration.
#[derive(Clone)]
pub struct Config {
    /// The keys as they were set.
    pub settings: Settings,
    /// Where to listen.
    pub address: SocketAddr,
    /// Where `/metrics` stands alone.
    pub metrics_address: Option<SocketAddr>,
    /// The pair for TLS; `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Redis as a URL; `None`: the embedded backplane.
    pub redis: Option<String>,
    /// How identities are known.
    pub auth_mode: AuthMode,
    /// How tokens are checked; there in jwt mode.
    pub tokens: Option<Tokens>,
    /// Who is asked about joins and sends.
    pub webhook: Option<WebhookSettings>,
    /// Which pages may talk to this node.
    pub origins: Origins,
    /// Whose word on clients' addresses counts; `None`: nobody said who stands between.
    pub proxies: Option<TrustedProxies>,
    /// How the log looks.
    pub log_format: LogFormat,
    /// What should be known before this goes into production.
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for Config {
    /// As `hubbub config` prints it, without secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render())
    }
}

impl Config {
    /// Reads the process's environment, `.env` in the working directory, and the TOML file that `HUBBUB_CONFIG` names.
    ///
    /// # Errors
    /// Names the key, its source, and what is wrong.
    pub fn load() -> Result<Self, ConfigError> {
        let mut environment = BTreeMap::new();
        for (key, value) in std::env::vars_os() {
            let Ok(key) = key.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(environment.insert(key, value)),
                // Left out, a secret would be as if it weren't set.
                Err(_) if source::known(&key.to_lowercase()) => {
                    return Err(ConfigError(format!(
                        "{key} in the environment is not UTF-8"
                    )));
                }
                Err(_) => {}
            }
        }
        Self::from_sources(environment, Path::new(".env"))
    }

    /// The same from a given environment and `.env` file (which need not exist).
    ///
    /// # Errors
    /// Names the key, its source, and what is wrong.
    pub fn from_sources(
        environment: BTreeMap<String, String>,
        dotenv: &Path,
    ) -> Result<Self, ConfigError> {
        let figment: Figment = source::figment(environment, dotenv)?;
        let settings: Settings = figment
            .extract()
            .map_err(|error| ConfigError(describe(&error)))?;
        Self::check(settings)
    }

    fn check(mut settings: Settings) -> Result<Self, ConfigError> {
        rates::fill(&mut settings);
        let wrong =
            |key: &str, what: &str| Err(ConfigError(format!("{} {what}", key.to_uppercase())));
        for (key, value) in [
            ("max_packet_bytes", settings.max_packet_bytes),
            ("ws_max_message", settings.ws_max_message),
            ("max_event_bytes", settings.max_event_bytes),
            ("max_content_bytes", settings.max_content_bytes),
            ("max_payload_bytes", settings.max_payload_bytes),
            ("max_rooms_per_socket", settings.max_rooms_per_socket),
            ("max_sockets_per_user", settings.max_sockets_per_user),
            ("rate_events_burst", settings.rate_events_burst as usize),
            ("history_size", settings.history_size),
            ("max_rooms", settings.max_rooms),
            (
                "history_ttl_secs",
                usize::from(settings.history_ttl_secs > 0),
            ),
            ("room_ttl_secs", usize::from(settings.room_ttl_secs > 0)),
            ("dedupe_ttl_secs", usize::from(settings.dedupe_ttl_secs > 0)),
            (
                "auth_timeout_secs",
                usize::from(settings.auth_timeout_secs > 0),
            ),
            (
                "write_timeout_secs",
                usize::from(settings.write_timeout_secs > 0),
            ),
            ("ws_idle_secs", usize::from(settings.ws_idle_secs > 0)),
            ("ping_timeout_ms", usize::from(settings.ping_timeout_ms > 0)),
        ] {
            if value == 0 {
                return wrong(key, "must be greater than 0");
            }
        }
        if settings.ping_interval_ms < 100 {
            return wrong("ping_interval_ms", "must be at least 100");
        }
        if settings.jwt_leeway_secs > 30 {
            return wrong("jwt_leeway_secs", "must be at most 30");
        }
        /// Longer times are slips, and might not fit the clock.
        const TEN_YEARS_SECS: u64 = 315_360_000;
        for (key, secs) in [
            ("auth_timeout_secs", settings.auth_timeout_secs),
            ("drain_secs", settings.drain_secs),
            ("ping_interval_ms", settings.ping_interval_ms / 1000),
            ("ping_timeout_ms", settings.ping_timeout_ms / 1000),
            ("write_timeout_secs", settings.write_timeout_secs),
            ("ws_idle_secs", settings.ws_idle_secs),
            ("history_ttl_secs", settings.history_ttl_secs),
            ("room_ttl_secs", settings.room_ttl_secs),
            ("dedupe_ttl_secs", settings.dedupe_ttl_secs),
            ("presence_grace_ms", settings.presence_grace_ms / 1000),
        ] {
            if secs > TEN_YEARS_SECS {
                return wrong(key, "must be less than ten years");
            }
        }
        // A page of a replay may come on top of half an outbox, and one event is at most that large.
        if settings.max_outbox_bytes < settings.max_event_bytes.max(64 * 1024).saturating_mul(4) {
            return wrong(
                "max_outbox_bytes",
                "must be at least four times MAX_EVENT_BYTES, and at least 262144",
            );
        }
        if settings.room_ttl_secs < settings.history_ttl_secs {
            return wrong("room_ttl_secs", "must not be less than HISTORY_TTL_SECS");
        }
        let Ok(address) = source::address(&settings.server_host, settings.server_port) else {
            return wrong(
                "server_host",
                "must be an IP address, or a name that resolves to one",
            );
        };
        let metrics_address = match settings.metrics_addr.as_deref().map(str::parse) {
            None => None,
            Some(Ok(address)) => Some(address),
            Some(Err(_)) => {
                return wrong(
                    "metrics_addr",
                    "must be an address and port, such as 127.0.0.1:9100",
                );
            }
        };
        let tls = match (&settings.tls_cert, &settings.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: certificate.into(),
                key: key.into(),
            }),
            (None, None) => None,
            (Some(_), None) => return wrong("tls_key", "is needed with TLS_CERT"),
            (None, Some(_)) => return wrong("tls_cert", "is needed with TLS_KEY"),
        };
        let redis = match (&settings.redis_url, &settings.redis_host) {
            (Some(url), _) => Some(url.clone()),
            (None, Some(host)) => Some(source::redis_url(
                host,
                settings.redis_port,
                settings.redis_password.as_deref(),
            )),
            (None, None) => None,
        };
        if let Some(redis) = &redis
            && ![
                "redis://",
                "rediss://",
                "redis-sentinel://",
                "rediss-sentinel://",
                "redis-cluster://",
                "rediss-cluster://",
            ]
            .iter()
            .any(|scheme| redis.starts_with(scheme))
        {
            return wrong(
                "redis_url",
                "must begin with redis://, rediss://, redis-sentinel:// or redis-cluster://",
            );
        }
        if settings.redis_ca.is_some()
            && !redis
                .as_ref()
                .is_some_and(|redis| redis.starts_with("rediss"))
        {
            return wrong(
                "redis_ca",
                "needs a REDIS_URL that asks for TLS: rediss://, for one",
            );
        }
        let mut warnings = Vec::new();
        let tokens = settings.tokens(&mut warnings)?;
        let webhook = settings.webhook(&mut warnings)?;
        let auth_mode = match (settings.auth_mode.as_deref(), &tokens) {
            (Some("jwt") | None, Some(_)) => AuthMode::Jwt,
            (Some("jwt"), None) => {
                return wrong(
                    "jwt_secret",
                    "(or JWT_PUBLIC_KEY_FILE, JWT_JWKS_FILE, JWT_JWKS_URL) is needed for AUTH_MODE=jwt",
                );
            }
            (Some("open"), _) => AuthMode::Open,
            (None, None) if address.ip().is_loopback() => AuthMode::Open,
            (None, None) => {
                return wrong(
                    "jwt_secret",
                    "is needed on an address that others can reach; or say AUTH_MODE=open, and anyone may be anyone",
                );
            }
            (Some(_), _) => return wrong("auth_mode", "must be open or jwt"),
        };
        if let Err(error) = ApiKeys::new(&identity::list(settings.api_keys.as_deref())) {
            return wrong(
                "api_keys",
                &format!("has an entry that can't be used: {error}"),
            );
        }
        let origins = match (&settings.allowed_origins, auth_mode) {
            (Some(list), _) => Origins::parse(list),
            (None, AuthMode::Open) => Origins::Any,
            (None, AuthMode::Jwt) => Origins::Listed(Vec::new()),
        };
        let proxies = match settings.trusted_proxies.as_deref() {
            None => None,
            Some("none") => Some(TrustedProxies::default()),
            Some(list) => match list.parse() {
                Ok(proxies) => Some(proxies),
                Err(error) => {
                    return wrong(
                        "trusted_proxies",
                        &format!("must be none, or a list of networks: {error}"),
                    );
                }
            },
        };
        let log_format = match settings.log_format.as_str() {
            "auto" => LogFormat::Auto,
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return wrong("log_format", "must be auto, text or json"),
        };
        let mut config = Self {
            settings,
            address,
            metrics_address,
            tls,
            redis,
            auth_mode,
            tokens,
            webhook,
            origins,
            proxies,
            log_format,
            warnings,
        };
        let found = warnings::find(&config);
        config.warnings.extend(found);
        Ok(config)
    }

    /// The limits of the rules.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let settings = &self.settings;
        Limits {
            event_bytes: settings.max_event_bytes,
            content_bytes: settings.max_content_bytes,
            payload_bytes: settings.max_payload_bytes,
            rooms_per_socket: settings.max_rooms_per_socket,
            status_subscriptions: settings.max_status_subscriptions,
            socket: self.socket_rates(),
            user: self.user_rates(),
            refusals: settings.max_rate_refusals,
            room_events: settings.room_events_limit,
            auth_timeout: Duration::from_secs(settings.auth_timeout_secs),
        }
    }

    /// The backplane's limits.
    #[must_use]
    pub fn backplane_limits(&self) -> BackplaneLimits {
        let settings = &self.settings;
        BackplaneLimits {
            history_size: settings.history_size,
            history_ttl: Duration::from_secs(settings.history_ttl_secs),
            room_ttl: Duration::from_secs(settings.room_ttl_secs),
            dedupe_ttl: Duration::from_secs(settings.dedupe_ttl_secs),
            presence_grace: Duration::from_millis(settings.presence_grace_ms),
            sockets_per_user: settings.max_sockets_per_user,
            rooms: settings.max_rooms,
        }
    }

    /// The caps on connections.
    #[must_use]
    pub fn caps(&self) -> Caps {
        Caps {
            connections: self.settings.max_connections,
            per_ip: self.settings.max_connections_per_ip,
            unauthenticated: self.settings.max_unauthenticated,
            handshakes_per_sec: self.settings.max_handshakes_per_sec,
            address: self.address_rates(),
        }
    }

    /// Roles of which a token must have one to broadcast; `None`: any token will do.
    #[must_use]
    pub fn broadcasters(&self) -> Option<Vec<String>> {
        self.settings
            .broadcast_roles
            .as_deref()
            .map(|roles| identity::list(Some(roles)))
    }

    /// How identities are checked.
    ///
    /// # Errors
    /// Never, once the configuration was checked.
    pub fn authenticator(&self) -> anyhow::Result<Authenticator> {
        Ok(match &self.tokens {
            Some(tokens) if self.auth_mode == AuthMode::Jwt => {
                Authenticator::Jwt(Box::new(tokens.verifier()?))
            }
            _ => Authenticator::Open,
        })
    }

    /// Keys of services.
    ///
    /// # Errors
    /// Never, once the configuration was checked.
    pub fn api_keys(&self) -> Result<ApiKeys, NotADigest> {
        ApiKeys::new(&identity::list(self.settings.api_keys.as_deref()))
    }

    /// Every key with its effective value, one a line, as `.env` has it; secrets are hidden.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (key, value) in self.settings.shown() {
            let name = key.to_uppercase();
            let line = match key {
                "auth_mode" => format!("{name}={}", format!("{:?}", self.auth_mode).to_lowercase()),
                _ if value.is_empty() => format!("# {name} is not set"),
                _ if SECRETS.contains(&key) => format!("{name}=***"),
                "redis_url" => format!("{name}={}", source::without_password(&value)),
                _ => format!("{name}={value}"),
            };
            out.push_str(&line);
            out.push('\n');
        }
        out
    }
}

fn describe(error: &figment::Error) -> String {
    let messages = error.clone().into_iter().map(|error| {
        let key = error.path.join(".").to_uppercase();
        let source = error
            .metadata
            .as_ref()
            .map_or_else(String::new, |metadata| format!(" (in {})", metadata.name));
        format!("{key}: {}{source}", error.kind)
    });
    messages.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
