//! Refreshes of several tabs at once, of which some never get their answer.

use std::net::SocketAddr;
use std::time::Duration;

use hubbub_test_support::node::Cluster;
use serde_json::{Value, json};

use crate::fixture::{MEMORY, Rest, SECRET, expect, sign_up};

const ROUNDS: u64 = 200;
const TABS: u64 = 20;

async fn refresh(address: SocketAddr, token: &Value) -> Value {
    let body = json!({"refresh_token": token});
    let answer = Rest::anonymous(address)
        .post("/api/v1/auth/refresh", body)
        .await;
    expect(answer, 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn tabs_that_refresh_at_once_and_lose_answers_stay_logged_in() {
    let node = Cluster::alone(&[SECRET, MEMORY]).await;
    let address = node.address(0);
    let mut token = sign_up(address, "ann").await["refresh_token"].clone();
    for round in 0..ROUNDS {
        let tabs = (0..TABS).map(|tab| {
            let token = token.clone();
            tokio::spawn(async move {
                // The browser cancels the request: before it is sent, or before its answer comes.
                let is_lost = (round * 7 + tab) % 3 == 0;
                let patience = match is_lost {
                    true => Duration::from_micros((round * 131 + tab * 977) % 4000),
                    false => Duration::from_secs(60),
                };
                let answered = tokio::time::timeout(patience, refresh(address, &token)).await;
                answered.ok().map(|answer| answer["refresh_token"].clone())
            })
        });
        let mut successors = Vec::new();
        for tab in tabs.collect::<Vec<_>>() {
            successors.extend(tab.await.unwrap());
        }
        successors.dedup();
        assert_eq!(
            successors.len(),
            1,
            "round {round}: one successor for all tabs"
        );
        // A tab that has lost its answer asks again, and gets the same one.
        let again = refresh(address, &token).await;
        assert_eq!(again["refresh_token"], successors[0], "round {round}");
        assert_eq!(Rest::of(address, &again).me().await.0, 200, "round {round}");
        token = successors.remove(0);
    }
    node.stop().await;
}
