//! What every backplane's log promises.

use std::time::Duration;

use hubbub::backplane::{BackplaneLimits, Window};
use hubbub::domain::Continuity;

use crate::fixture::{Fixture, SOON, draft, eventually, limits, room, say, seqs};

pub async fn appends_are_numbered_without_a_hole(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let appenders = (0..4).map(|who| {
        let node = node.clone();
        tokio::spawn(async move {
            let mut places = Vec::new();
            for n in 0..50 {
                let draft = draft("lobby", &format!("user{who}"), &n.to_string());
                places.push((
                    node.log
                        .append(&draft, Some(&n.to_string()))
                        .await
                        .unwrap()
                        .seq,
                    draft.id,
                ));
            }
            places
        })
    });
    let mut places = Vec::new();
    for appender in appenders.collect::<Vec<_>>() {
        let of_one = appender.await.unwrap();
        assert!(of_one.is_sorted(), "one caller's appends keep their order");
        places.extend(of_one);
    }
    places.sort_unstable();
    let slice = node
        .log
        .read(&room("lobby"), Window::After(0), 1000, usize::MAX)
        .await
        .unwrap();
    assert_eq!(slice.entries.len(), 200);
    for (n, (entry, (seq, id))) in slice.entries.iter().zip(places).enumerate() {
        assert_eq!((entry.seq, seq), (n as u64 + 1, n as u64 + 1));
        assert!(
            std::str::from_utf8(&entry.record)
                .unwrap()
                .contains(&id.to_string())
        );
        assert_eq!(entry.epoch, slice.span.head.epoch);
    }
}

pub async fn one_caller_keeps_its_order(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let drafts: Vec<_> = (0..300)
        .map(|n| draft("lobby", "ann", &format!("<{n}>")))
        .collect();
    let keys: Vec<_> = (0..300).map(|n| n.to_string()).collect();
    let appends = drafts
        .iter()
        .zip(&keys)
        .map(|(draft, key)| node.log.append(draft, Some(key)));
    let places = futures_util::future::join_all(appends).await;
    for (n, place) in places.into_iter().enumerate() {
        assert_eq!(
            place.unwrap().seq,
            n as u64 + 1,
            "appends begun one after another keep their order"
        );
    }
}

pub async fn a_repeat_gets_the_first_place(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let first = node
        .log
        .append(&draft("lobby", "ann", "one"), Some("key"))
        .await
        .unwrap();
    say(&node, "lobby", "two").await;
    let again = node
        .log
        .append(&draft("lobby", "ann", "another text"), Some("key"))
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

pub async fn without_a_key_a_repeat_is_another_message(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let draft = draft("lobby", "ann", "hi");
    let places = [
        node.log.append(&draft, None).await.unwrap(),
        node.log.append(&draft, None).await.unwrap(),
    ];
    assert_eq!(
        places.map(|place| (place.seq, place.duplicate)),
        [(1, false), (2, false)]
    );
}

pub async fn fifty_repeats_at_once_get_one_place(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let repeats = (0..50).map(|_| {
        let node = node.clone();
        tokio::spawn(async move {
            node.log
                .append(&draft("lobby", "ann", "hi"), Some("key"))
                .await
                .unwrap()
        })
    });
    let mut places = Vec::new();
    for repeat in repeats.collect::<Vec<_>>() {
        places.push(repeat.await.unwrap());
    }
    assert_eq!(places.iter().filter(|place| !place.duplicate).count(), 1);
    assert!(
        places
            .iter()
            .all(|place| place.seq == 1 && place.id == places[0].id)
    );
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, [1]);
}

pub async fn a_key_belongs_to_its_user_and_room(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    for (place, who) in [("lobby", "ann"), ("lobby", "bob"), ("attic", "ann")] {
        assert!(
            !node
                .log
                .append(&draft(place, who, "hi"), Some("key"))
                .await
                .unwrap()
                .duplicate
        );
    }
    // Names must not run into each other.
    assert!(
        !node
            .log
            .append(&draft("lobby", "ann:k", "hi"), Some("ey"))
            .await
            .unwrap()
            .duplicate
    );
    assert!(
        !node
            .log
            .append(&draft("lobby", "ann", "hi"), Some("k:ey"))
            .await
            .unwrap()
            .duplicate
    );
}

pub async fn a_key_is_forgotten(fixture: Fixture) {
    let node = fixture
        .start(BackplaneLimits {
            dedupe_ttl: Duration::from_millis(200),
            ..limits()
        })
        .await;
    assert_eq!(
        node.log
            .append(&draft("lobby", "ann", "hi"), Some("key"))
            .await
            .unwrap()
            .seq,
        1
    );
    let again = eventually(SOON, "a forgotten key", async || {
        let again = node
            .log
            .append(&draft("lobby", "ann", "hi"), Some("key"))
            .await
            .unwrap();
        (!again.duplicate).then_some(again)
    });
    assert_eq!(again.await.seq, 2);
}

pub async fn windows_are_read(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    for n in 1..=20 {
        say(&node, "lobby", &n.to_string()).await;
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
        assert_eq!(found, expected, "{window:?}, at most {limit}");
        assert_eq!((slice.span.head.seq, slice.span.oldest), (20, 1));
    }
}

pub async fn reads_are_bounded(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    for _ in 0..10 {
        say(&node, "lobby", &"x".repeat(1000)).await;
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
    let one = node
        .log
        .read(&room("lobby"), Window::After(0), 1, 0)
        .await
        .unwrap()
        .entries[0]
        .record
        .len();
    assert_eq!(read(Window::After(0), 3 * one).await, [1, 2, 3]);
    assert_eq!(read(Window::After(0), 3 * one - 1).await, [1, 2]);
    assert_eq!(read(Window::Newest, 3 * one).await, [8, 9, 10]);
    assert_eq!(read(Window::Before(5), 2 * one).await, [3, 4]);
    assert_eq!(
        read(Window::After(4), 1).await,
        [5],
        "always one, if there is one"
    );
    assert_eq!(read(Window::Newest, 0).await, [10]);
}

pub async fn a_log_is_trimmed(fixture: Fixture) {
    let node = fixture
        .start(BackplaneLimits {
            history_size: 10,
            ..limits()
        })
        .await;
    for n in 0..250 {
        say(&node, "lobby", &n.to_string()).await;
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

pub async fn a_log_expires_but_its_numbers_go_on(fixture: Fixture) {
    let node = fixture
        .start(BackplaneLimits {
            history_ttl: Duration::from_millis(200),
            ..limits()
        })
        .await;
    let first = say(&node, "lobby", "one").await;
    eventually(SOON, "an expired log", async || {
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
    let second = say(&node, "lobby", "two").await;
    assert_eq!((second.seq, &second.epoch), (2, &first.epoch));
    let slice = node
        .log
        .read(&room("lobby"), Window::After(0), 10, usize::MAX)
        .await
        .unwrap();
    assert_eq!((slice.entries.len(), slice.span.oldest), (1, 2));
}

pub async fn heads_of_many_rooms(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let rooms: Vec<_> = (0..100).map(|n| room(&format!("room{n}"))).collect();
    for n in 0..100 {
        if n % 2 == 0 {
            say(&node, &format!("room{n}"), "hi").await;
        }
    }
    say(&node, "room4", "again").await;
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

pub async fn an_unknown_room_has_a_lasting_epoch(fixture: Fixture) {
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
    let first = say(&node, "lobby", "hi").await;
    assert_eq!((first.seq, first.epoch), (1, span.head.epoch));
}

pub async fn strange_names_stay_apart(fixture: Fixture) {
    let node = fixture.start(limits()).await;
    let names = ["a", "a:b", "{c00}", "m:a", "*", "a b", "\u{1F980}", "A"];
    for name in names {
        assert_eq!(say(&node, name, name).await.seq, 1, "{name}");
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
