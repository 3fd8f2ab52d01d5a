//! Section: which web pages may connect, and which proxies are in front of the node.

use super::error::ConfigError;
use super::identity::AuthMode;
use super::key::{Key, KeyDefault, Section};
use super::parse::Parsed;
use super::values::Values;
use crate::gateway::origins::Origins;
use crate::server::TrustedProxies;

const ALLOWED_ORIGINS: Key = Key {
    name: "ALLOWED_ORIGINS",
    default: KeyDefault::Derived("none in jwt mode, `*` in open mode"),
    summary: "Origins of the web pages that may connect, separated by commas; `*` allows every \
              page.",
    help: "An origin is a scheme, a host and, unless it is the scheme's default, a port: \
           `https://chat.example.com`, `http://localhost:3000`. Those of hybrid apps and \
           extensions (`capacitor://localhost`, `chrome-extension://…`), `file://` and `null` can be \
           listed; patterns and paths are refused. Letter case, a default port and a slash at the \
           end make no difference. Pages from the node's own host and port are always allowed.",
    see: "security.md#web",
    example: "https://chat.example.com",
    ..Key::PLAIN
};
const TRUSTED_PROXIES: Key = Key {
    name: "TRUSTED_PROXIES",
    summary: "IP addresses and networks (CIDR) of the proxies in front of the node, separated by \
              commas; `none` when clients connect directly.",
    help: "`X-Forwarded-For`, `X-Forwarded-Host`, `X-Forwarded-Port` and `X-Forwarded-Proto` count \
           only in requests from them. Not set: it is unknown which \
           addresses belong to clients, so the rates of an address (`RATE_IP_*`) are off by \
           default.",
    example: "10.0.0.0/8,fd00::/8",
    ..Key::PLAIN
};

pub(super) const SECTION: Section = Section {
    title: "Origins and proxies",
    intro: "",
    keys: &[&ALLOWED_ORIGINS, &TRUSTED_PROXIES],
};

/// Which pages may connect, and whose `X-Forwarded-*` headers count.
pub(crate) struct OriginSettings {
    pub origins: Origins,
    /// `None`: not configured, so clients' addresses are unknown.
    pub proxies: Option<TrustedProxies>,
}

impl OriginSettings {
    /// Whether there are proxies that are trusted.
    pub fn has_proxies(&self) -> bool {
        let proxies = self.proxies.as_ref();
        proxies.is_some_and(|proxies| *proxies != TrustedProxies::default())
    }
}

pub(super) fn parse(
    values: &mut Values,
    mode: AuthMode,
    is_public: bool,
    warnings: &mut Vec<String>,
) -> Result<OriginSettings, ConfigError> {
    let listed = values.optional(&ALLOWED_ORIGINS, |list| {
        list.parse::<Origins>().map_err(|fault| fault.to_string())
    })?;
    let origins = match listed {
        Some(origins) => origins,
        None if mode == AuthMode::Open => Origins::Any,
        None => Origins::Listed(Vec::new()),
    };
    if origins.has_unprotected_page() && is_public {
        warnings.push(
            "ALLOWED_ORIGINS has a page without TLS (http://): anyone on the network path can \
             change that page"
                .to_owned(),
        );
    }
    Ok(OriginSettings {
        origins,
        proxies: values.optional(&TRUSTED_PROXIES, proxies)?,
    })
}

fn proxies(text: &str) -> Parsed<TrustedProxies> {
    if text == "none" {
        return Ok(TrustedProxies::default());
    }
    text.parse().map_err(|_| {
        "must be none, or a list of IP addresses and networks such as 10.0.0.0/8".to_owned()
    })
}
