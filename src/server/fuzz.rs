//! Fuzzes `X-Forwarded-*`: a client cannot pass for another address, or choose the node's host.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use hubbub_fuzz::Target;

use super::{ClientAddress, TrustedProxies};

#[test]
fn fuzz_forwarded() {
    let seeds: &[&[u8]] = &[
        b"203.0.113.9, 10.0.0.2",
        b"[2001:db8::1]:4711,\t10.0.0.2:80",
        b"::ffff:203.0.113.9,unknown, _hidden,10.0.0.2",
        b"10.1.1.1,10.1.1.1,10.1.1.1",
        b"Chat.example:443, cdn.example",
    ];
    let words = &[
        ",",
        " ",
        "[",
        "]:",
        "::",
        "::ffff:",
        "10.0.0.3",
        "fd00::1",
        "1.2.3.4",
        "198.51.100.1",
        "unknown",
        "%eth0",
    ];
    let proxies: TrustedProxies = "10.0.0.0/8,fd00::/8".parse().unwrap();
    let proxy: IpAddr = "10.0.0.1".parse().unwrap();
    let untrusted: IpAddr = "198.51.100.1".parse().unwrap();
    Target {
        name: "forwarded",
        seeds,
        words,
        longest: 8192,
    }
    .run(|bytes| {
        let forwarded = HeaderValue::from_bytes(bytes).ok()?;
        let mut headers = HeaderMap::new();
        headers.append("host", forwarded.clone());
        headers.append("x-forwarded-host", forwarded.clone());
        headers.append("x-forwarded-port", forwarded.clone());
        headers.append("x-forwarded-for", forwarded);
        let host = proxies.requested_hosts(None, &headers);
        assert_eq!(
            proxies.requested_hosts(Some(untrusted), &headers),
            host,
            "an untrusted peer was believed"
        );
        assert!(
            host.iter()
                .all(|host| !host.host.is_empty() && host.port != Some(0))
        );
        assert!(proxies.requested_hosts(Some(proxy), &headers).len() <= 2);
        assert_eq!(
            proxies.client(untrusted, &headers),
            ClientAddress(untrusted),
            "an untrusted peer was believed"
        );
        let alone = proxies.client(proxy, &headers);
        // The untrusted peer sent the first header; the first proxy appended the peer's address.
        headers.append(
            "x-forwarded-for",
            HeaderValue::from_static("198.51.100.1, 10.0.0.2"),
        );
        assert_eq!(
            proxies.client(proxy, &headers),
            ClientAddress(untrusted),
            "a client passed for another address"
        );
        Some((
            alone.0.is_ipv6(),
            alone.0 == proxy,
            alone.network().is_ipv4(),
        ))
    });
}
