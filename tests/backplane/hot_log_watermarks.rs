//! Watermarks, and the entries above them, on every backplane.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hubbub::backplane::{BackplaneLimits, RestorePoint, Unarchived, Window};
use hubbub::domain::Epoch;

use crate::fixture::{DEADLINE, Fixture, append_message, eventually, limits, message, room, seqs};
use crate::hot_log::{append_many, archived, span, unarchived, watermark};
use crate::restore_source::{Source, going_on, head};

fn range(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}

pub async fn a_record_is_kept_byte_for_byte(fixture: Fixture) {
    let node = fixture.start_archived(limits(), &Source::new()).await;
    let record = Bytes::from_static(b"{ \"any\" : \"bytes\xf0\x9f\xa6\x80\" }");
    let sent = message("lobby", "ann", "other");
    let append = node
        .hot_log
        .append_record((&sent).into(), Some("key"), record.clone());
    let first = append.await.unwrap();
    assert_eq!((first.seq, first.id, first.duplicate), (1, sent.id, false));
    let append = node
        .hot_log
        .append_record((&sent).into(), Some("key"), Bytes::new());
    assert!(append.await.unwrap().duplicate);
    let lobby = room("lobby");
    let slice = node.log.read(&lobby, Window::Newest, 10, usize::MAX).await;
    let slice = slice.unwrap();
    assert_eq!(slice.entries.len(), 1);
    assert_eq!(slice.entries[0].record, record);
}

pub async fn a_watermark_leaves_no_number_out(fixture: Fixture) {
    let node = fixture.start_archived(limits(), &Source::new()).await;
    assert_eq!(watermark(&node, "lobby").await, None);
    let epoch = append_many(&node, "lobby", 10).await;
    assert_eq!(watermark(&node, "lobby").await, Some((0, 10)));
    for (ranges, expected) in [
        (vec![3..=4], Some((0, 10))),
        (vec![1..=1], Some((1, 10))),
        (vec![7..=8, 6..=6], Some((1, 10))),
        (vec![1..=1, 2..=2], Some((4, 10))),
        (vec![1..=3, 4..=4], Some((4, 10))),
        (vec![], Some((4, 10))),
        (vec![4..=6], Some((8, 10))),
        (vec![10..=10], Some((8, 10))),
        (vec![8..=9], None),
    ] {
        archived(&node, "lobby", &epoch, ranges.clone()).await;
        assert_eq!(watermark(&node, "lobby").await, expected, "{ranges:?}");
    }
    append_many(&node, "lobby", 1).await;
    assert_eq!(watermark(&node, "lobby").await, Some((10, 11)));
}

pub async fn numbers_of_an_earlier_epoch_count_up_to_its_end(fixture: Fixture) {
    let source = Source::new();
    let node = fixture.start_archived(limits(), &source).await;
    source.set(
        "lobby",
        RestorePoint {
            past: vec![head("e2", 8), head("e1", 4)],
            watermark: 2,
            ..going_on("e3", 10)
        },
    );
    append_many(&node, "lobby", 2).await;
    let report = async |epoch: &str, ranges| {
        archived(&node, "lobby", &Epoch::trusted(epoch), ranges).await;
        watermark(&node, "lobby").await
    };
    assert_eq!(report("e0", vec![3..=12]).await, Some((2, 12)));
    assert_eq!(report("e1", vec![3..=12]).await, Some((4, 12)));
    assert_eq!(report("e2", vec![6..=12]).await, Some((4, 12)));
    assert_eq!(report("e2", vec![5..=5]).await, Some((8, 12)));
    assert_eq!(report("e3", vec![9..=11]).await, Some((11, 12)));
    assert_eq!(report("e3", vec![12..=20]).await, None);
    // A number beyond the room's last one doesn't count for entries to come.
    append_many(&node, "lobby", 1).await;
    assert_eq!(watermark(&node, "lobby").await, Some((12, 13)));
}

pub async fn reports_about_many_rooms_are_made_in_one_call(fixture: Fixture) {
    let node = fixture.start_archived(limits(), &Source::new()).await;
    let mut reports = vec![(room("unknown"), Epoch::trusted("e"), vec![1..=5])];
    for n in 0..100 {
        let name = format!("room{n}");
        let epoch = append_many(&node, &name, 2).await;
        reports.push((room(&name), epoch, vec![1..=1]));
    }
    let watermarks = node.hot_log.advance_watermarks(&reports).await.unwrap();
    assert_eq!((watermarks.len(), watermarks[0]), (101, 0));
    assert!(watermarks[1..].iter().all(|watermark| *watermark == 1));
    let found = node.hot_log.unarchived(Duration::ZERO, 1000).await.unwrap();
    assert_eq!(found.len(), 100);
    assert!(
        found
            .iter()
            .all(|room| (room.watermark, room.head) == (1, 2))
    );
    assert_eq!(node.log.heads(&[room("unknown")]).await.unwrap(), [None]);
}

pub async fn unarchived_entries_outlive_the_history_size(fixture: Fixture) {
    let limits = BackplaneLimits {
        history_size: 10,
        ..limits()
    };
    let node = fixture.start_archived(limits, &Source::new()).await;
    let epoch = append_many(&node, "lobby", 300).await;
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, range(1, 300));
    let full = span(&node, "lobby").await;
    assert_eq!((full.oldest, full.first, full.recent), (1, 1, 291));
    let unarchived = unarchived(&node, "lobby", 295, 3).await;
    assert_eq!(unarchived, Some(vec![296, 297, 298]));

    archived(&node, "lobby", &epoch, vec![1..=200]).await;
    append_many(&node, "lobby", 1).await;
    let kept = seqs(node.log.as_ref(), "lobby").await;
    assert!(kept.ends_with(&range(201, 301)), "{kept:?}");
    archived(&node, "lobby", &epoch, vec![201..=301]).await;
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, range(292, 301));
    append_many(&node, "lobby", 20).await;
    archived(&node, "lobby", &epoch, vec![302..=321]).await;
    assert_eq!(seqs(node.log.as_ref(), "lobby").await, range(312, 321));
    let trimmed = span(&node, "lobby").await;
    assert_eq!((trimmed.oldest, trimmed.recent), (312, 312));
}

pub async fn unarchived_entries_outlive_the_history_ttl(fixture: Fixture) {
    let limits = BackplaneLimits {
        history_ttl: Duration::from_millis(300),
        ..limits()
    };
    let node = fixture.start_archived(limits, &Source::new()).await;
    let epoch = append_many(&node, "lobby", 3).await;
    archived(&node, "lobby", &epoch, vec![1..=1]).await;
    // The entry of this room is younger, and all of it is archived.
    let other = append_many(&node, "attic", 1).await;
    archived(&node, "attic", &other, vec![1..=1]).await;
    let is_empty = async |name| seqs(node.log.as_ref(), name).await.is_empty().then_some(());
    eventually(DEADLINE, "the archived entry expires", async || {
        is_empty("attic").await
    })
    .await;
    let kept = seqs(node.log.as_ref(), "lobby").await;
    assert!(kept.ends_with(&[2, 3]), "{kept:?}");
    archived(&node, "lobby", &epoch, vec![2..=3]).await;
    eventually(DEADLINE, "the entries expire", async || {
        is_empty("lobby").await
    })
    .await;
    assert_eq!(span(&node, "lobby").await.oldest, 4);
    assert_eq!(append_message(&node, "lobby", "four").await.seq, 4);
}

pub async fn rooms_are_unarchived_once_their_oldest_entry_is_old(fixture: Fixture) {
    let node = fixture.start_archived(limits(), &Source::new()).await;
    let find = async |age, limit| {
        let found: Vec<Unarchived> = node.hot_log.unarchived(age, limit).await.unwrap();
        found.into_iter().map(|room| room.room).collect::<Vec<_>>()
    };
    append_many(&node, "archived", 2).await;
    let epoch = append_many(&node, "lobby", 1).await;
    append_many(&node, "attic", 1).await;
    let whole = span(&node, "archived").await.head;
    archived(&node, "archived", &whole.epoch, vec![1..=2]).await;
    let hour = Duration::from_secs(3600);
    assert_eq!(find(hour, 10).await, []);
    let age = Duration::from_millis(200);
    let mut found = Vec::new();
    eventually(DEADLINE, "the rooms become old", async || {
        found.extend(find(age, 1).await);
        (found.len() >= 2).then_some(())
    })
    .await;
    found.sort();
    assert_eq!(found[..2], [room("attic"), room("lobby")]);
    archived(&node, "lobby", &epoch, vec![1..=1]).await;
    let mut found = find(Duration::ZERO, 10).await;
    found.sort();
    assert_eq!(found, [room("attic")]);
}

pub async fn an_unarchived_room_is_returned_to_one_caller_at_a_time(fixture: Fixture) {
    let age = Duration::from_millis(250);
    let node = fixture.start_archived(limits(), &Source::new()).await;
    for n in 0..20 {
        append_many(&node, &format!("room{n}"), 1).await;
    }
    let begin = Instant::now();
    let callers = (0..8).map(|_| {
        let node = node.clone();
        tokio::spawn(async move {
            let mut found = Vec::new();
            while begin.elapsed() < 4 * age {
                found.extend(node.hot_log.unarchived(age, 5).await.unwrap());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            found
        })
    });
    let mut counts: HashMap<_, u128> = HashMap::new();
    for caller in callers.collect::<Vec<_>>() {
        for found in caller.await.unwrap() {
            *counts.entry(found.room).or_default() += 1;
        }
    }
    // A claim lasts for `age`, by a clock in whole milliseconds.
    let most = begin.elapsed().as_millis() / (age.as_millis() - 1) + 1;
    assert_eq!(counts.len(), 20);
    assert!(
        counts.values().all(|count| *count <= most),
        "{counts:?}, at most {most}"
    );
}

pub async fn a_trim_removes_only_archived_entries(fixture: Fixture) {
    let node = fixture.start_archived(limits(), &Source::new()).await;
    let epoch = append_many(&node, "lobby", 10).await;
    archived(&node, "lobby", &epoch, vec![1..=6]).await;
    for (cut, oldest) in [(0, 1), (3, 4), (2, 4), (8, 7)] {
        node.hot_log.trim(&room("lobby"), cut).await.unwrap();
        let kept = seqs(node.log.as_ref(), "lobby").await;
        assert_eq!(kept, range(oldest, 10), "trimmed to {cut}");
        assert_eq!(span(&node, "lobby").await.oldest, oldest);
    }
    node.hot_log.trim(&room("unknown"), 5).await.unwrap();
    assert_eq!(node.log.heads(&[room("unknown")]).await.unwrap(), [None]);
    archived(&node, "lobby", &epoch, vec![7..=10]).await;
    node.hot_log.trim(&room("lobby"), u64::MAX).await.unwrap();
    assert_eq!(span(&node, "lobby").await.oldest, 11);
    assert_eq!(append_message(&node, "lobby", "eleven").await.seq, 11);
}
