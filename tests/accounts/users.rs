//! The users of a server, as other users and as admins see them.

use std::net::SocketAddr;

use hubbub_test_support::node::Cluster;
use serde_json::{Value, json};

use crate::fixture::{MEMORY, Rest, SECRET, assert_refused, expect, sign_up};

/// The names in a list, over all its pages of `limit`.
async fn listed(rest: &Rest, query: &str, limit: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/users?limit={limit}&q={query}{cursor}");
        let page = expect(rest.get(&path).await, 200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        let name = |item: &Value| item["username"].as_str().unwrap().to_owned();
        names.extend(items.iter().map(name));
        assert_eq!(page["has_more"], page.get("next_cursor").is_some());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return names,
        }
    }
}

/// An admin and two users.
async fn three_users(address: SocketAddr) -> [(Rest, String); 3] {
    let mut users = Vec::new();
    for name in ["Admin", "ann", "Bob_x"] {
        let signed_up = sign_up(address, name).await;
        let id = signed_up["user"]["id"].as_str().unwrap().to_owned();
        users.push((Rest::of(address, &signed_up), id));
    }
    users.try_into().ok().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_found_by_a_part_of_a_name() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let [(_, _), (ann, _), (bob, _)] = three_users(node.address(0)).await;
    let name = json!({"display_name": "Zoë 100%"});
    expect(bob.send("PATCH", "/api/v1/me", &name).await, 200);
    for (query, expected) in [
        ("", &["Admin", "ann", "Bob_x"][..]),
        ("AN", &["ann"]),
        ("b_x", &["Bob_x"]),
        ("zo%C3%8B", &["Bob_x"]),
        ("0%25", &["Bob_x"]),
        // No wildcards.
        ("_", &["Bob_x"]),
        ("%25", &["Bob_x"]),
        ("!", &[]),
        ("nobody", &[]),
    ] {
        for limit in [1, 2, 200] {
            assert_eq!(listed(&ann, query, limit).await, expected, "{query}");
        }
    }
    let kept = expect(ann.get("/api/users").await, 200);
    assert_eq!(kept["items"].as_array().unwrap().len(), 3);
    for query in ["limit=0", "limit=201", "limit=x", "cursor=%21", "cursor=_w"] {
        let answer = ann.get(&format!("/api/v1/users?{query}")).await;
        assert_refused(&answer, 400, "bad_request");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_user_and_admins_see_the_address_of_the_user() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let [(admin, _), (ann, ann_id), (bob, _)] = three_users(node.address(0)).await;
    let path = format!("/api/v1/users/{ann_id}");
    for (rest, sees_it) in [(&admin, true), (&ann, true), (&bob, false)] {
        let user = expect(rest.get(&path).await, 200);
        assert_eq!(
            (&user["username"], &user["role"]),
            (&json!("ann"), &json!("user"))
        );
        assert_eq!(user.get("email").is_some(), sees_it, "{user}");
        let list = expect(rest.get("/api/v1/users?q=ann").await, 200);
        assert_eq!(list["items"], json!([user]));
    }
    for id in ["x", "00000000-0000-0000-0000-000000000000"] {
        let answer = ann.get(&format!("/api/v1/users/{id}")).await;
        assert_refused(&answer, 404, "not_found");
    }
    node.stop().await;
}
