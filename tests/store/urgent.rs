//! Urgent rows are found as long as they are not published, whatever has become of them.

use std::time::Duration;

use hubbub::store::{Outbox, UrgentRow, UrgentRows};

use crate::fixture::TestStore;
use crate::outbox::{add_urgent, flood};

crate::on_every_database!(urgent_rows_are_found_until_they_are_done);

const LEASE: Duration = Duration::from_secs(60);

fn rooms(rows: &[UrgentRow]) -> Vec<&str> {
    rows.iter().map(|row| row.room.as_str()).collect()
}

async fn urgent_rows_are_found_until_they_are_done(test: &TestStore) {
    let store = &test.store;
    assert!(store.urgent(0, 10).await.unwrap().is_empty());
    flood(test, 2000, "chat_updated", 1000).await;
    add_urgent(test, "chat:a", "member_removed").await;
    add_urgent(test, "user:b", "session_ended").await;
    flood(test, 10, "member_added", 10).await;
    add_urgent(test, "chat:c", "member_removed").await;
    test.execute("INSERT INTO hubbub_outbox (type, payload) VALUES ('session_ended', '{}')")
        .await;

    let found = store.urgent(0, 10).await.unwrap();
    assert_eq!(rooms(&found), ["chat:a", "user:b", "chat:c"]);
    let first = &found[0];
    assert_eq!(
        (first.kind.as_str(), first.payload.as_str()),
        ("member_removed", "{\"n\":1}")
    );
    assert_eq!(store.urgent(0, 2).await.unwrap(), found[..2]);
    assert_eq!(store.urgent(found[1].id, 10).await.unwrap(), found[2..]);

    // One is claimed and one given up.
    let claimed = store.claim(4, LEASE).await.unwrap();
    let given_up = claimed.iter().find(|row| row.id == found[1].id).unwrap();
    store.fail(given_up.claim(), "broken").await.unwrap();
    assert_eq!(store.urgent(0, 10).await.unwrap(), found);
    let done = claimed.iter().find(|row| row.id == found[0].id).unwrap();
    store.done(&[done.claim()]).await.unwrap();
    assert_eq!(store.urgent(0, 10).await.unwrap(), found[1..]);
}
