//! Signing up by invitation.

use std::net::SocketAddr;

use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::{self, Cluster, http};
use serde_json::{Value, json};

use crate::fixture::{MEMORY, Rest, SECRET, assert_refused, expect, sign_up};

fn body(username: &str, invite: Option<&str>) -> Value {
    json!({
        "email": format!("{username}@example.com"),
        "username": username,
        "password": "correct horse",
        "invite": invite,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_for_one_account() {
    let database = TestDatabase::new(DatabaseKind::Sqlite);
    let url = ("DATABASE_URL", database.url.as_str());
    // The first account exists before the server asks for invitations.
    let node = Cluster::alone(&[SECRET, url]).await;
    let signed_up = sign_up(node.address(0), "admin").await;
    node.stop().await;

    let node = Cluster::alone(&[SECRET, url, ("SIGNUP", "invite")]).await;
    let address = node.address(0);
    let admin = Rest::of(address, &signed_up);
    let anybody = Rest::anonymous(address);
    let sign_up = async |body: Value| anybody.post("/api/v1/auth/signup", body).await;
    let invite = async |body: Value| {
        let invite = expect(admin.post("/api/v1/invites", body).await, 201);
        let code = invite["code"].as_str().unwrap().to_owned();
        let url = invite["url"].as_str().unwrap();
        assert!(url.ends_with(&format!("/signup#invite={code}")), "{url}");
        assert!(invite["expires_at"].is_string());
        code
    };
    for code in [None, Some(""), Some("x")] {
        assert_refused(&sign_up(body("ann", code)).await, 403, "forbidden");
    }
    // Without an invitation nobody learns which names are taken.
    assert_refused(&sign_up(body("admin", Some("x"))).await, 403, "forbidden");

    let code = invite(json!({})).await;
    let taken = sign_up(body("admin", Some(&code))).await;
    assert_refused(&taken, 409, "username_taken");
    let ann = expect(sign_up(body("ann", Some(&code))).await, 201);
    assert_eq!(ann["user"]["role"], "user");
    assert_refused(&sign_up(body("bob", Some(&code))).await, 403, "forbidden");

    let code = invite(json!({"email": "Carl@example.com", "expires_in_days": 1})).await;
    assert_refused(&sign_up(body("bob", Some(&code))).await, 403, "forbidden");
    expect(sign_up(body("carl", Some(&code))).await, 201);
    for bad in [
        json!({"email": "x"}),
        json!({"expires_in_days": 0}),
        json!({"expires_in_days": 3651}),
    ] {
        let answer = admin.post("/api/v1/invites", bad).await;
        assert_refused(&answer, 400, "bad_request");
    }
    let audit = expect(admin.get("/api/v1/audit").await, 200);
    let targets: Vec<_> = audit["items"].as_array().unwrap().iter().collect();
    assert_eq!(targets.len(), 2);
    assert!(
        targets
            .iter()
            .all(|entry| entry["action"] == "invite_created")
    );
    assert_eq!(targets[0]["target"], "carl@example.com");
    let ann = Rest::of(address, &ann);
    let answer = ann.post("/api/v1/invites", json!({})).await;
    assert_refused(&answer, 403, "forbidden");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_for_an_invitation_gets_the_same_code() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let signed_up = sign_up(address, "admin").await;
    let authorization = format!("Bearer {}", signed_up["access_token"].as_str().unwrap());
    let invite = async |key: &str, body: Value| {
        let headers = [
            ("content-type", "application/json"),
            ("authorization", authorization.as_str()),
            ("idempotency-key", key),
        ];
        let path = "/api/v1/invites";
        http(address, "POST", path, &headers, &body.to_string()).await
    };
    let (status, headers, first) = invite("k", json!({})).await;
    assert_eq!(status, 201, "{first}");
    assert!(!headers.contains_key("idempotency-replayed"));
    let (status, headers, again) = invite("k", json!({})).await;
    assert_eq!((status, &again), (201, &first));
    assert_eq!(headers["idempotency-replayed"], "true");
    let (status, _, other) = invite("k", json!({"expires_in_days": 1})).await;
    assert_eq!(
        (status, &other["code"]),
        (422, &json!("idempotency_mismatch"))
    );
    let (status, _, second) = invite("another", json!({})).await;
    assert_eq!(status, 201);
    assert_ne!(second["code"], first["code"]);
    let audit = Rest::of(address, &signed_up).get("/api/v1/audit").await;
    let audit = expect(audit, 200);
    assert_eq!(audit["items"].as_array().unwrap().len(), 2, "{audit}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_an_invitation_needs_no_mail_server() {
    let settings = [
        SECRET,
        MEMORY,
        ("SERVER_HOST", "0.0.0.0"),
        ("PUBLIC_URL", "https://chat.example.com/"),
    ];
    let node = node::start(&settings).await;
    let address = SocketAddr::from(([127, 0, 0, 1], node.address().port()));
    let admin = Rest::of(address, &sign_up(address, "admin").await);
    let invite = expect(admin.post("/api/v1/invites", json!({})).await, 201);
    let page = "https://chat.example.com/signup#invite=";
    assert!(
        invite["url"].as_str().unwrap().starts_with(page),
        "{invite}"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_signs_up_where_it_is_closed() {
    let node = node::start(&[SECRET, MEMORY, ("SIGNUP", "closed")]).await;
    let anybody = Rest::anonymous(node.address());
    for path in ["/api/v1/auth/signup", "/api/users", "/api/users/signup"] {
        let answer = anybody.post(path, body("ann", None)).await;
        assert_refused(&answer, 403, "forbidden");
    }
    node.stop().await;
}
