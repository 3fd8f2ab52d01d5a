//! Logging out, and the list of sessions.

use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::{Cluster, SharedStorage};
use serde_json::{Value, json};

use crate::fixture::{MEMORY, Rest, SECRET, assert_refused, expect, log_in, sign_up};

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_ends_the_session_on_every_node_at_once() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let storage = SharedStorage::new(&database.url);
    let one = storage.start_node(&[SECRET]).await;
    let other = storage.start_node(&[SECRET]).await;
    sign_up(one.address(), "ann").await;
    for path in ["/api/v1/auth/logout", "/api/users/logout"] {
        let (_, logged_in) = log_in(one.address(), "ann", "correct horse").await;
        let (here, there) = (
            Rest::of(one.address(), &logged_in),
            Rest::of(other.address(), &logged_in),
        );
        assert_eq!(there.me().await.0, 200);
        let ended = expect(here.post(path, Value::Null).await, 200);
        assert_eq!(ended["sessions"], 1);
        assert!(ended["sockets_closed"].is_u64(), "{ended}");
        for rest in [&here, &there] {
            assert_refused(&rest.me().await, 401, "unauthorized");
            assert_refused(&rest.post(path, Value::Null).await, 401, "unauthorized");
        }
        let body = json!({"refresh_token": logged_in["refresh_token"]});
        let refreshed = here.post("/api/v1/auth/refresh", body).await;
        assert_refused(&refreshed, 401, "unauthorized");
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sees_and_ends_own_sessions_only() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let ann = Rest::of(address, &sign_up(address, "ann").await);
    let bob = Rest::of(address, &sign_up(address, "bob").await);
    let (_, second) = log_in(address, "ann", "correct horse").await;
    let second = Rest::of(address, &second);

    let list = expect(second.get("/api/v1/auth/sessions").await, 200);
    let items = list["items"].as_array().unwrap();
    assert_eq!((items.len(), &list["has_more"]), (2, &json!(false)));
    for session in items {
        assert_eq!(session["address"], "127.0.0.1");
        for field in ["id", "created_at", "last_used_at", "user_agent"] {
            assert!(session[field].is_string(), "{field}: {session}");
        }
    }
    let first_id = |is_current: bool| {
        let found = items.iter().find(|item| item["current"] == is_current);
        found.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let of_ann = format!("/api/v1/auth/sessions/{}", first_id(false));
    for path in [of_ann.as_str(), "/api/v1/auth/sessions/x"] {
        assert_refused(&bob.delete(path).await, 404, "not_found");
    }
    assert_eq!(ann.me().await.0, 200, "bob has ended nothing");
    let ended = expect(second.delete(&of_ann).await, 200);
    assert_eq!(
        (&ended["ok"], &ended["sessions"]),
        (&json!(true), &json!(1))
    );
    assert_refused(&ann.me().await, 401, "unauthorized");
    assert_refused(&second.delete(&of_ann).await, 404, "not_found");

    log_in(address, "ann", "correct horse").await;
    let ended = expect(
        second.post("/api/v1/auth/logout_all", Value::Null).await,
        200,
    );
    assert_eq!(ended["sessions"], 2);
    assert_refused(&second.me().await, 401, "unauthorized");
    assert_eq!(bob.me().await.0, 200, "another user");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_names_of_routes_are_kept() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let rest = Rest::anonymous(address);
    for (number, path) in ["/api/users", "/api/users/signup"].iter().enumerate() {
        let body = json!({
            "email": format!("{number}@example.com"),
            "username": format!("user{number}"),
            "password": "correct horse",
        });
        expect(rest.post(path, body).await, 201);
    }
    for path in ["/login", "/api/users/login"] {
        let body = json!({"email": "0@example.com", "password": "correct horse"});
        let logged_in = expect(rest.post(path, body).await, 200);
        assert_eq!(Rest::of(address, &logged_in).me().await.0, 200);
        let token = logged_in.get("token");
        assert_eq!(token.is_some(), path == "/login");
        if let Some(token) = token {
            assert_eq!(*token, logged_in["access_token"]);
        }
    }
    node.stop().await;
}
