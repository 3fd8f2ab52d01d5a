//! Changes of chats are charged to the rate of the user, by what they announce.

use serde_json::{Value, json};

use crate::fixture::{User, node};

/// One event per second, and 20 at once.
const SLOW: (&str, &str) = ("RATE_USER_EVENTS_PER_SEC", "1");

/// Repeats a request until it is refused for the rate.
async fn until_refused(user: &User, method: &str, path: &str, body: &Value) -> usize {
    for number in 0..30 {
        let (status, headers, answer) = user.request_with(method, path, body, &[]).await;
        if status == 429 {
            assert_eq!(answer["code"], "rate_limited");
            assert!(headers["retry-after"].parse::<u64>().unwrap() >= 1);
            return number;
        }
    }
    panic!("{method} {path} is never refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_costs_as_many_events_as_it_announces() {
    let node = node(&[SLOW]).await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let carol = User::sign_up(node.address(0), "carol").await;
    let group = json!({"user_ids": [bob.id]});
    let direct = |user: &User| json!({"user_id": user.id});
    let with_content = json!({"user_id": carol.id, "content": "x"});
    // Each with an account of its own, since an account recovers one event per second. The requests that
    // the burst allows after the group of each account.
    for (number, (method, path, body, burst)) in [
        ("POST", "/api/v1/chats", group.clone(), 2),
        ("POST", "/api/chats", group.clone(), 2),
        ("PATCH", "/api/v1/chats/{chat}", json!({"name": "x"}), 4),
        ("POST", "/api/v1/chats/{chat}/members", direct(&carol), 7),
        (
            "PATCH",
            "/api/v1/chats/{chat}/members/{bob}",
            json!({"role": "owner"}),
            7,
        ),
        (
            "DELETE",
            "/api/v1/chats/{chat}/members/{ann}",
            Value::Null,
            7,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let ann = User::sign_up(node.address(0), &format!("ann{number}")).await;
        let chat = ann.group(&[&bob], "all").await;
        let path = path
            .replace("{chat}", &chat)
            .replace("{bob}", &bob.id)
            .replace("{ann}", &ann.id);
        let allowed = until_refused(&ann, method, &path, &body).await;
        // With some seconds that the requests may take.
        let expected = burst..=burst + 5;
        assert!(
            expected.contains(&allowed),
            "{allowed} times {method} {path}"
        );
        // The rate is one for all of them.
        for (method, path, body) in [
            ("POST", "/api/v1/chats".to_owned(), &direct(&carol)),
            ("POST", "/api/chats/message".to_owned(), &with_content),
            ("DELETE", format!("/api/v1/chats/{chat}"), &Value::Null),
        ] {
            let (status, refused) = ann.request(method, &path, body).await;
            assert_eq!(status, 429, "{method} {path}: {refused}");
        }
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_beyond_the_burst_is_possible_and_the_next_one_waits() {
    let node = node(&[SLOW]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let mut others = Vec::new();
    for number in 0..10 {
        others.push(User::sign_up(node.address(0), &format!("u{number}")).await);
    }
    // 33 announcements.
    let others: Vec<&User> = others.iter().collect();
    let chat = ann.group(&others, "all").await;
    let path = format!("/api/v1/chats/{chat}");
    let (status, headers, _) = ann
        .request_with("PATCH", &path, &json!({"name": "x"}), &[])
        .await;
    assert_eq!(status, 429);
    let wait: u64 = headers["retry-after"].parse().unwrap();
    assert!((5..=33).contains(&wait), "{wait} s");
    // A direct chat that exists costs the message only.
    let bob = others[0];
    bob.done("POST", "/api/v1/chats", json!({"user_id": ann.id}), 201)
        .await;
    for _ in 0..6 {
        let body = json!({"user_id": ann.id, "content": "x"});
        bob.done("POST", "/api/chats/message", body, 201).await;
    }
    node.stop().await;
}
