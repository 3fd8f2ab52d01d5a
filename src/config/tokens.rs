//! Section: the keys that tokens are verified with, and the other rules for tokens.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use http::Uri;

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section, Unit, url_without_query};
use super::parse::{Parsed, http_url, is_unprotected, list, number, path, text};
use super::secrets::weakness;
use super::values::Values;
use crate::auth::{
    ACCOUNT_ISSUER, Algorithm, KeyError, KeySource, MIN_SECRET_BYTES, TokenRules, Verifier,
};
use crate::domain::without_bom;

/// The longest time past its expiry for which a token may be accepted.
const MAX_LEEWAY_SECS: u64 = 30;

pub(super) const SECRET: Key = Key {
    name: "JWT_SECRET",
    summary: "Shared secret that signs the tokens (HS256), at least 32 bytes.",
    help: "`openssl rand -hex 32` makes one. With public keys or a JWK set it signs the tokens of \
           accounts only, and those of the outside issuer are verified with its keys.",
    ..Key::SECRET
};
const PREVIOUS_SECRET: Key = Key {
    name: "JWT_SECRET_PREVIOUS",
    summary: "The previous secret, accepted as well while `JWT_SECRET` is being changed.",
    ..Key::SECRET
};
const BETTER_AUTH_SECRET: Key = Key {
    name: "BETTER_AUTH_SECRET",
    summary: "Stands in for `JWT_SECRET`, unless a public key or a JWK set is configured.",
    ..Key::SECRET
};
const PUBLIC_KEY_FILE: Key = Key {
    name: "JWT_PUBLIC_KEY_FILE",
    summary: "PEM file with a public key, in place of a secret.",
    example: "jwt.pub.pem",
    ..Key::PLAIN
};
const JWKS_FILE: Key = Key {
    name: "JWT_JWKS_FILE",
    summary: "File with a JWK set, in place of a secret.",
    example: "jwks.json",
    ..Key::PLAIN
};
const JWKS_URL: Key = Key {
    name: "JWT_JWKS_URL",
    summary: "URL at which a JWK set is published, in place of a secret.",
    help: "BetterAuth publishes it at `/api/auth/jwks`.",
    example: "https://app.example.com/api/auth/jwks",
    show: url_without_query,
    ..Key::PLAIN
};
const ALGORITHM: Key = Key {
    name: "JWT_ALGORITHM",
    default: KeyDefault::Derived("`HS256` with a secret; required with public keys"),
    summary: "Algorithms that tokens may be signed with, separated by commas: `RS256`, `ES256` and \
              `EdDSA` (BetterAuth) with public keys, `HS256` with a secret.",
    help: "The algorithm is never taken from the token alone.",
    example: "EdDSA",
    ..Key::PLAIN
};
const AUDIENCE: Key = Key {
    name: "JWT_AUDIENCE",
    summary: "A token's `aud` must contain one of these, separated by commas.",
    help: "Not set: `aud` is not checked.",
    example: "https://app.example.com",
    ..Key::PLAIN
};
const ISSUER: Key = Key {
    name: "JWT_ISSUER",
    summary: "A token's `iss` must be one of these, separated by commas.",
    help: "Not set: `iss` is not checked. With accounts it must not be `hubbub`.",
    example: "https://app.example.com",
    ..Key::PLAIN
};
const LEEWAY: Key = Key {
    name: "JWT_LEEWAY_SECS",
    default: KeyDefault::Value("0"),
    unit: Unit::Seconds,
    summary: "Tolerance on a token's `exp` and `nbf`, at most 30 seconds.",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "Tokens",
    intro: "Tokens of an outside issuer are verified with keys of exactly one kind: a secret, a \
            public key, a JWK set in a file, or a JWK set at a URL. Tokens of accounts are signed by \
            this server with its own secret (see Accounts), and may be in use together with them.",
    keys: &[
        &SECRET,
        &PREVIOUS_SECRET,
        &BETTER_AUTH_SECRET,
        &PUBLIC_KEY_FILE,
        &JWKS_FILE,
        &JWKS_URL,
        &ALGORITHM,
        &AUDIENCE,
        &ISSUER,
        &LEEWAY,
    ],
};

/// Verifies tokens, and signs them where the key is a shared secret.
pub(super) struct Tokens {
    /// A JWK set at a URL has not been fetched yet.
    pub verifier: Verifier,
    pub signer: Option<TokenSigner>,
    /// The secrets that sign and verify the tokens of accounts: the current one first.
    pub secrets: Vec<String>,
}

/// The secret and claims with which `hubbub token` signs a token that this node accepts.
pub(crate) struct TokenSigner {
    pub secret: String,
    pub audience: Option<String>,
    pub issuer: Option<String>,
}

/// Secrets as configured.
struct Secrets {
    /// The key that set the current one.
    key: &'static Key,
    current: String,
    previous: Option<String>,
}

impl Secrets {
    /// The current one first.
    fn all(&self) -> Vec<String> {
        let all = [Some(&self.current), self.previous.as_ref()];
        all.into_iter().flatten().cloned().collect()
    }

    /// The key of the first secret that is too short.
    fn weak_key(&self) -> &'static Key {
        match &self.previous {
            Some(_) if self.current.len() >= MIN_SECRET_BYTES => &PREVIOUS_SECRET,
            _ => self.key,
        }
    }

    /// Warns of secrets that can be guessed.
    fn warn(&self, warnings: &mut Vec<String>) {
        let current = (self.key.name, Some(&self.current));
        for (name, secret) in [current, (PREVIOUS_SECRET.name, self.previous.as_ref())] {
            let weakness = secret.and_then(|secret| weakness(secret));
            warnings.extend(weakness.map(|weakness| format!("{name} {weakness}")));
        }
    }
}

/// The keys that verify tokens, as configured: exactly one kind.
enum Keys {
    Secrets(Secrets),
    /// The content of the file.
    PublicKey(String),
    /// The content of the file.
    JwksFile(String),
    JwksUrl(Uri),
}

impl Keys {
    fn key(&self) -> &'static Key {
        match self {
            Self::Secrets(secrets) => secrets.key,
            Self::PublicKey(_) => &PUBLIC_KEY_FILE,
            Self::JwksFile(_) => &JWKS_FILE,
            Self::JwksUrl(_) => &JWKS_URL,
        }
    }
}

/// How tokens are verified; `None` when no key for them is configured. With `has_database` there may be
/// accounts, whose tokens are signed with a secret beside the public keys of an outside issuer.
pub(super) fn parse(
    values: &mut Values,
    has_database: bool,
    warnings: &mut Vec<String>,
) -> Result<Option<Tokens>, ConfigError> {
    let (keys, of_accounts) = parse_keys(values, has_database, warnings)?;
    let rules = TokenRules {
        algorithms: values.optional(&ALGORITHM, algorithms)?.unwrap_or_default(),
        audience: values.optional(&AUDIENCE, list)?.unwrap_or_default(),
        issuer: values.optional(&ISSUER, list)?.unwrap_or_default(),
        leeway: values.required(&LEEWAY, number(0, MAX_LEEWAY_SECS))?,
        reads_session: false,
    };
    let Some(keys) = keys else {
        return Ok(None);
    };
    if rules.algorithms.is_empty() && !matches!(keys, Keys::Secrets(_)) {
        let problem = format!("is needed with {}: RS256, ES256 or EdDSA", keys.key().name);
        return Err(values.error(&ALGORITHM, problem));
    }
    let signer = match &keys {
        Keys::Secrets(secrets) => Some(TokenSigner {
            secret: secrets.current.clone(),
            audience: rules.audience.first().cloned(),
            issuer: rules.issuer.first().cloned(),
        }),
        _ => None,
    };
    let secrets = match &keys {
        Keys::Secrets(secrets) => Some(secrets),
        _ => of_accounts.as_ref(),
    };
    if let Some(secrets) = secrets {
        secrets.warn(warnings);
    }
    let weak_key = secrets.map_or(&SECRET, Secrets::weak_key);
    let secrets = secrets.map(Secrets::all).unwrap_or_default();
    let weak = |values: &Values, error: KeyError| {
        values.error(weak_key, format!("can't be used: {error}"))
    };
    if secrets.iter().any(|secret| secret.len() < MIN_SECRET_BYTES) {
        return Err(weak(values, KeyError::WeakSecret));
    }
    let key = keys.key();
    let source = match keys {
        Keys::Secrets(secrets) => KeySource::Secrets(secrets.all()),
        Keys::PublicKey(pem) => KeySource::PublicKey(pem),
        Keys::JwksFile(json) => KeySource::Set(json),
        Keys::JwksUrl(uri) => KeySource::Url(uri),
    };
    match Verifier::new(source, rules) {
        Ok(verifier) => Ok(Some(Tokens {
            verifier,
            signer,
            secrets,
        })),
        Err(error @ KeyError::WrongAlgorithm) => {
            let problem = format!("doesn't go with {}: {error}", key.name);
            Err(values.error(&ALGORITHM, problem))
        }
        Err(error @ KeyError::WeakSecret) => Err(weak(values, error)),
        Err(error) => Err(values.error(key, format!("can't be used: {error}"))),
    }
}

/// The name of this server's own tokens is that of no outside issuer: a token with it is looked up among
/// the accounts.
///
/// # Errors
/// If `JWT_ISSUER` has it.
pub(super) fn check_issuers(values: &mut Values) -> Result<(), ConfigError> {
    let issuers = values.optional(&ISSUER, list)?.unwrap_or_default();
    if issuers.iter().any(|issuer| issuer == ACCOUNT_ISSUER) {
        let problem = format!("must not be {ACCOUNT_ISSUER}: it is the issuer of accounts");
        return Err(values.error(&ISSUER, problem));
    }
    Ok(())
}

/// The keys that verify tokens of an outside issuer, and beside public ones the secrets of accounts.
fn parse_keys(
    values: &mut Values,
    has_database: bool,
    warnings: &mut Vec<String>,
) -> Result<(Option<Keys>, Option<Secrets>), ConfigError> {
    let jwt_secret = values.optional(&SECRET, text)?;
    let previous = values.optional(&PREVIOUS_SECRET, text)?;
    let better_auth_secret = values.optional(&BETTER_AUTH_SECRET, text)?;
    let public_key_file = values.optional(&PUBLIC_KEY_FILE, path)?;
    let jwks_file = values.optional(&JWKS_FILE, path)?;
    let jwks_url = values.optional(&JWKS_URL, http_url)?;

    let mut public = Vec::new();
    public.extend(public_key_file.as_ref().map(|_| &PUBLIC_KEY_FILE));
    public.extend(jwks_file.as_ref().map(|_| &JWKS_FILE));
    public.extend(jwks_url.as_ref().map(|_| &JWKS_URL));
    // BetterAuth's secret belongs to the application. Beside public keys it is in the environment
    // for another purpose.
    let current = match (jwt_secret, better_auth_secret) {
        (Some(secret), _) => Some((&SECRET, secret)),
        (None, Some(secret)) if public.is_empty() => Some((&BETTER_AUTH_SECRET, secret)),
        _ => None,
    };
    let Some((key, current)) = current else {
        if previous.is_some() {
            return Err(values.error(&PREVIOUS_SECRET, "means nothing without JWT_SECRET"));
        }
        if public.len() > 1 {
            return Err(several_kinds(&public));
        }
        return Ok((
            public_keys(values, public_key_file, jwks_file, jwks_url, warnings)?,
            None,
        ));
    };
    // Without accounts the secret would verify the tokens that the public keys verify.
    if public.len() > 1 || (!public.is_empty() && !has_database) {
        let secret = if has_database { None } else { Some(key) };
        let kinds: Vec<&Key> = secret.into_iter().chain(public).collect();
        return Err(several_kinds(&kinds));
    }
    let secrets = Secrets {
        key,
        current,
        previous,
    };
    match public_keys(values, public_key_file, jwks_file, jwks_url, warnings)? {
        Some(keys) => Ok((Some(keys), Some(secrets))),
        None => Ok((Some(Keys::Secrets(secrets)), None)),
    }
}

/// The public keys, of which at most one kind is configured.
fn public_keys(
    values: &Values,
    public_key_file: Option<PathBuf>,
    jwks_file: Option<PathBuf>,
    jwks_url: Option<Uri>,
    warnings: &mut Vec<String>,
) -> Result<Option<Keys>, ConfigError> {
    if let Some(path) = public_key_file {
        let pem = read(values, &PUBLIC_KEY_FILE, &path)?;
        return Ok(Some(Keys::PublicKey(pem)));
    }
    if let Some(path) = jwks_file {
        let json = read(values, &JWKS_FILE, &path)?;
        return Ok(Some(Keys::JwksFile(json)));
    }
    let Some(uri) = jwks_url else {
        return Ok(None);
    };
    if is_unprotected(&uri) {
        warnings.push(
            "JWT_JWKS_URL is not https: anyone on the network path can insert keys of their own"
                .to_owned(),
        );
    }
    Ok(Some(Keys::JwksUrl(uri)))
}

fn several_kinds(keys: &[&Key]) -> ConfigError {
    let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
    ConfigError::Invalid {
        key: names.join(" and "),
        problem: "are set together: tokens are verified with keys of one kind".to_owned(),
        source_name: None,
    }
}

/// The content of the file, without the path in an error: a key may have been put in its place.
fn read(values: &Values, key: &'static Key, path: &Path) -> Result<String, ConfigError> {
    let problem = |error: &dyn Display| {
        values.error(key, format!("names a file that can't be read: {error}"))
    };
    let bytes = std::fs::read(path).map_err(|error| problem(&error))?;
    String::from_utf8(without_bom(bytes)).map_err(|_| problem(&"it is not text in UTF-8"))
}

fn algorithms(text: &str) -> Parsed<Vec<Algorithm>> {
    let names = list(text)?;
    let algorithms: Option<_> = names.iter().map(|name| Algorithm::named(name)).collect();
    algorithms.ok_or_else(|| "must be HS256, RS256, ES256 or EdDSA".to_owned())
}
