//! Section: how clients and services prove their identity.

use std::sync::Arc;
use std::time::Duration;

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section, Unit};
use super::parse::{Parsed, list, seconds};
use super::secrets::weakness;
use super::tokens::{TokenSigner, Tokens};
use super::values::Values;
use crate::auth::{ApiKeys, Authenticator};

/// An API key of fewer bytes can be guessed.
const MIN_API_KEY_BYTES: usize = 24;

const MODE: Key = Key {
    name: "AUTH_MODE",
    default: KeyDefault::Derived(
        "`jwt` with a key for tokens; without one `open`, on a loopback address only",
    ),
    summary: "`jwt`: a token proves a client's identity. `open`: every client names its own user, \
              without proof.",
    example: "jwt",
    ..Key::PLAIN
};
const TIMEOUT: Key = Key {
    name: "AUTH_TIMEOUT_SECS",
    default: KeyDefault::Value("600"),
    unit: Unit::Seconds,
    summary: "A connection that has not authenticated within this time is closed; its client \
              reconnects on its own.",
    help: "A page may connect when it loads, and log in later.",
    ..Key::PLAIN
};
const API_KEYS: Key = Key {
    name: "API_KEYS",
    summary: "Keys of the services that use REST in jwt mode, separated by commas.",
    help: "Each as it is, of at least 24 bytes, or as `sha256:` and its SHA-256 digest in \
           hexadecimal.",
    ..Key::SECRET
};
const BROADCAST_ROLES: Key = Key {
    name: "BROADCAST_ROLES",
    summary: "Roles of which a token must have one for `POST /api/broadcast`, separated by commas.",
    help: "One of `API_KEYS` is always enough. Not set: **any valid token may broadcast**. Set it \
           in production.",
    example: "service,admin",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "Authentication",
    intro: "",
    keys: &[&MODE, &TIMEOUT, &API_KEYS, &BROADCAST_ROLES],
};

/// The proof of a client's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthMode {
    /// Nothing: every client names its own user.
    Open,
    /// A token.
    Jwt,
}

impl AuthMode {
    /// The value of `AUTH_MODE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Jwt => "jwt",
        }
    }
}

/// How clients and services prove their identity, ready for use.
pub(crate) struct IdentitySettings {
    pub mode: AuthMode,
    pub authenticator: Arc<Authenticator>,
    /// The time within which a connection must authenticate.
    pub timeout: Duration,
    pub api_keys: ApiKeys,
    /// Roles of which a token must have one to broadcast; `None`: any valid token may.
    pub broadcast_roles: Option<Vec<String>>,
    /// Signs tokens for development; `None` without a shared secret.
    pub signer: Option<TokenSigner>,
}

pub(super) fn parse(
    values: &mut Values,
    tokens: Option<Tokens>,
    is_public: bool,
    warnings: &mut Vec<String>,
) -> Result<IdentitySettings, ConfigError> {
    let mode = parse_mode(values, tokens.is_some(), is_public)?;
    values.record(&MODE, Some(mode.name().to_owned()));
    let (verifier, signer) = match tokens {
        Some(Tokens {
            verifier, signer, ..
        }) => (Some(verifier), signer),
        None => (None, None),
    };
    let authenticator = match verifier {
        Some(verifier) if mode == AuthMode::Jwt => Authenticator::jwt(verifier),
        _ => Authenticator::open(),
    };
    Ok(IdentitySettings {
        mode,
        authenticator: Arc::new(authenticator),
        timeout: values.required(&TIMEOUT, seconds(1))?,
        api_keys: parse_api_keys(values, warnings)?,
        broadcast_roles: values.optional(&BROADCAST_ROLES, list)?,
        signer,
    })
}

fn parse_mode(
    values: &mut Values,
    has_tokens: bool,
    is_public: bool,
) -> Result<AuthMode, ConfigError> {
    match (values.optional(&MODE, mode)?, has_tokens) {
        (Some(AuthMode::Open), _) => Ok(AuthMode::Open),
        (Some(AuthMode::Jwt) | None, true) => Ok(AuthMode::Jwt),
        (Some(AuthMode::Jwt), false) => Err(ConfigError::of(
            &super::tokens::SECRET,
            "(or JWT_PUBLIC_KEY_FILE, JWT_JWKS_FILE, JWT_JWKS_URL) is needed for AUTH_MODE=jwt",
        )),
        (None, false) if is_public => Err(ConfigError::of(
            &super::tokens::SECRET,
            "is needed on an address that other machines can reach; or set AUTH_MODE=open, in \
             which every client names its own user without proof",
        )),
        (None, false) => Ok(AuthMode::Open),
    }
}

fn mode(text: &str) -> Parsed<AuthMode> {
    match text {
        "jwt" => Ok(AuthMode::Jwt),
        "open" => Ok(AuthMode::Open),
        _ => Err("must be open or jwt".to_owned()),
    }
}

fn parse_api_keys(values: &mut Values, warnings: &mut Vec<String>) -> Result<ApiKeys, ConfigError> {
    let keys = values.optional(&API_KEYS, list)?.unwrap_or_default();
    let is_short = |key: &String| !key.starts_with("sha256:") && key.len() < MIN_API_KEY_BYTES;
    if keys.iter().any(is_short) {
        warnings.push("API_KEYS has a key of less than 24 bytes: it can be guessed".to_owned());
    }
    let mut long = keys
        .iter()
        .filter(|key| !key.starts_with("sha256:") && !is_short(key));
    if let Some(weakness) = long.find_map(|key| weakness(key)) {
        warnings.push(format!("API_KEYS has a key that {weakness}"));
    }
    ApiKeys::new(&keys).map_err(|error| {
        let problem = format!("has an entry that can't be used: {error}");
        values.error(&API_KEYS, problem)
    })
}
