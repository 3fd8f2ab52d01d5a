//! Section: the webhook that decides about joins and sends.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::error::ConfigError;
use super::key::{Key, KeyDefault, Section, Unit, url_without_query};
use super::parse::{Parsed, http_url, is_unprotected, number};
use super::secrets::password_weakness;
use super::values::Values;
use crate::auth::{Webhook, WebhookSettings};

const URL: Key = Key {
    name: "AUTHORIZE_URL",
    summary: "Webhook that decides whether a user may join a room or send to it.",
    help: "The node sends `POST {\"action\", \"user_id\", \"room_id\"}` and expects \
           `{\"allow\": true}` or `{\"allow\": false}`. Not set: every user may.",
    example: "https://app.example.com/chat/allow",
    see: "security.md",
    show: url_without_query,
    ..Key::PLAIN
};
const SECRET: Key = Key {
    name: "AUTHORIZE_SECRET",
    summary: "Sent to the webhook as `Authorization: Bearer`, so that it recognises the node.",
    ..Key::SECRET
};
const TIMEOUT: Key = Key {
    name: "AUTHORIZE_TIMEOUT_MS",
    default: KeyDefault::Value("1000"),
    unit: Unit::Milliseconds,
    summary: "Longest time that the webhook may take to answer, at most 10000 milliseconds.",
    help: "Without an answer the request is refused.",
    ..Key::PLAIN
};
const CACHE: Key = Key {
    name: "AUTHORIZE_CACHE_SECS",
    default: KeyDefault::Value("30"),
    unit: Unit::Seconds,
    summary: "Time for which an answer of the webhook is reused, at most 3600 seconds.",
    help: "A permission that was withdrawn lasts for up to this time. 0: no answer is reused.",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "Authorization webhook",
    intro: "",
    keys: &[&URL, &SECRET, &TIMEOUT, &CACHE],
};

/// The webhook, ready for use; `None` when no URL is set.
pub(super) fn parse(
    values: &mut Values,
    warnings: &mut Vec<String>,
) -> Result<Option<Arc<Webhook>>, ConfigError> {
    let timeout = Duration::from_millis(values.required(&TIMEOUT, number(1, 10_000))?);
    let cache = Duration::from_secs(values.required(&CACHE, cache_secs)?);
    let secret = values.optional(&SECRET, |secret| {
        Ok((bearer(secret)?, password_weakness(secret)))
    })?;
    let (bearer, weakness) = secret.unzip();
    if let Some(weakness) = weakness.flatten() {
        warnings.push(format!("{} {weakness}", SECRET.name));
    }
    let Some(uri) = values.optional(&URL, http_url)? else {
        if bearer.is_some() {
            return Err(values.error(&SECRET, "means nothing without AUTHORIZE_URL"));
        }
        return Ok(None);
    };
    if is_unprotected(&uri) {
        warnings.push(
            "AUTHORIZE_URL is not https: anyone on the network path can allow any join and send"
                .to_owned(),
        );
    }
    let settings = WebhookSettings {
        uri,
        bearer,
        timeout,
        cache,
    };
    match Webhook::new(settings) {
        Ok(webhook) => Ok(Some(Arc::new(webhook))),
        Err(error) => Err(values.error(&URL, format!("can't be used: {error}"))),
    }
}

fn cache_secs(text: &str) -> Parsed<u64> {
    number(0, 3600)(text).map_err(|problem| {
        format!("{problem}: a permission that was withdrawn lasts for up to this time")
    })
}

fn bearer(secret: &str) -> Parsed<HeaderValue> {
    let mut bearer = HeaderValue::try_from(format!("Bearer {secret}"))
        .map_err(|_| "must be plain text".to_owned())?;
    bearer.set_sensitive(true);
    Ok(bearer)
}
