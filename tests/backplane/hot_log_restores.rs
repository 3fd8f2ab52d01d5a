//! Restores from the archive, on every backplane.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hubbub::backplane::{
    Appended, Backplane, BackplaneError, BackplaneLimits, BusEvent, BusTopic, RestorePoint,
    RestoredSend, Window,
};
use hubbub::domain::{Continuity, Epoch, Timestamp};
use uuid::Uuid;

use crate::fixture::{
    DEADLINE, Fixture, Recorder, append_message, conn, connect_and_join, eventually, limits,
    message, name, room, seqs, user,
};
use crate::hot_log::{archived, diverge, send, span, unarchived, watermark};
use crate::restore_source::{Source, going_on, head, new_room};

fn assert_unavailable<T: std::fmt::Debug>(result: Result<T, BackplaneError>) {
    assert!(
        matches!(result, Err(BackplaneError::Unavailable(_))),
        "{result:?}"
    );
}

pub async fn an_unknown_room_is_restored_once_for_all_calls(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    source.set("lobby", going_on("e1", 100));
    source.block();
    let appends = (0..30).map(|n| {
        let node = node.clone();
        tokio::spawn(async move { append_message(&node, "lobby", &n.to_string()).await.seq })
    });
    let appends: Vec<_> = appends.collect();
    let others = (0..10).map(|n| {
        let node = node.clone();
        tokio::spawn(async move {
            let ids = (format!("user{n}"), format!("conn{n}"));
            let joined = connect_and_join(&node, &ids.0, &ids.1, "lobby").await;
            [joined.span, span(&node, "lobby").await]
        })
    });
    let others: Vec<_> = others.collect();
    source.wait_for_calls("lobby", 1).await;
    source.open();
    let mut numbers = Vec::new();
    for append in appends {
        numbers.push(append.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (101..=130).collect::<Vec<_>>());
    for other in others {
        for span in other.await.unwrap() {
            assert_eq!(span.head.epoch, Epoch::trusted("e1"));
            assert!((100..=130).contains(&span.head.seq), "{span:?}");
        }
    }
    assert_eq!(source.calls("lobby"), [None]);
}

pub async fn nothing_is_numbered_before_the_archive_responds(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    let recorder = Recorder::on(&node, &[BusTopic::Room(room("lobby"))]).await;
    source.set("lobby", going_on("e1", 7));
    source.block();
    let append = tokio::spawn({
        let node = node.clone();
        async move { append_message(&node, "lobby", "hi").await }
    });
    source.wait_for_calls("lobby", 1).await;
    assert_eq!(node.log.heads(&[room("lobby")]).await.unwrap(), [None]);
    assert_eq!(unarchived(&node, "lobby", 0, 10).await, None);
    assert!(recorder.events().is_empty() && !append.is_finished());
    source.open();
    assert_eq!(append.await.unwrap().seq, 8);
    let events = recorder.wait_for(1).await;
    assert!(
        matches!(&events[..], [BusEvent::Message(_, entry)] if entry.seq == 8),
        "{events:?}"
    );
}

pub async fn appends_that_wait_for_a_restore_keep_their_order(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    source.block();
    let messages: Vec<_> = (0..100)
        .map(|n| message("lobby", "ann", &format!("<{n}>")))
        .collect();
    let first = join_all(
        messages[..50]
            .iter()
            .map(|message| node.log.append(message, None)),
    );
    let second = async {
        source.wait_for_calls("lobby", 1).await;
        source.open();
        let appends = messages[50..]
            .iter()
            .map(|message| node.log.append(message, None));
        join_all(appends).await
    };
    let (first, second) = futures_util::future::join(first, second).await;
    let numbers: Vec<_> = first
        .into_iter()
        .chain(second)
        .map(|appended| appended.unwrap().seq)
        .collect();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
}

pub async fn a_dropped_call_does_not_end_a_restore(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    source.set("lobby", going_on("e1", 7));
    source.block();
    let dropped = tokio::spawn({
        let node = node.clone();
        async move { span(&node, "lobby").await }
    });
    source.wait_for_calls("lobby", 1).await;
    let waiting = tokio::spawn({
        let node = node.clone();
        async move { span(&node, "lobby").await }
    });
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    source.open();
    assert_eq!(waiting.await.unwrap().head, head("e1", 7));
    assert_eq!(source.calls("lobby").len(), 1);
}

pub async fn calls_fail_while_the_archive_is_unavailable(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    source.set_down(true);
    assert_unavailable(send(&node, "lobby", "ann", "key").await);
    assert_unavailable(node.log.read(&room("lobby"), Window::Newest, 1, 1).await);
    let (conn, ann, name) = (conn("c1"), user("ann"), name("ann"));
    node.presence.connect(&conn, &ann, &name).await.unwrap();
    assert_unavailable(node.presence.join(&conn, &ann, &name, &room("lobby")).await);
    assert_eq!(node.log.heads(&[room("lobby")]).await.unwrap(), [None]);
    source.set_down(false);
    source.set("lobby", going_on("e1", 7));
    let joined = connect_and_join(&node, "ann", "c1", "lobby").await;
    assert_eq!(joined.span.head, head("e1", 7));
    let again = send(&node, "lobby", "ann", "key").await.unwrap();
    assert_eq!((again.seq, again.duplicate), (8, false));
}

pub async fn a_known_room_is_not_restored_again(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    let first = append_message(&node, "lobby", "one").await;
    source.set_down(true);
    let second = append_message(&node, "lobby", "two").await;
    assert_eq!((first.seq, second.seq), (1, 2));
    assert_eq!(first.epoch, second.epoch);
    connect_and_join(&node, "ann", "c1", "lobby").await;
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, [1, 2]);
    assert_eq!(source.calls("lobby"), [None]);
}

pub async fn a_restored_room_continues_its_numbering(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    let past = vec![head("e2", 30), head("e1", 12)];
    source.set(
        "lobby",
        RestorePoint {
            past: past.clone(),
            ..going_on("e3", 41)
        },
    );
    let joined = connect_and_join(&node, "ann", "c1", "lobby").await.span;
    assert_eq!(joined, span(&node, "lobby").await);
    assert_eq!((&joined.head, &joined.past), (&head("e3", 41), &past));
    assert_eq!((joined.oldest, joined.recent), (42, 42));
    let appended = append_message(&node, "lobby", "hi").await;
    assert_eq!((appended.seq, appended.epoch), (42, Epoch::trusted("e3")));
    let after = span(&node, "lobby").await;
    assert_eq!((after.oldest, &after.past), (42, &past));
    let position = |epoch, seq| after.continuity(Some(&Epoch::trusted(epoch)), seq);
    assert_eq!(position("e3", 41), Continuity::Clean);
    assert_eq!(position("e2", 30), Continuity::Trimmed);
    let lost = |last_shared| Continuity::Lost { last_shared };
    assert_eq!(position("e1", 13), lost(Some(12)));
    assert_eq!(position("e0", 1), lost(None));
}

/// A send that was appended so long ago.
fn earlier_send(key: &str, seq: u64, age: Duration) -> RestoredSend {
    let age = u64::try_from(age.as_millis()).unwrap();
    RestoredSend {
        user: user("ann"),
        key: key.into(),
        position: Appended {
            id: Uuid::now_v7(),
            seq,
            epoch: Epoch::trusted("e1"),
            at: Timestamp(Timestamp::now().0 - age),
            duplicate: false,
        },
    }
}

pub async fn repeats_of_restored_sends_are_duplicates(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    let newest = earlier_send("again", 9, Duration::from_secs(2));
    let earlier = earlier_send("again", 8, Duration::from_secs(3));
    let other = earlier_send("k\u{1f600} \"k", 5, Duration::from_secs(590));
    let expired = earlier_send("expired", 4, limits().dedupe_ttl);
    source.set(
        "lobby",
        RestorePoint {
            sends: vec![newest.clone(), earlier, other.clone(), expired],
            ..going_on("e2", 10)
        },
    );
    for first in [newest, other] {
        let repeat = send(&node, "lobby", "ann", &first.key).await;
        let expected = Appended {
            duplicate: true,
            ..first.position
        };
        assert_eq!(repeat.unwrap(), expected);
    }
    for (sender, key) in [("ann", "expired"), ("bob", "again"), ("ann", "new")] {
        let new = send(&node, "lobby", sender, key).await;
        assert!(!new.unwrap().duplicate, "{sender} {key}");
    }
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, [11, 12, 13]);
}

pub async fn a_restored_send_expires_when_it_would_have(fixture: Fixture) {
    let source = Source::new();
    let dedupe_ttl = Duration::from_secs(60);
    let limits = BackplaneLimits {
        dedupe_ttl,
        ..limits()
    };
    let node = fixture.start_archived(limits, &source).await;
    let sends = vec![earlier_send("key", 5, dedupe_ttl - Duration::from_secs(1))];
    source.set(
        "lobby",
        RestorePoint {
            sends,
            ..going_on("e1", 10)
        },
    );
    let seq = eventually(DEADLINE, "the key expires", async || {
        let again = send(&node, "lobby", "ann", "key").await.unwrap();
        (!again.duplicate).then_some(again.seq)
    });
    assert_eq!(seq.await, 11);
}

pub async fn a_diverged_room_is_restored_before_its_next_use(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    let recorder = Recorder::on(&node, &[BusTopic::Room(room("lobby"))]).await;
    connect_and_join(&node, "ann", "c1", "lobby").await;
    let mut sent = Vec::new();
    for key in ["k1", "k2", "k3", "k4", "k5"] {
        sent.push(send(&node, "lobby", "ann", key).await.unwrap());
    }
    let epoch = sent[0].epoch.clone();
    archived(&node, "lobby", &epoch, vec![1..=2]).await;
    diverge(&node, "lobby", &Epoch::trusted("another"), 1).await;
    assert_eq!(append_message(&node, "lobby", "six").await.seq, 6);
    diverge(&node, "lobby", &epoch, 4).await;
    diverge(&node, "lobby", &epoch, 3).await;
    diverge(&node, "lobby", &epoch, 4).await;

    assert_eq!(unarchived(&node, "lobby", 4, 10).await, Some(vec![5, 6]));
    assert_eq!(source.calls("lobby").len(), 1);
    source.set_down(true);
    assert_unavailable(send(&node, "lobby", "ann", "k6").await);
    source.set_down(false);
    let past = vec![head(epoch.as_str(), 3)];
    let third = RestoredSend {
        user: user("ann"),
        key: "k3".into(),
        position: sent[2].clone(),
    };
    source.set(
        "lobby",
        RestorePoint {
            past: past.clone(),
            sends: vec![third],
            ..going_on("e2", 10)
        },
    );
    let appended = append_message(&node, "lobby", "after").await;
    assert_eq!((appended.seq, appended.epoch), (11, Epoch::trusted("e2")));

    let calls = source.calls("lobby");
    assert_eq!(calls.len(), 3, "{calls:?}");
    let hot = calls[2].as_ref().unwrap();
    assert_eq!((&hot.head, hot.oldest), (&head(epoch.as_str(), 6), 1));
    assert_eq!(
        (hot.watermark, hot.shared, hot.is_stale),
        (Some(2), Some(3), false)
    );
    assert_eq!(source.pages("lobby").last().unwrap(), &[3, 4, 5, 6]);
    let span = span(&node, "lobby").await;
    assert_eq!((&span.past, span.oldest), (&past, 11));
    let seen = head(epoch.as_str(), 6);
    let lost = Continuity::Lost {
        last_shared: Some(3),
    };
    assert_eq!(span.continuity_after(&seen, &[]), lost);
    // Presence isn't restored: it stays.
    assert!(
        node.presence
            .is_occupant(&room("lobby"), &user("ann"))
            .await
            .unwrap()
    );
    let events = recorder.events_until_sentinel(&node, "lobby").await;
    let last = events.iter().rev().find_map(|event| match event {
        BusEvent::Message(_, entry) => Some((entry.seq, entry.epoch.clone())),
        _ => None,
    });
    assert_eq!(last, Some((11, Epoch::trusted("e2"))));
    let repeat = send(&node, "lobby", "ann", "k3").await.unwrap();
    assert_eq!((repeat.seq, repeat.duplicate), (3, true));
}

/// Starts a node that has restored a room at the beginning of its second epoch.
async fn start_in_second_epoch(fixture: &Fixture) -> (Arc<Source>, Backplane) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    let point = RestorePoint {
        past: vec![head("e1", 10)],
        ..going_on("e2", 10)
    };
    source.set("lobby", point);
    assert_eq!(span(&node, "lobby").await.head, head("e2", 10));
    (source, node)
}

pub async fn a_room_that_diverged_in_an_earlier_epoch_is_restored(fixture: Fixture) {
    let (source, node) = start_in_second_epoch(&fixture).await;
    diverge(&node, "lobby", &Epoch::trusted("e1"), 8).await;
    let third_epoch = RestorePoint {
        past: vec![head("e2", 8), head("e1", 8)],
        ..going_on("e3", 20)
    };
    source.set("lobby", third_epoch);
    let appended = append_message(&node, "lobby", "after").await;
    assert_eq!((appended.seq, appended.epoch), (21, Epoch::trusted("e3")));
    let calls = source.calls("lobby");
    assert_eq!(calls.len(), 2, "{calls:?}");
    let hot = calls[1].as_ref().unwrap();
    assert_eq!((&hot.head, hot.shared), (&head("e2", 10), Some(8)));
    assert_eq!(hot.past, [head("e1", 10)]);
}

pub async fn a_divergence_outside_of_the_log_has_no_effect(fixture: Fixture) {
    let (source, node) = start_in_second_epoch(&fixture).await;
    for (epoch, shared, next) in [("e1", 10, 11), ("e0", 8, 12), ("e2", 12, 13)] {
        diverge(&node, "lobby", &Epoch::trusted(epoch), shared).await;
        let appended = append_message(&node, "lobby", "after").await;
        let expected = (next, Epoch::trusted("e2"));
        assert_eq!((appended.seq, appended.epoch), expected, "{epoch}");
        assert_eq!(source.calls("lobby"), [None], "{epoch}");
    }
}

pub async fn sends_that_were_lost_are_no_longer_duplicates(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    let first = send(&node, "lobby", "ann", "key").await.unwrap();
    diverge(&node, "lobby", &first.epoch, 0).await;
    source.set("lobby", going_on("e2", 5));
    let again = send(&node, "lobby", "ann", "key").await.unwrap();
    assert_eq!((again.seq, again.duplicate), (6, false));
}

pub async fn a_diverged_room_may_keep_its_entries(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    for n in 1..=3 {
        append_message(&node, "lobby", &n.to_string()).await;
    }
    let before = span(&node, "lobby").await;
    diverge(&node, "lobby", &before.head.epoch, 1).await;
    source.set(
        "lobby",
        RestorePoint {
            watermark: 2,
            ..new_room()
        },
    );
    assert_eq!(append_message(&node, "lobby", "four").await.seq, 4);
    let after = span(&node, "lobby").await;
    assert_eq!(after.head, head(before.head.epoch.as_str(), 4));
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, [1, 2, 3, 4]);
    assert_eq!(watermark(&node, "lobby").await, Some((2, 4)));
}

pub async fn a_diverged_room_waits_for_the_archive_until_it_is_restored(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    let epoch = append_message(&node, "lobby", "one").await.epoch;
    append_message(&node, "lobby", "two").await;
    diverge(&node, "lobby", &epoch, 1).await;
    for _ in 0..2 {
        assert_eq!(watermark(&node, "lobby").await, Some((0, 2)));
    }
    source.set_down(true);
    assert_unavailable(send(&node, "lobby", "ann", "key").await);
    assert_eq!(watermark(&node, "lobby").await, Some((0, 2)));
    source.set_down(false);
    source.set("lobby", going_on("e2", 5));
    assert_eq!(span(&node, "lobby").await.head, head("e2", 5));
    assert_eq!(watermark(&node, "lobby").await, None);
}

pub async fn a_room_that_diverged_although_it_is_archived_is_found(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    let epoch = append_message(&node, "lobby", "one").await.epoch;
    archived(&node, "lobby", &epoch, vec![1..=1]).await;
    assert_eq!(watermark(&node, "lobby").await, None);
    diverge(&node, "lobby", &epoch, 0).await;
    assert_eq!(watermark(&node, "lobby").await, Some((1, 1)));
}
