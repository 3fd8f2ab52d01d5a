//! Whose request it is: the peer's address, or the one that trusted proxies vouch for.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use http::HeaderMap;
use ipnet::IpNet;

/// The header in which each proxy notes who spoke to it, the nearest last.
const FORWARDED: &str = "x-forwarded-for";
/// Notes that are looked at. No honest chain of proxies is longer.
const HOPS: usize = 32;

/// The address that a request counts for, as a request extension. IPv4 written as IPv6 is IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client(pub IpAddr);

impl Client {
    /// What limits count by: an IPv4 address, or the /64 of an IPv6 address, as whoever has one of its addresses has all.
    #[must_use]
    pub fn network(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        }
    }
}

/// The proxies whose word on addresses counts (`TRUSTED_PROXIES`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// What is wrong with a list of networks: the entry that is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a network such as 10.0.0.0/8")]
pub struct BadNetwork(String);

impl FromStr for TrustedProxies {
    type Err = BadNetwork;

    /// Addresses and CIDR networks, separated by commas.
    fn from_str(list: &str) -> Result<Self, BadNetwork> {
        let entries = list
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        let network = |entry: &str| {
            let network = entry.parse().or_else(|_| {
                entry
                    .parse::<IpAddr>()
                    .map(|address| address.to_canonical().into())
            });
            network.map_err(|_| BadNetwork(entry.to_owned()))
        };
        Ok(Self(entries.map(network).collect::<Result<_, _>>()?))
    }
}

impl TrustedProxies {
    /// Whether everyone is trusted, and so anyone may claim any address.
    #[must_use]
    pub fn trusts_everyone(&self) -> bool {
        self.0.iter().any(|network| network.prefix_len() == 0)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whose request it is. What a peer says who isn't trusted counts for nothing. A trusted one's notes are read from
    /// the nearest on: the first address that isn't a trusted proxy's is the client's. Where a note can't be read, nobody
    /// vouches for what is beyond it, and the last address that was vouched for counts.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let mut nearest = peer.to_canonical();
        let lines = headers.get_all(FORWARDED).iter().rev();
        let notes = lines
            .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
            .take(HOPS);
        for note in notes {
            if !self.trusts(nearest) {
                break;
            }
            let Some(address) = std::str::from_utf8(note).ok().and_then(read) else {
                break;
            };
            nearest = address;
        }
        Client(nearest)
    }
}

/// An address, as proxies note it: alone, in brackets, or with its port.
fn read(note: &str) -> Option<IpAddr> {
    let note = note.trim();
    let bare = note
        .strip_prefix('[')
        .and_then(|note| note.strip_suffix(']'))
        .unwrap_or(note);
    let address = bare
        .parse()
        .or_else(|_| note.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXIES: &str = "10.0.0.0/8, 192.0.2.7,fd00::/8";

    fn client(proxies: &str, peer: &str, notes: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for note in notes {
            headers.append(
                FORWARDED,
                http::HeaderValue::from_bytes(note.as_bytes()).unwrap(),
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
    fn only_a_trusted_proxy_is_believed() {
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
    fn the_nearest_who_is_no_proxy_is_the_client_whatever_it_claims() {
        assert_eq!(
            client(PROXIES, "10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.9.9.9"]),
            "198.51.100.1"
        );
        // Several headers are one list.
        assert_eq!(
            client(
                PROXIES,
                "10.0.0.1",
                &["1.1.1.1", "198.51.100.1", "10.2.2.2,10.9.9.9"]
            ),
            "198.51.100.1"
        );
        // Inside only: the farthest of them.
        assert_eq!(
            client(PROXIES, "10.0.0.1", &["10.3.3.3, 10.2.2.2"]),
            "10.3.3.3"
        );
    }

    #[test]
    fn what_cannot_be_read_ends_the_trust() {
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
            "within bounds"
        );
    }

    #[test]
    fn addresses_are_read_in_every_form() {
        for (note, address) in [
            ("198.51.100.1:4711", "198.51.100.1"),
            (" 198.51.100.1 ", "198.51.100.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:198.51.100.1", "198.51.100.1"),
        ] {
            assert_eq!(client(PROXIES, "10.0.0.1", &[note]), address);
        }
        // A listener for both kinds shows IPv4 as IPv6.
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
    fn limits_count_by_64_bits_of_ipv6() {
        let network = |address: &str| Client(address.parse().unwrap()).network().to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("198.51.100.1"), "198.51.100.1");
    }

    #[test]
    fn a_list_is_checked() {
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
