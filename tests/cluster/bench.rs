//! The load generator against whole nodes: its report, and the violations that it finds.

use std::process::Output;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use hubbub_test_support::node::Cluster;

const SECRET: &str = "a secret that is long enough for all tests";
/// A short run.
const SHORT: &[&str] = &["--duration", "1s", "--warm-up", "1s", "--json"];

/// Runs `hubbub bench`. Returns its output, and its report (`null` without one).
async fn bench(urls: &str, options: &[&str]) -> (Output, Value) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_hubbub"))
        .env("JWT_SECRET", SECRET)
        .args(["bench", "--url", urls])
        .args(options)
        .args(SHORT)
        .output()
        .await
        .unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, report)
}

/// The addresses of all nodes, as `--url` expects them.
fn urls(cluster: &Cluster) -> String {
    let urls: Vec<_> = (0..cluster.nodes.len())
        .map(|node| format!("http://{}", cluster.address(node)))
        .collect();
    urls.join(",")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_keeps_its_guarantees_is_measured() {
    let cluster = Cluster::of(2, &[("RATE_EVENTS_PER_SEC", "0")]).await;
    let pid = std::process::id().to_string();
    let options = [
        "--clients",
        "24",
        "--rooms",
        "4",
        "--in-flight",
        "2",
        "--pid",
        &pid,
    ];
    let (output, report) = bench(&urls(&cluster), &options).await;
    assert!(
        output.status.success(),
        "{report} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (messages, deliveries) = (
        &report["load"]["messages_per_second"],
        &report["load"]["deliveries_per_second"],
    );
    // Each room has six members. A few messages are in flight when the measurement begins and ends.
    let deliveries_per_message = deliveries.as_f64().unwrap() / messages.as_f64().unwrap();
    assert!((4.0..8.0).contains(&deliveries_per_message), "{report}");
    assert!(report["load"]["latency_ms"]["p99"].as_f64().unwrap() > 0.0);
    assert!(report["servers"]["cpu_us_per_delivery"].as_f64().unwrap() > 0.0);
    assert_eq!(report["checked_by"], "seq");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_is_kept_and_all_clients_reconnect_after_a_storm() {
    let cluster = Cluster::alone(&[("JWT_SECRET", SECRET)]).await;
    // The option has no value, so the secret comes from JWT_SECRET.
    let options = [
        "--clients",
        "20",
        "--rooms",
        "2",
        "--rate",
        "50",
        "--storm",
        "--token-secret",
    ];
    let (output, report) = bench(&urls(&cluster), &options).await;
    assert!(
        output.status.success(),
        "{report} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rate = report["load"]["messages_per_second"].as_f64().unwrap();
    assert!((45.0..55.0).contains(&rate), "{report}");
    assert!(report["storm"]["per_second"].as_f64().unwrap() > 0.0);
    cluster.stop().await;
}

/// A server for one client. It skips every tenth number.
async fn serve_with_skipped_numbers(listener: TcpListener) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    let open = "0{\"sid\":\"a\",\"upgrades\":[],\"pingInterval\":25000,\"pingTimeout\":20000}";
    socket.send(Message::text(open)).await.unwrap();
    let mut seq = 0;
    while let Some(Ok(message)) = socket.next().await {
        let Ok(text) = message.to_text() else {
            continue;
        };
        let reply = match text.get(..3) {
            _ if text == "40" => "40{\"sid\":\"b\"}".to_owned(),
            Some("420") => "430[{\"ok\":true}]".to_owned(),
            Some("421") => "431[{\"ok\":true,\"seq\":0,\"epoch\":\"e\"}]".to_owned(),
            _ => {
                seq += if seq % 10 == 8 { 2 } else { 1 };
                text.replacen("{\"room_id\"", &format!("{{\"seq\":{seq},\"room_id\""), 1)
            }
        };
        if socket.send(Message::text(reply)).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_message_is_reported_and_the_run_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(serve_with_skipped_numbers(listener));
    let (output, report) = bench(&url, &["--clients", "1", "--rooms", "1"]).await;
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(report["ok"], false);
    assert!(
        report["findings"]["holes"].as_u64().unwrap() > 0,
        "{report}"
    );
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_meets_a_limit_of_the_nodes_names_the_setting_and_fails() {
    let many = ["--clients", "24", "--rooms", "2"];
    let fast = ["--clients", "4", "--rooms", "1", "--rate", "4000"];
    for (settings, options, remedy) in [
        // The defaults.
        (
            &[][..],
            &fast[..],
            "raise RATE_EVENTS_PER_SEC (0: no limit)",
        ),
        (
            &[
                ("RATE_EVENTS_PER_SEC", "0"),
                ("RATE_USER_EVENTS_PER_SEC", "20"),
            ],
            &fast,
            "raise RATE_USER_EVENTS_PER_SEC (0: no limit)",
        ),
        (
            &[("MAX_CONTENT_BYTES", "50")],
            &many,
            "raise MAX_CONTENT_BYTES",
        ),
        (&[("MAX_CONNECTIONS", "5")], &many, "raise MAX_CONNECTIONS"),
        (
            &[("TRUSTED_PROXIES", "none"), ("MAX_CONNECTIONS_PER_IP", "5")],
            &many,
            "raise MAX_CONNECTIONS_PER_IP",
        ),
        (&[("MAX_ROOMS", "1")], &many, "raise MAX_ROOMS"),
        (
            &[("MAX_ROOMS_PER_SOCKET", "1")],
            &["--clients", "2", "--rooms", "2", "--rooms-each", "2"],
            "raise MAX_ROOMS_PER_SOCKET",
        ),
        (
            &[("JWT_SECRET", SECRET)],
            &many,
            "give --token-secret the JWT_SECRET of the nodes",
        ),
    ] {
        let cluster = Cluster::alone(settings).await;
        let (output, report) = bench(&urls(&cluster), options).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{settings:?}: {report} {error}"
        );
        assert!(
            error.lines().any(|line| line.ends_with(remedy)),
            "{settings:?}: {report} {error}"
        );
        assert!(
            !error.contains("holes") && report["findings"].is_null(),
            "{report} {error}"
        );
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_handshakes_that_succeed_later_are_explained_in_the_report() {
    let cluster = Cluster::alone(&[("MAX_HANDSHAKES_PER_SEC", "8")]).await;
    let options = ["--clients", "12", "--rooms", "2", "--rate", "10"];
    let (output, report) = bench(&urls(&cluster), &options).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report} {error}");
    assert!(
        report["connecting"]["failed_attempts"].as_u64().unwrap() > 0,
        "{report}"
    );
    let remedy = report["limits"][0]["remedy"].as_str();
    assert_eq!(remedy, Some("raise MAX_HANDSHAKES_PER_SEC"), "{report}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_options_are_rejected_with_an_error_that_names_them() {
    for (options, expected) in [
        (["--clients", "0"], "--clients"),
        (["--rooms", "2000"], "--rooms"),
        (["--payload", "10"], "--payload"),
        (["--rate", "0"], "--rate"),
        (["--pid", "4294967295"], "4294967295"),
        (["--url", "https://example.com"], "https"),
    ] {
        let (output, _) = bench("http://127.0.0.1:1", &options).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && error.contains(expected),
            "{options:?}: {error}"
        );
    }
}

/// All members send much more at once than an outbox holds, and read everything that arrives: the
/// nodes close no connection for it, and no message is lost.
async fn run_burst(cluster: Cluster) {
    let options = [
        "--clients",
        "24",
        "--rooms",
        "1",
        "--senders",
        "24",
        "--in-flight",
        "120",
        "--payload",
        "16000",
    ];
    let (output, report) = bench(&urls(&cluster), &options).await;
    assert!(
        output.status.success(),
        "{report} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        report["load"]["messages_per_second"].as_f64().unwrap() > 0.0,
        "{report}"
    );
    cluster.stop().await;
}

/// A small outbox, and no rate limits.
const SMALL_OUTBOX: &[(&str, &str)] = &[
    ("MAX_OUTBOX_BYTES", "262144"),
    ("RATE_EVENTS_PER_SEC", "0"),
    ("RATE_BYTES_PER_SEC", "0"),
    ("RATE_USER_EVENTS_PER_SEC", "0"),
    ("RATE_USER_BYTES_PER_SEC", "0"),
];

#[tokio::test]
async fn a_burst_beyond_the_outbox_closes_no_connection_on_one_thread() {
    run_burst(Cluster::alone(SMALL_OUTBOX).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_beyond_the_outbox_closes_no_connection_on_several_threads() {
    run_burst(Cluster::alone(SMALL_OUTBOX).await).await;
}

#[tokio::test]
async fn a_burst_beyond_the_outbox_closes_no_connection_of_a_node_with_redis() {
    run_burst(Cluster::of(1, SMALL_OUTBOX).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_beyond_the_outbox_closes_no_connection_of_several_nodes() {
    run_burst(Cluster::of(2, SMALL_OUTBOX).await).await;
}
