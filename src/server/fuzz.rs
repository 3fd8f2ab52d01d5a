//! X-Forwarded-For by chance: nobody takes another's address.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use hubbub_fuzz::Target;

use super::{Client, TrustedProxies};

#[test]
fn fuzz_forwarded() {
    let seeds: &[&[u8]] = &[
        b"203.0.113.9, 10.0.0.2",
        b"[2001:db8::1]:4711,\t10.0.0.2:80",
        b"::ffff:203.0.113.9,unknown, _hidden,10.0.0.2",
        b"10.1.1.1,10.1.1.1,10.1.1.1",
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
    let (proxy, stranger): (IpAddr, IpAddr) =
        ("10.0.0.1".parse().unwrap(), "198.51.100.1".parse().unwrap());
    Target {
        name: "forwarded",
        seeds,
        words,
        longest: 8192,
    }
    .run(|said| {
        let said = HeaderValue::from_bytes(said).ok()?;
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", said);
        assert_eq!(
            proxies.client(stranger, &headers),
            Client(stranger),
            "believed a stranger"
        );
        let alone = proxies.client(proxy, &headers);
        // What a stranger said before it reached the first proxy, which notes the stranger itself.
        headers.append(
            "x-forwarded-for",
            HeaderValue::from_static("198.51.100.1, 10.0.0.2"),
        );
        assert_eq!(
            proxies.client(proxy, &headers),
            Client(stranger),
            "a stranger passed for another"
        );
        Some((
            alone.0.is_ipv6(),
            alone.0 == proxy,
            alone.network().is_ipv4(),
        ))
    });
}
