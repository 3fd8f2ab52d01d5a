//! Plain WebSockets: authentication, chat beside Socket.IO, limits and close codes.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use hubbub::auth::NewToken;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::plain::Plain;
use hubbub_test_support::client::Client;
use hubbub_test_support::node::{Cluster, http, metric, post};
use hubbub_test_support::server::{DelayingProxy, RedisServer};

const SECRET: &str = "a secret of at least thirty-two bytes";

fn token(user: &str, ttl: Duration) -> String {
    hubbub::auth::mint(SECRET, user, Some("Ann"), None, ttl).unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_accepted_from_header_subprotocol_and_query() {
    let cluster = Cluster::alone(&[("JWT_SECRET", SECRET)]).await;
    let address = cluster.address(0);
    let good = token("ann", MINUTE);
    let (header, protocols) = (format!("Bearer {good}"), format!("bearer, {good}"));
    for (query, headers) in [
        (format!("chat=1&token={good}"), vec![]),
        (
            "chat=1".to_owned(),
            vec![("authorization", header.as_str())],
        ),
        (
            "chat=1".to_owned(),
            vec![("sec-websocket-protocol", protocols.as_str())],
        ),
        (
            "chat=1&token=nonsense".to_owned(),
            vec![("authorization", header.as_str())],
        ),
    ] {
        let client = Plain::with(address, &query, &headers).await.unwrap();
        let who = client
            .await_frame("who it is", |frame| frame["type"] == "authenticated")
            .await;
        assert_eq!(who["payload"], json!({"user_id": "ann", "username": "Ann"}));
        let chosen = client
            .answered
            .get("sec-websocket-protocol")
            .map(|name| name.to_str().unwrap());
        assert_eq!(
            chosen,
            headers
                .iter()
                .any(|(name, _)| name.starts_with("sec"))
                .then_some("bearer")
        );
    }
    cluster.stop().await;
}

/// A browser fails a connection that offered subprotocols if none of them is chosen.
#[tokio::test(flavor = "multi_thread")]
async fn an_offered_subprotocol_is_chosen() {
    let cluster = Cluster::alone(&[]).await;
    for (offered, chosen) in [
        ("chat.v1", "chat.v1"),
        ("xml, json", "xml"),
        ("json, bearer, token", "bearer"),
    ] {
        // The library fails the connection, too.
        let headers = [("sec-websocket-protocol", offered)];
        let client = Plain::with(cluster.address(0), "user_id=ann", &headers).await;
        assert_eq!(client.unwrap().answered["sec-websocket-protocol"], chosen);
    }
    let client = Plain::connect(cluster.address(0), "ann").await;
    assert!(!client.answered.contains_key("sec-websocket-protocol"));
    cluster.stop().await;
}

/// Clients such as a C# one with a `byte[]` send their JSON in binary frames.
#[tokio::test(flavor = "multi_thread")]
async fn a_binary_frame_that_is_json_counts_as_text() {
    let cluster = Cluster::alone(&[]).await;
    let address = cluster.address(0);
    let client = Plain::chat(address, "ann").await;
    client.say(Message::binary(&br#"{"type":"ping"}"#[..]));
    client
        .await_frame("a pong", |frame| frame["type"] == "pong")
        .await;
    let join = json!({"type": "join", "payload": {"room_id": "café"}, "ref": 7}).to_string();
    client.say(Message::binary(format!(" \n{join}\n").into_bytes()));
    let ack = client
        .await_frame("the ack", |frame| frame["ref"] == 7)
        .await;
    assert_eq!(ack["payload"]["room_id"], "café");
    // Not an event, but JSON: refused as the same text is.
    client.say(Message::binary(&b"[1]"[..]));
    let refusal = client
        .await_frame("a refusal", |frame| frame["type"] == "exception")
        .await;
    assert_eq!(refusal["payload"]["code"], "bad_request");
    assert!(!client.is_closed());
    for other in [
        &b"\xff\xfe{}"[..],
        b"",
        b"\x00\x01",
        b"{\"type\":",
        b"hello",
    ] {
        let client = Plain::chat(address, "bob").await;
        client.say(Message::binary(other));
        assert_eq!(client.closed().await.0, 1003, "{other:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_token_the_upgrade_is_refused() {
    let cluster = Cluster::alone(&[("JWT_SECRET", SECRET)]).await;
    let address = cluster.address(0);
    let expired = NewToken {
        exp: 1,
        ..NewToken::lasting("ann", Duration::ZERO)
    };
    let old = expired.sign(SECRET).unwrap();
    for (query, error, code) in [
        (
            String::new(),
            "Authorization header required",
            "unauthorized",
        ),
        (
            "user_id=ann".to_owned(),
            "Authorization header required",
            "unauthorized",
        ),
        ("token=nonsense".to_owned(), "Invalid token", "unauthorized"),
        (format!("token={old}"), "Invalid token", "token_expired"),
    ] {
        let (status, body) = Plain::with(address, &query, &[]).await.err().unwrap();
        assert_eq!(
            (status.as_u16(), &body["error"], &body["code"]),
            (401, &json!(error), &json!(code)),
            "{query}"
        );
    }
    // The same for a request that is no WebSocket handshake.
    let (status, _, body) = http(address, "GET", "/ws", &[], "").await;
    assert_eq!(
        (status, &body["error"]),
        (401, &json!("Authorization header required"))
    );
    cluster.stop().await;

    let cluster = Cluster::alone(&[]).await;
    let address = cluster.address(0);
    let (status, body) = Plain::with(address, "", &[]).await.err().unwrap();
    assert_eq!(
        (status.as_u16(), &body["code"]),
        (401, &json!("unauthorized"))
    );
    for query in [
        "user_id=%00",
        "user_id=ann&since_seq=x",
        "user_id=ann&chat=maybe",
    ] {
        let (status, body) = Plain::with(address, query, &[]).await.err().unwrap();
        assert_eq!(
            (status.as_u16(), &body["code"]),
            (400, &json!("bad_request")),
            "{query}"
        );
    }
    let (status, _, body) = http(address, "GET", "/ws?user_id=ann", &[], "").await;
    assert_eq!((status, &body["code"]), (400, &json!("bad_request")));
    assert_eq!(
        http(address, "POST", "/ws?user_id=ann", &[], "").await.0,
        405
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_io_and_plain_clients_share_rooms() {
    let cluster = Cluster::of(2, &[]).await;
    let socket = Client::member(cluster.address(0), "bob", "room").await;
    let plain = Plain::chat(cluster.address(1), "ann").await;
    let joined = plain.done("join", json!({"room_id": "room"})).await;
    assert_eq!(joined["total"], 2);
    let roster = plain
        .await_frame("the roster", |frame| frame["type"] == "room_users")
        .await;
    assert_eq!(roster["payload"]["total"], 2);
    assert_eq!(socket.await_event("user_joined").await["user_id"], "ann");
    for n in 0..30 {
        let message = json!({"room_id": "room", "content": n.to_string()});
        let seq = match n % 3 {
            0 => socket.done("message", message).await["seq"].clone(),
            1 => plain.done("message", message).await["seq"].clone(),
            _ => post(cluster.address(0), &message).await.1["seq"].clone(),
        };
        assert_eq!(seq, n + 1);
    }
    plain
        .eventually("all came", |plain| plain.seqs().len() >= 30)
        .await;
    socket
        .eventually("all came", |socket| socket.seqs().len() >= 30)
        .await;
    assert_eq!(
        (plain.seqs(), socket.seqs()),
        ((1..=30).collect(), (1..=30).collect())
    );
    assert_eq!(
        plain.of("message"),
        socket.events("message"),
        "byte for byte the same"
    );
    let page = plain
        .done(
            "history",
            json!({"room_id": "room", "after_seq": 10, "limit": 5}),
        )
        .await;
    assert_eq!(page["messages"][0]["seq"], 11);
    plain.done("typing", json!({"room_id": "room"})).await;
    assert_eq!(socket.await_event("user_typing").await["user_id"], "ann");
    let status = plain
        .done("subscribe_status", json!({"target_user_id": "bob"}))
        .await;
    assert_eq!(status["is_online"], true);
    plain
        .done("unsubscribe_status", json!({"target_user_id": "bob"}))
        .await;
    plain.done("leave", json!({"room_id": "room"})).await;
    assert_eq!(socket.await_event("user_left").await["user_id"], "ann");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_client_resumes_on_another_node_within_its_grace() {
    let cluster = Cluster::of(2, &[]).await;
    let witness = Client::member(cluster.address(0), "bob", "room").await;
    let first = Plain::chat(cluster.address(0), "ann").await;
    let epoch = first.done("join", json!({"room_id": "room"})).await["epoch"].clone();
    witness.await_event("user_joined").await;
    first.drop_transport();
    for n in 0..10 {
        post(
            cluster.address(0),
            &json!({"room_id": "room", "content": n.to_string()}),
        )
        .await;
    }
    let back = Plain::chat(cluster.address(1), "ann").await;
    let answer = back
        .done(
            "join",
            json!({"room_id": "room", "since_seq": 4, "epoch": epoch}),
        )
        .await;
    assert_eq!(
        (&answer["recovered"], &answer["replayed"]),
        (&json!(true), &json!(6))
    );
    back.eventually("all came", |back| back.seqs().len() >= 6)
        .await;
    assert_eq!(back.seqs(), (5..=10).collect::<Vec<_>>());
    back.done("leave", json!({"room_id": "room"})).await;
    witness.await_event("user_left").await;
    assert_eq!(
        (
            witness.events("user_joined").len(),
            witness.events("user_left").len()
        ),
        (1, 1)
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_frames_are_answered_and_do_not_close_the_connection() {
    let cluster = Cluster::alone(&[]).await;
    let client = Plain::chat(cluster.address(0), "ann").await;
    for (frame, code) in [
        ("nonsense", "bad_request"),
        ("[1]", "bad_request"),
        (r#"{"payload":{}}"#, "bad_request"),
        (r#"{"type":"dance","payload":{}}"#, "unknown_event"),
        (r#"{"type":"join","payload":{"room_id":7}}"#, "bad_request"),
        (
            r#"{"type":"leave","payload":{"room_id":"nowhere"}}"#,
            "not_in_room",
        ),
    ] {
        let before = client.of("exception").len();
        client.say(Message::text(frame));
        client
            .eventually(frame, |client| client.of("exception").len() > before)
            .await;
        let exception = client.of("exception").pop().unwrap();
        assert_eq!(
            (&exception["ok"], &exception["code"]),
            (&json!(false), &json!(code)),
            "{frame}: {exception}"
        );
    }
    let deep = format!(
        r#"{{"type":"join","ref":"deep","payload":{}{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    client.say(Message::text(deep));
    assert_eq!(client.answer("deep").await["code"], "bad_request");
    let large = json!({"room_id": "room", "content": "x".repeat(70_000)});
    assert_eq!(client.ask("message", large).await["code"], "too_large");
    let other = client.ask("authenticate", json!({"user_id": "bob"})).await;
    assert_eq!(other["code"], "already_authenticated");
    assert_eq!(
        client
            .done(
                "authenticate",
                json!({"user_id": "ann", "username": "Annie"})
            )
            .await["username"],
        "Annie"
    );
    assert!(!client.is_closed());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_to_close_has_its_code() {
    let cluster = Cluster::alone(&[
        ("WS_IDLE_SECS", "1"),
        ("RATE_EVENTS_PER_SEC", "10"),
        ("MAX_RATE_REFUSALS", "20"),
    ])
    .await;
    let address = cluster.address(0);
    let large = Plain::connect(address, "ann").await;
    large.say(Message::text("x".repeat(513)));
    assert_eq!(large.closed().await.0, 1009);
    let fits = Plain::connect(address, "ann").await;
    fits.say(Message::text("x".repeat(512)));
    fits.eventually("it is answered", |client| client.of("exception").len() == 1)
        .await;
    fits.say(Message::binary(vec![1, 2, 3]));
    assert_eq!(fits.closed().await.0, 1003);
    let flood = Plain::chat(address, "eve").await;
    for _ in 0..2000 {
        flood.tell("ping", &json!(null));
    }
    assert_eq!(flood.closed().await.0, 4429);
    let (status, _, _) = http(address, "POST", "/users/bob/disconnect", &[], "").await;
    assert_eq!(status, 200);
    let sent_away = Plain::connect(address, "bob").await;
    let (_, _, done) = http(address, "POST", "/users/bob/disconnect", &[], "").await;
    assert_eq!(done["disconnected"], 1, "{done}");
    assert_eq!(sent_away.closed().await.0, 4403);
    assert_eq!(sent_away.of("exception")[0]["code"], "forbidden");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_closed_and_one_that_answers_pings_is_not() {
    let cluster = Cluster::alone(&[("WS_IDLE_SECS", "2")]).await;
    let address = cluster.address(0);
    // This client's library answers pings.
    let alive = Plain::connect(address, "ann").await;
    // This client reads nothing, so it answers no pings.
    let request = format!("ws://{address}/ws?user_id=bob");
    let (mut silent, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while metric(address, "hubbub_heartbeat_timeouts_total").await == 0 {
        assert!(
            Instant::now() < deadline,
            "the silent connection is not closed"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let read = async {
        let mut end = None;
        while let Some(Ok(message)) = silent.next().await {
            if let Message::Close(Some(frame)) = message {
                end = Some(u16::from(frame.code));
            }
        }
        end
    };
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(20), read).await,
        Ok(Some(4408))
    );
    alive.tell("ping", &json!(null));
    alive
        .await_frame("a pong", |frame| frame["type"] == "pong")
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_the_connection_unless_it_is_renewed() {
    let cluster = Cluster::alone(&[("JWT_SECRET", SECRET)]).await;
    let address = cluster.address(0);
    let short = |user: &str| format!("chat=1&token={}", token(user, Duration::from_secs(2)));
    let expiring = Plain::with(address, &short("ann"), &[]).await.unwrap();
    let renewed = Plain::with(address, &short("bob"), &[]).await.unwrap();
    renewed
        .done("authenticate", json!({"token": token("bob", MINUTE)}))
        .await;
    assert_eq!(expiring.closed().await.0, 4401);
    assert_eq!(expiring.of("exception")[0]["code"], "token_expired");
    renewed.done("join", json!({"room_id": "room"})).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_limited_to_rooms_hears_no_broadcasts() {
    let cluster = Cluster::alone(&[("JWT_SECRET", SECRET), ("API_KEYS", "key")]).await;
    let address = cluster.address(0);
    let limited = |rooms: &[&str]| {
        let rooms = Some(rooms.iter().map(|room| (*room).to_owned()).collect());
        hubbub::auth::NewToken {
            rooms,
            ..hubbub::auth::NewToken::lasting("ann", MINUTE)
        }
        .sign(SECRET)
        .unwrap()
    };
    let deaf = Plain::with(address, &format!("token={}", limited(&["team-*"])), &[])
        .await
        .unwrap();
    let listens = Plain::with(
        address,
        &format!("token={}", limited(&["team-*", "broadcast"])),
        &[],
    )
    .await
    .unwrap();
    let narrowed = Plain::with(
        address,
        &format!("chat=1&token={}", token("bob", MINUTE)),
        &[],
    )
    .await
    .unwrap();
    let narrow = hubbub::auth::NewToken {
        rooms: Some(vec![]),
        ..hubbub::auth::NewToken::lasting("bob", MINUTE)
    };
    narrowed
        .done(
            "authenticate",
            json!({"token": narrow.sign(SECRET).unwrap()}),
        )
        .await;
    let headers = [
        ("content-type", "application/json"),
        ("authorization", "Bearer key"),
    ];
    assert_eq!(
        http(
            address,
            "POST",
            "/api/broadcast",
            &headers,
            r#"{"type":"a"}"#
        )
        .await
        .0,
        202
    );
    listens
        .eventually("it came", |client| client.broadcasts() == [1])
        .await;
    // A broadcast would have arrived before the answer to this ping.
    for client in [&deaf, &narrowed] {
        client.tell("ping", &json!(null));
        client
            .await_frame("a pong", |frame| frame["type"] == "pong")
            .await;
        assert_eq!(client.broadcasts(), Vec::<u64>::new());
    }
    let bearer = format!("Bearer {}", limited(&["team-*"]));
    let headers = [
        ("content-type", "application/json"),
        ("authorization", bearer.as_str()),
    ];
    assert_eq!(
        http(
            address,
            "POST",
            "/api/broadcast",
            &headers,
            r#"{"type":"a"}"#
        )
        .await
        .0,
        403
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_closes_plain_clients_evenly_with_1012_and_a_time() {
    let cluster = Cluster::alone(&[]).await;
    let address = cluster.address(0);
    let mut clients = Vec::new();
    for n in 0..10 {
        clients.push(Plain::connect(address, &format!("user-{n}")).await);
    }
    let socket = Client::member(address, "bob", "room").await;
    let node = cluster.nodes.into_iter().next().unwrap();
    let drained = tokio::spawn(node.drain(Duration::from_secs(1)));
    let mut hints: Vec<u64> = Vec::new();
    for client in &clients {
        let notice = client
            .await_frame("a notice", |frame| frame["type"] == "going_away")
            .await;
        hints.push(notice["payload"]["reconnect_in_ms"].as_u64().unwrap());
    }
    hints.sort_unstable();
    hints.dedup();
    assert!(
        hints.len() == 10 && hints.iter().all(|hint| *hint < 1000),
        "each has its own time: {hints:?}"
    );
    let (status, body) = Plain::with(address, "user_id=late", &[])
        .await
        .err()
        .unwrap();
    assert_eq!((status.as_u16(), &body["code"]), (503, &json!("draining")));
    assert!(
        clients.iter().any(|client| !client.is_closed()),
        "not all at once"
    );
    for client in &clients {
        let (code, reason) = client.closed().await;
        assert!(
            code == 1012 && reason.contains("reconnect_in_ms="),
            "{code} {reason}"
        );
    }
    socket.await_event("going_away").await;
    socket.eventually("closed", Client::is_closed).await;
    drained.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_closed_and_others_receive_everything() {
    let settings = [
        ("MAX_OUTBOX_BYTES", "300000"),
        ("RATE_BROADCASTS_PER_SEC", "0"),
        ("WRITE_TIMEOUT_SECS", "2"),
        ("HISTORY_SIZE", "20000"),
    ];
    let cluster = Cluster::alone(&settings).await;
    let address = cluster.address(0);
    let reader = Plain::connect(address, "ann").await;
    let (stuck, _) = tokio_tungstenite::connect_async(format!("ws://{address}/ws?user_id=eve"))
        .await
        .unwrap();
    let headers = [("content-type", "application/json")];
    let body = json!({"type": "a", "data": "x".repeat(16_000)}).to_string();
    let (mut said, began) = (0, std::time::Instant::now());
    // The kernel's buffers fill first, and then the outbox. Further messages stay in the log, until
    // the client has read nothing for too long. The number of connected clients shows when it was
    // closed.
    loop {
        let (status, _, answer) = http(address, "POST", "/api/broadcast", &headers, &body).await;
        assert_eq!(status, 202);
        said += 1;
        if answer["connectedClients"] == 1 {
            break;
        }
        assert!(
            began.elapsed().as_secs() < 20,
            "a client that reads nothing is never closed"
        );
    }
    reader
        .eventually("all came", |reader| reader.broadcasts().len() >= said)
        .await;
    assert_eq!(reader.broadcasts(), (1..=said as u64).collect::<Vec<_>>());
    assert!(!reader.is_closed());
    drop(stuck);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_larger_than_the_outbox_is_paced() {
    let settings = [
        ("MAX_OUTBOX_BYTES", "300000"),
        ("RATE_BROADCASTS_PER_SEC", "0"),
        ("RATE_POSTS_PER_SEC", "0"),
    ];
    let cluster = Cluster::alone(&settings).await;
    let address = cluster.address(0);
    let headers = [("content-type", "application/json")];
    let body = json!({"type": "a", "data": "x".repeat(16_000)}).to_string();
    for _ in 0..200 {
        assert_eq!(
            http(address, "POST", "/api/broadcast", &headers, &body)
                .await
                .0,
            202
        );
    }
    let client = Plain::with(address, "user_id=ann&since_seq=0", &[])
        .await
        .unwrap();
    client
        .eventually("all came", |client| client.broadcasts().len() >= 200)
        .await;
    assert_eq!(client.broadcasts(), (1..=200).collect::<Vec<_>>());
    let answer: &Value = &client.of("resumed")[0];
    assert_eq!(
        (&answer["replayed"], &answer["recovered"]),
        (&json!(200), &json!(true))
    );
    cluster.stop().await;
}

/// The node has asked Redis to count the connection, and then the client gives up before the answer
/// arrives.
#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_handshake_leaves_no_user_online() {
    let redis = RedisServer::start();
    let way = DelayingProxy::to(redis.port).await;
    let url = format!("redis://127.0.0.1:{}", way.port);
    let cluster = Cluster::on(
        redis,
        1,
        &[("REDIS_URL", &url), ("PRESENCE_GRACE_MS", "100")],
    )
    .await;
    let address = cluster.address(0);
    way.set_delay(Duration::from_millis(500));
    for _ in 0..3 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = "GET /ws?user_id=ghost HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        // Long enough for the node to send the call, and too short for the answer.
        let answered = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
        assert!(answered.is_err(), "the handshake was still waiting");
    }
    way.set_delay(Duration::ZERO);
    let began = std::time::Instant::now();
    loop {
        let (_, _, state) = http(address, "GET", "/users/ghost/status", &[], "").await;
        if state["is_online"] == false && state["version"].as_u64() > Some(0) {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "it came and never went: {state}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // All of its slots are free again.
    for _ in 0..20 {
        std::mem::forget(Plain::connect(address, "ghost").await);
    }
    cluster.stop().await;
}
