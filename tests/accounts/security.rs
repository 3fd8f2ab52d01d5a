//! Attacks on accounts: mass assignment, enumeration, guesses, fixation, scripts in names.

use std::time::{Duration, Instant};

use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::{Cluster, SharedStorage, http, http_text};
use serde_json::{Value, json};

use crate::fixture::{MEMORY, Rest, SECRET, assert_refused, expect, log_in, sign_up};

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_oneself_rights_by_additional_fields() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    sign_up(address, "admin").await;
    let more = json!({
        "id": "00000000-0000-0000-0000-000000000000", "role": "admin", "roles": ["admin"],
        "disabled": false, "is_disabled": false, "email_verified": true, "created_at": "x",
    });
    let with = |fields: Value| {
        let mut body = more.clone();
        let fields = fields.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(fields);
        body
    };
    let fields = json!({
        "email": "eve@example.com", "username": "eve", "password": "correct horse",
    });
    let rest = Rest::anonymous(address);
    let signed_up = rest.post("/api/v1/auth/signup", with(fields)).await;
    let signed_up = expect(signed_up, 201);
    let user = &signed_up["user"];
    let eve = Rest::of(address, &signed_up);
    let change = with(json!({"status": "x"}));
    let changed = expect(eve.send("PATCH", "/api/v1/me", &change).await, 200);
    for seen in [user, &changed, &eve.me().await.1] {
        assert_eq!((&seen["role"], &seen["id"]), (&json!("user"), &user["id"]));
        assert_eq!(seen["email_verified"], false);
        assert_eq!(seen["created_at"], user["created_at"]);
    }
    let path = format!("/api/v1/users/{}", user["id"].as_str().unwrap());
    assert_refused(&eve.send("PATCH", &path, &more).await, 403, "forbidden");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_tells_nobody_whether_an_account_exists_or_is_disabled() {
    let node = Cluster::alone(&[SECRET, MEMORY, ("LOGIN_ATTEMPTS_PER_ACCOUNT", "2")]).await;
    let address = node.address(0);
    let admin = Rest::of(address, &sign_up(address, "admin").await);
    sign_up(address, "ann").await;
    let carl = sign_up(address, "carl").await;
    let path = format!("/api/v1/users/{}", carl["user"]["id"].as_str().unwrap());
    let disabled = json!({"disabled": true});
    expect(admin.send("PATCH", &path, &disabled).await, 200);
    let mut stories = Vec::new();
    for name in ["ann", "carl", "nobody", "not a name"] {
        let mut story = Vec::new();
        for _ in 0..4 {
            let (status, mut answer) = log_in(address, name, "wrong horse!").await;
            answer["request_id"].take();
            story.push((status, answer));
        }
        stories.push(story);
    }
    assert_eq!(stories[0][0].1["code"], "invalid_credentials");
    assert_eq!(stories[0][3].1["code"], "rate_limited");
    stories.dedup();
    assert_eq!(stories.len(), 1, "{stories:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_takes_as_long_for_an_unknown_account_as_for_a_wrong_password() {
    let unlimited = [
        ("LOGIN_ATTEMPTS_PER_ACCOUNT", "0"),
        ("LOGIN_ATTEMPTS_PER_ADDRESS", "0"),
    ];
    let node = Cluster::alone(&[SECRET, MEMORY, unlimited[0], unlimited[1]]).await;
    let address = node.address(0);
    sign_up(address, "ann").await;
    let mut shortest = [Duration::MAX; 2];
    for _ in 0..8 {
        for (name, shortest) in ["ann", "nobody"].iter().zip(&mut shortest) {
            let begun = Instant::now();
            let answer = log_in(address, name, "wrong horse!").await;
            *shortest = begun.elapsed().min(*shortest);
            assert_refused(&answer, 401, "invalid_credentials");
        }
    }
    // A hash takes nearly all of the time.
    let [known, unknown] = shortest;
    assert!(unknown > known / 2 && known > unknown / 2, "{shortest:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_counted_over_all_nodes_by_account_and_by_address() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let storage = SharedStorage::new(&database.url);
    let settings = [
        SECRET,
        ("LOGIN_ATTEMPTS_PER_ACCOUNT", "3"),
        ("LOGIN_ATTEMPTS_PER_ADDRESS", "9"),
    ];
    let nodes = [
        storage.start_node(&settings).await,
        storage.start_node(&settings).await,
    ];
    let names = ["ann", "bob", "carl", "dora", "eve"];
    for name in names {
        sign_up(nodes[0].address(), name).await;
    }
    let attempt =
        async |number: usize, name| log_in(nodes[number % 2].address(), name, "wrong horse!").await;
    for number in 0..3 {
        let answer = attempt(number, "ann").await;
        assert_refused(&answer, 401, "invalid_credentials");
    }
    for node in &nodes {
        let answer = log_in(node.address(), "ann", "correct horse").await;
        assert_refused(&answer, 429, "rate_limited");
    }
    // One password on many accounts: each account is below its limit.
    let mut refused = 0;
    for number in 0..12 {
        let answer = attempt(number, names[1 + number % 4]).await;
        match answer.0 {
            401 => assert_eq!(refused, 0, "attempt {number} after a refusal"),
            _ => {
                assert_refused(&answer, 429, "rate_limited");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 6, "three attempts on ann, six on the others");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_begins_another_session_than_any_that_a_request_names() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    sign_up(address, "ann").await;
    let eve_logged_in = sign_up(address, "eve").await;
    let eve = Rest::of(address, &eve_logged_in);
    let sessions = expect(eve.get("/api/v1/auth/sessions").await, 200);
    let of_eve = sessions["items"][0]["id"].as_str().unwrap();
    // The request of ann carries tokens and the session of eve.
    let body = json!({
        "username": "ann", "password": "correct horse", "sid": of_eve, "session_id": of_eve,
        "access_token": eve_logged_in["access_token"],
        "refresh_token": eve_logged_in["refresh_token"],
    });
    let logged_in = expect(eve.post("/api/v1/auth/login", body).await, 200);
    let ann = Rest::of(address, &logged_in);
    let session_of = async |user: &Rest| {
        let list = expect(user.get("/api/v1/auth/sessions").await, 200);
        let items = list["items"].as_array().unwrap();
        let current = items.iter().find(|item| item["current"] == true);
        current.unwrap()["id"].as_str().unwrap().to_owned()
    };
    assert_ne!(session_of(&ann).await, of_eve);
    assert_ne!(logged_in["refresh_token"], eve_logged_in["refresh_token"]);
    // Eve stays eve, with the own session only.
    assert_eq!(session_of(&eve).await, of_eve);
    assert_eq!(eve.me().await.1["username"], "eve");
    assert_eq!(ann.me().await.1["username"], "ann");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_in_a_name_is_data() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let signed_up = sign_up(address, "ann").await;
    let ann = Rest::of(address, &signed_up);
    let script = "</script><script>alert(1)</script>";
    let change = json!({"display_name": script, "status": script});
    expect(ann.send("PATCH", "/api/v1/me", &change).await, 200);
    for name in ["<script>", "a\u{202e}b", "ann\u{0}"] {
        let change = json!({"username": name});
        let answer = ann.send("PATCH", "/api/v1/me", &change).await;
        assert_refused(&answer, 400, "bad_request");
    }
    let token = signed_up["access_token"].as_str().unwrap();
    let authorization = format!("Bearer {token}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("accept", "text/html"),
    ];
    let id = signed_up["user"]["id"].as_str().unwrap();
    let of_user = format!("/api/v1/users/{id}");
    let unknown = script
        .replace('<', "%3C")
        .replace('>', "%3E")
        .replace('/', "%2F");
    let unknown = format!("/api/v1/users/{unknown}");
    for path in [
        "/api/v1/me",
        "/api/v1/users",
        "/api/users",
        &of_user,
        &unknown,
    ] {
        let (_, answered, body) = http(address, "GET", path, &headers, "").await;
        assert_eq!(answered["content-type"], "application/json", "{path}");
        assert_eq!(answered["x-content-type-options"], "nosniff");
        assert!(answered["content-security-policy"].contains("default-src 'none'"));
        assert!(body.is_object(), "{path}");
    }
    let refused = http_text(address, "GET", &unknown, &headers, "").await;
    assert!(
        !refused.contains("alert(1)"),
        "a refusal quotes nothing: {refused}"
    );
    node.stop().await;
}
