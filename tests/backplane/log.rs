//! The promises of the log, which hold for every backplane.

use std::time::Duration;

use bytes::Bytes;
use hubbub::backplane::{
    BackplaneLimits, BusEvent, BusTopic, EntryKind, NewChange, Window, change_record,
};
use hubbub::domain::Continuity;
use uuid::Uuid;

use crate::fixture::{
    DEADLINE, Fixture, Recorder, append_message, eventually, limits, message, room, seqs,
};

pub async fn appends_are_numbered_without_gaps(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let appenders = (0..4).map(|sender| {
        let node = node.clone();
        tokio::spawn(async move {
            let mut outcomes = Vec::new();
            for n in 0..50 {
                let message = message("lobby", &format!("user{sender}"), &n.to_string());
                outcomes.push((
                    node.log
                        .append(&message, Some(&n.to_string()))
                        .await
                        .unwrap()
                        .seq,
                    message.id,
                ));
            }
            outcomes
        })
    });
    let mut outcomes = Vec::new();
    for appender in appenders.collect::<Vec<_>>() {
        let of_one_caller = appender.await.unwrap();
        assert!(
            of_one_caller.is_sorted(),
            "appends of one caller keep their order"
        );
        outcomes.extend(of_one_caller);
    }
    outcomes.sort_unstable();
    let slice = node
        .log
        .read(&room("lobby"), Window::After(0), 1000, usize::MAX)
        .await
        .unwrap();
    assert_eq!(slice.entries.len(), 200);
    for (n, (entry, (seq, id))) in slice.entries.iter().zip(outcomes).enumerate() {
        assert_eq!((entry.seq, seq), (n as u64 + 1, n as u64 + 1));
        assert!(
            std::str::from_utf8(&entry.record)
                .unwrap()
                .contains(&id.to_string())
        );
        assert_eq!(entry.epoch, slice.span.head.epoch);
    }
}

pub async fn appends_of_one_caller_keep_their_order(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let messages: Vec<_> = (0..300)
        .map(|n| message("lobby", "ann", &format!("<{n}>")))
        .collect();
    let keys: Vec<_> = (0..300).map(|n| n.to_string()).collect();
    let appends = messages
        .iter()
        .zip(&keys)
        .map(|(message, key)| node.log.append(message, Some(key)));
    let outcomes = futures_util::future::join_all(appends).await;
    for (n, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(
            outcome.unwrap().seq,
            n as u64 + 1,
            "appends that begin one after another keep their order"
        );
    }
}

pub async fn a_repeated_key_returns_the_first_outcome(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let first = node
        .log
        .append(&message("lobby", "ann", "one"), Some("key"))
        .await
        .unwrap();
    append_message(&node, "lobby", "two").await;
    let again = node
        .log
        .append(&message("lobby", "ann", "another text"), Some("key"))
        .await
        .unwrap();
    assert!(!first.duplicate && again.duplicate);
    assert_eq!(
        (again.id, again.seq, again.at),
        (first.id, first.seq, first.at)
    );
    assert_eq!(again.epoch, first.epoch);
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, [1, 2]);
}

pub async fn a_repeat_without_a_key_is_another_message(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let message = message("lobby", "ann", "hi");
    let outcomes = [
        node.log.append(&message, None).await.unwrap(),
        node.log.append(&message, None).await.unwrap(),
    ];
    assert_eq!(
        outcomes.map(|outcome| (outcome.seq, outcome.duplicate)),
        [(1, false), (2, false)]
    );
}

pub async fn fifty_concurrent_repeats_append_one_message(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let repeats = (0..50).map(|_| {
        let node = node.clone();
        tokio::spawn(async move {
            node.log
                .append(&message("lobby", "ann", "hi"), Some("key"))
                .await
                .unwrap()
        })
    });
    let mut outcomes = Vec::new();
    for repeat in repeats.collect::<Vec<_>>() {
        outcomes.push(repeat.await.unwrap());
    }
    assert_eq!(
        outcomes.iter().filter(|outcome| !outcome.duplicate).count(),
        1
    );
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.seq == 1 && outcome.id == outcomes[0].id)
    );
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, [1]);
}

pub async fn deduplication_keys_are_scoped_to_user_and_room(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    for (room_id, user_id) in [("lobby", "ann"), ("lobby", "bob"), ("attic", "ann")] {
        assert!(
            !node
                .log
                .append(&message(room_id, user_id, "hi"), Some("key"))
                .await
                .unwrap()
                .duplicate
        );
    }
    // User and key are kept apart: "ann:k" with "ey" and "ann" with "k:ey" are two different pairs.
    assert!(
        !node
            .log
            .append(&message("lobby", "ann:k", "hi"), Some("ey"))
            .await
            .unwrap()
            .duplicate
    );
    assert!(
        !node
            .log
            .append(&message("lobby", "ann", "hi"), Some("k:ey"))
            .await
            .unwrap()
            .duplicate
    );
}

pub async fn a_deduplication_key_expires(fixture: Fixture) {
    let node = fixture
        .start(BackplaneLimits {
            dedupe_ttl: Duration::from_millis(200),
            ..limits()
        })
        .await;
    assert_eq!(
        node.log
            .append(&message("lobby", "ann", "hi"), Some("key"))
            .await
            .unwrap()
            .seq,
        1
    );
    let again = eventually(DEADLINE, "the key expires", async || {
        let again = node
            .log
            .append(&message("lobby", "ann", "hi"), Some("key"))
            .await
            .unwrap();
        (!again.duplicate).then_some(again)
    });
    assert_eq!(again.await.seq, 2);
}

pub async fn reads_return_the_requested_window(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    for n in 1..=20 {
        append_message(&node, "lobby", &n.to_string()).await;
    }
    for (window, limit, expected) in [
        (Window::After(0), 3, vec![1, 2, 3]),
        (Window::After(18), 5, vec![19, 20]),
        (Window::After(20), 5, vec![]),
        (Window::After(u64::MAX), 5, vec![]),
        (Window::Before(4), 10, vec![1, 2, 3]),
        (Window::Before(11), 2, vec![9, 10]),
        (Window::Before(1), 2, vec![]),
        (Window::Before(0), 2, vec![]),
        (Window::Before(u64::MAX), 2, vec![19, 20]),
        (Window::Newest, 2, vec![19, 20]),
        (Window::Newest, 0, vec![]),
    ] {
        let slice = node
            .log
            .read(&room("lobby"), window, limit, usize::MAX)
            .await
            .unwrap();
        let found: Vec<_> = slice.entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(found, expected, "{window:?}, limit {limit}");
        assert_eq!((slice.span.head.seq, slice.span.oldest), (20, 1));
    }
}

pub async fn reads_are_limited_by_bytes(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    for _ in 0..10 {
        append_message(&node, "lobby", &"x".repeat(1000)).await;
    }
    let read = async |window, bytes| {
        let slice = node
            .log
            .read(&room("lobby"), window, 10, bytes)
            .await
            .unwrap();
        slice
            .entries
            .iter()
            .map(|entry| entry.seq)
            .collect::<Vec<_>>()
    };
    let record_size = node
        .log
        .read(&room("lobby"), Window::After(0), 1, 0)
        .await
        .unwrap()
        .entries[0]
        .record
        .len();
    assert_eq!(read(Window::After(0), 3 * record_size).await, [1, 2, 3]);
    assert_eq!(read(Window::After(0), 3 * record_size - 1).await, [1, 2]);
    assert_eq!(read(Window::Newest, 3 * record_size).await, [8, 9, 10]);
    assert_eq!(read(Window::Before(5), 2 * record_size).await, [3, 4]);
    assert_eq!(
        read(Window::After(4), 1).await,
        [5],
        "at least one entry, if there is any"
    );
    assert_eq!(read(Window::Newest, 0).await, [10]);
}

pub async fn a_log_is_trimmed_to_the_history_size(fixture: Fixture) {
    let node = fixture
        .start(BackplaneLimits {
            history_size: 10,
            ..limits()
        })
        .await;
    for n in 0..250 {
        append_message(&node, "lobby", &n.to_string()).await;
    }
    let slice = node
        .log
        .read(&room("lobby"), Window::After(0), 1000, usize::MAX)
        .await
        .unwrap();
    assert_eq!(
        slice
            .entries
            .iter()
            .map(|entry| entry.seq)
            .collect::<Vec<_>>(),
        (241..=250).collect::<Vec<_>>()
    );
    assert_eq!((slice.span.head.seq, slice.span.oldest), (250, 241));
    assert_eq!(slice.span.continuity(None, 239), Continuity::Trimmed);
    assert_eq!(slice.span.continuity(None, 240), Continuity::Clean);
    let before = node
        .log
        .read(&room("lobby"), Window::Before(243), 100, usize::MAX)
        .await
        .unwrap();
    assert_eq!(
        before
            .entries
            .iter()
            .map(|entry| entry.seq)
            .collect::<Vec<_>>(),
        [241, 242]
    );
}

pub async fn numbering_continues_after_a_log_expires(fixture: Fixture) {
    let node = fixture
        .start(BackplaneLimits {
            history_ttl: Duration::from_millis(200),
            ..limits()
        })
        .await;
    let first = append_message(&node, "lobby", "one").await;
    eventually(DEADLINE, "the log expires", async || {
        let slice = node
            .log
            .read(&room("lobby"), Window::After(0), 10, usize::MAX)
            .await
            .unwrap();
        assert_eq!(
            (slice.span.head.seq, &slice.span.head.epoch),
            (1, &first.epoch)
        );
        (slice.entries.is_empty() && slice.span.oldest == 2).then_some(())
    })
    .await;
    let second = append_message(&node, "lobby", "two").await;
    assert_eq!((second.seq, &second.epoch), (2, &first.epoch));
    let slice = node
        .log
        .read(&room("lobby"), Window::After(0), 10, usize::MAX)
        .await
        .unwrap();
    assert_eq!((slice.entries.len(), slice.span.oldest), (1, 2));
}

pub async fn heads_of_many_rooms_are_read_in_one_call(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let rooms: Vec<_> = (0..100).map(|n| room(&format!("room{n}"))).collect();
    for n in 0..100 {
        if n % 2 == 0 {
            append_message(&node, &format!("room{n}"), "hi").await;
        }
    }
    append_message(&node, "room4", "again").await;
    let heads = node.log.heads(&rooms).await.unwrap();
    for (n, head) in heads.iter().enumerate() {
        let seq = if n == 4 { 2 } else { 1 };
        assert_eq!(
            head.as_ref().map(|head| head.seq),
            (n % 2 == 0).then_some(seq),
            "room{n}"
        );
    }
}

pub async fn reading_an_unknown_room_fixes_its_epoch(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let span = node
        .log
        .read(&room("lobby"), Window::Newest, 10, usize::MAX)
        .await
        .unwrap()
        .span;
    assert_eq!((span.head.seq, span.oldest, span.past.len()), (0, 1, 0));
    assert_eq!(
        node.log
            .read(&room("lobby"), Window::Newest, 10, usize::MAX)
            .await
            .unwrap()
            .span,
        span
    );
    let first = append_message(&node, "lobby", "hi").await;
    assert_eq!((first.seq, first.epoch), (1, span.head.epoch));
}

pub async fn rooms_with_unusual_names_stay_separate(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let names = ["a", "a:b", "{c00}", "m:a", "*", "a b", "\u{1F980}", "A"];
    for name in names {
        assert_eq!(append_message(&node, name, name).await.seq, 1, "{name}");
    }
    for name in names {
        let slice = node
            .log
            .read(&room(name), Window::Newest, 10, usize::MAX)
            .await
            .unwrap();
        assert_eq!(slice.entries.len(), 1);
    }
}

pub async fn a_change_is_announced_once_and_in_order(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let recorder = Recorder::on(&node, &[BusTopic::Room(room("lobby"))]).await;
    append_message(&node, "lobby", "first").await;
    let (lobby, id) = (room("lobby"), Uuid::from_u128(7));
    let record = change_record::encode(&lobby, "session_ended", id, "{\"a\":1}");
    let changes = [NewChange::complete(id, record.clone())];
    let (announced, _) = node.log.announce_all(&lobby, &changes).await;
    let announced = &announced[0];
    assert_eq!((announced.seq, announced.id), (2, id));
    assert!(!announced.duplicate);
    let (again, _) = node.log.announce_all(&lobby, &changes).await;
    let again = &again[0];
    assert_eq!((again.seq, again.id, again.duplicate), (2, id, true));
    append_message(&node, "lobby", "last").await;
    let slice = node
        .log
        .read(&room("lobby"), Window::After(0), 10, 9999)
        .await
        .unwrap();
    let kinds: Vec<_> = slice.entries.iter().map(|entry| entry.kind).collect();
    let expected = [EntryKind::Message, EntryKind::Change, EntryKind::Message];
    assert_eq!(kinds, expected);
    assert_eq!(slice.entries[1].record, record);
    let published = recorder.wait_for(3).await;
    let BusEvent::Message(_, entry) = &published[1] else {
        panic!("{published:?}");
    };
    let found = (entry.seq, entry.kind, &entry.record);
    assert_eq!(found, (2, EntryKind::Change, &record));
}

/// More than one call to Redis carries.
pub async fn changes_are_announced_in_order_and_once(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let room = room("lobby");
    let changes: Vec<NewChange> = (0..300)
        .map(|number| NewChange::complete(Uuid::new_v4(), format!("{{\"n\":{number}}}").into()))
        .collect();
    // The first ones were announced before.
    let (positions, outcome) = node.log.announce_all(&room, &changes[..3]).await;
    assert!(positions.len() == 3 && outcome.is_ok());
    let (positions, outcome) = node.log.announce_all(&room, &changes).await;
    assert!(positions.len() == 300 && outcome.is_ok());
    let slice = node
        .log
        .read(&room, Window::After(0), 1000, usize::MAX)
        .await;
    let records: Vec<Bytes> = slice
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| entry.record)
        .collect();
    let expected: Vec<Bytes> = changes.into_iter().map(|change| change.record).collect();
    assert!(records == expected[expected.len() - records.len()..]);
    assert_eq!(
        node.log.heads(&[room]).await.unwrap()[0]
            .as_ref()
            .unwrap()
            .seq,
        300
    );
}
