//! Groups: their owners, their members, and the list of a user's chats.

use serde_json::{Value, json};

use crate::fixture::{User, node};

#[tokio::test(flavor = "multi_thread")]
async fn owners_manage_a_group_by_rest() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let carol = User::sign_up(node.address(0), "carol").await;
    let body = json!({"user_ids": [bob.id], "name": "<b>team</b>"});
    let group = ann.done("POST", "/api/v1/chats", body, 201).await;
    assert_eq!(
        (&group["kind"], &group["name"]),
        (&json!("group"), &json!("<b>team</b>"))
    );
    assert_eq!(
        (&group["members"], &group["my"]["role"]),
        (&json!(2), &json!("owner"))
    );
    let chat = format!("/api/v1/chats/{}", group["id"].as_str().unwrap());
    let members = format!("{chat}/members");

    let (status, refused) = bob.request("PATCH", &chat, &json!({"name": "x"})).await;
    assert_eq!((status, &refused["code"]), (403, &json!("forbidden")));
    let renamed = ann.done("PATCH", &chat, json!({"name": "new"}), 200).await;
    assert_eq!(renamed["name"], "new");
    let same = ann.done("PATCH", &chat, json!({}), 200).await;
    assert_eq!(same["name"], "new");
    let without = ann.done("PATCH", &chat, json!({"name": null}), 200).await;
    assert_eq!(without.get("name"), None);
    assert_eq!(
        bob.done("GET", &chat, Value::Null, 200).await["my"]["role"],
        "member"
    );

    let added = ann
        .done("POST", &members, json!({"user_id": carol.id}), 201)
        .await;
    assert_eq!(
        (&added["username"], &added["role"]),
        (&json!("carol"), &json!("member"))
    );
    let again = json!({"user_ids": [carol.id, bob.id]});
    let again = ann.done("POST", &members, again, 201).await;
    assert_eq!(again["items"].as_array().unwrap().len(), 2);
    let listed = bob
        .done("GET", &format!("{members}?limit=2"), Value::Null, 200)
        .await;
    assert_eq!(
        (
            listed["items"].as_array().unwrap().len(),
            &listed["has_more"]
        ),
        (2, &json!(true))
    );
    let cursor = listed["next_cursor"].as_str().unwrap();
    let rest = bob.get(&format!("{members}?cursor={cursor}")).await.1;
    assert_eq!(
        (rest["items"].as_array().unwrap().len(), &rest["has_more"]),
        (1, &json!(false))
    );

    let of_ann = format!("{members}/{}", ann.id);
    for (method, body) in [
        ("DELETE", Value::Null),
        ("PATCH", json!({"role": "member"})),
    ] {
        let (status, refused) = ann.request(method, &of_ann, &body).await;
        assert_eq!(
            (status, &refused["code"]),
            (409, &json!("conflict")),
            "{method}"
        );
    }
    let of_carol = format!("{members}/{}", carol.id);
    let promoted = ann
        .done("PATCH", &of_carol, json!({"role": "owner"}), 200)
        .await;
    assert_eq!(promoted["role"], "owner");
    let left = ann.done("DELETE", &of_ann, Value::Null, 200).await;
    assert_eq!(left["ok"], true);
    assert_eq!(ann.get(&chat).await.0, 404);
    carol.done("DELETE", &chat, Value::Null, 200).await;
    assert_eq!(bob.get(&chat).await.0, 404);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_chats_begins_with_the_newest_message() {
    let node = node(&[]).await;
    let ann = User::sign_up(node.address(0), "ann").await;
    let bob = User::sign_up(node.address(0), "bob").await;
    let mut chats = Vec::new();
    for _ in 0..3 {
        chats.push(ann.group(&[&bob], "all").await);
    }
    ann.send(&chats[1], "older").await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    ann.send(&chats[0], "newer").await;
    for path in ["/api/v1/chats", "/api/chats", "/api/chats/user"] {
        let list = bob.done("GET", path, Value::Null, 200).await;
        let items = list["items"].as_array().unwrap();
        let ids: Vec<&str> = items
            .iter()
            .map(|chat| chat["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, [&chats[0], &chats[1], &chats[2]], "{path}");
        assert_eq!(items[0]["last_message"]["content"], "newer");
        assert_eq!(items[0]["last_message"]["user_id"], ann.id);
        assert_eq!(items[2].get("last_message"), None);
    }
    let first = bob.get("/api/v1/chats?limit=2").await.1;
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = bob.get(&format!("/api/v1/chats?cursor={cursor}")).await.1;
    assert_eq!(rest["items"][0]["id"], chats[2]);
    assert_eq!(
        (rest["items"].as_array().unwrap().len(), &rest["has_more"]),
        (1, &json!(false))
    );
    for query in ["cursor=x", "limit=0", "limit=201"] {
        let (status, refused) = bob.get(&format!("/api/v1/chats?{query}")).await;
        assert_eq!(
            (status, &refused["code"]),
            (400, &json!("bad_request")),
            "{query}"
        );
    }
    node.stop().await;
}
