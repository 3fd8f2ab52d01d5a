//! Identity: tokens signed with public keys, published key sets, disconnecting users, room scopes
//! and the authorization webhook.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hubbub::auth::{
    Algorithm, KeySource, NewToken, TokenRules, Verifier, Webhook, WebhookSettings,
};
use hubbub::domain::policy::Action;
use hubbub::domain::{Code, RoomId, UserId};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use hubbub_test_support::client::Client;
use hubbub_test_support::node::{Cluster, http};

const FAR: u64 = 4_000_000_000;

fn ed() -> EncodingKey {
    EncodingKey::from_ed_pem(include_bytes!("../../src/auth/testdata/ed.pem")).unwrap()
}

/// A token as BetterAuth signs it.
fn token(kid: &str, claims: &Value) -> String {
    let header = Header {
        kid: Some(kid.to_owned()),
        ..Header::new(jsonwebtoken::Algorithm::EdDSA)
    };
    jsonwebtoken::encode(&header, claims, &ed()).unwrap()
}

fn set(kid: &str) -> String {
    let mut jwk = Jwk::from_encoding_key(&ed(), jsonwebtoken::Algorithm::EdDSA).unwrap();
    jwk.common.key_id = Some(kid.to_owned());
    json!({"keys": [jwk]}).to_string()
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A server that gives every request the same answer, and counts the requests.
pub struct Publisher {
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
    /// The last request, as received.
    last: Arc<Mutex<String>>,
}

impl Publisher {
    pub async fn of(answer: impl Into<String>) -> Self {
        Self::slow(answer, Duration::ZERO).await
    }

    pub async fn slow(answer: impl Into<String>, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (
            listener.local_addr().unwrap(),
            Arc::new(AtomicUsize::new(0)),
        );
        let (answer, count): (Arc<str>, _) = (answer.into().into(), asked.clone());
        let last = Arc::new(Mutex::default());
        let keep = last.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, count, keep) = (answer.clone(), count.clone(), keep.clone());
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut request).await {
                        count.fetch_add(1, Ordering::SeqCst);
                        *keep.lock().unwrap() =
                            String::from_utf8_lossy(&request[..read]).into_owned();
                        tokio::time::sleep(delay).await;
                        // An empty answer is never sent.
                        if !answer.is_empty() && stream.write_all(answer.as_bytes()).await.is_err()
                        {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            address,
            asked,
            last,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/api/auth/jwks", self.address)
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn verifier(&self) -> Verifier {
        let rules = TokenRules {
            algorithms: vec![Algorithm::EdDsa],
            ..TokenRules::default()
        };
        Verifier::new(KeySource::Url(self.url().parse().unwrap()), rules).unwrap()
    }
}

async fn code(verifier: &Verifier, token: &str) -> Option<Code> {
    verifier
        .verify(token)
        .await
        .err()
        .map(|refusal| refusal.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_accepts_tokens_of_a_published_key_set() {
    let publisher = Publisher::of(ok(&set("k1"))).await;
    let (url, base) = (publisher.url(), "https://app.example.com");
    let settings = [
        ("JWT_JWKS_URL", url.as_str()),
        ("JWT_ALGORITHM", "EdDSA"),
        ("JWT_ISSUER", base),
        ("JWT_AUDIENCE", base),
    ];
    let cluster = Cluster::alone(&settings).await;
    let mut claims = json!({"id": "u1", "email": "a@b.c", "name": "Ann", "sub": "u1", "iss": base, "aud": base, "exp": FAR});
    let ann = Client::with_token(cluster.address(0), &token("k1", &claims)).await;
    assert_eq!(
        ann.await_event("authenticated").await,
        json!({"user_id": "u1", "username": "Ann"})
    );
    let bearer = format!("Bearer {}", token("k1", &claims));
    let (_, _, users) = http(
        cluster.address(0),
        "GET",
        "/rooms/r/users",
        &[("authorization", &bearer)],
        "",
    )
    .await;
    assert_eq!(
        users["code"], "not_in_room",
        "authenticated, but not in the room"
    );
    claims["aud"] = json!("https://other.example.com");
    let refused = Client::with_token(cluster.address(0), &token("k1", &claims)).await;
    let error = refused.await_event("connect_error").await;
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("unauthorized: "),
        "{error}"
    );
    assert_eq!(
        publisher.asked(),
        1,
        "at the start, and for nobody after it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_kid_fetches_the_key_set_once_for_all_waiting_requests() {
    let publisher = Publisher::of(ok(&set("k1"))).await;
    let verifier = Arc::new(publisher.verifier());
    let good = token("k1", &json!({"sub": "s", "exp": FAR}));
    let all = futures_util::future::join_all((0..50).map(|_| code(&verifier, &good))).await;
    assert!(all.iter().all(Option::is_none), "{all:?}");
    for kid in ["made-up", "another"] {
        let unknown = token(kid, &json!({"sub": "s", "exp": FAR}));
        assert_eq!(
            code(&verifier, &unknown).await,
            Some(Code::Unavailable),
            "not before the set may be fetched again"
        );
    }
    assert_eq!((code(&verifier, &good).await, publisher.asked()), (None, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_usable_key_set_every_token_is_refused() {
    let good = token("k1", &json!({"sub": "s", "exp": FAR}));
    let elsewhere = Publisher::of(ok(&set("k1"))).await;
    // Each answer would admit the token except for one fault.
    let good_set = set("k1");
    let with_head = |head: &str| {
        format!(
            "HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{good_set}",
            good_set.len()
        )
    };
    let redirect = with_head(&format!("302 Found\r\nlocation: {}", elsewhere.url()));
    let large = format!("{}{good_set}", " ".repeat(300_000));
    let broken = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{";
    for answer in [
        redirect,
        ok(&large),
        ok("nonsense"),
        ok(r#"{"keys":[]}"#),
        with_head("500 No"),
        broken.to_owned(),
        String::new(),
    ] {
        let publisher = Publisher::of(answer.clone()).await;
        let refused =
            tokio::time::timeout(Duration::from_secs(10), code(&publisher.verifier(), &good)).await;
        let said = answer.chars().take(60).collect::<String>();
        assert_eq!(
            refused.expect("the check never ends"),
            Some(Code::Unavailable),
            "{said}"
        );
    }
    assert_eq!(elsewhere.asked(), 0, "a redirect was followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_token_cannot_be_checked_now_reconnects_by_itself() {
    let nowhere = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{nowhere}/jwks");
    let cluster =
        Cluster::alone(&[("JWT_JWKS_URL", url.as_str()), ("JWT_ALGORITHM", "EdDSA")]).await;
    let ann = Client::with_token(
        cluster.address(0),
        &token("k1", &json!({"sub": "s", "exp": FAR})),
    )
    .await;
    ann.eventually("closed", Client::is_closed).await;
    // Only the transport is closed: after a connect_error or DISCONNECT the client would not
    // reconnect.
    assert!(ann.events("connect_error").is_empty() && ann.events("disconnect").is_empty());
    cluster.stop().await;
}

const SECRET: &str = "a secret of at least thirty-two bytes";

fn bearer(user: &str, role: Option<&str>) -> String {
    format!(
        "Bearer {}",
        hubbub::auth::mint(SECRET, user, None, role, Duration::from_secs(60)).unwrap()
    )
}

async fn disconnect(address: SocketAddr, user: &str, bearer: &str) -> (u16, Value) {
    let path = format!("/users/{user}/disconnect");
    let (status, _, answer) = http(address, "POST", &path, &[("authorization", bearer)], "").await;
    (status, answer)
}

async fn all_connections_of_a_user_are_disconnected(cluster: Cluster) {
    let last = cluster.nodes.len() - 1;
    let mut anns = Vec::new();
    for node in [0, last, last] {
        let ann = Client::with_token(cluster.address(node), &bearer("ann", None)[7..]).await;
        ann.await_event("authenticated").await;
        anns.push(ann);
    }
    let bob = Client::with_token(cluster.address(last), &bearer("ann2", None)[7..]).await;
    bob.await_event("authenticated").await;
    for (caller, expected) in [
        (bearer("bob", None), "forbidden"),
        (bearer("ann", Some("user")), "forbidden"),
    ] {
        assert_eq!(
            disconnect(cluster.address(0), "ann", &caller).await.1["code"],
            expected
        );
    }
    assert_eq!(disconnect(cluster.address(0), "ann", "").await.0, 401);
    let (status, answer) = disconnect(cluster.address(0), "ann", "Bearer a-key-of-a-service").await;
    assert_eq!(
        (status, answer),
        (
            200,
            json!({"ok": true, "user_id": "ann", "disconnected": 3, "remaining": 0})
        )
    );
    // The call gives up after one second, so all of them ended within that time.
    for ann in &anns {
        assert_eq!(ann.await_event("exception").await["code"], "forbidden");
        ann.await_event("disconnect").await;
        ann.eventually("closed", Client::is_closed).await;
    }
    // The token is still valid: disconnecting does not lock the user out.
    let back = Client::with_token(cluster.address(0), &bearer("ann", None)[7..]).await;
    back.await_event("authenticated").await;
    let (_, answer) = disconnect(
        cluster.address(last),
        "nobody",
        &bearer("root", Some("admin")),
    )
    .await;
    assert_eq!(
        answer,
        json!({"ok": true, "user_id": "nobody", "disconnected": 0, "remaining": 0})
    );
    back.done("join", json!({"room_id": "r"})).await;
    assert!(bob.events("exception").is_empty() && bob.events("disconnect").is_empty());
    bob.done("join", json!({"room_id": "r"})).await;
    cluster.stop().await;
}

const JWT: &[(&str, &str)] = &[("JWT_SECRET", SECRET), ("API_KEYS", "a-key-of-a-service")];

#[tokio::test(flavor = "multi_thread")]
async fn all_connections_of_a_user_end_on_one_node() {
    all_connections_of_a_user_are_disconnected(Cluster::alone(JWT).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_connections_of_a_user_end_on_two_nodes() {
    all_connections_of_a_user_are_disconnected(Cluster::of(2, JWT).await).await;
}

fn limited(user: &str, role: Option<&str>, rooms: &[&str]) -> String {
    let rooms = Some(rooms.iter().map(ToString::to_string).collect());
    let role = role.map(ToOwned::to_owned);
    NewToken {
        role,
        rooms,
        ..NewToken::lasting(user, Duration::from_secs(60))
    }
    .sign(SECRET)
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_valid_only_for_its_rooms() {
    let cluster = Cluster::alone(JWT).await;
    let address = cluster.address(0);
    let ann = Client::with_token(address, &limited("ann", None, &["lobby", "team-*"])).await;
    ann.await_event("authenticated").await;
    for room in ["lobby", "team-1"] {
        ann.done("join", json!({"room_id": room})).await;
        ann.done("message", json!({"room_id": room, "content": "hi"}))
            .await;
        ann.done("history", json!({"room_id": room})).await;
        ann.done("typing", json!({"room_id": room})).await;
    }
    for event in ["join", "message", "history", "typing"] {
        let answer = ann
            .ask(event, json!({"room_id": "secret", "content": "hi"}))
            .await;
        assert_eq!(answer["code"], "forbidden", "{event}");
    }
    assert_eq!(
        ann.ask("message", json!({"room_id": "team-2", "content": "hi"}))
            .await["code"],
        "not_in_room"
    );
    // Over HTTP as well, although the user is in the room by another token.
    let free = Client::with_token(address, &bearer("ann", None)[7..]).await;
    free.await_event("authenticated").await;
    free.done("join", json!({"room_id": "secret"})).await;
    let (user, service) = (
        limited("ann", None, &["lobby"]),
        limited("bot", Some("service"), &["lobby"]),
    );
    for (token, method, path, status) in [
        (&user, "GET", "/rooms/lobby/messages", 200),
        (&user, "GET", "/rooms/lobby/users", 200),
        (&user, "GET", "/rooms/secret/messages", 403),
        (&user, "GET", "/rooms/secret/users", 403),
        (&service, "GET", "/rooms/lobby/messages", 200),
        (&service, "GET", "/rooms/secret/messages", 403),
        (&service, "GET", "/rooms/secret/users", 403),
        (&service, "GET", "/users/ann/status", 403),
        (&service, "GET", "/metrics", 403),
        (&service, "POST", "/users/ann/disconnect", 403),
    ] {
        let authorization = format!("Bearer {token}");
        let (got, _, answer) = http(
            address,
            method,
            path,
            &[("authorization", &authorization)],
            "",
        )
        .await;
        assert_eq!(got, status, "{path} {answer}");
        assert!(
            status == 200 || answer["code"] == "forbidden",
            "{path} {answer}"
        );
    }
    for (room, status) in [("lobby", 201), ("secret", 403)] {
        let (authorization, body) = (
            format!("Bearer {service}"),
            json!({"room_id": room, "content": "hi"}).to_string(),
        );
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        assert_eq!(
            http(address, "POST", "/messages", &headers, &body).await.0,
            status,
            "{room}"
        );
    }
    cluster.stop().await;
}

async fn a_narrower_token_leaves_rooms_outside_its_scope(cluster: Cluster) {
    let last = cluster.nodes.len() - 1;
    let (address, far) = (cluster.address(0), cluster.address(last));
    let bob = Client::with_token(far, &bearer("bob", None)[7..]).await;
    let ann = Client::with_token(address, &limited("ann", None, &["*"])).await;
    for client in [&bob, &ann] {
        client.await_event("authenticated").await;
        for room in ["kept", "lost"] {
            client.done("join", json!({"room_id": room})).await;
        }
    }
    ann.done(
        "authenticate",
        json!({"token": limited("ann", None, &["kept"])}),
    )
    .await;
    let told = ann.await_event("exception").await;
    assert_eq!(
        (&told["code"], &told["room_id"]),
        (&json!("forbidden"), &json!("lost"))
    );
    assert_eq!(bob.await_event("user_left").await["room_id"], "lost");
    // Another occupant of the same feed has received it, so ann would have received it before the
    // next message.
    let carl = Client::with_token(address, &bearer("carl", None)[7..]).await;
    carl.await_event("authenticated").await;
    carl.done("join", json!({"room_id": "lost"})).await;
    bob.done(
        "message",
        json!({"room_id": "lost", "content": "not for ann"}),
    )
    .await;
    carl.await_event("message").await;
    bob.done("message", json!({"room_id": "kept", "content": "for ann"}))
        .await;
    assert_eq!(ann.await_event("message").await["content"], "for ann");
    assert_eq!(
        ann.ask("message", json!({"room_id": "lost", "content": "hi"}))
            .await["code"],
        "forbidden"
    );
    assert_eq!(
        ann.events("exception").len(),
        1,
        "of the room that is kept nothing is said"
    );
    // A wider token again: the rooms are allowed, but the connection is not put back into them.
    ann.done(
        "authenticate",
        json!({"token": limited("ann", None, &["*"])}),
    )
    .await;
    assert_eq!(
        ann.ask("message", json!({"room_id": "lost", "content": "hi"}))
            .await["code"],
        "not_in_room"
    );
    let joined = ann
        .done("join", json!({"room_id": "lost", "since_seq": 0}))
        .await;
    assert_eq!(joined["replayed"], 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrower_token_leaves_rooms_outside_its_scope_on_one_node() {
    a_narrower_token_leaves_rooms_outside_its_scope(Cluster::alone(JWT).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrower_token_leaves_rooms_outside_its_scope_on_two_nodes() {
    a_narrower_token_leaves_rooms_outside_its_scope(Cluster::of(2, JWT).await).await;
}

/// A node whose authorization webhook is that server, and a client of the node.
async fn node_with_webhook(publisher: &Publisher, more: &[(&str, &str)]) -> (Cluster, Client) {
    let url = format!("http://{}/allow", publisher.address);
    let patient = ("AUTHORIZE_TIMEOUT_MS", "10000");
    let settings = [
        &[
            ("AUTHORIZE_URL", url.as_str()),
            ("AUTHORIZE_SECRET", "of-hubbub"),
            patient,
        ],
        more,
    ]
    .concat();
    let cluster = Cluster::alone(&settings).await;
    let ann = Client::connect(cluster.address(0)).await;
    ann.done("authenticate", json!({"user_id": "ann"})).await;
    (cluster, ann)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authorization_webhook_is_asked_about_joins_and_sends() {
    let publisher = Publisher::of(ok(r#"{"allow": true}"#)).await;
    let (cluster, ann) = node_with_webhook(&publisher, &[]).await;
    ann.done("join", json!({"room_id": "r"})).await;
    let request = publisher.last.lock().unwrap().clone();
    assert!(
        request.starts_with("POST /allow HTTP/1.1")
            && request.contains("authorization: Bearer of-hubbub"),
        "{request}"
    );
    assert!(
        request.ends_with(r#"{"action":"join","user_id":"ann","room_id":"r"}"#),
        "{request}"
    );
    for _ in 0..3 {
        ann.done("message", json!({"room_id": "r", "content": "hi"}))
            .await;
    }
    ann.done("history", json!({"room_id": "r"})).await;
    let (status, _) = hubbub_test_support::node::post(
        cluster.address(0),
        &json!({"room_id": "r", "content": "of a service"}),
    )
    .await;
    assert_eq!(
        (status, publisher.asked()),
        (201, 2),
        "each once, and not for a service"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_webhook_is_final_and_cached() {
    let publisher = Publisher::of(ok(r#"{"allow": false}"#)).await;
    let (cluster, ann) = node_with_webhook(&publisher, &[]).await;
    for _ in 0..3 {
        assert_eq!(
            ann.ask("join", json!({"room_id": "r"})).await["code"],
            "forbidden"
        );
    }
    assert_eq!(
        ann.ask("message", json!({"room_id": "r", "content": "hi"}))
            .await["code"],
        "not_in_room"
    );
    assert_eq!(publisher.asked(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_of_the_webhook_joins_and_sends_are_unavailable() {
    let elsewhere = Publisher::of(ok(r#"{"allow": true}"#)).await;
    let redirect = format!(
        "HTTP/1.1 307 Go\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n",
        elsewhere.address
    );
    for answer in [
        redirect,
        "HTTP/1.1 500 No\r\ncontent-length: 15\r\n\r\n{\"allow\": true}".to_owned(),
        "HTTP/1.1 204 No\r\n\r\n".to_owned(),
        ok("{}"),
        ok(r#"{"allow": "true"}"#),
        ok(&format!(
            r#"{{"allow": true, "filling": "{}"}}"#,
            "x".repeat(20_000)
        )),
        String::new(),
    ] {
        let publisher = Publisher::of(answer.clone()).await;
        let (cluster, ann) =
            node_with_webhook(&publisher, &[("AUTHORIZE_TIMEOUT_MS", "300")]).await;
        let refused = ann.ask("join", json!({"room_id": "r"})).await;
        assert_eq!(
            (&refused["code"], &refused["retry_after_ms"]),
            (&json!("unavailable"), &json!(1000)),
            "{answer:.60}"
        );
        assert_eq!(
            ann.ask("message", json!({"room_id": "r", "content": "hi"}))
                .await["code"],
            "not_in_room"
        );
        cluster.stop().await;
    }
    assert_eq!(elsewhere.asked(), 0, "a redirect was followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_for_the_webhook_keep_their_order() {
    let publisher = Publisher::slow(ok(r#"{"allow": true}"#), Duration::from_millis(100)).await;
    let (cluster, ann) = node_with_webhook(&publisher, &[("AUTHORIZE_CACHE_SECS", "0")]).await;
    let join = ann.emit("join", &json!({"room_id": "r"}));
    let sent: Vec<_> = (0..3)
        .map(|n| {
            ann.emit(
                "message",
                &json!({"room_id": "r", "content": n.to_string()}),
            )
        })
        .collect();
    let leave = ann.emit("leave", &json!({"room_id": "r"}));
    let late = ann.emit("message", &json!({"room_id": "r", "content": "late"}));
    assert_eq!(join.await.unwrap()["ok"], true);
    for (n, answer) in sent.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap()["seq"], n + 1);
    }
    assert_eq!(leave.await.unwrap()["ok"], true);
    assert_eq!(late.await.unwrap()["code"], "not_in_room");
    assert_eq!(publisher.asked(), 4, "no answer is cached");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_checks_of_one_action_send_one_request() {
    let publisher = Publisher::slow(ok(r#"{"allow": true}"#), Duration::from_millis(200)).await;
    let uri = format!("http://{}/", publisher.address).parse().unwrap();
    let settings = WebhookSettings {
        uri,
        bearer: None,
        timeout: Duration::from_secs(5),
        cache: Duration::ZERO,
    };
    let (webhook, user, room) = (
        Webhook::new(settings).unwrap(),
        UserId::trusted("ann"),
        RoomId::trusted("r"),
    );
    let all = futures_util::future::join_all(
        (0..50).map(|_| webhook.authorize(Action::Join, &user, &room)),
    )
    .await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(publisher.asked(), 1);
}
