//! Rows that their own transactions have claimed.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn room_of(id: OutboxId) -> RoomId {
    RoomId::trusted(&format!("user:{}", Uuid::from_u128(id as u128)))
}

/// A row as its transaction hands it over, in a room of its own.
fn own_row(id: OutboxId, claimed_at: Instant) -> OwnRow {
    OwnRow {
        row: OutboxRow {
            attempts: 1,
            room: Some(room_of(id)),
            ..row(id, "session_ended")
        },
        claimed_at,
    }
}

/// The way of rows to a worker that runs. The rows are those of the outbox.
async fn sender(outbox: &Rows) -> mpsc::Sender<OwnRow> {
    loop {
        if let Some((sender, _)) = &*outbox.own.lock() {
            return sender.clone();
        }
        tokio::task::yield_now().await;
    }
}

fn leased(rows: &[OwnRow]) -> (Arc<Worker>, Arc<Rows>, Arc<dyn RoomLog>) {
    let stored = rows.iter().map(|own| own.row.clone()).collect();
    let (worker, outbox, log) = worker(stored, MINUTE);
    outbox
        .leased
        .lock()
        .extend(rows.iter().map(|own| own.row.id));
    (worker, outbox, log)
}

#[tokio::test(start_paused = true)]
async fn a_row_of_its_own_transaction_is_published_at_once() {
    let own = own_row(1, Instant::now());
    let (worker, outbox, log) = leased(std::slice::from_ref(&own));
    let running = tokio::spawn(worker.run());
    sender(&outbox).await.try_send(own).unwrap();
    until_left(&outbox, 0).await;
    let slice = log.read(&room_of(1), Window::After(0), 10, 1000).await;
    assert_eq!(slice.unwrap().entries.len(), 1);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_row_that_comes_when_its_lease_is_almost_over_is_given_back_at_once() {
    tokio::time::advance(MINUTE).await;
    let own = own_row(1, Instant::now() - (OWN_LEASE - Duration::from_secs(4)));
    let (worker, outbox, log) = leased(std::slice::from_ref(&own));
    let running = tokio::spawn(worker.run());
    let began = Instant::now();
    sender(&outbox).await.try_send(own).unwrap();
    while outbox.postponed.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(*outbox.postponed.lock(), [1]);
    assert!(began.elapsed() < Duration::from_secs(1));
    let slice = log.read(&room_of(1), Window::After(0), 10, 1000).await;
    assert!(
        slice.unwrap().entries.is_empty(),
        "another worker may publish it"
    );
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn rows_that_can_not_be_published_yet_wait_in_the_queue() {
    let in_progress = CONCURRENT_ROOMS as OutboxId + 1;
    let all = in_progress + OWN_ROWS_WAITING as OutboxId;
    let own: Vec<OwnRow> = (1..=all).map(|id| own_row(id, Instant::now())).collect();
    let (_, outbox, inner) = leased(&own);
    let log = Arc::new(TestLog {
        hanging: (1..=all).map(room_of).collect(),
        ..TestLog::new(inner)
    });
    let worker = worker_on(log, outbox.clone(), MINUTE);
    let running = tokio::spawn(worker.run());
    let sender = sender(&outbox).await;
    for row in own {
        sender.send(row).await.unwrap();
    }
    // Everything that can run has run when the clock goes on.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sender.capacity(), 0, "transactions claim no more rows");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn no_rows_are_wanted_while_the_log_is_down() {
    let (_, outbox, log) = worker(Vec::new(), MINUTE);
    let lifecycle = Arc::new(Down {
        inner: memory::embedded(BackplaneLimits::default()).lifecycle,
        is_up: AtomicBool::new(false),
    });
    let (store, messages) = (outbox.clone(), no_messages());
    let id = Uuid::from_u128(1);
    let worker = Worker::new(store, messages, log, lifecycle.clone(), id, MINUTE);
    let running = tokio::spawn(worker.run());
    sender(&outbox).await;
    for is_up in [false, true, false] {
        lifecycle.is_up.store(is_up, Ordering::SeqCst);
        let own = outbox.own.lock();
        assert_eq!((own.as_ref().unwrap().1)(), is_up);
    }
    running.abort();
}
