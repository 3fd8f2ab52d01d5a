//! Rows that announce positions of users.

use super::*;
use crate::domain::UserId;

const MINUTE: Duration = Duration::from_secs(60);

/// The feed of one of many users.
fn feed(number: OutboxId) -> RoomId {
    let user = Uuid::from_u128(number as u128).to_string();
    RoomId::personal(&UserId::trusted(&user))
}

fn position(id: OutboxId) -> OutboxRow {
    OutboxRow {
        room: Some(feed(id)),
        payload: "{\"target_room_id\":\"r\",\"last_read_seq\":1,\"unread\":0}".to_owned(),
        ..row(id, Change::POSITION_EVENT)
    }
}

async fn length(log: &dyn RoomLog, feed: &RoomId) -> usize {
    let slice = log
        .read(feed, Window::After(0), 100, 1 << 20)
        .await
        .unwrap();
    slice.entries.len()
}

#[tokio::test(start_paused = true)]
async fn positions_are_published_and_removed() {
    let rows = (1..=500).map(position).collect();
    let (_, outbox, log) = worker(rows, MINUTE);
    let log = Arc::new(TestLog::new(log));
    let worker = worker_on(log.clone(), outbox.clone(), MINUTE);
    let running = tokio::spawn(worker.clone().run());
    until_left(&outbox, 0).await;
    for id in [1, 250, 500] {
        assert_eq!(length(&*log, &feed(id)).await, 1);
    }
    assert_eq!(worker.published.get(), 500);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn other_rows_wait_for_no_position() {
    let rows: Vec<OutboxRow> = (1..=1000).map(position).collect();
    let hanging = rows.iter().filter_map(|row| row.room.clone()).collect();
    let (_, outbox, inner) = worker(rows, MINUTE);
    let log = Arc::new(TestLog {
        hanging,
        ..TestLog::new(inner)
    });
    let worker = worker_on(log, outbox.clone(), MINUTE);
    let running = tokio::spawn(worker.run());
    // The positions that can be held are claimed by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(outbox.free(true).len() < 1000);
    for id in 2001..=2003 {
        outbox.rows.lock().push_back(row(id, "session_ended"));
    }
    let began = Instant::now();
    until_left(&outbox, 1000).await;
    assert!(began.elapsed() <= Duration::from_millis(300));
    running.abort();
}

#[tokio::test]
async fn positions_that_can_not_be_published_are_postponed() {
    let rows: Vec<OutboxRow> = (1..=3).map(position).collect();
    let (_, outbox, inner) = worker(rows, MINUTE);
    let log = Arc::new(TestLog::new(inner));
    log.refused.lock().insert(id_of(2));
    let worker = worker_on(log.clone(), outbox.clone(), MINUTE);
    let rows = outbox.claim_positions(10, MINUTE).await.unwrap();
    worker
        .publish_positions(rows, Instant::now())
        .await
        .unwrap();
    assert_eq!(outbox.left(), [2]);
    assert_eq!(*outbox.postponed.lock(), [2]);
    log.refused.lock().clear();
    outbox.release();
    let rows = outbox.claim_positions(10, MINUTE).await.unwrap();
    worker
        .publish_positions(rows, Instant::now())
        .await
        .unwrap();
    assert_eq!(outbox.left().len(), 0);
    assert_eq!(length(&*log, &feed(2)).await, 1);
}
