//! The promises of the bus, which hold for every backplane.

use hubbub::backplane::{BusEvent, BusTopic, Typing};
use hubbub::domain::ChangeKind;

use crate::fixture::{
    DEADLINE, Fixture, Recorder, append_message, connect_and_join, eventually, limits, name, room,
    subscribe, user,
};

pub async fn events_arrive_in_order_exactly_once(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let topic = BusTopic::Room(room("lobby"));
    let recorder = Recorder::on(&node, std::slice::from_ref(&topic)).await;
    // A repeated subscription has no effect.
    node.bus.subscribe(&topic).await.unwrap();
    let writers = (0..4).map(|_| {
        let node = node.clone();
        tokio::spawn(async move {
            for n in 0..50 {
                append_message(&node, "lobby", &n.to_string()).await;
                append_message(&node, "elsewhere", &n.to_string()).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    recorder.wait_for(200).await;
    let events = recorder.events_until_sentinel(&node, "lobby").await;
    let seqs: Vec<_> = events
        .iter()
        .map(|event| match event {
            BusEvent::Message(room_id, entry) if *room_id == room("lobby") => entry.seq,
            other => panic!("not a message of the subscribed room: {other:?}"),
        })
        .collect();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    let slice = node
        .log
        .read(
            &room("lobby"),
            hubbub::backplane::Window::After(0),
            200,
            usize::MAX,
        )
        .await
        .unwrap();
    for (event, entry) in events.iter().zip(slice.entries) {
        assert_eq!(
            event,
            &BusEvent::Message(room("lobby"), entry),
            "the bus delivers the entry of the log"
        );
    }
}

pub async fn an_ended_subscription_delivers_no_events(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let (one, other) = (BusTopic::Room(room("one")), BusTopic::Room(room("other")));
    let recorder = Recorder::on(&node, &[one.clone(), other]).await;
    append_message(&node, "one", "delivered").await;
    recorder.wait_for(1).await;
    node.bus.unsubscribe(&one).await;
    // The subscription ends "as soon as possible", and events may arrive for a moment longer. So
    // wait until a message to the room is no longer delivered: only the sentinel arrives then.
    eventually(DEADLINE, "the room delivers no more events", async || {
        let before = recorder.events().len();
        append_message(&node, "one", "maybe not delivered").await;
        let after = recorder.events_until_sentinel(&node, "other").await.len();
        (after == before).then_some(())
    })
    .await;
    let before = recorder.events().len();
    for _ in 0..10 {
        append_message(&node, "one", "not delivered").await;
    }
    assert_eq!(
        recorder.events_until_sentinel(&node, "other").await.len(),
        before
    );
    subscribe(node.bus.as_ref(), &one).await;
    append_message(&node, "one", "delivered again").await;
    eventually(DEADLINE, "the room delivers events again", async || {
        (recorder.events().len() == before + 2).then_some(())
    })
    .await;
}

pub async fn every_kind_of_event_arrives(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let recorder = Recorder::on(
        &node,
        &[BusTopic::Room(room("lobby")), BusTopic::User(user("ann"))],
    )
    .await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    let typing = Typing {
        room: room("lobby"),
        user: user("ann"),
        username: name("Ann \u{1F980}"),
        typing: true,
    };
    node.bus.publish_typing(&typing).await.unwrap();
    let events = recorder.wait_for(3).await;
    let status = node.presence.status(&user("ann")).await.unwrap();
    let mut kinds = [false; 3];
    for event in events {
        match event {
            BusEvent::StatusChanged(change) => {
                assert_eq!(
                    (change.online, change.version, change.previous),
                    (true, status.version, 0)
                );
                assert_eq!(
                    (change.user, change.username),
                    (user("ann"), Some(name("ann")))
                );
                kinds[0] = true;
            }
            BusEvent::RoomChanged(room_id, change) => {
                assert_eq!(
                    (room_id, change.kind, change.total),
                    (room("lobby"), ChangeKind::Joined, 1)
                );
                assert_eq!(
                    (change.user, change.username, change.previous),
                    (user("ann"), name("ann"), 0)
                );
                kinds[1] = true;
            }
            BusEvent::Typing(received) => {
                assert_eq!(received, typing);
                kinds[2] = true;
            }
            other => panic!("unexpected event: {other:?}"),
        }
    }
    assert_eq!(kinds, [true; 3]);
}

pub async fn a_disconnect_arrives_on_the_topic_of_all_nodes(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let recorder = Recorder::on(&node, &[BusTopic::Nodes, BusTopic::User(user("ann"))]).await;
    node.bus.publish_disconnect(&user("ann")).await.unwrap();
    recorder.wait_for(1).await;
    assert_eq!(recorder.events(), [BusEvent::Disconnect(user("ann"))]);
}

pub async fn five_hundred_concurrent_subscriptions_deliver_events(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let recorder = Recorder::on(&node, &[BusTopic::Room(room("first"))]).await;
    let topics: Vec<_> = (0..500)
        .map(|n| BusTopic::Room(room(&format!("room{n}"))))
        .collect();
    for done in
        futures_util::future::join_all(topics.iter().map(|topic| node.bus.subscribe(topic))).await
    {
        done.unwrap();
    }
    for n in 0..500 {
        append_message(&node, &format!("room{n}"), "hi").await;
    }
    assert_eq!(recorder.wait_for(500).await.len(), 500);
}
