//! Origins of web pages: which of them are let in, and the CORS headers that they get.

use std::net::SocketAddr;

use hubbub_test_support::node::{Cluster, http_head};

const SECRET: (&str, &str) = ("JWT_SECRET", "0123456789012345678901234567890123456789");
const HANDSHAKE: &str = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n";
const UPGRADE: &str = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n\
                       connection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Asserts that a handshake with these headers is let in, or refused with 403, on both transports.
async fn expect(address: SocketAddr, headers: &[(&str, &str)], is_allowed: bool) {
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    for (request, success) in [(HANDSHAKE, 200), (UPGRADE, 101)] {
        let (status, _) = http_head(address, &format!("{request}{lines}")).await;
        let expected = if is_allowed { success } else { 403 };
        assert_eq!(status, expected, "{headers:?}");
    }
}

/// The values of a header of the response, and its status.
async fn values(address: SocketAddr, request: &str, header: &str) -> (u16, Vec<String>) {
    let (status, headers) = http_head(address, request).await;
    let values = headers
        .into_iter()
        .filter(|(name, _)| name == header)
        .map(|(_, value)| value)
        .collect();
    (status, values)
}

#[tokio::test]
async fn the_default_port_makes_no_other_origin() {
    let cluster = Cluster::alone(&[SECRET]).await;
    let address = cluster.address(0);
    for (scheme, port) in [("http", 80), ("ws", 80), ("https", 443), ("wss", 443)] {
        let (bare, with_port) = (
            "chat.example.com".to_owned(),
            format!("chat.example.com:{port}"),
        );
        let hosts = [&bare, &with_port];
        for (host, own) in hosts.iter().flat_map(|host| hosts.map(|own| (host, own))) {
            let origin = format!("{scheme}://{own}");
            expect(address, &[("host", host), ("origin", &origin)], true).await;
        }
    }
    for (host, origin, is_same) in [
        (
            "chat.example.com:8443",
            "https://chat.example.com:8443",
            true,
        ),
        ("Chat.Example.COM", "https://chat.example.com", true),
        ("[2001:db8::1]:443", "wss://[2001:db8::1]", true),
        ("[2001:db8::1]", "https://[2001:db8::1]:443", true),
        ("chat.example.com:8443", "https://chat.example.com", false),
        ("chat.example.com", "https://chat.example.com:8443", false),
        ("chat.example.com:443", "http://chat.example.com", false),
        ("chat.example.com:80", "https://chat.example.com", false),
        ("chat.example.com", "https://chat.example.com:80", false),
        ("chat.example.com", "https://example.com", false),
        (
            "chat.example.com",
            "https://chat.example.com.evil.example",
            false,
        ),
        (
            "chat.example.com:443",
            "https://chat.example.com:443:443",
            false,
        ),
        ("chat.example.com", "app://chat.example.com", false),
        ("chat.example.com", "null", false),
        ("", "https://", false),
    ] {
        expect(address, &[("host", host), ("origin", origin)], is_same).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn the_host_that_a_trusted_proxy_forwards_is_the_nodes_own() {
    let trusting = Cluster::alone(&[SECRET, ("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let direct = Cluster::alone(&[SECRET, ("TRUSTED_PROXIES", "none")]).await;
    let page = ("origin", "https://chat.example.com");
    let other_port = ("origin", "https://chat.example.com:8443");
    let internal = ("host", "hubbub:8080");
    let host = ("x-forwarded-host", "chat.example.com");
    let https = ("x-forwarded-proto", "https");
    for (headers, is_same) in [
        (vec![internal, page, host], true),
        (vec![internal, page, host, https], true),
        (
            vec![internal, page, host, ("x-forwarded-proto", "wss")],
            true,
        ),
        (
            vec![internal, page, host, https, ("x-forwarded-port", "443")],
            true,
        ),
        (
            vec![internal, page, ("x-forwarded-host", "chat.example.com:443")],
            true,
        ),
        (
            vec![
                internal,
                page,
                ("x-forwarded-host", "Chat.example.com, cdn.example"),
            ],
            true,
        ),
        (
            vec![internal, other_port, host, ("x-forwarded-port", "8443")],
            true,
        ),
        (
            vec![
                internal,
                other_port,
                ("x-forwarded-host", "chat.example.com:8443"),
            ],
            true,
        ),
        // A proxy that passes on the host without its port.
        (
            vec![
                ("host", "chat.example.com"),
                other_port,
                ("x-forwarded-port", "8443"),
            ],
            true,
        ),
        // A header about an inner hop does not hide the host that the page sent.
        (
            vec![
                ("host", "chat.example.com"),
                page,
                ("x-forwarded-port", "8080"),
            ],
            true,
        ),
        (
            vec![("host", "chat.example.com:8443"), other_port, host],
            true,
        ),
        (vec![internal, page], false),
        (
            vec![internal, page, ("x-forwarded-host", "other.example.com")],
            false,
        ),
        (
            vec![internal, page, host, ("x-forwarded-port", "8443")],
            false,
        ),
        (
            vec![internal, page, host, ("x-forwarded-proto", "http")],
            false,
        ),
        (vec![internal, other_port, host, https], false),
        (
            vec![
                internal,
                page,
                ("x-forwarded-host", "cdn.example, chat.example.com"),
            ],
            false,
        ),
    ] {
        expect(trusting.address(0), &headers, is_same).await;
        let sent_to_host = headers[0].1 == "chat.example.com" && headers[1] == page
            || headers[0].1 == "chat.example.com:8443";
        expect(direct.address(0), &headers, sent_to_host).await;
    }
    trusting.stop().await;
    direct.stop().await;
}

#[tokio::test]
async fn listed_origins_match_in_any_case_and_with_or_without_the_default_port() {
    let list = "HTTPS://App.Example.com:443/, http://plain.example, capacitor://localhost,\
                ionic://localhost/,tauri://localhost,chrome-extension://Abcdefghijklmnop,\
                file://,null,https://localhost";
    let cluster = Cluster::alone(&[SECRET, ("ALLOWED_ORIGINS", list)]).await;
    for (origin, is_listed) in [
        ("https://app.example.com", true),
        ("https://APP.example.com:443", true),
        ("http://plain.example:80", true),
        ("capacitor://localhost", true),
        ("ionic://localhost", true),
        ("tauri://localhost", true),
        ("chrome-extension://abcdefghijklmnop", true),
        ("file://", true),
        ("null", true),
        ("https://localhost", true),
        ("https://app.example.com:444", false),
        ("http://app.example.com", false),
        ("https://plain.example:80", false),
        ("capacitor://localhost:443", false),
        ("capacitor://localhost.evil.example", false),
        ("chrome-extension://ponmlkjihgfedcba", false),
        ("file://host", false),
        ("nul", false),
        ("*", false),
    ] {
        let headers = [("host", "chat.example"), ("origin", origin)];
        expect(cluster.address(0), &headers, is_listed).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn socket_io_echoes_every_origin_with_credentials_and_rest_does_not() {
    let cluster = Cluster::alone(&[("AUTH_MODE", "open"), ("ALLOWED_ORIGINS", "*")]).await;
    let address = cluster.address(0);
    let page = "host: chat.example\r\norigin: https://app.example\r\n";
    for (start, origin, credentials, vary) in [
        (HANDSHAKE, "https://app.example", Some("true"), true),
        (
            "GET /socket.io/?EIO=3&transport=polling HTTP/1.1\r\n",
            "https://app.example",
            Some("true"),
            true,
        ),
        (
            "GET /socket.io?EIO=4&transport=polling HTTP/1.1\r\n",
            "https://app.example",
            Some("true"),
            true,
        ),
        // An answer of the Engine.IO layer, and of a preflight.
        (
            "GET /socket.io/?EIO=4&transport=polling&sid=x HTTP/1.1\r\n",
            "https://app.example",
            Some("true"),
            true,
        ),
        (
            "OPTIONS /socket.io/ HTTP/1.1\r\naccess-control-request-method: POST\r\n",
            "https://app.example",
            Some("true"),
            true,
        ),
        ("GET /health HTTP/1.1\r\n", "*", None, false),
        ("GET /rooms/r/users HTTP/1.1\r\n", "*", None, false),
        (
            "OPTIONS /messages HTTP/1.1\r\naccess-control-request-method: POST\r\n",
            "*",
            None,
            false,
        ),
    ] {
        let (_, headers) = http_head(address, &format!("{start}{page}")).await;
        let value = |name: &str| {
            let found = headers.iter().find(|(found, _)| found == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(
            value("access-control-allow-origin"),
            Some(origin),
            "{start}"
        );
        assert_eq!(
            value("access-control-allow-credentials"),
            credentials,
            "{start}"
        );
        let varies = value("vary").is_some_and(|vary| vary.contains("Origin"));
        assert_eq!(varies, vary, "{start}: {headers:?}");
        if !start.starts_with("OPTIONS") {
            assert_eq!(
                value("access-control-expose-headers"),
                Some("x-request-id, retry-after, idempotency-replayed"),
                "{start}"
            );
        }
    }
    // A cache must not give the answer without an origin to a page.
    let without = format!("{HANDSHAKE}host: chat.example\r\n");
    assert_eq!(
        values(address, &without, "vary").await,
        (200, vec!["Origin".to_owned()])
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_preflight_allows_the_headers_that_it_asks_for() {
    let listed = [("ALLOWED_ORIGINS", "https://app.example")];
    let open = [("ALLOWED_ORIGINS", "*")];
    for settings in [&listed, &open] {
        let cluster = Cluster::alone(settings.as_slice()).await;
        for path in ["/socket.io/?EIO=4&transport=polling", "/messages"] {
            let requested = "authorization,baggage,sentry-trace,traceparent,x-tenant";
            let preflight = format!(
                "OPTIONS {path} HTTP/1.1\r\nhost: chat.example\r\norigin: https://app.example\r\n\
                 access-control-request-method: POST\r\naccess-control-request-headers: "
            );
            let allowed = async |requested: &str| {
                let request = format!("{preflight}{requested}\r\n");
                values(cluster.address(0), &request, "access-control-allow-headers").await
            };
            assert_eq!(allowed(requested).await, (204, vec![requested.to_owned()]));
            let foreign = preflight.replace("app.example", "evil.example");
            if settings == &listed {
                let request = format!("{foreign}{requested}\r\n");
                let header = "access-control-allow-headers";
                assert_eq!(
                    values(cluster.address(0), &request, header).await,
                    (403, vec![])
                );
            }
        }
        cluster.stop().await;
    }
}

#[tokio::test]
async fn no_answer_has_a_header_twice() {
    let settings = [
        SECRET,
        ("API_KEYS", "key"),
        ("ALLOWED_ORIGINS", "https://app.example"),
    ];
    let cluster = Cluster::alone(&settings).await;
    let key = "authorization: Bearer key\r\n";
    for request in [
        HANDSHAKE.to_owned(),
        UPGRADE.to_owned(),
        "POST /socket.io/?EIO=4&transport=polling&sid=x HTTP/1.1\r\ncontent-length: 0\r\n"
            .to_owned(),
        "OPTIONS /socket.io/ HTTP/1.1\r\naccess-control-request-method: POST\r\n".to_owned(),
        "GET /health HTTP/1.1\r\n".to_owned(),
        "GET /metrics HTTP/1.1\r\n".to_owned(),
        format!("GET /metrics HTTP/1.1\r\n{key}"),
        format!("GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text\r\n{key}"),
        "GET /messages HTTP/1.1\r\n".to_owned(),
        "GET /nothing HTTP/1.1\r\n".to_owned(),
        format!("POST /messages HTTP/1.1\r\ncontent-length: 0\r\n{key}"),
        "GET /ws HTTP/1.1\r\n".to_owned(),
    ] {
        for origin in [
            "",
            "origin: https://app.example\r\n",
            "origin: https://evil.example\r\n",
        ] {
            let request = format!("{request}host: chat.example\r\n{origin}");
            let (status, headers) = http_head(cluster.address(0), &request).await;
            let mut names: Vec<_> = headers.iter().map(|(name, _)| name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{request}{status} {headers:?}");
        }
    }
    cluster.stop().await;
}
