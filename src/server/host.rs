//! The hosts under which a client reached the node: the one in `Host`, and the one that a trusted
//! proxy reports in `X-Forwarded-Host`, `X-Forwarded-Port` and `X-Forwarded-Proto`.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use http::header::HOST;

use super::TrustedProxies;

const FORWARDED_HOST: &str = "x-forwarded-host";
const FORWARDED_PORT: &str = "x-forwarded-port";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// A host in lower case, and its port where one is stated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAndPort {
    /// A name, an IPv4 address, or an IPv6 address in brackets and in its shortest form.
    pub host: String,
    /// `None`: the default port of the scheme.
    pub port: Option<u16>,
}

impl HostAndPort {
    /// Parses `host` or `host:port`. The host is not checked beyond being present.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Without a port, the last colon of an IPv6 address is inside the brackets.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(parse_port(port)?)),
            _ => (text, None),
        };
        if host.is_empty() {
            return None;
        }
        let host = match ipv6(host) {
            Some(address) => format!("[{address}]"),
            None => host.to_ascii_lowercase(),
        };
        Some(Self { host, port })
    }
}

fn parse_port(text: &str) -> Option<u16> {
    // `parse` accepts a sign.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0)
}

fn ipv6(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// The default port of the schemes of HTTP and WebSocket.
#[must_use]
pub fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

impl TrustedProxies {
    /// The hosts under which the client may have reached the node. From a peer that is not trusted,
    /// or unknown, only `Host` counts.
    ///
    /// A trusted proxy adds the host that it forwards (otherwise `Host`), with the port that this
    /// host states, else the forwarded port, else the default port of the forwarded scheme. `Host`
    /// still counts beside it: proxies that pass it on often report an inner hop in the other
    /// headers. Of several forwarded values the first counts, which is the client's: a web page
    /// cannot set these headers in requests to other origins.
    #[must_use]
    pub fn requested_hosts(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Vec<HostAndPort> {
        let value = |name: &str| {
            let first = headers.get(name)?.to_str().ok()?.split(',').next()?;
            Some(first.trim())
        };
        let sent = value(HOST.as_str()).and_then(HostAndPort::parse);
        if !peer.is_some_and(|peer| self.trusts(peer)) {
            return sent.into_iter().collect();
        }
        let forwarded = value(FORWARDED_HOST).and_then(HostAndPort::parse);
        let port = value(FORWARDED_PORT).and_then(parse_port).or_else(|| {
            let scheme = value(FORWARDED_PROTO)?.to_ascii_lowercase();
            default_port(&scheme)
        });
        let reached = forwarded
            .or_else(|| sent.clone())
            .map(|reached| HostAndPort {
                port: reached.port.or(port),
                ..reached
            });
        sent.into_iter().chain(reached).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(peer: Option<&str>, pairs: &[(&'static str, &str)]) -> Vec<(String, Option<u16>)> {
        let proxies: TrustedProxies = "10.0.0.0/8".parse().unwrap();
        let headers = pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let hosts = proxies.requested_hosts(peer.map(|peer| peer.parse().unwrap()), &headers);
        hosts
            .into_iter()
            .map(|host| (host.host, host.port))
            .collect()
    }

    fn host(name: &str, port: impl Into<Option<u16>>) -> (String, Option<u16>) {
        (name.to_owned(), port.into())
    }

    #[test]
    fn forwarded_hosts_count_only_from_trusted_proxies() {
        let headers = [
            ("host", "node:8080"),
            ("x-forwarded-host", "Chat.example"),
            ("x-forwarded-proto", "https"),
        ];
        let own = [host("node", 8080)];
        assert_eq!(hosts(None, &headers), own);
        assert_eq!(hosts(Some("203.0.113.1"), &headers), own);
        let both = [host("node", 8080), host("chat.example", 443)];
        assert_eq!(hosts(Some("10.0.0.1"), &headers), both);
        assert_eq!(hosts(Some("::ffff:10.0.0.1"), &headers), both);
    }

    #[test]
    fn a_host_is_parsed_with_and_without_a_port() {
        let parsed = |text| HostAndPort::parse(text).map(|parsed| (parsed.host, parsed.port));
        assert_eq!(parsed("A.example"), Some(host("a.example", None)));
        assert_eq!(parsed("a:65535"), Some(host("a", 65535)));
        assert_eq!(parsed("[2001:DB8:0::1]"), Some(host("[2001:db8::1]", None)));
        assert_eq!(parsed("[::1]:443"), Some(host("[::1]", 443)));
        for bad in [
            "", ":", ":80", "a:", "a:0", "a:65536", "a:+80", "a:b", "a: 80",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
