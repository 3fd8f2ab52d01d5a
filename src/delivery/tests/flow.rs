//! Flow control: senders wait for the worker, and the worker for its outlets.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_worker_pauses_after_512_commands_so_that_outlets_can_write() {
    let (backplane, ann) = (lossy(0), Recorder::new("ann"));
    let (recorder, pauses) = (ann.clone(), Arc::new(Mutex::new(Vec::new())));
    let received_at_pauses = pauses.clone();
    let pause = Pause::new(move || {
        received_at_pauses.lock().push(recorder.seqs().len());
        tokio::task::yield_now()
    });
    let settings = DeliverySettings {
        pause,
        backlog_bytes: usize::MAX,
        ..DeliverySettings::default()
    };
    let delivery = Delivery::start(&backplane, &settings);
    join(&delivery, &ann, ReplayFrom::Live).await;
    // Nothing in between yields, so the worker finds all of them at once.
    for n in 0..1100 {
        say(&backplane, &n.to_string()).await;
    }
    delivery.flush(&room()).await;
    assert_eq!(
        (&**pauses.lock(), ann.seqs().len()),
        (&[512, 1024][..], 1100)
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_delivers_at_most_twice_the_backlog_limit_before_outlets_can_write() {
    let (backplane, ann) = (lossy(0), Recorder::new("ann"));
    let (turns, begun) = (
        Arc::new(tokio::sync::Semaphore::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (granted, count) = (turns.clone(), begun.clone());
    let pause = Pause::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let turns = granted.clone();
        async move { turns.acquire().await.unwrap().forget() }
    });
    let text = "x".repeat(1000);
    let delivery = Delivery::start(
        &backplane,
        &DeliverySettings {
            pause,
            backlog_bytes: 5_000,
            ..DeliverySettings::default()
        },
    );
    join(&delivery, &ann, ReplayFrom::Live).await;
    for _ in 0..40 {
        say(&backplane, &text).await;
    }
    let most = 10_000 / text.len();
    let mut before = 0;
    while ann.seqs().len() < 40 {
        // The worker runs until it waits for a turn.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let now = ann.seqs().len();
        assert!(
            now > before && now - before <= most,
            "{} more in a turn",
            now - before
        );
        before = now;
        turns.add_permits(1);
    }
    assert!(
        (40 / most..=40 * 2 / most + 1).contains(&begun.load(Ordering::Relaxed)),
        "{begun:?} turns"
    );
}

#[tokio::test(start_paused = true)]
async fn senders_wait_while_the_backlog_of_a_worker_is_full() {
    let (backplane, ann) = (lossy(0), Recorder::new("ann"));
    let delivery = Delivery::start(
        &backplane,
        &DeliverySettings {
            backlog_bytes: 10_000,
            ..DeliverySettings::default()
        },
    );
    join(&delivery, &ann, ReplayFrom::Live).await;
    let mut sent = 0;
    while delivery.wait_for_capacity(&room()).now_or_never().is_some() {
        say(&backplane, &"x".repeat(1000)).await;
        sent += 1;
        assert!(sent <= 10, "the worker has delivered nothing meanwhile");
    }
    assert!(sent >= 8 && ann.seqs().is_empty());
    tokio::time::timeout(Duration::from_secs(60), delivery.wait_for_capacity(&room()))
        .await
        .unwrap();
    assert!(!ann.seqs().is_empty());
}
