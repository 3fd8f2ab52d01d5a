//! The settings of tokens (exactly one source of keys, and how tokens may be signed) and of who else is asked.

use std::time::Duration;

use http::HeaderValue;

use super::{ConfigError, Settings};
use crate::auth::{Algorithm, KeyError, KeySource, TokenRules, Verifier, Webhook, WebhookSettings};

/// How tokens are checked.
#[derive(Clone)]
pub struct Tokens {
    /// By which keys.
    pub keys: KeySource,
    /// What else is asked of them.
    pub rules: TokenRules,
}

impl Tokens {
    /// The checker of tokens; a set to be fetched isn't fetched yet.
    ///
    /// # Errors
    /// Never, once the configuration was checked.
    pub fn verifier(&self) -> Result<Verifier, KeyError> {
        Verifier::new(self.keys.clone(), self.rules.clone())
    }
}

fn wrong<T>(key: &str, what: impl std::fmt::Display) -> Result<T, ConfigError> {
    Err(ConfigError(format!("{key} {what}")))
}

pub(super) fn list(values: Option<&str>) -> Vec<String> {
    let values = values
        .unwrap_or_default()
        .split(',')
        .map(|value| value.trim().to_owned());
    values.filter(|value| !value.is_empty()).collect()
}

/// The URL of something that is asked over HTTP. A password in it would end up in places where nobody looks for one.
pub(super) fn http_url(key: &str, url: &str) -> Result<http::Uri, ConfigError> {
    let parsed = url
        .parse::<http::Uri>()
        .ok()
        .filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    match parsed.as_ref().and_then(http::Uri::authority) {
        Some(authority) if !authority.as_str().contains('@') && !authority.host().is_empty() => {}
        _ => {
            return wrong(
                key,
                "must be an http:// or https:// URL without a user or password",
            );
        }
    }
    parsed.map_or_else(|| wrong(key, "must be a URL"), Ok)
}

/// True for a URL whose answer anyone on the way could change.
pub(super) fn is_plain(uri: &http::Uri) -> bool {
    let host = uri
        .host()
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let loopback = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    uri.scheme_str() == Some("http") && !loopback
}

impl Settings {
    /// The secret that signs tokens. BetterAuth's counts only where no public key is named: it is an application's own secret
    /// and may well stand in the environment for another end.
    #[must_use]
    pub fn token_secret(&self) -> Option<&str> {
        let public = self.jwt_public_key_file.is_some()
            || self.jwt_jwks_file.is_some()
            || self.jwt_jwks_url.is_some();
        self.jwt_secret
            .as_deref()
            .or(self.better_auth_secret.as_deref().filter(|_| !public))
    }

    /// Who is asked about joins and sends; nobody when no URL is named.
    pub(super) fn webhook(
        &self,
        warnings: &mut Vec<String>,
    ) -> Result<Option<WebhookSettings>, ConfigError> {
        if !(1..=10_000).contains(&self.authorize_timeout_ms) {
            return wrong("AUTHORIZE_TIMEOUT_MS", "must be from 1 to 10000");
        }
        if self.authorize_cache_secs > 3600 {
            return wrong(
                "AUTHORIZE_CACHE_SECS",
                "must be at most 3600: so long does a permission last that was taken away",
            );
        }
        let Some(url) = &self.authorize_url else {
            return match &self.authorize_secret {
                Some(_) => wrong("AUTHORIZE_SECRET", "means nothing without AUTHORIZE_URL"),
                None => Ok(None),
            };
        };
        let uri = http_url("AUTHORIZE_URL", url)?;
        if is_plain(&uri) {
            warnings.push(
                "AUTHORIZE_URL is not https: whoever is on the way can allow what they like"
                    .to_owned(),
            );
        }
        let bearer = self
            .authorize_secret
            .as_ref()
            .map(|secret| HeaderValue::try_from(format!("Bearer {secret}")));
        let Ok(mut bearer) = bearer.transpose() else {
            return wrong("AUTHORIZE_SECRET", "must be plain text");
        };
        if let Some(bearer) = &mut bearer {
            bearer.set_sensitive(true);
        }
        let timeout = Duration::from_millis(self.authorize_timeout_ms);
        let settings = WebhookSettings {
            uri,
            bearer,
            timeout,
            cache: Duration::from_secs(self.authorize_cache_secs),
        };
        match Webhook::new(settings.clone()) {
            Ok(_) => Ok(Some(settings)),
            Err(error) => wrong("AUTHORIZE_URL", format!("can't be used: {error}")),
        }
    }

    /// How tokens are checked; none when no key is named.
    pub(super) fn tokens(&self, warnings: &mut Vec<String>) -> Result<Option<Tokens>, ConfigError> {
        let algorithms: Option<Vec<Algorithm>> = list(self.jwt_algorithm.as_deref())
            .iter()
            .map(|name| Algorithm::named(name))
            .collect();
        let Some(algorithms) = algorithms else {
            return wrong("JWT_ALGORITHM", "must be HS256, RS256, ES256 or EdDSA");
        };
        let named: Vec<&str> = [
            ("JWT_SECRET", self.token_secret().is_some()),
            ("JWT_PUBLIC_KEY_FILE", self.jwt_public_key_file.is_some()),
            ("JWT_JWKS_FILE", self.jwt_jwks_file.is_some()),
            ("JWT_JWKS_URL", self.jwt_jwks_url.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, set)| set.then_some(key))
        .collect();
        let source = match named.as_slice() {
            [] => None,
            [one] => Some(*one),
            several => {
                return wrong(
                    &several.join(" and "),
                    "are both set: tokens are checked by keys of one kind",
                );
            }
        };
        if self.jwt_secret_previous.is_some() && source != Some("JWT_SECRET") {
            return wrong("JWT_SECRET_PREVIOUS", "means nothing without JWT_SECRET");
        }
        let Some(source) = source else {
            return Ok(None);
        };
        if algorithms.is_empty() && source != "JWT_SECRET" {
            return wrong(
                "JWT_ALGORITHM",
                format!("is needed with {source}: RS256, ES256 or EdDSA"),
            );
        }
        let file = |path: &str| {
            std::fs::read_to_string(path).or_else(|error| {
                wrong(source, format!("names a file that can't be read: {error}"))
            })
        };
        let keys = match source {
            "JWT_PUBLIC_KEY_FILE" => KeySource::PublicKey(file(
                self.jwt_public_key_file.as_deref().unwrap_or_default(),
            )?),
            "JWT_JWKS_FILE" => {
                KeySource::Set(file(self.jwt_jwks_file.as_deref().unwrap_or_default())?)
            }
            "JWT_JWKS_URL" => {
                let uri = http_url(source, self.jwt_jwks_url.as_deref().unwrap_or_default())?;
                if is_plain(&uri) {
                    warnings.push(
                        "JWT_JWKS_URL is not https: whoever is on the way can put in keys of their own".to_owned(),
                    );
                }
                KeySource::Url(uri)
            }
            _ => {
                let secrets = self
                    .token_secret()
                    .into_iter()
                    .chain(self.jwt_secret_previous.as_deref());
                KeySource::Secrets(secrets.map(ToOwned::to_owned).collect())
            }
        };
        let rules = TokenRules {
            algorithms,
            audience: list(self.jwt_audience.as_deref()),
            issuer: list(self.jwt_issuer.as_deref()),
            leeway: self.jwt_leeway_secs,
        };
        let tokens = Tokens { keys, rules };
        match tokens.verifier() {
            Ok(_) => Ok(Some(tokens)),
            Err(KeyError::WrongAlgorithm) => wrong(
                "JWT_ALGORITHM",
                format!("doesn't go with {source}: {}", KeyError::WrongAlgorithm),
            ),
            Err(error @ KeyError::WeakSecret)
                if self
                    .jwt_secret_previous
                    .as_ref()
                    .is_some_and(|secret| secret.len() < crate::auth::MIN_SECRET_BYTES) =>
            {
                wrong("JWT_SECRET_PREVIOUS", format!("can't be used: {error}"))
            }
            Err(error) => {
                let is_better_auth = source == "JWT_SECRET" && self.jwt_secret.is_none();
                let source = if is_better_auth { "BETTER_AUTH_SECRET" } else { source };
                wrong(source, format!("can't be used: {error}"))
            }
        }
    }
}
