//! No secret appears in the output or the answers of a node, at any log level and through any entry
//! point.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::plain::Plain;
use crate::program::Program;
use hubbub_test_support::node::http_text;
use hubbub_test_support::server::{RedisServer, free_port};

const SECRET: &str = "jwtsecret-5f0cbb2fb1c6a1f6e1d0b4f4a1c7e9d8";
const API_KEY: &str = "apikey-0f1e2d3c4b5a69788796a5b4c3d2e1f0";
const PASSWORD: &str = "redispassword-d4c3b2a1";
const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

/// Opens a polling session with those headers and that query, sends packets, and returns all
/// answers.
async fn poll(
    address: SocketAddr,
    query: &str,
    headers: &[(&str, &str)],
    packets: &[String],
) -> String {
    let mut answers = http_text(address, "GET", &format!("{POLLING}{query}"), headers, "").await;
    let Some(sid) = answers
        .split("\"sid\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .map(str::to_owned)
    else {
        return answers;
    };
    for packet in packets {
        answers += &http_text(
            address,
            "POST",
            &format!("{POLLING}&sid={sid}{query}"),
            headers,
            packet,
        )
        .await;
        answers += &http_text(
            address,
            "GET",
            &format!("{POLLING}&sid={sid}{query}"),
            headers,
            "",
        )
        .await;
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_printed_or_answered() {
    let redis = RedisServer::start_with(&["--requirepass", PASSWORD]);
    let (port, redis_port) = (free_port(), redis.port.to_string());
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let port = port.to_string();
    let settings = [
        ("SERVER_PORT", port.as_str()),
        ("JWT_SECRET", SECRET),
        ("API_KEYS", API_KEY),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", &redis_port),
        ("REDIS_PASSWORD", PASSWORD),
        (
            "RUST_LOG",
            "trace,fred=trace,tungstenite=trace,tungstenite::protocol=trace,tokio_tungstenite=trace",
        ),
        ("RUST_BACKTRACE", "full"),
    ];
    let node = Program::start(&["serve"], &settings);
    node.await_ready(address).await;

    // Every entry point gets a valid token and invalid ones of its own; each is searched for by its
    // signature.
    let mut tokens: Vec<String> = Vec::new();
    let mut token = |bad: bool, role: Option<&str>| {
        let secret = if bad {
            "another secret of at least thirty-two bytes"
        } else {
            SECRET
        };
        let ttl = Duration::from_secs(600);
        let made =
            hubbub::auth::mint(secret, &format!("user-{}", tokens.len()), None, role, ttl).unwrap();
        tokens.push(made.clone());
        made
    };
    let mut answers = String::new();
    for bad in [false, true] {
        let connect = || vec!["40".to_owned()];
        answers += &poll(
            address,
            &format!("&token={}", token(bad, None)),
            &[],
            &connect(),
        )
        .await;
        let bearer = format!("Bearer {}", token(bad, None));
        answers += &poll(address, "", &[("authorization", &bearer)], &connect()).await;
        answers += &poll(
            address,
            "",
            &[],
            &[format!("40{{\"token\":\"{}\"}}", token(bad, None))],
        )
        .await;
        let fields = [
            "40".to_owned(),
            format!(
                "42[\"authenticate\",{{\"token\":\"{}\"}}]",
                token(bad, None)
            ),
            format!(
                "421[\"authenticate\",{{\"token\":\"{}\"}}]",
                token(bad, None)
            ),
            format!(
                "422[\"authenticate\",{{\"token\":{{\"x\":\"{}\"}}}}]",
                token(bad, None)
            ),
            format!(
                "423[\"authenticate\",{{\"user_id\":[\"{}\"],\"token\":1}}]",
                token(bad, None)
            ),
            format!("424[\"authenticate\",\"{}\"]", token(bad, None)),
        ];
        answers += &poll(address, "", &[], &fields).await;
        answers += &poll(
            address,
            "",
            &[],
            &[format!("40{{\"token\":[\"{}\"]}}", token(bad, None))],
        )
        .await;
        // Requests that are refused before a token is read, or that are malformed.
        for path in [
            "/nothing?x=1",
            "/socket.io/?EIO=9&transport=polling",
            "/socket.io/?EIO=4&transport=pigeon",
        ] {
            answers += &http_text(
                address,
                "GET",
                &format!("{path}&token={}", token(bad, None)),
                &[],
                "",
            )
            .await;
        }
        for role in [None, Some("service")] {
            for scheme in ["Bearer", "Basic", "Bearer  x"] {
                let bearer = format!("{scheme} {}", token(bad, role));
                let headers = [
                    ("authorization", bearer.as_str()),
                    ("content-type", "application/json"),
                ];
                for (method, path) in [
                    ("POST", "/messages"),
                    ("GET", "/rooms/room/users"),
                    ("GET", "/metrics"),
                ] {
                    let body = r#"{"room_id":"room","content":"x"}"#;
                    answers += &http_text(address, method, path, &headers, body).await;
                }
            }
        }
        let url = format!(
            "ws://{address}/socket.io/?EIO=4&transport=websocket&token={}",
            token(bad, None)
        );
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        socket.send(Message::text("40")).await.unwrap();
        for _ in 0..2 {
            answers += &socket.next().await.unwrap().unwrap().into_text().unwrap();
        }
        // Plain WebSocket: in a header, a subprotocol, the query and a frame.
        let (header, protocols) = (
            format!("Bearer {}", token(bad, None)),
            format!("bearer, {}", token(bad, None)),
        );
        let query = format!("token={}", token(bad, None));
        for (query, headers) in [
            ("chat=1", vec![("authorization", header.as_str())]),
            (
                "chat=1",
                vec![("sec-websocket-protocol", protocols.as_str())],
            ),
            (query.as_str(), vec![]),
        ] {
            match Plain::with(address, query, &headers).await {
                Ok(client) => answers += &format!("{:?} {:?}", client.answered, client.frames()),
                Err(refused) => answers += &format!("{refused:?}"),
            }
        }
        let client = Plain::with(
            address,
            &format!("chat=1&token={}", token(false, None)),
            &[],
        )
        .await
        .unwrap();
        for payload in [
            json!({"token": token(bad, None)}),
            json!({"token": [token(bad, None)]}),
            json!(token(bad, None)),
        ] {
            answers += &client.ask("authenticate", payload).await.to_string();
        }
        client.say(Message::text(format!(
            "{{\"type\":\"authenticate\",\"token\":\"{}\",",
            token(bad, None)
        )));
        client
            .await_frame("what is wrong", |frame| frame["type"] == "exception")
            .await;
        answers += &format!("{:?}", client.frames());
    }
    for key in [API_KEY.to_owned(), format!("{API_KEY}x")] {
        let bearer = format!("Bearer {key}");
        for path in ["/metrics", "/rooms/room/messages", "/users/user-0/status"] {
            answers += &http_text(address, "GET", path, &[("authorization", &bearer)], "").await;
        }
    }
    assert!(
        answers.contains("authenticated")
            && answers.contains("unauthorized")
            && answers.contains("hubbub_")
    );

    let mut printed = node.kill();
    assert!(
        printed.contains("\"level\":\"TRACE\"") && printed.contains("hubbub listens"),
        "it was told to say all"
    );
    // Starts that fail, and the printed configuration.
    let wrong = [
        ("REDIS_PASSWORD", "redispassword-wrong"),
        ("SERVER_PORT", "0"),
    ];
    let bad_url = [
        ("REDIS_URL", "redis://:redispassword-url@127.0.0.1:notaport"),
        ("SERVER_PORT", "0"),
    ];
    for (arguments, changes) in [
        (&["serve"][..], &wrong[..]),
        (&["serve"], &bad_url),
        (&["config"], &[]),
    ] {
        printed += &Program::start(arguments, &[&settings[..], changes].concat()).wait();
    }

    let signatures = tokens.iter().map(|token| token.rsplit('.').next().unwrap());
    let secrets = ["jwtsecret-", "apikey-", "redispassword-", "another secret"]
        .into_iter()
        .chain(signatures);
    for secret in secrets {
        for (what, text) in [("printed", &printed), ("answered", &answers)] {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(
                line.is_none(),
                "{secret} was {what}: {}",
                line.unwrap_or_default()
            );
        }
    }
    // A JSON log stays valid JSON with any content.
    let log = printed.lines().take_while(|line| line.starts_with('{'));
    assert!(
        log.filter(|line| serde_json::from_str::<Value>(line).is_err())
            .count()
            <= 1,
        "but for a line cut off"
    );
}
