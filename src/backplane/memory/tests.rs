//! The embedded backplane with an archive, by a paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{advance, sleep};

use super::{TTL_SWEEP, embedded_with_archive};
use crate::backplane::{
    ArchivedRanges, Backplane, BackplaneError, BackplaneLimits, HotState, RestorePoint,
    RestoreSource, Result, UnarchivedEntries, Window,
};
use crate::domain::{
    ConnId, Epoch, Head, Limits, MessageFields, NewMessage, RoomId, UserId, Username,
};

/// An archive of rooms that all end at the same entry.
#[derive(Default)]
struct Archive {
    calls: AtomicUsize,
    pages: AtomicUsize,
    head: u64,
    /// The time for a call, and for each page of entries.
    response_time: Duration,
}

impl Archive {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl RestoreSource for Archive {
    fn archive_id(&self) -> String {
        "archive".to_owned()
    }

    async fn restore_point(
        &self,
        _: &RoomId,
        _: Option<&HotState>,
        entries: &mut dyn UnarchivedEntries,
    ) -> Result<RestorePoint> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        sleep(self.response_time).await;
        while !entries.next_page().await?.is_empty() {
            self.pages.fetch_add(1, Ordering::SeqCst);
            sleep(self.response_time).await;
        }
        Ok(RestorePoint {
            head: Some(Head {
                epoch: Epoch::trusted("e1"),
                seq: self.head,
            }),
            past: Vec::new(),
            watermark: self.head,
            keep_entries: false,
            sends: Vec::new(),
        })
    }
}

fn start(limits: BackplaneLimits) -> (Backplane, Arc<Archive>) {
    let archive = Arc::new(Archive::default());
    (embedded_with_archive(limits, archive.clone()), archive)
}

fn room(name: &str) -> RoomId {
    RoomId::trusted(name)
}

async fn append(node: &Backplane, name: &str) -> Result<u64> {
    let user = UserId::trusted("ann");
    let fields = MessageFields {
        content: "hi".into(),
        ..MessageFields::default()
    };
    let username = Username::from(&user);
    let message = NewMessage::new(room(name), user, username, fields, &Limits::default());
    let appended = node.log.append(&message.unwrap(), None).await;
    appended.map(|appended| appended.seq)
}

async fn archived(node: &Backplane, name: &str, ranges: ArchivedRanges) {
    let archived = [(room(name), Epoch::trusted("e1"), ranges)];
    node.hot_log.advance_watermarks(&archived).await.unwrap();
}

/// The entries of a room, read without a use of the room; `None` if it isn't known.
async fn peek(node: &Backplane, name: &str) -> Option<Vec<u64>> {
    let room = room(name);
    let entries = node.hot_log.read_unarchived(&room, 0, 1000, usize::MAX);
    let entries = entries.await.unwrap()?;
    Some(entries.iter().map(|entry| entry.seq).collect())
}

/// The numbers of the entries that readers see.
async fn read(node: &Backplane, name: &str) -> Vec<u64> {
    let room = room(name);
    let slice = node.log.read(&room, Window::After(0), 1000, usize::MAX);
    let slice = slice.await.unwrap();
    slice.entries.iter().map(|entry| entry.seq).collect()
}

/// The rooms that are unarchived for so long.
async fn unarchived(node: &Backplane, seconds: u64, limit: usize) -> Vec<String> {
    let age = Duration::from_secs(seconds);
    let rooms = node.hot_log.unarchived(age, limit).await.unwrap();
    let rooms = rooms.iter().map(|found| found.room.to_string());
    rooms.collect()
}

async fn join(node: &Backplane, name: &str) -> Result<()> {
    let (conn, user) = (ConnId::trusted("c1"), UserId::trusted("ann"));
    let username = Username::from(&user);
    node.presence.connect(&conn, &user, &username).await?;
    let room = room(name);
    let joined = node.presence.join(&conn, &user, &username, &room).await;
    joined.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_room_with_unarchived_entries_is_not_removed() {
    let (node, archive) = start(BackplaneLimits {
        room_ttl: Duration::from_secs(60),
        ..BackplaneLimits::default()
    });
    for name in ["archived", "lobby"] {
        append(&node, name).await.unwrap();
        append(&node, name).await.unwrap();
    }
    archived(&node, "archived", vec![1..=2]).await;
    archived(&node, "lobby", vec![1..=1]).await;
    sleep(Duration::from_secs(60) + TTL_SWEEP).await;
    assert_eq!(peek(&node, "archived").await, None);
    assert_eq!(peek(&node, "lobby").await, Some(vec![1, 2]));
    archived(&node, "lobby", vec![2..=2]).await;
    sleep(TTL_SWEEP).await;
    assert_eq!(peek(&node, "lobby").await, None);
    // It continues from its restore point.
    assert_eq!(archive.calls(), 2);
    assert_eq!(append(&node, "lobby").await.unwrap(), 1);
    assert_eq!(archive.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_diverged_room_is_not_removed() {
    let (node, _) = start(BackplaneLimits {
        room_ttl: Duration::from_secs(60),
        ..BackplaneLimits::default()
    });
    append(&node, "lobby").await.unwrap();
    archived(&node, "lobby", vec![1..=1]).await;
    let diverged = node
        .hot_log
        .diverged(&room("lobby"), &Epoch::trusted("e1"), 0)
        .await;
    diverged.unwrap();
    sleep(Duration::from_secs(60) + TTL_SWEEP).await;
    assert_eq!(peek(&node, "lobby").await, Some(vec![1]));
}

#[tokio::test(start_paused = true)]
async fn unarchived_entries_do_not_expire() {
    let (node, _) = start(BackplaneLimits {
        history_ttl: Duration::from_secs(60),
        ..BackplaneLimits::default()
    });
    for _ in 0..3 {
        append(&node, "lobby").await.unwrap();
    }
    archived(&node, "lobby", vec![1..=1]).await;
    advance(Duration::from_secs(59)).await;
    assert_eq!(read(&node, "lobby").await, [1, 2, 3]);
    advance(Duration::from_secs(1)).await;
    assert_eq!(read(&node, "lobby").await, [2, 3]);
    archived(&node, "lobby", vec![2..=3]).await;
    assert_eq!(read(&node, "lobby").await, [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_room_is_unarchived_from_its_oldest_unarchived_entry_on() {
    let (node, _) = start(BackplaneLimits::default());
    append(&node, "lobby").await.unwrap();
    advance(Duration::from_secs(3)).await;
    append(&node, "attic").await.unwrap();
    append(&node, "lobby").await.unwrap();
    advance(Duration::from_secs(1)).await;
    assert_eq!(unarchived(&node, 5, 10).await, [""; 0]);
    advance(Duration::from_secs(1)).await;
    assert_eq!(unarchived(&node, 5, 10).await, ["lobby"]);
    advance(Duration::from_secs(3)).await;
    assert_eq!(unarchived(&node, 5, 10).await, ["attic"]);
    // A claim counts for the time that the next caller passes.
    assert_eq!(unarchived(&node, 3, 10).await, ["lobby"]);
    advance(Duration::from_secs(5)).await;
    archived(&node, "attic", vec![1..=1]).await;
    assert_eq!(unarchived(&node, 5, 10).await, ["lobby"]);
    // A room that was archived meanwhile begins anew.
    append(&node, "attic").await.unwrap();
    advance(Duration::from_secs(4)).await;
    assert_eq!(unarchived(&node, 5, 10).await, [""; 0]);
    advance(Duration::from_secs(1)).await;
    assert_eq!(unarchived(&node, 5, 10).await, ["attic", "lobby"]);
}

#[tokio::test(start_paused = true)]
async fn unarchived_rooms_are_returned_oldest_first_up_to_the_limit() {
    let (node, _) = start(BackplaneLimits::default());
    let names: Vec<_> = (10..20).map(|n| format!("room{n}")).collect();
    for name in &names {
        append(&node, name).await.unwrap();
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(unarchived(&node, 2, 4).await, names[..4]);
    assert_eq!(unarchived(&node, 2, 100).await, names[4..9]);
}

#[tokio::test(start_paused = true)]
async fn a_removed_room_that_returns_is_claimed_once() {
    let (node, _) = start(BackplaneLimits {
        room_ttl: Duration::from_secs(1),
        ..BackplaneLimits::default()
    });
    append(&node, "lobby").await.unwrap();
    archived(&node, "lobby", vec![1..=1]).await;
    sleep(2 * TTL_SWEEP).await;
    assert_eq!(peek(&node, "lobby").await, None);
    append(&node, "lobby").await.unwrap();
    advance(Duration::from_secs(5)).await;
    assert_eq!(unarchived(&node, 5, 10).await, ["lobby"]);
    assert_eq!(unarchived(&node, 5, 10).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_full_backplane_removes_the_room_that_is_unused_for_the_longest_time() {
    let (node, archive) = start(BackplaneLimits {
        rooms: 3,
        ..BackplaneLimits::default()
    });
    append(&node, "unarchived").await.unwrap();
    join(&node, "occupied").await.unwrap();
    append(&node, "archived").await.unwrap();
    archived(&node, "archived", vec![1..=1]).await;
    assert_eq!(append(&node, "new").await.unwrap(), 1);
    assert_eq!(peek(&node, "archived").await, None);
    let refused = append(&node, "another").await;
    assert!(matches!(refused, Err(BackplaneError::Full)), "{refused:?}");
    let refused = join(&node, "another").await;
    assert!(matches!(refused, Err(BackplaneError::Full)), "{refused:?}");
    assert_eq!(archive.calls(), 4, "a refused room is not restored");
    archived(&node, "new", vec![1..=1]).await;
    // After a search in vain the next one is made a second later.
    advance(Duration::from_secs(1)).await;
    assert_eq!(read(&node, "another").await, [0; 0]);
    assert_eq!(peek(&node, "unarchived").await, Some(vec![1]));
    assert!(
        node.presence
            .is_occupant(&room("occupied"), &UserId::trusted("ann"))
            .await
            .unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_room_is_never_removed() {
    let (node, _) = start(BackplaneLimits {
        rooms: 1,
        ..BackplaneLimits::default()
    });
    let broadcast = RoomId::broadcast();
    append(&node, broadcast.as_str()).await.unwrap();
    archived(&node, broadcast.as_str(), vec![1..=1]).await;
    assert!(matches!(
        append(&node, "new").await,
        Err(BackplaneError::Full)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_room_whose_restore_failed_takes_no_capacity() {
    let archive = Arc::new(Archive {
        response_time: Duration::from_secs(3600),
        ..Archive::default()
    });
    let limits = BackplaneLimits {
        rooms: 1,
        ..BackplaneLimits::default()
    };
    let node = embedded_with_archive(limits, archive.clone());
    for name in ["one", "two"] {
        let late = append(&node, name).await;
        assert!(
            matches!(late, Err(BackplaneError::Unavailable(_))),
            "{late:?}"
        );
    }
    assert_eq!(archive.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_64_rooms_are_restored_at_the_same_time() {
    let archive = Arc::new(Archive {
        response_time: Duration::from_secs(1),
        ..Archive::default()
    });
    let node = embedded_with_archive(BackplaneLimits::default(), archive.clone());
    let appends = (0..100).map(|n| {
        let node = node.clone();
        tokio::spawn(async move { append(&node, &n.to_string()).await })
    });
    let appends: Vec<_> = appends.collect();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(archive.calls(), 64);
    for append in appends {
        assert_eq!(append.await.unwrap().unwrap(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn unarchived_entries_survive_a_stop() {
    let (node, _) = start(BackplaneLimits {
        room_ttl: Duration::from_secs(1),
        history_size: 1,
        ..BackplaneLimits::default()
    });
    for _ in 0..3 {
        append(&node, "lobby").await.unwrap();
    }
    node.lifecycle.stop().await;
    sleep(2 * TTL_SWEEP).await;
    assert_eq!(unarchived(&node, 5, 10).await, ["lobby"]);
    assert_eq!(peek(&node, "lobby").await, Some(vec![1, 2, 3]));
    archived(&node, "lobby", vec![1..=3]).await;
    assert_eq!(peek(&node, "lobby").await, Some(vec![3]));
    assert_eq!(append(&node, "attic").await.unwrap(), 1);
}

/// With a paused clock: the archive takes 3 seconds for each page.
#[tokio::test(start_paused = true)]
async fn a_restore_with_many_entries_goes_on_although_calls_fail_after_four_seconds() {
    let archive = Arc::new(Archive {
        response_time: Duration::from_secs(3),
        ..Archive::default()
    });
    let node = embedded_with_archive(BackplaneLimits::default(), archive.clone());
    for _ in 0..1800 {
        append(&node, "lobby").await.unwrap();
    }
    archived(&node, "lobby", vec![2..=600]).await;
    let (lobby, epoch) = (room("lobby"), Epoch::trusted("e1"));
    node.hot_log.diverged(&lobby, &epoch, 0).await.unwrap();
    let began = tokio::time::Instant::now();
    let failed = append(&node, "lobby").await;
    assert!(
        matches!(failed, Err(BackplaneError::Unavailable(_))),
        "{failed:?}"
    );
    assert_eq!(began.elapsed(), Duration::from_secs(4));
    sleep(Duration::from_secs(12)).await;
    assert_eq!(append(&node, "lobby").await.unwrap(), 1);
    assert_eq!(archive.calls(), 2);
    // 1, 601 to 1100, 1101 to 1600, 1601 to 1800.
    assert_eq!(archive.pages.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_source_that_panics_fails_the_calls_that_wait() {
    struct Panicking;
    #[async_trait]
    impl RestoreSource for Panicking {
        fn archive_id(&self) -> String {
            "archive".to_owned()
        }

        async fn restore_point(
            &self,
            _: &RoomId,
            _: Option<&HotState>,
            _: &mut dyn UnarchivedEntries,
        ) -> Result<RestorePoint> {
            panic!("this panic is part of a test");
        }
    }
    let node = embedded_with_archive(BackplaneLimits::default(), Arc::new(Panicking));
    for _ in 0..2 {
        let failed = append(&node, "lobby").await;
        assert!(
            matches!(failed, Err(BackplaneError::Unavailable(_))),
            "{failed:?}"
        );
    }
}
