//! Actions of admins, and the audit log.

use hubbub_test_support::node::Cluster;
use serde_json::{Value, json};

use crate::fixture::{MEMORY, Rest, SECRET, assert_refused, expect, log_in, sign_up};

async fn change(rest: &Rest, user: &Value, body: Value) -> (u16, Value) {
    let path = format!("/api/v1/users/{}", user["user"]["id"].as_str().unwrap());
    rest.send("PATCH", &path, &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_user_is_out_at_once() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let admin = Rest::of(address, &sign_up(address, "admin").await);
    let signed_up = sign_up(address, "ann").await;
    let ann = Rest::of(address, &signed_up);
    let changed = expect(
        change(&admin, &signed_up, json!({"disabled": true})).await,
        200,
    );
    assert_eq!(
        (&changed["disabled"], &changed["role"]),
        (&json!(true), &json!("user"))
    );
    assert_refused(&ann.me().await, 401, "unauthorized");
    let body = json!({"refresh_token": signed_up["refresh_token"]});
    let refreshed = ann.post("/api/v1/auth/refresh", body).await;
    assert_refused(&refreshed, 401, "unauthorized");
    assert_refused(
        &log_in(address, "ann", "correct horse").await,
        403,
        "account_disabled",
    );
    assert_refused(
        &log_in(address, "ann", "wrong horse!").await,
        401,
        "invalid_credentials",
    );
    let list = expect(admin.get("/api/v1/users?q=ann").await, 200);
    assert_eq!(list["items"][0]["disabled"], true);
    let bob = Rest::of(address, &sign_up(address, "bob").await);
    let path = format!(
        "/api/v1/users/{}",
        signed_up["user"]["id"].as_str().unwrap()
    );
    assert_eq!(expect(admin.get(&path).await, 200)["disabled"], true);
    assert_refused(&bob.get(&path).await, 404, "not_found");
    let list = expect(bob.get("/api/v1/users?q=ann").await, 200);
    assert_eq!(list["items"], json!([]));

    expect(
        change(&admin, &signed_up, json!({"disabled": false})).await,
        200,
    );
    assert_refused(&ann.me().await, 401, "unauthorized");
    assert_eq!(log_in(address, "ann", "correct horse").await.0, 200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_admin_stays() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let first = sign_up(address, "first").await;
    let second = sign_up(address, "second").await;
    let admin = Rest::of(address, &first);
    for body in [json!({"role": "user"}), json!({"disabled": true})] {
        assert_refused(&change(&admin, &first, body).await, 409, "conflict");
    }
    expect(change(&admin, &second, json!({"role": "admin"})).await, 200);
    let second_admin = Rest::of(address, &second);
    // The role counts at once, without another login.
    expect(
        change(&second_admin, &first, json!({"role": "user"})).await,
        200,
    );
    let answer = change(&admin, &second, json!({"disabled": true})).await;
    assert_refused(&answer, 403, "forbidden");
    let answer = change(&second_admin, &second, json!({"disabled": true})).await;
    assert_refused(&answer, 409, "conflict");
    let answer = change(&second_admin, &first, json!({"role": "owner"})).await;
    assert_refused(&answer, 400, "bad_request");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_action_of_an_admin_is_in_the_audit_log() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let signed_up = sign_up(address, "admin").await;
    let admin = Rest::of(address, &signed_up);
    let ann = sign_up(address, "ann").await;
    expect(change(&admin, &ann, json!({"role": "admin"})).await, 200);
    expect(change(&admin, &ann, json!({"role": "admin"})).await, 200);
    expect(
        change(&admin, &ann, json!({"role": "user", "disabled": true})).await,
        200,
    );
    expect(change(&admin, &ann, json!({"disabled": false})).await, 200);
    log_in(address, "ann", "correct horse").await;
    let id = ann["user"]["id"].as_str().unwrap();
    let path = format!("/api/v1/users/{id}/logout_all");
    assert_eq!(
        expect(admin.post(&path, Value::Null).await, 200)["sessions"],
        1
    );

    let mut entries = Vec::new();
    let mut path = "/api/v1/audit?limit=2".to_owned();
    loop {
        let page = expect(admin.get(&path).await, 200);
        entries.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/api/v1/audit?limit=2&cursor={next}");
    }
    let expected = [
        ("sessions_ended", json!({"sessions": "1"})),
        ("user_enabled", json!({})),
        ("user_disabled", json!({})),
        ("role_changed", json!({"from": "admin", "to": "user"})),
        ("role_changed", json!({"from": "user", "to": "admin"})),
    ];
    assert_eq!(entries.len(), expected.len(), "{entries:?}");
    for (entry, (action, details)) in entries.iter().zip(expected) {
        assert_eq!(
            (&entry["action"], &entry["details"]),
            (&json!(action), &details)
        );
        assert_eq!(entry["actor_id"], signed_up["user"]["id"]);
        assert_eq!(entry["target"], id);
        assert!(entry["id"].is_string() && entry["at"].is_string());
    }
    node.stop().await;
}
