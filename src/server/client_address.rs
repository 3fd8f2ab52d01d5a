//! The address that a request counts for: that of the peer, or the one that trusted proxies report
//! in `X-Forwarded-For`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use http::HeaderMap;
use ipnet::IpNet;

/// The header to which each proxy appends the address of its own peer.
const FORWARDED: &str = "x-forwarded-for";
/// The number of entries that are read, from the end. No honest chain of proxies is longer.
const MAX_ENTRIES: usize = 32;

/// The address that a request counts for, as a request extension. An IPv4 address that was written
/// as IPv6 is IPv4 here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// The key for limits by address: the IPv4 address, or the /64 of the IPv6 address, because the
    /// holder of one address of a /64 has all of them.
    #[must_use]
    pub fn network(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        }
    }
}

/// The proxies that are trusted to report client addresses (`TRUSTED_PROXIES`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// An entry of a list of networks that is neither an address nor a network.
/// Without the entry, because a secret may have been put there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an entry is neither an IP address nor a network such as 10.0.0.0/8")]
pub struct BadNetwork;

impl FromStr for TrustedProxies {
    type Err = BadNetwork;

    /// Addresses and CIDR networks, separated by commas.
    fn from_str(list: &str) -> Result<Self, BadNetwork> {
        let entries = list
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        Ok(Self(entries.map(parse_network).collect::<Result<_, _>>()?))
    }
}

fn parse_network(entry: &str) -> Result<IpNet, BadNetwork> {
    if let Ok(network) = entry.parse::<IpNet>() {
        return Ok(network);
    }
    match entry.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_canonical().into()),
        Err(_) => Err(BadNetwork),
    }
}

impl TrustedProxies {
    /// True if a network contains every address: then every client may claim any address.
    #[must_use]
    pub fn trusts_everyone(&self) -> bool {
        self.0.iter().any(|network| network.prefix_len() == 0)
    }

    /// Whether the address is that of a trusted proxy.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The address that a request from `peer` counts for.
    ///
    /// A peer that is not trusted counts as itself, regardless of its headers. The entries that a
    /// trusted proxy forwards are read from the end, the nearest hop first: the first address that
    /// is not a trusted proxy is the client's. An entry that cannot be parsed ends the search,
    /// because no trusted proxy vouches for the entries before it; the last address that a trusted
    /// proxy reported counts then.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut nearest = peer.to_canonical();
        let lines = headers.get_all(FORWARDED).iter().rev();
        let entries = lines
            .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
            .take(MAX_ENTRIES);
        for entry in entries {
            if !self.trusts(nearest) {
                break;
            }
            let Some(address) = std::str::from_utf8(entry).ok().and_then(parse_entry) else {
                break;
            };
            nearest = address;
        }
        ClientAddress(nearest)
    }
}

/// Parses an address in any form that proxies write: alone, in brackets, or with a port.
fn parse_entry(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = entry
        .strip_prefix('[')
        .and_then(|entry| entry.strip_suffix(']'))
        .unwrap_or(entry);
    let address = bare
        .parse()
        .or_else(|_| entry.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXIES: &str = "10.0.0.0/8, 192.0.2.7,fd00::/8";

    fn client(proxies: &str, peer: &str, entries: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for entry in entries {
            headers.append(
                FORWARDED,
                http::HeaderValue::from_bytes(entry.as_bytes()).unwrap(),
            );
        }
        proxies
            .parse::<TrustedProxies>()
            .unwrap()
            .client(peer.parse().unwrap(), &headers)
            .0
            .to_string()
    }

    #[test]
    fn x_forwarded_for_counts_only_from_trusted_proxies() {
        assert_eq!(client("", "10.0.0.1", &["198.51.100.1"]), "10.0.0.1");
        assert_eq!(
            client(PROXIES, "203.0.113.5", &["198.51.100.1"]),
            "203.0.113.5"
        );
        assert_eq!(
            client(PROXIES, "10.0.0.1", &["198.51.100.1"]),
            "198.51.100.1"
        );
        assert_eq!(
            client(PROXIES, "192.0.2.7", &["198.51.100.1"]),
            "198.51.100.1"
        );
        assert_eq!(client(PROXIES, "192.0.2.8", &["198.51.100.1"]), "192.0.2.8");
        assert_eq!(client(PROXIES, "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_nearest_address_that_is_not_a_proxy_is_the_client() {
        assert_eq!(
            client(PROXIES, "10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.9.9.9"]),
            "198.51.100.1"
        );
        // Several headers form one list.
        assert_eq!(
            client(
                PROXIES,
                "10.0.0.1",
                &["1.1.1.1", "198.51.100.1", "10.2.2.2,10.9.9.9"]
            ),
            "198.51.100.1"
        );
        // If all of them are proxies, the farthest one counts.
        assert_eq!(
            client(PROXIES, "10.0.0.1", &["10.3.3.3, 10.2.2.2"]),
            "10.3.3.3"
        );
    }

    #[test]
    fn an_entry_that_cannot_be_parsed_ends_the_search() {
        for broken in [
            "unknown",
            "",
            " ",
            "1.2.3",
            "_hidden",
            "1.2.3.4.5",
            "256.0.0.1",
            "::g",
            "é",
            "1.2.3.4:99999",
        ] {
            assert_eq!(
                client(PROXIES, "10.0.0.1", &[broken]),
                "10.0.0.1",
                "{broken:?}"
            );
            assert_eq!(
                client(
                    PROXIES,
                    "10.0.0.1",
                    &[&format!("1.1.1.1,{broken},10.2.2.2")]
                ),
                "10.2.2.2",
                "{broken:?}"
            );
        }
        assert_eq!(
            client(PROXIES, "10.0.0.1", &[&"\u{ff}".repeat(9)]),
            "10.0.0.1"
        );
        let endless = vec!["10.1.1.1"; 10_000].join(",");
        assert_eq!(
            client(PROXIES, "10.0.0.1", &[&format!("198.51.100.1,{endless}")]),
            "10.1.1.1",
            "only the last 32 entries are read"
        );
    }

    #[test]
    fn addresses_are_parsed_in_every_form() {
        for (entry, address) in [
            ("198.51.100.1:4711", "198.51.100.1"),
            (" 198.51.100.1 ", "198.51.100.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:198.51.100.1", "198.51.100.1"),
        ] {
            assert_eq!(client(PROXIES, "10.0.0.1", &[entry]), address);
        }
        // A listener for both address families reports IPv4 peers as IPv6.
        assert_eq!(
            client(PROXIES, "::ffff:10.0.0.1", &["198.51.100.1"]),
            "198.51.100.1"
        );
        assert_eq!(
            client(PROXIES, "fd00::1", &["2001:db8::1, fd12::1"]),
            "2001:db8::1"
        );
    }

    #[test]
    fn limits_count_ipv6_addresses_by_their_first_64_bits() {
        let network = |address: &str| {
            ClientAddress(address.parse().unwrap())
                .network()
                .to_string()
        };
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("198.51.100.1"), "198.51.100.1");
    }

    #[test]
    fn a_malformed_list_of_networks_is_refused() {
        for good in ["", "10.0.0.1", "10.0.0.0/8 , ::1", "::/0", "10.1.2.3/8,"] {
            assert!(good.parse::<TrustedProxies>().is_ok(), "{good}");
        }
        for bad in [
            "10.0.0.0/33",
            "10.0.0",
            "proxy",
            "10.0.0.0/8;::1",
            "::1/129",
            "*",
        ] {
            assert!(bad.parse::<TrustedProxies>().is_err(), "{bad}");
        }
        assert!(
            "0.0.0.0/0"
                .parse::<TrustedProxies>()
                .unwrap()
                .trusts_everyone()
        );
    }
}
