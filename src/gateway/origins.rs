//! The origins of web pages, and which of them may send requests to this node.

use std::str::FromStr;

use crate::server::{HostAndPort, default_port};

/// An origin in its canonical form: in lower case, and without its scheme's default port. So two
/// origins that browsers take for the same are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    /// Empty for `file://`.
    host: String,
    port: Option<u16>,
}

/// The reason why a text is not an origin. Continues a sentence that begins with the text's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadOrigin {
    /// For example `https://*.example.com`.
    #[error(
        "is a pattern: list every origin by itself, such as https://chat.example.com, or * alone \
         for all pages"
    )]
    Pattern,
    /// For example `chat.example.com`.
    #[error("has no scheme: an origin is written as https://chat.example.com")]
    NoScheme,
    /// For example `https://chat.example.com/app`.
    #[error("has more than a scheme, a host and a port: an origin has no path and no user")]
    Path,
    /// The scheme, the host or the port is malformed.
    #[error("is not an origin, which is written as https://chat.example.com or with a port")]
    Malformed,
}

impl FromStr for Origin {
    type Err = BadOrigin;

    /// Parses `scheme://host` or `scheme://host:port`, also with a slash at the end, and `file://`.
    fn from_str(text: &str) -> Result<Self, BadOrigin> {
        if text.contains('*') {
            return Err(BadOrigin::Pattern);
        }
        let (scheme, rest) = text.split_once("://").ok_or(BadOrigin::NoScheme)?;
        let scheme = scheme.to_ascii_lowercase();
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@', '\\']) {
            return Err(BadOrigin::Path);
        }
        if !is_scheme(&scheme) {
            return Err(BadOrigin::Malformed);
        }
        if scheme == "file" {
            let (host, port) = (String::new(), None);
            return match authority {
                "" => Ok(Self { scheme, host, port }),
                _ => Err(BadOrigin::Malformed),
            };
        }
        let HostAndPort { host, port } =
            HostAndPort::parse(authority).ok_or(BadOrigin::Malformed)?;
        let host = ascii_host(host)?;
        let port = port.filter(|port| default_port(&scheme) != Some(*port));
        Ok(Self { scheme, host, port })
    }
}

impl Origin {
    /// Whether a page of this origin was loaded from `host`. The scheme is not compared, because a
    /// proxy may have terminated TLS, and clients outside of browsers state the scheme of the
    /// WebSocket.
    fn is_of(&self, host: &HostAndPort) -> bool {
        let Some(default) = default_port(&self.scheme) else {
            return false;
        };
        self.host == host.host && self.port.unwrap_or(default) == host.port.unwrap_or(default)
    }

    /// Whether anyone on the network path can change the page: it is loaded over HTTP without TLS,
    /// and not from the browser's own machine.
    fn is_unprotected(&self) -> bool {
        let is_local = self.host == "localhost"
            || self.host.ends_with(".localhost")
            || self.host.starts_with("127.")
            || self.host == "[::1]";
        self.scheme == "http" && !is_local
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// The host as browsers send it: names with other letters than ASCII are encoded.
fn ascii_host(host: String) -> Result<String, BadOrigin> {
    // Laxer than for domain names, because extensions and apps have hosts such as `-` and `a_b`.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if host.bytes().all(is_plain) {
        return Ok(host);
    }
    match url::Host::parse(&host) {
        Ok(url::Host::Ipv6(_)) => Ok(host),
        Ok(url::Host::Domain(name)) if !host.is_ascii() => Ok(name),
        _ => Err(BadOrigin::Malformed),
    }
}

/// The origins of pages that may send requests to this node (`ALLOWED_ORIGINS`), beside those of
/// the node itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// All origins.
    Any,
    /// These origins.
    Listed(Vec<ListedOrigin>),
}

/// An entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedOrigin {
    /// The origin of pages that have none of their own, such as files: `null`.
    Null,
    /// An origin with a scheme.
    Of(Origin),
}

impl FromStr for ListedOrigin {
    type Err = BadOrigin;

    fn from_str(text: &str) -> Result<Self, BadOrigin> {
        if text.eq_ignore_ascii_case("null") {
            return Ok(Self::Null);
        }
        text.parse().map(Self::Of)
    }
}

/// An entry of a list of origins that cannot be used, by its position, as the value is never shown:
/// a secret may have been put there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {position} {fault}")]
pub struct BadEntry {
    /// The first entry is 1.
    pub position: usize,
    /// The fault of the entry.
    pub fault: BadOrigin,
}

impl FromStr for Origins {
    type Err = BadEntry;

    /// Parses origins separated by commas. `*` among them stands for all.
    fn from_str(list: &str) -> Result<Self, BadEntry> {
        let mut origins = Vec::new();
        let mut is_any = false;
        for (index, entry) in list.split(',').map(str::trim).enumerate() {
            match entry {
                "" => {}
                "*" => is_any = true,
                _ => origins.push(entry.parse().map_err(|fault| BadEntry {
                    position: index + 1,
                    fault,
                })?),
            }
        }
        if is_any {
            Ok(Self::Any)
        } else {
            Ok(Self::Listed(origins))
        }
    }
}

impl Origins {
    /// Whether a page with this `Origin` may send requests to the node, which it reached under one
    /// of `hosts`.
    #[must_use]
    pub fn allow(&self, origin: &str, hosts: &[HostAndPort]) -> bool {
        let Self::Listed(listed) = self else {
            return true;
        };
        let Ok(origin) = origin.parse() else {
            return false;
        };
        let is_own = match &origin {
            ListedOrigin::Of(origin) => hosts.iter().any(|host| origin.is_of(host)),
            ListedOrigin::Null => false,
        };
        is_own || listed.contains(&origin)
    }

    /// Whether anyone on the network path can change a listed page.
    #[must_use]
    pub fn has_unprotected_page(&self) -> bool {
        match self {
            Self::Any => false,
            Self::Listed(listed) => listed.iter().any(
                |listed| matches!(listed, ListedOrigin::Of(origin) if origin.is_unprotected()),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(list: &str, origin: &str) -> bool {
        let host = HostAndPort::parse("chat.example:8080").unwrap();
        list.parse::<Origins>().unwrap().allow(origin, &[host])
    }

    #[test]
    fn listed_origins_and_the_own_host_are_allowed_and_others_are_refused() {
        let list = "https://app.example, https://b.example/";
        for allowed in [
            "https://app.example",
            "https://b.example",
            "https://chat.example:8080",
        ] {
            assert!(allows(list, allowed), "{allowed}");
        }
        for foreign in [
            "https://evil.example",
            "https://app.example.evil.example",
            "http://app.example",
            "https://chat.example",
            "null",
            "",
        ] {
            assert!(!allows(list, foreign), "{foreign}");
        }
        for any in ["null", "", "https://evil.example", "nonsense"] {
            assert!(allows("*", any) && allows("https://a.example,*", any));
        }
        assert!(!allows("", "https://app.example"));
    }

    #[test]
    fn everything_that_browsers_send_as_an_origin_can_be_listed() {
        for origin in [
            "https://chat.example.com",
            "http://localhost:3000",
            "http://tauri.localhost",
            "https://[2001:db8::1]:8443",
            "https://xn--bcher-kva.example",
            "https://under_score.example",
            "capacitor://localhost",
            "ionic://localhost",
            "tauri://localhost",
            "app://.",
            "app://-",
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            "moz-extension://9f0a2c1e-6b3d-4e8a-9c7b-2d1e0f3a4b5c",
            "vscode-webview://0v1jm5h2",
            "ms-appx-web://microsoft.aad.brokerplugin",
            "file://",
            "null",
        ] {
            assert!(allows(origin, origin), "{origin}");
            assert!(allows(&origin.to_uppercase(), origin), "{origin}");
            let is_null = origin == "null";
            assert!(is_null || allows(&format!("{origin}/"), origin), "{origin}");
        }
        assert!(allows(
            "https://Bücher.example",
            "https://xn--bcher-kva.example"
        ));
    }

    #[test]
    fn anything_else_is_refused_with_its_position_and_reason() {
        let fault = |list: &str| list.parse::<Origins>().unwrap_err();
        for (entry, expected) in [
            ("*.example.com", BadOrigin::Pattern),
            ("https://*.example.com", BadOrigin::Pattern),
            ("http://localhost:*", BadOrigin::Pattern),
            ("https://*", BadOrigin::Pattern),
            ("chat.example.com", BadOrigin::NoScheme),
            ("localhost:3000", BadOrigin::NoScheme),
            ("all", BadOrigin::NoScheme),
            ("mailto:ann@example.com", BadOrigin::NoScheme),
            ("https://a.example/app", BadOrigin::Path),
            ("https://a.example//", BadOrigin::Path),
            ("https://a.example?x", BadOrigin::Path),
            ("https://a.example#x", BadOrigin::Path),
            ("https://ann:secret@a.example", BadOrigin::Path),
            ("file:///home", BadOrigin::Path),
            ("file://host", BadOrigin::Malformed),
            ("https://", BadOrigin::Malformed),
            ("https:///", BadOrigin::Malformed),
            ("://a.example", BadOrigin::Malformed),
            ("1https://a.example", BadOrigin::Malformed),
            ("\"https://a.example\"", BadOrigin::Malformed),
            ("https://a.example https://b.example", BadOrigin::Path),
            ("https://a.example:port", BadOrigin::Malformed),
            ("https://a.example:65536", BadOrigin::Malformed),
            ("https://a b", BadOrigin::Malformed),
            ("https://[::1", BadOrigin::Malformed),
            ("https://(a|b).example", BadOrigin::Malformed),
            ("https://^a$", BadOrigin::Malformed),
        ] {
            let error = fault(&format!("https://first.example,{entry}"));
            assert_eq!((error.position, error.fault), (2, expected), "{entry}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_page_from_the_own_machine_needs_no_tls() {
        let unprotected = |list: &str| list.parse::<Origins>().unwrap().has_unprotected_page();
        assert!(unprotected("https://a.example,HTTP://b.example"));
        assert!(!unprotected(
            "https://a.example,http://localhost:3000,http://tauri.localhost,http://127.0.0.1,\
             http://[::1]:80,capacitor://localhost,null"
        ));
    }
}
