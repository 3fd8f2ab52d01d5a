//! TLS: connections, limits, a renewed certificate, and Redis over TLS.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hubbub::server::tls::{Tls, TlsFiles};
use hubbub::server::{Listener, Timeouts};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use hubbub_test_support::certificates::Pair;
use hubbub_test_support::client::Client;
use hubbub_test_support::node::{Cluster, http, start};
use hubbub_test_support::server::{RedisServer, free_port};

const TIMEOUT: Duration = Duration::from_secs(20);

async fn reach(
    address: SocketAddr,
    client: &TlsConnector,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    client
        .connect("localhost".try_into().unwrap(), stream)
        .await
}

pub async fn member(address: SocketAddr, client: &TlsConnector, user: &str) -> Client {
    let stream = reach(address, client).await.unwrap();
    let url = "wss://localhost/socket.io/?EIO=4&transport=websocket";
    let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let client = Client::over(socket).await;
    client.done("authenticate", json!({"user_id": user})).await;
    client.done("join", json!({"room_id": "r"})).await;
    client
}

/// Sends a GET on a kept-alive connection; true if the answer is "yes".
async fn yes(stream: &mut TlsStream<TcpStream>) -> bool {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 512];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).ends_with("yes")
}

/// A listener for at most so many connections, with that timeout for handshakes.
async fn listener(
    pair: &Pair,
    places: usize,
    handshake: Duration,
) -> (SocketAddr, Tls, watch::Sender<bool>) {
    let files = TlsFiles {
        certificate: pair.path("cert.pem").into(),
        key: pair.path("key.pem").into(),
    };
    let tls = Tls::load(files).unwrap();
    let timeouts = Timeouts {
        handshake,
        ..Timeouts::default()
    };
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), places, timeouts)
        .await
        .unwrap()
        .with_tls(&tls);
    let (address, (stop, stopped)) = (listener.address().unwrap(), watch::channel(false));
    let router = axum::Router::new().route("/", axum::routing::get(async || "yes"));
    tokio::spawn(listener.serve(router, stopped));
    (address, tls, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_and_the_health_check_use_tls_and_a_drain_ends_it() {
    let pair = Pair::generate();
    let (certificate, key) = (pair.path("cert.pem"), pair.path("key.pem"));
    let node = start(&[("TLS_CERT", &certificate), ("TLS_KEY", &key)]).await;
    let address = node.address();
    let client = pair.client(&["h2", "http/1.1"]);
    let (ann, bob) = (
        member(address, &client, "ann").await,
        member(address, &client, "bob").await,
    );
    // More than one TLS record.
    let content = "x".repeat(16_384);
    for _ in 0..50 {
        ann.done("message", json!({"room_id": "r", "content": content}))
            .await;
    }
    bob.eventually("all messages", |bob| {
        bob.seqs() == (1..=50).collect::<Vec<_>>()
    })
    .await;
    let port = address.port().to_string();
    let asked = std::process::Command::new(env!("CARGO_BIN_EXE_hubbub"))
        .arg("healthcheck")
        .env_clear()
        .current_dir(std::env::temp_dir())
        .envs([
            ("SERVER_PORT", &port),
            ("TLS_CERT", &certificate),
            ("TLS_KEY", &key),
        ])
        .output();
    let asked = tokio::task::spawn_blocking(|| asked)
        .await
        .unwrap()
        .unwrap();
    assert!(asked.status.success(), "{asked:?}");
    node.drain(Duration::ZERO).await;
    bob.await_event("going_away").await;
    bob.eventually("its end", Client::is_closed).await;
    assert!(bob.events("disconnect").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_certificate_or_key_ends_the_start_and_is_named() {
    let (pair, other) = (Pair::generate(), Pair::generate());
    let refusal = |certificate: &str, key: &str| {
        let files = TlsFiles {
            certificate: certificate.into(),
            key: key.into(),
        };
        Tls::load(files).err().unwrap().to_string()
    };
    let (certificate, key) = (pair.path("cert.pem"), pair.path("key.pem"));
    assert!(refusal("/nonexistent/cert.pem", &key).contains("/nonexistent/cert.pem can't be read"));
    assert!(refusal(&key, &key).contains("key.pem holds no certificate"));
    assert!(refusal(&certificate, &certificate).contains("cert.pem holds no private key"));
    assert!(refusal(&certificate, &other.path("key.pem")).contains("can't be used"));
    let tried = std::process::Command::new(env!("CARGO_BIN_EXE_hubbub"))
        .env_clear()
        .current_dir(std::env::temp_dir())
        .envs([
            ("SERVER_PORT", "0"),
            ("TLS_CERT", &certificate),
            ("TLS_KEY", &certificate),
        ])
        .output()
        .unwrap();
    assert!(!tried.status.success());
    assert!(
        String::from_utf8_lossy(&tried.stderr).contains("holds no private key"),
        "{tried:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_loses_its_slot() {
    let pair = Pair::generate();
    let (address, _tls, _stop) = listener(&pair, 1, Duration::from_millis(200)).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    // It counts: there is no slot beside it.
    assert!(reach(address, &pair.client(&[])).await.is_err());
    let end = tokio::time::timeout(TIMEOUT, silent.read(&mut [0; 16])).await;
    assert!(matches!(
        end.expect("the handshake has a timeout"),
        Ok(0) | Err(_)
    ));
    let deadline = Instant::now() + TIMEOUT;
    let mut late = loop {
        match reach(address, &pair.client(&[])).await {
            Ok(stream) => break stream,
            Err(error) => assert!(
                Instant::now() < deadline,
                "the place is not given back: {error}"
            ),
        }
    };
    assert!(yes(&mut late).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_http_1_is_accepted_over_tls() {
    let pair = Pair::generate();
    let (address, _tls, _stop) = listener(&pair, 10, TIMEOUT).await;
    assert!(reach(address, &pair.client(&["h2"])).await.is_err());
    assert!(
        reach(address, &Pair::generate().client(&[])).await.is_err(),
        "another authority's certificate"
    );
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(TIMEOUT, plain.read_to_end(&mut answer))
        .await
        .unwrap();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let mut stream = reach(address, &pair.client(&["h2", "http/1.1"]))
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(yes(&mut stream).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_and_open_connections_stay() {
    let mut pair = Pair::generate();
    let (address, tls, _stop) = listener(&pair, 10, TIMEOUT).await;
    let following = tokio::spawn(tls.reload_on_change(Duration::from_millis(5)));
    let mut open = reach(address, &pair.client(&[])).await.unwrap();
    assert!(yes(&mut open).await);
    // A new client, without a TLS session to resume.
    let before = pair.client(&[]);
    pair.renew();
    let after = pair.client(&[]);
    let deadline = Instant::now() + TIMEOUT;
    while reach(address, &after).await.is_err() {
        assert!(
            Instant::now() < deadline,
            "the new certificate is not taken up"
        );
    }
    assert!(yes(&mut open).await, "an open connection was broken");
    assert!(reach(address, &before).await.is_err());
    // An unusable pair, and then a valid one again: the node keeps checking.
    std::fs::write(pair.path("cert.pem"), "no certificate").unwrap();
    pair.renew();
    let again = pair.client(&[]);
    while reach(address, &again).await.is_err() {
        assert!(
            Instant::now() < deadline,
            "the third certificate is not taken up"
        );
    }
    following.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_reaches_redis_over_tls() {
    let pair = Pair::generate();
    let (ca, certificate, key) = (
        pair.path("ca.pem"),
        pair.path("cert.pem"),
        pair.path("key.pem"),
    );
    let tls = free_port().to_string();
    let mut args = vec!["--tls-port", &tls, "--tls-auth-clients", "no"];
    args.extend([
        "--tls-ca-cert-file",
        &ca,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
    ]);
    let redis = RedisServer::start_with(&args);
    let url = format!("rediss://localhost:{tls}");
    let cluster = Cluster::on(redis, 2, &[("REDIS_URL", &url), ("REDIS_CA", &ca)]).await;
    let ann = Client::member(cluster.address(0), "ann", "r").await;
    let bob = Client::member(cluster.address(1), "bob", "r").await;
    ann.done("message", json!({"room_id": "r", "content": "hi"}))
        .await;
    bob.eventually("the message", |bob| bob.seqs() == [1]).await;
    let stranger = Pair::generate();
    let distrustful = start(&[("REDIS_URL", &url), ("REDIS_CA", &stranger.path("ca.pem"))]).await;
    assert_eq!(
        http(distrustful.address(), "GET", "/readyz", &[], "")
            .await
            .0,
        503
    );
    distrustful.stop().await;
    cluster.stop().await;
}
