//! Tests of waiting for announcements.

use async_trait::async_trait;

use super::*;
use crate::store::Result;
use crate::store::testing::{FakeMessages, MessageCalls};

/// The revisions that another node has published.
type Elsewhere = FakeMessages<Mutex<HashMap<u64, u64>>>;

#[async_trait]
impl MessageCalls for Mutex<HashMap<u64, u64>> {
    async fn published(&self, _: &RoomId, _: u64, revision: u64) -> Result<Option<u64>> {
        Ok(self.lock().get(&revision).copied())
    }
}

fn room() -> RoomId {
    RoomId::trusted("lobby")
}

fn row(revision: u64) -> ChangeRow {
    ChangeRow {
        id: uuid::Uuid::nil(),
        target_seq: 7,
        revision,
        user_id: None,
    }
}

fn publications() -> (Arc<Publications>, Arc<Elsewhere>) {
    let elsewhere = Arc::new(FakeMessages(Mutex::default()));
    (Publications::new(elsewhere.clone()), elsewhere)
}

#[tokio::test(start_paused = true)]
async fn a_call_is_notified_at_once() {
    let (publications, _) = publications();
    let (room, began) = (room(), Instant::now());
    let wait = publications.wait(&room, 7, 3);
    let add = async {
        tokio::time::sleep(Duration::from_millis(3)).await;
        publications.announced(&room, &row(2), 20);
        publications.announced(&room, &row(3), 30);
    };
    let (published, ()) = tokio::join!(wait, add);
    assert_eq!(published, Ok(30));
    assert_eq!(began.elapsed(), Duration::from_millis(3));
    // Also if that was before the call.
    let published = publications.wait(&room, 7, 2).await;
    assert_eq!(published, Ok(20));
    assert_eq!(began.elapsed(), Duration::from_millis(3));
    assert_eq!(publications.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_depends_on_a_change_waits_for_its_record() {
    let (publications, _) = publications();
    let (room, began) = (room(), Instant::now());
    publications.announced(&room, &row(3), 30);
    let wait = publications.wait_for_earlier(&room, 7, 3);
    let record = async {
        tokio::time::sleep(Duration::from_millis(3)).await;
        publications.recorded(&room, &row(3), 30);
    };
    let (published, ()) = tokio::join!(wait, record);
    assert_eq!(published, Ok(30));
    assert_eq!(began.elapsed(), Duration::from_millis(3));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_another_node_publishes_ends_the_wait() {
    let (publications, elsewhere) = publications();
    let (room, began) = (room(), Instant::now());
    let wait = publications.wait(&room, 7, 3);
    let publish = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        elsewhere.0.lock().insert(3, 30);
    };
    let (published, ()) = tokio::join!(wait, publish);
    assert_eq!(published, Ok(30));
    assert!(began.elapsed() <= Duration::from_millis(300));
    assert_eq!(publications.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_after_five_seconds() {
    let (publications, _) = publications();
    let began = Instant::now();
    let refused = publications.wait(&room(), 7, 3).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    assert_eq!(refused.text, "the change is made and will be announced");
    assert_eq!(began.elapsed(), WAIT_LIMIT);
    let refused = publications.wait_for_earlier(&room(), 7, 3).await;
    assert_eq!(refused.unwrap_err().code, Code::Unavailable);
    assert_eq!(publications.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_leaves_nothing_and_disturbs_no_other() {
    let (publications, _) = publications();
    let room = room();
    let wait = publications.wait(&room, 7, 3);
    let dropped = async {
        let other = publications.wait(&room, 7, 3);
        let limit = Duration::from_millis(20);
        tokio::time::timeout(limit, other).await.unwrap_err();
        assert_eq!(publications.waiting(), 1);
        publications.announced(&room, &row(3), 30);
    };
    let (published, ()) = tokio::join!(wait, dropped);
    assert_eq!(published, Ok(30));
    let state = publications.state.lock();
    assert_eq!((state.waiters, state.waiting.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_calls_that_wait_are_bounded() {
    let (publications, _) = publications();
    publications.state.lock().waiters = MAX_WAITING;
    let began = Instant::now();
    let refused = publications.wait(&room(), 7, 3).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded_and_expires() {
    let (publications, _) = publications();
    for revision in 0..=2 * MAX_KNOWN as u64 {
        publications.announced(&room(), &row(revision), revision);
    }
    assert_eq!(publications.known(), MAX_KNOWN);
    tokio::time::advance(KNOWN_FOR + Duration::from_secs(1)).await;
    publications.announced(&room(), &row(1), 1);
    assert_eq!(publications.known(), 1);
    // Reactions have no revision.
    publications.announced(&room(), &row(0), 1);
    assert_eq!(publications.known(), 1);
}
