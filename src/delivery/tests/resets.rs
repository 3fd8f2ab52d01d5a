//! Feeds of chats and of users that may have skipped changes.

use super::epochs::Faltering;
use super::*;

/// Attaches the connection to the room.
async fn enter(delivery: &Delivery, room: &RoomId, outlet: &Arc<Recorder>) -> JoinOutcome {
    let (acknowledge, acknowledged) = oneshot::channel();
    let on_joined = Box::new(move |outcome: &JoinOutcome| drop(acknowledge.send(outcome.clone())));
    let username = Username::from(&outlet.user);
    delivery
        .join(
            room.clone(),
            outlet.clone(),
            username,
            ReplayFrom::Live,
            on_joined,
        )
        .await
        .unwrap();
    acknowledged.await.unwrap()
}

fn chat() -> RoomId {
    RoomId::chat(uuid::Uuid::now_v7())
}

/// The connections that resets have been reported with.
async fn reported_resets(room: RoomId) -> Vec<Vec<UserId>> {
    let (backplane, log) = fake();
    let delivery = start(&backplane, 1, 500);
    let reports = Arc::new(Mutex::new(Vec::new()));
    let sink = reports.clone();
    let expected = room.clone();
    delivery.on_reset(Box::new(move |room, attached| {
        assert_eq!(*room, expected);
        let mut users: Vec<_> = attached.into_iter().map(|(_, user)| user).collect();
        users.sort();
        sink.lock().push(users);
    }));
    let (ann, bob) = (Recorder::new("ann"), Recorder::new("bob"));
    enter(&delivery, &room, &ann).await;
    enter(&delivery, &room, &bob).await;
    let publish = |seq| {
        let event = BusEvent::Message(room.clone(), log.add(seq));
        delivery.queues.event(event);
    };
    (1..=5).for_each(publish);
    eventually("both are live", || bob.seqs().len() == 5).await;
    // The entries after 3 are lost.
    log.roll_back(3, "e2");
    publish(4);
    eventually("a new numbering", || ann.seqs().len() == 6).await;
    // The entries after 4 are trimmed before they are read.
    (5..=19).for_each(|seq| drop(log.add(seq)));
    log.trim(15);
    publish(20);
    eventually("a gap", || ann.seqs().last() == Some(&20)).await;
    std::mem::take(&mut *reports.lock())
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_a_chat_or_of_a_personal_feed_is_reported_with_all_its_users() {
    let both = ["ann", "bob"].map(UserId::trusted).to_vec();
    let user = UserId::trusted(&uuid::Uuid::now_v7().to_string());
    for room in [chat(), RoomId::personal(&user)] {
        assert_eq!(reported_resets(room).await, [both.clone(), both.clone()]);
    }
    assert!(reported_resets(room()).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_chat_has_a_feed_with_one_number_until_the_feed_is_reset_or_ends() {
    let (backplane, log) = fake();
    let faltering = Arc::new(Faltering {
        log: log.clone(),
        left: AtomicU64::new(1000),
    });
    let log_of_node = faltering.clone();
    let backplane = Backplane {
        log: log_of_node,
        ..backplane
    };
    let delivery = start(&backplane, 1, 500);
    let (chat, ann) = (chat(), Recorder::new("ann"));
    assert_eq!(delivery.chat_feed(&chat), None);
    assert!(!enter(&delivery, &chat, &ann).await.is_ahead);
    let first = delivery.chat_feed(&chat).unwrap();
    assert!(first.is_current);
    // The log can't be read, and a message is missing.
    faltering.left.store(0, Ordering::SeqCst);
    drop(log.add(1));
    assert!(
        enter(&delivery, &chat, &Recorder::new("bob"))
            .await
            .is_ahead
    );
    delivery.queues.interrupted(None);
    delivery.flush(&chat).await;
    assert_eq!(delivery.chat_feed(&chat), Some(first), "for a moment");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let is_behind = ChatFeed {
        is_current: false,
        ..first
    };
    assert_eq!(delivery.chat_feed(&chat), Some(is_behind));
    faltering.left.store(1000, Ordering::SeqCst);
    eventually("the feed is current", || {
        delivery.chat_feed(&chat) == Some(first)
    })
    .await;
    assert_eq!(ann.seqs(), [1]);

    log.lose_all("e2");
    let event = BusEvent::Message(chat.clone(), log.add(1));
    delivery.queues.event(event);
    eventually("a reset", || ann.seqs() == [1, 1]).await;
    let second = delivery.chat_feed(&chat).unwrap();
    assert!(second.is_current && second.number > first.number);

    for outlet in [&ann.conn, &ConnId::trusted("conn-bob")] {
        delivery.leave(&chat, outlet).await;
    }
    eventually("no feed", || delivery.chat_feed(&chat).is_none()).await;
    enter(&delivery, &chat, &ann).await;
    assert!(delivery.chat_feed(&chat).unwrap().number > second.number);
}
