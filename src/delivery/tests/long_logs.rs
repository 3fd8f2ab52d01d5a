//! Feeds and replays over a log whose archive reaches back to the first message.

use super::*;
use crate::backplane::NewChange;

/// The newest messages, those that a log keeps without an archive.
const RECENT: u64 = 1000;
/// The most messages that one read may return: those of a room's tail.
const MOST_PER_READ: usize = 1024;

/// A log that counts its reads and what they return. Of so many reads one fails.
struct CountingLog {
    inner: Arc<FakeLog>,
    reads: AtomicU64,
    returned: Mutex<Vec<usize>>,
    fails_every: u64,
}

#[async_trait]
impl RoomLog for CountingLog {
    async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
        self.inner.append(message, key).await
    }
    async fn announce_all(
        &self,
        room: &RoomId,
        changes: &[NewChange],
    ) -> (Vec<Appended>, Result<()>) {
        self.inner.announce_all(room, changes).await
    }

    async fn read(&self, room: &RoomId, window: Window, limit: usize, max: usize) -> Result<Slice> {
        let number = self.reads.fetch_add(1, Ordering::SeqCst) + 1;
        if number.is_multiple_of(self.fails_every) {
            return Err(BackplaneError::Unavailable("on purpose".into()));
        }
        let slice = self.inner.read(room, window, limit, max).await?;
        self.returned.lock().push(slice.entries.len());
        Ok(slice)
    }
    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
        self.inner.heads(rooms).await
    }
}

/// A backplane with these messages in its room, all of which can be read.
fn archived(messages: u64, fails_every: u64) -> (Backplane, Arc<CountingLog>) {
    let (backplane, log) = fake();
    fill(&log, 1..=messages);
    let log = Arc::new(CountingLog {
        inner: log,
        reads: AtomicU64::new(0),
        returned: Mutex::default(),
        fails_every,
    });
    let backplane = Backplane {
        log: log.clone(),
        ..backplane
    };
    (backplane, log)
}

/// Adds messages to a log that begins with its first message.
fn fill(log: &FakeLog, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        log.add(seq);
    }
    let (_, span) = &mut *log.state.lock();
    (span.first, span.oldest) = (1, 1);
    span.recent = span.head.seq.saturating_sub(RECENT - 1).max(1);
}

fn from_first() -> ReplayFrom {
    ReplayFrom::Since {
        seq: 0,
        epoch: None,
        limit: None,
    }
}

/// A live occupant that has the room's messages.
async fn live(delivery: &Delivery) -> Arc<Recorder> {
    let ann = Recorder::new("ann");
    join(delivery, &ann, from_first()).await;
    ann.seen.lock().clear();
    ann
}

#[tokio::test(start_paused = true)]
async fn a_replay_of_fifty_thousand_messages_is_read_in_pages_and_has_no_hole() {
    let (backplane, log) = archived(50_000, 7);
    let delivery = Arc::new(start(&backplane, 1, 500));
    let ann = Recorder::new("ann");
    ann.full.store(true, Ordering::SeqCst);
    let joining = {
        let (delivery, ann) = (delivery.clone(), ann.clone());
        tokio::spawn(async move { join(&delivery, &ann, from_first()).await })
    };
    eventually("the replay waits", || !ann.wakers.lock().is_empty()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(
        log.reads.load(Ordering::SeqCst) <= 1,
        "no page is read ahead of its reader"
    );
    ann.drain();
    eventually("a part of the replay", || ann.seqs().len() > 20_000).await;
    for seq in 50_001..=50_010 {
        let entry = log.inner.add(seq);
        delivery.queues.event(BusEvent::Message(room(), entry));
    }
    let outcome = joining.await.unwrap();
    assert_eq!((outcome.recovered, outcome.replayed), (true, 50_000));
    eventually("ann is live", || ann.seqs().last() == Some(&50_010)).await;
    assert!(ann.seqs().into_iter().eq(1..=50_010));
    let most = log.returned.lock().iter().copied().max();
    assert!(most <= Some(MOST_PER_READ), "{most:?}");
}

#[tokio::test(start_paused = true)]
async fn a_feed_whose_epoch_is_lost_goes_on_with_the_recent_messages() {
    let (backplane, log) = archived(5, u64::MAX);
    let delivery = start(&backplane, 1, 500);
    let ann = live(&delivery).await;
    log.inner.lose_all("e2");
    fill(&log.inner, 1..=30_000);
    delivery.queues.interrupted(None);
    eventually("ann has all", || ann.seqs().last() == Some(&30_000)).await;
    assert_eq!(ann.story()[0], "reset e2 29000.. None");
    assert!(ann.seqs().into_iter().eq(29_001..=30_000));
}

#[tokio::test(start_paused = true)]
async fn a_feed_whose_epoch_ended_long_ago_goes_on_with_the_recent_messages() {
    let (backplane, log) = archived(5, u64::MAX);
    let delivery = start(&backplane, 1, 500);
    let ann = live(&delivery).await;
    log.inner.roll_back(3, "e2");
    fill(&log.inner, 4..=30_000);
    delivery.queues.interrupted(None);
    eventually("ann has all", || ann.seqs().last() == Some(&30_000)).await;
    assert_eq!(ann.story()[0], "reset e2 29000.. Some(4)");
    assert!(ann.seqs().into_iter().eq(29_001..=30_000));
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_missed_messages_of_its_epoch_reads_all_of_them() {
    let (backplane, log) = archived(5, 5);
    let delivery = start(&backplane, 1, 500);
    let ann = live(&delivery).await;
    log.returned.lock().clear();
    fill(&log.inner, 6..=10_000);
    delivery.queues.interrupted(None);
    eventually("ann has all", || ann.seqs().last() == Some(&10_000)).await;
    assert_eq!(ann.story().len(), 9_995, "no reset");
    assert!(ann.seqs().into_iter().eq(6..=10_000));
    let most = log.returned.lock().iter().copied().max();
    assert!(most <= Some(MOST_PER_READ), "{most:?}");
}
