//! Who gets in: tokens of public keys, and those who publish them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hubbub::auth::{Algorithm, KeySource, TokenRules, Verifier};
use hubbub::domain::Code;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::Client;
use crate::node::{Cluster, http};

const FAR: u64 = 4_000_000_000;

fn ed() -> EncodingKey {
    EncodingKey::from_ed_pem(include_bytes!("../keys/ed.pem")).unwrap()
}

/// As BetterAuth signs it.
fn token(kid: &str, claims: &Value) -> String {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(jsonwebtoken::Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, claims, &ed()).unwrap()
}

fn set(kid: &str) -> String {
    let mut jwk = Jwk::from_encoding_key(&ed(), jsonwebtoken::Algorithm::EdDSA).unwrap();
    jwk.common.key_id = Some(kid.to_owned());
    json!({"keys": [jwk]}).to_string()
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A server that gives everyone the same answer, and counts.
pub struct Publisher {
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Publisher {
    pub async fn of(answer: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (answer, count): (Arc<str>, _) = (answer.into().into(), asked.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, count) = (answer.clone(), count.clone());
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        count.fetch_add(1, Ordering::SeqCst);
                        // An empty answer never comes.
                        if !answer.is_empty() && stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, asked }
    }

    pub fn url(&self) -> String {
        format!("http://{}/api/auth/jwks", self.address)
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn verifier(&self) -> Verifier {
        let rules = TokenRules { algorithms: vec![Algorithm::EdDsa], ..TokenRules::default() };
        Verifier::new(KeySource::Url(self.url().parse().unwrap()), rules).unwrap()
    }
}

async fn code(verifier: &Verifier, token: &str) -> Option<Code> {
    verifier.verify(token).await.err().map(|refusal| refusal.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_the_tokens_of_a_published_set() {
    let publisher = Publisher::of(ok(&set("k1"))).await;
    let (url, base) = (publisher.url(), "https://app.example.com");
    let settings =
        [("JWT_JWKS_URL", url.as_str()), ("JWT_ALGORITHM", "EdDSA"), ("JWT_ISSUER", base), ("JWT_AUDIENCE", base)];
    let cluster = Cluster::alone(&settings).await;
    let mut claims =
        json!({"id": "u1", "email": "a@b.c", "name": "Ann", "sub": "u1", "iss": base, "aud": base, "exp": FAR});
    let ann = Client::with_token(cluster.address(0), &token("k1", &claims)).await;
    assert_eq!(ann.await_event("authenticated").await, json!({"user_id": "u1", "username": "Ann"}));
    let bearer = format!("Bearer {}", token("k1", &claims));
    let (_, _, users) = http(cluster.address(0), "GET", "/rooms/r/users", &[("authorization", &bearer)], "").await;
    assert_eq!(users["code"], "not_in_room", "known, but not there");
    claims["aud"] = json!("https://other.example.com");
    let refused = Client::with_token(cluster.address(0), &token("k1", &claims)).await;
    let error = refused.await_event("connect_error").await;
    assert!(error["message"].as_str().unwrap().starts_with("unauthorized: "), "{error}");
    assert_eq!(publisher.asked(), 1, "at the start, and for nobody after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_kid_has_the_set_fetched_once_whoever_asks() {
    let publisher = Publisher::of(ok(&set("k1"))).await;
    let verifier = Arc::new(publisher.verifier());
    let good = token("k1", &json!({"sub": "s", "exp": FAR}));
    let all = futures_util::future::join_all((0..50).map(|_| code(&verifier, &good))).await;
    assert!(all.iter().all(Option::is_none), "{all:?}");
    for kid in ["made-up", "another"] {
        let unknown = token(kid, &json!({"sub": "s", "exp": FAR}));
        assert_eq!(code(&verifier, &unknown).await, Some(Code::Unavailable), "not before the set may be fetched again");
    }
    assert_eq!((code(&verifier, &good).await, publisher.asked()), (None, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_cant_be_had_lets_nobody_in() {
    let good = token("k1", &json!({"sub": "s", "exp": FAR}));
    let elsewhere = Publisher::of(ok(&set("k1"))).await;
    let redirect = format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", elsewhere.url());
    let large = format!(r#"{{"keys":[],"filling":"{}"}}"#, "x".repeat(300_000));
    let broken = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{";
    for answer in [
        redirect,
        ok(&large),
        ok("nonsense"),
        ok(r#"{"keys":[]}"#),
        "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_owned(),
        broken.to_owned(),
        String::new(),
    ] {
        let publisher = Publisher::of(answer.clone()).await;
        let refused = tokio::time::timeout(Duration::from_secs(10), code(&publisher.verifier(), &good)).await;
        let said = answer.chars().take(60).collect::<String>();
        assert_eq!(refused.expect("it waits without end"), Some(Code::Unavailable), "{said}");
    }
    assert_eq!(elsewhere.asked(), 0, "a redirect was followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cant_be_checked_now_comes_back_by_itself() {
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{nowhere}/jwks");
    let cluster = Cluster::alone(&[("JWT_JWKS_URL", url.as_str()), ("JWT_ALGORITHM", "EdDSA")]).await;
    let ann = Client::with_token(cluster.address(0), &token("k1", &json!({"sub": "s", "exp": FAR}))).await;
    ann.eventually("closed", Client::is_closed).await;
    // The transport only: a connect_error or DISCONNECT would keep it away.
    assert!(ann.events("connect_error").is_empty() && ann.events("disconnect").is_empty());
    cluster.stop().await;
}

const SECRET: &str = "a secret of at least thirty-two bytes";

fn bearer(user: &str, role: Option<&str>) -> String {
    format!("Bearer {}", hubbub::auth::mint(SECRET, user, None, role, Duration::from_secs(60)).unwrap())
}

async fn disconnect(address: SocketAddr, user: &str, bearer: &str) -> (u16, Value) {
    let path = format!("/users/{user}/disconnect");
    let (status, _, answer) = http(address, "POST", &path, &[("authorization", bearer)], "").await;
    (status, answer)
}

async fn a_user_is_sent_away(cluster: Cluster) {
    let last = cluster.nodes.len() - 1;
    let mut anns = Vec::new();
    for node in [0, last, last] {
        let ann = Client::with_token(cluster.address(node), &bearer("ann", None)[7..]).await;
        ann.await_event("authenticated").await;
        anns.push(ann);
    }
    let bob = Client::with_token(cluster.address(last), &bearer("ann2", None)[7..]).await;
    bob.await_event("authenticated").await;
    for (caller, expected) in [(bearer("bob", None), "forbidden"), (bearer("ann", Some("user")), "forbidden")] {
        assert_eq!(disconnect(cluster.address(0), "ann", &caller).await.1["code"], expected);
    }
    assert_eq!(disconnect(cluster.address(0), "ann", "").await.0, 401);
    let began = std::time::Instant::now();
    let (status, answer) = disconnect(cluster.address(0), "ann", "Bearer a-key-of-a-service").await;
    assert_eq!((status, answer), (200, json!({"ok": true, "user_id": "ann", "disconnected": 3, "remaining": 0})));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    for ann in &anns {
        assert_eq!(ann.await_event("exception").await["code"], "forbidden");
        ann.await_event("disconnect").await;
        ann.eventually("closed", Client::is_closed).await;
    }
    // The token is still good: nobody is locked out by it.
    let back = Client::with_token(cluster.address(0), &bearer("ann", None)[7..]).await;
    back.await_event("authenticated").await;
    let (_, answer) = disconnect(cluster.address(last), "nobody", &bearer("root", Some("admin"))).await;
    assert_eq!(answer, json!({"ok": true, "user_id": "nobody", "disconnected": 0, "remaining": 0}));
    back.done("join", json!({"room_id": "r"})).await;
    assert!(bob.events("exception").is_empty() && bob.events("disconnect").is_empty());
    bob.done("join", json!({"room_id": "r"})).await;
    cluster.stop().await;
}

const JWT: &[(&str, &str)] = &[("JWT_SECRET", SECRET), ("API_KEYS", "a-key-of-a-service")];

#[tokio::test(flavor = "multi_thread")]
async fn all_sockets_of_a_user_end_on_one_node() {
    a_user_is_sent_away(Cluster::alone(JWT).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_sockets_of_a_user_end_on_two_nodes() {
    a_user_is_sent_away(Cluster::of(2, JWT).await).await;
}
