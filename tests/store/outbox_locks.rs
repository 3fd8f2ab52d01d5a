//! Claims, while another transaction has locked rows of the outbox.

use std::time::Duration;

use hubbub::store::{Outbox, OutboxRow};

use crate::concurrency::Session;
use crate::fixture::TestStore;

crate::on_every_database!(a_locked_row_holds_up_its_room_only);

const LEASE: Duration = Duration::from_secs(60);

async fn a_locked_row_holds_up_its_room_only(test: &TestStore) {
    for room in ["a", "b", "a", "b"] {
        test.execute(&format!(
            "INSERT INTO hubbub_outbox (room_id, type, payload) VALUES ('{room}', 'e', '{{}}')"
        ))
        .await;
    }
    let rooms = |rows: &[OutboxRow]| -> Vec<String> {
        let rooms = rows.iter().filter_map(|row| row.room.as_ref());
        rooms.map(|room| room.as_str().to_owned()).collect()
    };
    let Some(mut session) = Session::begin(test).await else {
        return;
    };
    let lock = "SELECT id FROM hubbub_outbox WHERE id = \
        (SELECT MIN(o.id) FROM hubbub_outbox o) FOR UPDATE";
    session.run(lock).await.unwrap();
    // It ends before the lock: the session holds that until its own end.
    let claimed = test.store.claim(100, LEASE).await.unwrap();
    assert_eq!(rooms(&claimed), ["b", "b"]);
    session.run("ROLLBACK").await.unwrap();
    let claimed = test.store.claim(100, LEASE).await.unwrap();
    assert_eq!(rooms(&claimed), ["a", "a"]);
}
