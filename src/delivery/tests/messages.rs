//! Messages: their order, lost ones, and replays.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_order_on_the_wire_is_ack_replay_room_users_live() {
    let backplane = lossy(0);
    let delivery = start(&backplane, 1, 500);
    for text in ["a", "b", "c"] {
        say(&backplane, text).await;
    }
    let ann = Recorder::new("ann");
    let outcome = join(
        &delivery,
        &ann,
        ReplayFrom::Since {
            seq: 1,
            epoch: None,
            limit: None,
        },
    )
    .await;
    assert_eq!(
        (
            outcome.recovered,
            outcome.gap,
            outcome.replayed,
            outcome.total
        ),
        (true, false, 2, 1)
    );
    say(&backplane, "d").await;
    let bob = Recorder::new("bob");
    let outcome = join(&delivery, &bob, ReplayFrom::Last(1)).await;
    assert_eq!(
        (
            outcome.recovered,
            outcome.gap,
            outcome.replayed,
            outcome.total
        ),
        (false, false, 1, 2)
    );
    eventually("both are up to date", || {
        ann.seqs() == [2, 3, 4] && bob.seqs() == [4]
    })
    .await;
    eventually("ann is told of bob", || ann.story().len() == 5).await;
    assert_eq!(ann.story(), ["2", "3", "users 1/1", "4", "Joined bob"]);
    assert_eq!(bob.story(), ["4", "users 2/2"]);
    delivery.leave(&room(), &bob.conn).await;
    backplane
        .presence
        .leave(&bob.conn, &bob.user, &room())
        .await
        .unwrap();
    say(&backplane, "e").await;
    eventually("ann got it", || {
        ann.story().ends_with(&["Left bob".into(), "5".into()])
    })
    .await;
    assert_eq!(bob.seqs(), [4], "nothing comes after leaving");
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_loses_a_third_of_its_events_causes_no_loss_and_no_repeat() {
    let backplane = lossy(33);
    let delivery = Arc::new(start(&backplane, 2, 500));
    let everyone: Vec<_> = (0..10)
        .map(|n| Recorder::new(&format!("user{n}")))
        .collect();
    let talk = {
        let backplane = backplane.clone();
        tokio::spawn(async move {
            for n in 0..2000_u32 {
                say(&backplane, "x").await;
                if n % 7 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        })
    };
    for (n, outlet) in everyone.iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(n as u64 * 7)).await;
        join(
            &delivery,
            outlet,
            ReplayFrom::Since {
                seq: 0,
                epoch: None,
                limit: None,
            },
        )
        .await;
    }
    talk.await.unwrap();
    let all: Vec<u64> = (1..=2000).collect();
    eventually("everyone has everything", || {
        everyone.iter().all(|outlet| outlet.seqs().len() >= 2000)
    })
    .await;
    for outlet in &everyone {
        assert_eq!(outlet.seqs(), all);
    }
    assert!(delivery.counters().catch_ups.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_last_message_is_found_though_nothing_follows_it() {
    let backplane = lossy(100);
    let delivery = start(&backplane, 1, 500);
    let ann = Recorder::new("ann");
    join(&delivery, &ann, ReplayFrom::Live).await;
    say(&backplane, "lost").await;
    eventually("ann has it", || ann.seqs() == [1]).await;
    let bob = Recorder::new("bob");
    join(&delivery, &bob, ReplayFrom::Live).await;
    eventually("ann is told of bob", || {
        ann.story().contains(&"Joined bob".to_owned())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_is_found_while_presence_does_not_respond() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let ann = Recorder::new("ann");
    join(&delivery, &ann, ReplayFrom::Live).await;
    log.presence_hangs.store(true, Ordering::SeqCst);
    // Its event is never published.
    log.add(1);
    eventually("ann has it", || ann.seqs() == [1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_hole_is_filled_as_soon_as_a_later_message_shows_it() {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let ann = Recorder::new("ann");
    join(&delivery, &ann, ReplayFrom::Live).await;
    drop(log.add(1));
    let began = tokio::time::Instant::now();
    delivery.queues.event(BusEvent::Message(room(), log.add(2)));
    eventually("ann has both", || ann.seqs() == [1, 2]).await;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "the hole was found by the comparison of heads only"
    );
}

#[tokio::test(start_paused = true)]
async fn a_replay_waits_only_for_its_own_outlet() {
    let backplane = lossy(0);
    let delivery = Arc::new(start(&backplane, 1, 500));
    for _ in 0..500 {
        say(&backplane, "x").await;
    }
    let (slow, quick) = (Recorder::new("slow"), Recorder::new("quick"));
    slow.full.store(true, Ordering::SeqCst);
    let joining = {
        let (delivery, slow) = (delivery.clone(), slow.clone());
        tokio::spawn(async move {
            join(
                &delivery,
                &slow,
                ReplayFrom::Since {
                    seq: 0,
                    epoch: None,
                    limit: None,
                },
            )
            .await
        })
    };
    join(&delivery, &quick, ReplayFrom::Live).await;
    say(&backplane, "y").await;
    eventually("quick has it", || quick.seqs() == [501]).await;
    assert!(slow.seqs().is_empty());
    slow.drain();
    assert_eq!(joining.await.unwrap().replayed, 500);
    eventually("slow has all", || {
        slow.seqs() == (1..=501).collect::<Vec<_>>()
    })
    .await;
    let users = slow
        .story()
        .iter()
        .position(|event| event.starts_with("users"))
        .unwrap();
    assert_eq!(
        users, 500,
        "room_users comes right after what the ack promised"
    );
}

#[tokio::test(start_paused = true)]
async fn a_live_occupant_without_capacity_falls_behind_and_delays_no_other() {
    let backplane = lossy(0);
    let delivery = start(&backplane, 1, 500);
    let (slow, quick) = (Recorder::new("slow"), Recorder::new("quick"));
    for outlet in [&slow, &quick] {
        join(&delivery, outlet, ReplayFrom::Live).await;
    }
    for round in 1..=3 {
        let before = slow.seqs();
        slow.full.store(true, Ordering::SeqCst);
        for _ in 0..300 {
            say(&backplane, "x").await;
        }
        let all: Vec<u64> = (1..=round * 300 + round - 1).collect();
        eventually("quick has all", || quick.seqs() == all).await;
        assert_eq!(slow.seqs(), before);
        slow.drain();
        eventually("slow has all", || slow.seqs() == all).await;
        say(&backplane, "live again").await;
        eventually("both have it", || {
            [&slow, &quick]
                .iter()
                .all(|outlet| outlet.seqs().len() == all.len() + 1)
        })
        .await;
    }
    assert!(!slow.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_replay_closes_its_transport_when_the_log_was_trimmed_past_it() {
    let (backplane, log) = fake();
    let delivery = Arc::new(start(&backplane, 1, 500));
    (1..=300).for_each(|seq| drop(log.add(seq)));
    let slow = Recorder::new("slow");
    slow.full.store(true, Ordering::SeqCst);
    let joining = {
        let (delivery, slow) = (delivery.clone(), slow.clone());
        tokio::spawn(async move {
            join(
                &delivery,
                &slow,
                ReplayFrom::Since {
                    seq: 0,
                    epoch: None,
                    limit: None,
                },
            )
            .await
        })
    };
    eventually("the replay waits", || !slow.wakers.lock().is_empty()).await;
    log.trim(200);
    slow.drain();
    assert!(
        !joining.await.unwrap().gap,
        "nothing was missing when it joined"
    );
    assert!(slow.is_closed() && slow.seqs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_long_replay_to_the_first_occupant_repeats_nothing() {
    let backplane = lossy(0);
    let delivery = start(&backplane, 1, 500);
    for _ in 0..500 {
        say(&backplane, "x").await;
    }
    let ann = Recorder::new("ann");
    assert_eq!(
        join(
            &delivery,
            &ann,
            ReplayFrom::Since {
                seq: 0,
                epoch: None,
                limit: None
            }
        )
        .await
        .replayed,
        500
    );
    say(&backplane, "y").await;
    eventually("ann has all", || ann.seqs().len() >= 501).await;
    assert_eq!(ann.seqs(), (1..=501).collect::<Vec<_>>());
}
