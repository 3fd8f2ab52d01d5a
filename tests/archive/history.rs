//! Reading back and resuming beyond what the log keeps.

use hubbub_test_support::client::Client;
use hubbub_test_support::node::http;
use serde_json::{Value, json};

use super::lone::{DataDir, join};

const SMALL_LOG: &[(&str, &str)] = &[("HISTORY_SIZE", "10"), ("RATE_EVENTS_PER_SEC", "0")];

async fn fill(client: &Client, count: u64) -> Value {
    let mut last = Value::Null;
    for _ in 0..count {
        last = client
            .done("message", json!({"room_id": "lobby", "content": "x"}))
            .await;
    }
    last
}

fn seqs(page: &Value) -> Vec<u64> {
    page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["seq"].as_u64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_pages_from_the_newest_message_to_the_first_and_back() {
    let data = DataDir::new();
    let node = data.start(SMALL_LOG).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    fill(&ann, 110).await;
    node.stop().await;
    // The log of a started node begins empty: only the archive has the messages up to 110.
    let node = data.start(SMALL_LOG).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    fill(&ann, 10).await;
    let mut found = Vec::new();
    let mut before = Value::Null;
    loop {
        let mut request = json!({"room_id": "lobby", "limit": 7});
        if !before.is_null() {
            request["before_seq"] = before.clone();
        }
        let page = ann.done("history", request).await;
        let mut page_seqs = seqs(&page);
        before = json!(page_seqs[0]);
        page_seqs.reverse();
        found.extend(page_seqs);
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(found, (1..=120).rev().collect::<Vec<_>>());
    let mut found = Vec::new();
    loop {
        let after = found.last().copied().unwrap_or(0);
        let request = json!({"room_id": "lobby", "limit": 7, "after_seq": after});
        let page = ann.done("history", request).await;
        found.extend(seqs(&page));
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(found, (1..=120).collect::<Vec<_>>());
    let (status, _, page) = http(
        node.address(),
        "GET",
        "/rooms/lobby/messages?after_seq=3&limit=5",
        &[],
        "",
    )
    .await;
    assert_eq!((status, seqs(&page)), (200, vec![4, 5, 6, 7, 8]));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_away_for_long_is_recovered() {
    let data = DataDir::new();
    let node = data.start(SMALL_LOG).await;
    let ann = Client::member(node.address(), "ann", "lobby").await;
    let last = fill(&ann, 1000).await;
    let bob = Client::connect(node.address()).await;
    bob.done("authenticate", json!({"user_id": "bob"})).await;
    let since = json!({"room_id": "lobby", "since_seq": 2, "epoch": last["epoch"]});
    let joined = join(&bob, since).await;
    assert_eq!(
        (&joined["recovered"], &joined["gap"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(joined["replayed"], 998);
    bob.eventually("all missed messages", |bob| bob.seqs().len() == 998)
        .await;
    assert_eq!(bob.seqs(), (3..=1000).collect::<Vec<_>>());
    node.stop().await;
}
