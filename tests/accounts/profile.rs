//! A user's own account: profile and password.

use hubbub_test_support::node::Cluster;
use serde_json::{Value, json};

use crate::fixture::{MEMORY, Rest, SECRET, assert_refused, expect, log_in, sign_up};

async fn patch_me(rest: &Rest, body: Value) -> (u16, Value) {
    rest.send("PATCH", "/api/v1/me", &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_changes_the_own_profile() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    sign_up(address, "admin").await;
    let signed_up = sign_up(address, "ann").await;
    let ann = Rest::of(address, &signed_up);
    let change = json!({
        "username": "Ann.Lee", "email": "Ann@Example.org", "display_name": "Ann <b>Lee</b>",
        "avatar_url": "https://cdn.example/ann.png", "status": "away", "unknown": [1],
    });
    let changed = expect(patch_me(&ann, change.clone()).await, 200);
    for field in ["username", "email", "display_name", "avatar_url", "status"] {
        assert_eq!(changed[field], change[field]);
    }
    assert_eq!(changed["id"], signed_up["user"]["id"]);
    assert!(changed["updated_at"].as_str() >= changed["created_at"].as_str());
    assert_eq!(ann.me().await, (200, changed.clone()));
    assert_eq!(
        patch_me(&ann, json!({})).await.1["username"],
        "Ann.Lee",
        "missing fields stay"
    );

    let cleared = json!({"display_name": null, "avatar_url": null, "status": null});
    let cleared = expect(patch_me(&ann, cleared).await, 200);
    assert_eq!(cleared["display_name"], "Ann.Lee");
    assert!(cleared.get("avatar_url").is_none() && cleared.get("status").is_none());

    // The names are those of logins from now on.
    assert_eq!(log_in(address, "ann", "correct horse").await.0, 401);
    assert_eq!(log_in(address, "ann.lee", "correct horse").await.0, 200);
    for (body, status, code) in [
        (json!({"username": "ADMIN"}), 409, "username_taken"),
        (json!({"email": "Admin@example.com"}), 409, "email_taken"),
        (json!({"username": null}), 400, "bad_request"),
        (json!({"email": "x"}), 400, "bad_request"),
        (json!({"status": 7}), 400, "bad_request"),
        (
            json!({"avatar_url": "javascript:alert(1)"}),
            400,
            "bad_request",
        ),
        (json!({"status": "x".repeat(129)}), 413, "too_large"),
    ] {
        assert_refused(&patch_me(&ann, body).await, status, code);
    }
    let (_, still) = ann.me().await;
    assert_eq!(still["username"], "Ann.Lee");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_ends_the_other_sessions() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let ann = Rest::of(address, &sign_up(address, "ann").await);
    let other = Rest::of(address, &log_in(address, "ann", "correct horse").await.1);
    let change = async |current: &str, new: &str| {
        let body = json!({"current": current, "new": new});
        ann.post("/api/v1/auth/password", body).await
    };
    let new = "a new battery";
    assert_refused(
        &change("wrong horse!", new).await,
        401,
        "invalid_credentials",
    );
    assert_refused(&change("correct horse", "short").await, 400, "bad_request");
    let long = "x y".repeat(43);
    assert_refused(&change("correct horse", &long).await, 413, "too_large");
    assert_eq!(other.me().await.0, 200, "nothing has changed");

    let ended = expect(change("correct horse", new).await, 200);
    assert_eq!(ended["sessions"], 1);
    assert_eq!(ann.me().await.0, 200, "the session of the change goes on");
    assert_refused(&other.me().await, 401, "unauthorized");
    assert_refused(
        &log_in(address, "ann", "correct horse").await,
        401,
        "invalid_credentials",
    );
    assert_eq!(log_in(address, "ann", new).await.0, 200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_of_the_current_password_are_limited_as_logins_are() {
    let limit = ("LOGIN_ATTEMPTS_PER_ACCOUNT", "3");
    let node = Cluster::alone(&[SECRET, MEMORY, limit]).await;
    let address = node.address(0);
    let ann = Rest::of(address, &sign_up(address, "ann").await);
    let body = json!({"current": "wrong horse!", "new": "a new battery"});
    for _ in 0..3 {
        let answer = ann.post("/api/v1/auth/password", body.clone()).await;
        assert_refused(&answer, 401, "invalid_credentials");
    }
    let answer = ann.post("/api/v1/auth/password", body).await;
    assert_refused(&answer, 429, "rate_limited");
    let answer = log_in(address, "ann", "correct horse").await;
    assert_refused(&answer, 429, "rate_limited");
    node.stop().await;
}
