//! Accounts of whole nodes, by REST and by connections.

// A test that cannot go on should stop and say where.
#![allow(clippy::unwrap_used)]

mod fixture;
mod sessions;

use hubbub_test_support::client::Client;
use hubbub_test_support::node::{self, Cluster};
use serde_json::{Value, json};

use fixture::{MEMORY, Rest, SECRET, assert_refused, log_in, sign_up};

#[tokio::test(flavor = "multi_thread")]
async fn a_user_signs_up_logs_in_and_chats_under_the_accounts_name() {
    for mode in ["open", "jwt"] {
        let settings = [SECRET, MEMORY, ("AUTH_MODE", mode)];
        let node = Cluster::alone(&settings).await;
        let address = node.address(0);
        let signed_up = sign_up(address, "ann").await;
        assert_eq!(signed_up["token_type"], "Bearer");
        assert_eq!(signed_up["expires_in"], 86_400);
        let user = &signed_up["user"];
        assert_eq!(
            (&user["username"], &user["role"]),
            (&json!("ann"), &json!("admin"))
        );

        let (status, logged_in) = log_in(address, "Ann", "correct horse").await;
        assert_eq!((status, &logged_in["user"]), (200, user));
        let (status, account) = Rest::of(address, &logged_in).me().await;
        assert_eq!((status, &account), (200, user));

        let token = logged_in["access_token"].as_str().unwrap();
        let ann = Client::with_token(address, token).await;
        ann.await_event("connect").await;
        let authenticated = ann.done("authenticate", json!({})).await;
        assert_eq!(authenticated["user_id"], user["id"]);
        ann.done("join", json!({"room_id": "lobby"})).await;
        ann.done("message", json!({"room_id": "lobby", "content": "hi"}))
            .await;
        let message = ann.await_event("message").await;
        assert_eq!(message["username"], "ann", "{mode}: {message}");
        assert_eq!(message["user_id"], user["id"]);
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_tells_nothing_about_the_account() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    sign_up(address, "ann").await;
    let mut answers = Vec::new();
    for (username, password) in [
        ("ann", "wrong horse!"),
        ("bob", "correct horse"),
        ("b b", "x"),
    ] {
        let (status, mut answer) = log_in(address, username, password).await;
        assert_eq!(
            (status, &answer["code"]),
            (401, &json!("invalid_credentials"))
        );
        answer["request_id"].take();
        answers.push(answer);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_tokens_are_exchanged_for_new_ones() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let signed_up = sign_up(address, "ann").await;
    let refresh = async |token: &Value| {
        let body = json!({"refresh_token": token});
        let rest = Rest::anonymous(address);
        rest.post("/api/v1/auth/refresh", body).await
    };
    let (status, first) = refresh(&signed_up["refresh_token"]).await;
    assert_eq!(status, 200, "{first}");
    let (_, again) = refresh(&signed_up["refresh_token"]).await;
    assert_eq!(first["refresh_token"], again["refresh_token"]);
    assert_eq!(Rest::of(address, &again).me().await.0, 200);
    let (status, next) = refresh(&first["refresh_token"]).await;
    assert_eq!(status, 200, "{next}");
    assert_ne!(next["refresh_token"], first["refresh_token"]);
    for token in [json!("x"), signed_up["access_token"].clone()] {
        assert_refused(&refresh(&token).await, 401, "unauthorized");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_reaches_every_connection_of_its_user() {
    let node = Cluster::alone(&[SECRET, MEMORY, ("REFRESH_GRACE_SECS", "0")]).await;
    let address = node.address(0);
    let one = sign_up(address, "ann").await;
    let (_, other) = log_in(address, "ann", "correct horse").await;
    let mut clients = Vec::new();
    for session in [&one, &other] {
        let token = session["access_token"].as_str().unwrap();
        let client = Client::with_token(address, token).await;
        client.await_event("connect").await;
        client.done("authenticate", json!({})).await;
        clients.push(client);
    }
    let body = json!({"refresh_token": one["refresh_token"]});
    assert_eq!(post(address, "/api/v1/auth/refresh", &body).await.0, 200);
    // The token was exchanged before, so a thief may have it.
    assert_eq!(post(address, "/api/v1/auth/refresh", &body).await.0, 401);
    let ended = clients[0].await_event("exception").await;
    assert_eq!(ended["code"], "unauthorized");
    clients[0].await_event("disconnect").await;
    let told = clients[1].await_event("session_ended").await;
    assert_eq!(told["reason"], "token_reused");
    assert_eq!(
        told["room_id"],
        format!("user:{}", one["user"]["id"].as_str().unwrap())
    );
    assert_eq!(told["seq"], 1);
    assert!(
        told["epoch"].is_string() && told["timestamp"].is_string(),
        "{told}"
    );
    assert_eq!(me(address, &one["access_token"]).await.0, 401);
    assert_eq!(me(address, &other["access_token"]).await.0, 200);
    node.stop().await;
}

/// Ends a session by using its refresh token twice.
async fn end_by_reuse(address: SocketAddr, session: &Value) {
    let body = json!({"refresh_token": session["refresh_token"]});
    for status in [200, 401] {
        assert_eq!(post(address, "/api/v1/auth/refresh", &body).await.0, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_resumes_the_feed_and_enters_rooms() {
    let open = ("AUTH_MODE", "open");
    let grace = ("REFRESH_GRACE_SECS", "0");
    let node = Cluster::alone(&[SECRET, MEMORY, open, grace]).await;
    let address = node.address(0);
    let session = sign_up(address, "ann").await;
    let (_, stolen) = log_in(address, "ann", "correct horse").await;
    let token = session["access_token"].as_str().unwrap();
    let connect = async || {
        let client = Client::with_token(address, token).await;
        client.await_event("connect").await;
        client.done("authenticate", json!({})).await;
        client
    };
    let writer = connect().await;
    for room in ["one", "two"] {
        writer.done("join", json!({"room_id": room})).await;
        for text in ["a", "b", "c"] {
            let message = json!({"room_id": room, "content": text});
            writer.done("message", message).await;
        }
    }
    end_by_reuse(address, &stolen).await;
    writer.await_event("session_ended").await;

    let reader = connect().await;
    let rooms = json!({"one": {"since_seq": 1}, "two": null, "broadcast": {}});
    let ack = reader
        .done("sync", json!({"since_seq": 0, "rooms": rooms}))
        .await;
    assert_eq!(ack["feed"]["seq"], 1, "{ack}");
    assert_eq!(ack["feed"]["recovered"], true);
    assert_eq!(ack["rooms"]["one"]["replayed"], 2);
    assert_eq!(ack["rooms"]["two"]["replayed"], 0);
    assert_eq!(ack["rooms"]["broadcast"]["code"], "forbidden");
    reader
        .eventually("the replays", |reader| {
            reader.count("message") == 2 && reader.count("session_ended") == 1
        })
        .await;
    let story = reader.story();
    let position = |wanted: &dyn Fn(&(String, Value)) -> bool| story.iter().position(wanted);
    let acknowledged = position(&|(name, answer)| name == "ack" && answer[1]["feed"].is_object());
    for event in ["message", "session_ended", "room_users"] {
        assert!(
            acknowledged < position(&|(name, _)| name == event),
            "{story:?}"
        );
    }
    let message = json!({"room_id": "two", "content": "d"});
    writer.done("message", message).await;
    reader
        .eventually("live messages", |reader| reader.count("message") == 3)
        .await;
    let seqs: Vec<u64> = reader.seqs();
    assert_eq!(seqs, [2, 3, 4]);

    let anonymous = Client::connect(address).await;
    anonymous
        .done("authenticate", json!({"user_id": "eve"}))
        .await;
    let ack = anonymous.done("sync", json!({"rooms": {"one": {}}})).await;
    assert_eq!(ack["feed"], Value::Null);
    for bad in [
        json!({"rooms": []}),
        json!({"rooms": {"a b\n": {}}}),
        json!({"rooms": {"a": 1}}),
    ] {
        assert_eq!(anonymous.ask("sync", bad).await["code"], "bad_request");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_database_has_no_accounts() {
    let node = node::start(&[SECRET]).await;
    let answer = log_in(node.address(), "ann", "correct horse").await;
    assert_refused(&answer, 501, "not_configured");
    node.stop().await;
}
