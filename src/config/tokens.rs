//! Section: the keys that tokens are verified with, and the other rules for tokens.

use std::fmt::Display;
use std::path::Path;

use http::Uri;

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section, Unit, url_without_query};
use super::parse::{Parsed, http_url, is_unprotected, list, number, path, text};
use super::secrets::weakness;
use super::values::Values;
use crate::auth::{Algorithm, KeyError, KeySource, MIN_SECRET_BYTES, TokenRules, Verifier};
use crate::domain::without_bom;

/// The longest time past its expiry for which a token may be accepted.
const MAX_LEEWAY_SECS: u64 = 30;

pub(super) const SECRET: Key = Key {
    name: "JWT_SECRET",
    summary: "Shared secret that signs the tokens (HS256), at least 32 bytes.",
    help: "`openssl rand -hex 32` makes one.",
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
    help: "Not set: `iss` is not checked.",
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
    intro: "Tokens are verified with keys of exactly one kind: a secret, a public key, a JWK set in \
            a file, or a JWK set at a URL.",
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

/// The keys as configured: exactly one kind.
enum Keys {
    /// The current secret with the key that set it, and the previous secret.
    Secrets(&'static Key, String, Option<String>),
    /// The content of the file.
    PublicKey(String),
    /// The content of the file.
    JwksFile(String),
    JwksUrl(Uri),
}

impl Keys {
    fn key(&self) -> &'static Key {
        match self {
            Self::Secrets(key, ..) => key,
            Self::PublicKey(_) => &PUBLIC_KEY_FILE,
            Self::JwksFile(_) => &JWKS_FILE,
            Self::JwksUrl(_) => &JWKS_URL,
        }
    }

    /// The key of the first secret that is too short.
    fn weak_key(&self) -> &'static Key {
        match self {
            Self::Secrets(_, current, Some(_)) if current.len() >= MIN_SECRET_BYTES => {
                &PREVIOUS_SECRET
            }
            _ => self.key(),
        }
    }
}

/// How tokens are verified; `None` when no key for them is configured.
pub(super) fn parse(
    values: &mut Values,
    warnings: &mut Vec<String>,
) -> Result<Option<Tokens>, ConfigError> {
    let keys = parse_keys(values, warnings)?;
    let rules = TokenRules {
        algorithms: values.optional(&ALGORITHM, algorithms)?.unwrap_or_default(),
        audience: values.optional(&AUDIENCE, list)?.unwrap_or_default(),
        issuer: values.optional(&ISSUER, list)?.unwrap_or_default(),
        leeway: values.required(&LEEWAY, number(0, MAX_LEEWAY_SECS))?,
    };
    let Some(keys) = keys else {
        return Ok(None);
    };
    if rules.algorithms.is_empty() && !matches!(keys, Keys::Secrets(..)) {
        let problem = format!("is needed with {}: RS256, ES256 or EdDSA", keys.key().name);
        return Err(values.error(&ALGORITHM, problem));
    }
    let secrets = match &keys {
        Keys::Secrets(_, secret, previous) => {
            let all = [Some(secret), previous.as_ref()];
            all.into_iter().flatten().cloned().collect()
        }
        _ => Vec::new(),
    };
    let signer = match &keys {
        Keys::Secrets(_, secret, _) => Some(TokenSigner {
            secret: secret.clone(),
            audience: rules.audience.first().cloned(),
            issuer: rules.issuer.first().cloned(),
        }),
        _ => None,
    };
    if let Keys::Secrets(key, secret, previous) = &keys {
        let current = (key.name, Some(secret));
        for (name, secret) in [current, (PREVIOUS_SECRET.name, previous.as_ref())] {
            let weakness = secret.and_then(|secret| weakness(secret));
            warnings.extend(weakness.map(|weakness| format!("{name} {weakness}")));
        }
    }
    let (key, weak_key) = (keys.key(), keys.weak_key());
    let source = match keys {
        Keys::Secrets(_, secret, previous) => {
            KeySource::Secrets([Some(secret), previous].into_iter().flatten().collect())
        }
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
        Err(error @ KeyError::WeakSecret) => {
            Err(values.error(weak_key, format!("can't be used: {error}")))
        }
        Err(error) => Err(values.error(key, format!("can't be used: {error}"))),
    }
}

fn parse_keys(
    values: &mut Values,
    warnings: &mut Vec<String>,
) -> Result<Option<Keys>, ConfigError> {
    let jwt_secret = values.optional(&SECRET, text)?;
    let previous = values.optional(&PREVIOUS_SECRET, text)?;
    let better_auth_secret = values.optional(&BETTER_AUTH_SECRET, text)?;
    let public_key_file = values.optional(&PUBLIC_KEY_FILE, path)?;
    let jwks_file = values.optional(&JWKS_FILE, path)?;
    let jwks_url = values.optional(&JWKS_URL, http_url)?;

    // BetterAuth's secret belongs to the application. Beside public keys it is in the environment
    // for another purpose.
    let has_public = public_key_file.is_some() || jwks_file.is_some() || jwks_url.is_some();
    let secret = match (jwt_secret, better_auth_secret) {
        (Some(secret), _) => Some((&SECRET, secret)),
        (None, Some(secret)) if !has_public => Some((&BETTER_AUTH_SECRET, secret)),
        _ => None,
    };
    if previous.is_some() && secret.is_none() {
        return Err(values.error(&PREVIOUS_SECRET, "means nothing without JWT_SECRET"));
    }
    let mut kinds = Vec::new();
    kinds.extend(secret.as_ref().map(|(key, _)| *key));
    kinds.extend(public_key_file.as_ref().map(|_| &PUBLIC_KEY_FILE));
    kinds.extend(jwks_file.as_ref().map(|_| &JWKS_FILE));
    kinds.extend(jwks_url.as_ref().map(|_| &JWKS_URL));
    if kinds.len() > 1 {
        return Err(several_kinds(&kinds));
    }
    if let Some((key, secret)) = secret {
        return Ok(Some(Keys::Secrets(key, secret, previous)));
    }
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
