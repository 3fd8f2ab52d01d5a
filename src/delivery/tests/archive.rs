//! Joins of rooms whose older messages are in an archive.

use super::*;
use crate::backplane::{BackplaneKind, Counters, Lifecycle, NewChange};

/// The last messages that the log keeps by itself.
const KEPT: u64 = 10;

/// The end of an epoch that only the archive knows, and doesn't list.
const OLD_EPOCH_END: u64 = 400;

/// The embedded log with an archive that has every message.
struct ArchivedLog {
    hot: Arc<dyn RoomLog>,
    archive: Mutex<Vec<Entry>>,
    is_down: AtomicBool,
    /// The message that can't be decoded.
    broken: AtomicU64,
    reached: AtomicUsize,
}

impl ArchivedLog {
    fn extend(&self, span: LogSpan) -> LogSpan {
        if self.is_down.load(Ordering::SeqCst) {
            return LogSpan {
                is_cut_off: true,
                ..span
            };
        }
        LogSpan {
            oldest: 1,
            first: 1,
            ..span
        }
    }

    fn reached(&self) -> usize {
        self.reached.swap(0, Ordering::SeqCst)
    }
}

#[async_trait]
impl RoomLog for ArchivedLog {
    async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
        let appended = self.hot.append(message, key).await?;
        let last = self.hot.read(&message.room, Window::Newest, 1, 1).await?;
        self.archive.lock().extend(last.entries);
        Ok(appended)
    }

    async fn announce_all(
        &self,
        room: &RoomId,
        changes: &[NewChange],
    ) -> (Vec<Appended>, Result<()>) {
        self.hot.announce_all(room, changes).await
    }

    async fn read(&self, room: &RoomId, window: Window, limit: usize, max: usize) -> Result<Slice> {
        let hot = self.hot.read(room, window, limit, max).await?;
        let (from, is_in_log) = match window {
            Window::After(seq) => (seq, seq + 1 >= hot.span.oldest),
            Window::Before(seq) => ((seq - 1).saturating_sub(limit as u64), false),
            Window::Newest => return Ok(hot),
        };
        let is_down = self.is_down.load(Ordering::SeqCst);
        // While the archive is away, fewer messages before a position are better than none.
        if is_in_log || is_down && matches!(window, Window::Before(_)) && !hot.entries.is_empty() {
            return Ok(hot);
        }
        if is_down {
            return Err(BackplaneError::Unavailable("on purpose".into()));
        }
        let archive = self.archive.lock();
        let after = archive.iter().filter(|entry| entry.seq > from);
        let entries: Vec<Entry> = after.take(limit).cloned().collect();
        let broken = self.broken.load(Ordering::SeqCst);
        if entries.iter().any(|entry| entry.seq == broken) {
            return Err(BackplaneError::Unreadable("on purpose".into()));
        }
        Ok(Slice {
            entries,
            span: self.extend(hot.span),
            traces: hot.traces,
        })
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        self.hot.heads(rooms).await
    }

    async fn reach(&self, _: &RoomId, span: LogSpan, seen: Option<&Epoch>) -> LogSpan {
        self.reached.fetch_add(1, Ordering::SeqCst);
        let mut span = self.extend(span);
        let old = Head {
            epoch: Epoch::trusted("old"),
            seq: OLD_EPOCH_END,
        };
        if seen == Some(&old.epoch) {
            span.past.push(old);
        }
        span
    }
}

/// A backplane with so many messages in its room.
async fn archived(messages: u64) -> (Backplane, Arc<ArchivedLog>) {
    let inner = memory::embedded(BackplaneLimits {
        history_size: KEPT as usize,
        ..BackplaneLimits::default()
    });
    let log = Arc::new(ArchivedLog {
        hot: inner.log.clone(),
        archive: Mutex::default(),
        is_down: AtomicBool::new(false),
        broken: AtomicU64::new(0),
        reached: AtomicUsize::new(0),
    });
    let backplane = Backplane {
        log: log.clone(),
        ..inner
    };
    for _ in 0..messages {
        say(&backplane, "x").await;
    }
    (backplane, log)
}

fn since(seq: u64, limit: impl Into<Option<u64>>) -> ReplayFrom {
    ReplayFrom::Since {
        seq,
        epoch: None,
        limit: limit.into(),
    }
}

fn in_lost_epoch(limit: impl Into<Option<u64>>) -> ReplayFrom {
    ReplayFrom::Since {
        seq: 3,
        epoch: Some(Epoch::trusted("lost")),
        limit: limit.into(),
    }
}

fn in_old_epoch(seq: u64) -> ReplayFrom {
    ReplayFrom::Since {
        seq,
        epoch: Some(Epoch::trusted("old")),
        limit: None,
    }
}

/// Joins or listens; the join must be refused, and must not call back.
async fn is_refused(delivery: &Delivery, outlet: &Arc<Recorder>, start: ReplayFrom, listens: bool) {
    let has_called_back = Arc::new(AtomicBool::new(false));
    let on_joined = {
        let has_called_back = has_called_back.clone();
        Box::new(move |_: &JoinOutcome| has_called_back.store(true, Ordering::SeqCst))
    };
    let refused = if listens {
        delivery
            .listen(room(), outlet.clone(), start, on_joined)
            .await
    } else {
        let username = Username::from(&outlet.user);
        delivery
            .join(room(), outlet.clone(), username, start, on_joined)
            .await
    };
    assert!(matches!(refused, Err(BackplaneError::Unavailable(_))));
    assert!(!has_called_back.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_replay_begins_as_far_back_as_the_archive_reaches_and_the_limit_allows() {
    let (backplane, log) = archived(500).await;
    let delivery = start(&backplane, 1, 500);
    for (from, first, recovered, reads_archive) in [
        (ReplayFrom::Live, 501, false, 0),
        (ReplayFrom::Last(10), 491, false, 0),
        (ReplayFrom::Last(200), 301, false, 1),
        (since(490, None), 491, true, 0),
        (since(489, None), 490, true, 1),
        (since(0, None), 1, true, 1),
        (since(500, 1), 501, true, 0),
        (since(499, 1), 500, true, 0),
        (since(498, 1), 500, false, 0),
        (since(100, 400), 101, true, 1),
        (since(100, 399), 102, false, 1),
        (since(0, 10_000), 1, true, 1),
        // After a loss: the newest messages, as many as a log keeps without an archive.
        (since(501, None), 491, false, 1),
        (in_lost_epoch(None), 491, false, 1),
        (in_lost_epoch(5), 496, false, 1),
        (in_lost_epoch(20), 481, false, 1),
        (in_lost_epoch(10_000), 1, false, 1),
        // An epoch that the archive finds for the client.
        (in_old_epoch(3), 4, true, 1),
        (in_old_epoch(OLD_EPOCH_END), 401, true, 1),
        (in_old_epoch(OLD_EPOCH_END + 1), 491, false, 1),
    ] {
        let ann = Recorder::new("ann");
        let gap = matches!(from, ReplayFrom::Since { .. }) && !recovered;
        let outcome = join(&delivery, &ann, from.clone()).await;
        assert_eq!(
            (outcome.recovered, outcome.gap),
            (recovered, gap),
            "{from:?}"
        );
        assert_eq!(outcome.replayed, 501 - first, "{from:?}");
        assert!(ann.seqs().into_iter().eq(first..=500), "{from:?}");
        assert_eq!(log.reached(), reads_archive, "{from:?}");
        delivery.leave(&room(), &ann.conn).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_that_needs_the_archive_fails_while_it_is_away() {
    let (backplane, log) = archived(100).await;
    let delivery = start(&backplane, 1, 500);
    log.is_down.store(true, Ordering::SeqCst);
    let (ann, bob) = (Recorder::new("ann"), Recorder::new("bob"));
    for from in [since(89, None), since(0, 11), since(0, 1000)] {
        is_refused(&delivery, &ann, from, false).await;
    }
    is_refused(&delivery, &ann, since(0, None), true).await;
    is_refused(&delivery, &ann, ReplayFrom::Last(11), false).await;
    is_refused(&delivery, &ann, in_lost_epoch(11), false).await;
    assert!(join(&delivery, &bob, since(90, None)).await.recovered);
    say(&backplane, "x").await;
    eventually("bob is live", || bob.seqs().last() == Some(&101)).await;
    assert_eq!(ann.story(), [""; 0], "not attached");
    // What the log itself has is enough.
    let gap = join(&delivery, &ann, since(0, 10)).await;
    assert_eq!((gap.recovered, gap.gap, gap.replayed), (false, true, 10));
    // A further join that fails leaves the connection where it is.
    is_refused(&delivery, &ann, since(0, None), false).await;
    say(&backplane, "x").await;
    eventually("ann is live", || ann.seqs().last() == Some(&102)).await;
    log.is_down.store(false, Ordering::SeqCst);
    assert!(join(&delivery, &ann, since(0, None)).await.recovered);
}

/// A join of everything, whose replay has begun before the archive is away.
async fn replay_without_archive(
    delivery: &Arc<Delivery>,
    log: &ArchivedLog,
    ann: &Arc<Recorder>,
) -> tokio::task::JoinHandle<JoinOutcome> {
    ann.full.store(true, Ordering::SeqCst);
    let joining = {
        let (delivery, ann) = (delivery.clone(), ann.clone());
        tokio::spawn(async move { join(&delivery, &ann, since(0, None)).await })
    };
    eventually("the replay waits", || !ann.wakers.lock().is_empty()).await;
    log.is_down.store(true, Ordering::SeqCst);
    ann.drain();
    joining
}

#[tokio::test(start_paused = true)]
async fn a_replay_goes_on_when_the_archive_returns_in_time() {
    let (backplane, log) = archived(500).await;
    let delivery = Arc::new(start(&backplane, 1, 500));
    let ann = Recorder::new("ann");
    let joining = replay_without_archive(&delivery, &log, &ann).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!((ann.seqs(), joining.is_finished()), (vec![], false));
    log.is_down.store(false, Ordering::SeqCst);
    assert_eq!(joining.await.unwrap().replayed, 500);
    assert!(ann.seqs().into_iter().eq(1..=500));
    assert!(!ann.closed.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_cannot_be_read_for_long_closes_its_connection() {
    let (backplane, log) = archived(500).await;
    let delivery = Arc::new(start(&backplane, 1, 500));
    let (ann, bob) = (Recorder::new("ann"), Recorder::new("bob"));
    join(&delivery, &bob, ReplayFrom::Live).await;
    let joining = replay_without_archive(&delivery, &log, &ann).await;
    let ended = tokio::time::timeout(Duration::from_secs(12), joining).await;
    assert_eq!(ended.unwrap().unwrap().replayed, 500, "as promised");
    assert!(ann.closed.load(Ordering::SeqCst));
    assert!(ann.seqs().is_empty());
    // Others of the room are not affected, nor are later replays.
    say(&backplane, "x").await;
    eventually("bob is live", || bob.seqs() == [501]).await;
    log.is_down.store(false, Ordering::SeqCst);
    let ann = Recorder::new("ann");
    assert!(join(&delivery, &ann, since(0, None)).await.recovered);
    assert!(ann.seqs().into_iter().eq(1..=501));
}

#[tokio::test(start_paused = true)]
async fn a_replay_within_the_log_does_not_wait_behind_one_that_needs_the_archive() {
    let (backplane, log) = archived(500).await;
    let delivery = Arc::new(start(&backplane, 1, 500));
    let (ann, bob) = (Recorder::new("ann"), Recorder::new("bob"));
    let joining = replay_without_archive(&delivery, &log, &ann).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let joined = join(&delivery, &bob, since(495, None));
    let joined = tokio::time::timeout(Duration::from_secs(1), joined).await;
    assert_eq!(joined.unwrap().replayed, 5);
    assert!(bob.seqs().into_iter().eq(496..=500));
    joining.await.unwrap();
    assert!(ann.closed.load(Ordering::SeqCst));
    assert!(!bob.closed.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_replay_with_a_broken_message_is_closed_at_once_and_no_other_one() {
    for broken in [3, 128, 129, 250] {
        let (backplane, log) = archived(500).await;
        let delivery = Arc::new(start(&backplane, 1, 500));
        log.broken.store(broken, Ordering::SeqCst);
        let (ann, bob, cy) = (
            Recorder::new("ann"),
            Recorder::new("bob"),
            Recorder::new("cy"),
        );
        let joins = async {
            tokio::join!(
                join(&delivery, &ann, since(0, None)),
                join(&delivery, &bob, since(broken, None)),
                join(&delivery, &cy, since(broken - 1, None)),
            )
        };
        let joined = tokio::time::timeout(Duration::from_secs(1), joins).await;
        assert!(joined.is_ok(), "{broken}");
        assert!(ann.closed.load(Ordering::SeqCst));
        assert!(cy.closed.load(Ordering::SeqCst));
        assert!(!bob.closed.load(Ordering::SeqCst), "{broken}");
        assert!(bob.seqs().into_iter().eq(broken + 1..=500));
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_waits_for_a_backplane_that_is_down() {
    let (backplane, log) = archived(500).await;
    let lifecycle = Arc::new(Outage {
        inner: backplane.lifecycle.clone(),
        is_up: AtomicBool::new(true),
    });
    let backplane = Backplane {
        lifecycle: lifecycle.clone(),
        ..backplane
    };
    let delivery = Arc::new(start(&backplane, 1, 500));
    let ann = Recorder::new("ann");
    let joining = replay_without_archive(&delivery, &log, &ann).await;
    lifecycle.is_up.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    lifecycle.is_up.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(
        !ann.closed.load(Ordering::SeqCst),
        "no connection could resume"
    );
    log.is_down.store(false, Ordering::SeqCst);
    assert_eq!(joining.await.unwrap().replayed, 500);
}

/// A backplane that reports to be down.
struct Outage {
    inner: Arc<dyn Lifecycle>,
    is_up: AtomicBool,
}

#[async_trait]
impl Lifecycle for Outage {
    fn kind(&self) -> BackplaneKind {
        self.inner.kind()
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn is_up(&self) -> bool {
        self.is_up.load(Ordering::SeqCst)
    }
    async fn deployment(&self) -> Result<Option<String>> {
        self.inner.deployment().await
    }
    fn counters(&self) -> Counters {
        self.inner.counters()
    }
    async fn stop(&self) {
        self.inner.stop().await;
    }
}
