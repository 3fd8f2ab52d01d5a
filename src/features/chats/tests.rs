//! The rights that a node knows: how long, and until which change.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use super::*;
use crate::backplane::{BackplaneLimits, memory};
use crate::delivery::ChatFeed;
use crate::domain::{ChatMember, ChatRole, Rates, RoomId, Timestamp, UserId};
use crate::store::{ChatChange, ChatOfMember, ChatOutcome, NewGroup as StoredGroup, Result};

/// A store with one right. Its reads wait for permits after they have read.
pub(crate) struct OneRight {
    pub right: Mutex<Option<Membership>>,
    reads: AtomicUsize,
    pub permits: Semaphore,
    is_away: AtomicBool,
    /// How often a change finds that the archive is behind the log.
    behind: AtomicUsize,
    /// The heads that changes were given.
    heads: Mutex<Vec<Option<u64>>>,
    /// A user that is removed again after each change.
    gone: Mutex<Option<Uuid>>,
}

impl OneRight {
    pub fn new(permits: usize) -> Arc<Self> {
        let right = Membership {
            role: ChatRole::Member,
            hidden_seq: 0,
        };
        Arc::new(Self {
            right: Mutex::new(Some(right)),
            reads: AtomicUsize::new(0),
            permits: Semaphore::new(permits),
            is_away: AtomicBool::new(false),
            behind: AtomicUsize::new(0),
            heads: Mutex::default(),
            gone: Mutex::default(),
        })
    }

    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }
}

/// A node without a feed of the chat.
fn no_feed() -> Option<ChatFeed> {
    None
}

/// The feed of the chat, which is not interrupted.
fn feed() -> Option<ChatFeed> {
    Some(ChatFeed {
        number: 1,
        is_current: true,
    })
}

fn code(found: std::result::Result<Option<Membership>, Refusal>) -> Code {
    found.unwrap_err().code
}

#[async_trait]
impl ChatStore for OneRight {
    async fn membership(&self, _: Uuid, _: Uuid) -> Result<Option<Membership>> {
        let right = *self.right.lock();
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        if self.is_away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("on purpose".to_owned()));
        }
        Ok(right)
    }

    async fn direct_chat(&self, _: [Uuid; 2]) -> Result<Option<Uuid>> {
        unreachable!("tests read rights only")
    }

    async fn open_direct(
        &self,
        _: Uuid,
        _: Uuid,
        _: Uuid,
        _: Announce,
    ) -> Result<ChatOutcome<(Uuid, bool)>> {
        unreachable!("tests read rights only")
    }

    async fn create_group(&self, _: StoredGroup, _: Announce) -> Result<ChatOutcome<()>> {
        unreachable!("tests read rights only")
    }

    async fn chats(&self, _: Uuid, _: Option<ChatPosition>, _: usize) -> Result<Vec<ChatOfMember>> {
        unreachable!("tests read rights only")
    }

    async fn chat(&self, _: Uuid, _: Uuid) -> Result<Option<ChatOfMember>> {
        unreachable!("tests read rights only")
    }

    async fn chat_members(&self, _: Uuid, _: Option<Uuid>, _: usize) -> Result<Vec<ChatMember>> {
        unreachable!("tests read rights only")
    }

    async fn chat_member(&self, _: Uuid, user: Uuid) -> Result<Option<ChatMember>> {
        if *self.gone.lock() == Some(user) {
            return Ok(None);
        }
        Ok(Some(ChatMember {
            user: UserId::trusted(&user.to_string()),
            username: "bob".to_owned(),
            display_name: "Bob".to_owned(),
            role: ChatRole::Member,
            joined_at: Timestamp(0),
        }))
    }

    async fn change_chat(
        &self,
        _: Uuid,
        _: Uuid,
        change: ChatChange,
        _: Announce,
    ) -> Result<ChatOutcome<Vec<UserId>>> {
        if let ChatChange::Add { head, .. } = change {
            self.heads.lock().push(head);
        }
        let one_less = |behind: usize| behind.checked_sub(1);
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        Ok(match self.behind.fetch_update(set, fetch, one_less) {
            Ok(_) => Err(ChatRefusal::NotArchived),
            Err(_) => Ok(Vec::new()),
        })
    }
}

fn room_and_user() -> (RoomId, UserId) {
    let user = UserId::trusted("01890000-0000-7000-8000-000000000000");
    (RoomId::chat(Uuid::now_v7()), user)
}

#[tokio::test(start_paused = true)]
async fn a_right_is_known_for_half_a_second_or_until_it_changes() {
    let store = OneRight::new(100);
    let memberships = Arc::new(Memberships::new(store.clone()));
    let (room, user) = room_and_user();
    let has_right = async || {
        memberships
            .find(&room, &user, no_feed)
            .await
            .unwrap()
            .is_some()
    };
    for _ in 0..3 {
        assert!(has_right().await);
    }
    assert_eq!(store.reads(), 1);
    *store.right.lock() = None;
    memberships.changed(&room, &user);
    assert!(!has_right().await && !has_right().await);
    assert_eq!(store.reads(), 3, "that there is no right is not known");
    let right = Membership {
        role: ChatRole::Owner,
        hidden_seq: 7,
    };
    *store.right.lock() = Some(right);
    assert_eq!(
        memberships.find(&room, &user, no_feed).await.unwrap(),
        Some(right)
    );
    // A change that this node hears nothing of.
    *store.right.lock() = None;
    tokio::time::advance(Duration::from_millis(499)).await;
    assert!(has_right().await);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!has_right().await);
}

#[tokio::test]
async fn what_was_read_before_a_change_is_not_kept_after_it() {
    let store = OneRight::new(0);
    let memberships = Arc::new(Memberships::new(store.clone()));
    let (room, user) = room_and_user();
    let reading = tokio::spawn({
        let (memberships, room, user) = (memberships.clone(), room.clone(), user.clone());
        async move { memberships.find(&room, &user, no_feed).await.unwrap() }
    });
    while store.reads() == 0 {
        tokio::task::yield_now().await;
    }
    *store.right.lock() = None;
    memberships.changed(&room, &user);
    store.permits.add_permits(10);
    assert!(
        reading.await.unwrap().is_some(),
        "it began before the change"
    );
    assert_eq!(memberships.find(&room, &user, no_feed).await.unwrap(), None);
}

#[tokio::test]
async fn a_room_that_is_no_chat_and_a_user_without_an_account_cost_no_read() {
    let store = OneRight::new(0);
    let memberships = Arc::new(Memberships::new(store.clone()));
    let (room, user) = room_and_user();
    for (room, user) in [
        (RoomId::trusted("lobby"), user.clone()),
        (RoomId::personal(&user), user.clone()),
        (room, UserId::trusted("ann")),
    ] {
        assert_eq!(memberships.find(&room, &user, no_feed).await.unwrap(), None);
    }
    assert_eq!(store.reads(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_known_right_goes_on_while_the_store_is_away_and_the_feed_hears_every_change() {
    let store = OneRight::new(100);
    let memberships = Arc::new(Memberships::new(store.clone()));
    let (room, user) = room_and_user();
    let stranger = UserId::trusted(&Uuid::now_v7().to_string());
    let find = async |feed: Option<ChatFeed>| memberships.find(&room, &user, || feed).await;
    let right = find(feed()).await.unwrap();
    assert!(right.is_some());
    store.set_away(true);
    tokio::time::advance(Duration::from_millis(500)).await;
    for _ in 0..10 {
        assert_eq!(find(feed()).await, Ok(right));
    }
    assert_eq!(store.reads(), 2, "a failed read is not repeated at once");
    let unknown = memberships.find(&room, &stranger, feed).await;
    assert_eq!(code(unknown), Code::Unavailable);
    assert_eq!(store.reads(), 2);
    tokio::time::advance(Duration::from_secs(1)).await;
    for _ in 0..10 {
        assert_eq!(find(feed()).await, Ok(right));
        assert_eq!(memberships.stored(&room, &user, feed).await, Ok(right));
    }
    assert_eq!(store.reads(), 3, "one read each second");
    // The feed may have missed a change.
    let heard = feed().unwrap();
    let is_behind = ChatFeed {
        is_current: false,
        ..heard
    };
    let is_reset = ChatFeed { number: 2, ..heard };
    for feed in [Some(is_behind), Some(is_reset), None] {
        assert_eq!(code(find(feed).await), Code::Unavailable, "{feed:?}");
    }
    assert_eq!(find(feed()).await, Ok(right));
    memberships.changed(&room, &user);
    assert_eq!(code(find(feed()).await), Code::Unavailable);
    // The store is back.
    store.set_away(false);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(find(feed()).await, Ok(right));
    *store.right.lock() = None;
    tokio::time::advance(Duration::from_millis(500)).await;
    assert_eq!(find(feed()).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_right_that_was_read_before_the_feed_began_ends_with_its_lifetime() {
    let store = OneRight::new(100);
    let memberships = Arc::new(Memberships::new(store.clone()));
    let (room, user) = room_and_user();
    assert!(memberships.find(&room, &user, no_feed).await.is_ok());
    store.set_away(true);
    tokio::time::advance(Duration::from_millis(499)).await;
    assert!(memberships.find(&room, &user, feed).await.is_ok());
    tokio::time::advance(Duration::from_millis(1)).await;
    let found = memberships.find(&room, &user, feed).await;
    assert_eq!(code(found), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_known_right_replaces_a_read_that_takes_long_until_the_read_ends() {
    let store = OneRight::new(1);
    let memberships = Arc::new(Memberships::new(store.clone()));
    let (room, user) = room_and_user();
    let find = async || {
        let begun = Instant::now();
        let found = memberships.find(&room, &user, feed).await;
        (found.unwrap(), begun.elapsed())
    };
    let (right, _) = find().await;
    *store.right.lock() = None;
    tokio::time::advance(Duration::from_millis(500)).await;
    assert_eq!(find().await, (right, Duration::from_millis(250)));
    for _ in 0..10 {
        assert_eq!(find().await, (right, Duration::ZERO));
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(find().await, (right, Duration::from_millis(250)));
    assert_eq!(store.reads(), 3);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(
        find().await,
        (right, Duration::ZERO),
        "the probe still waits"
    );
    assert_eq!(store.reads(), 3);
    // A user without a known right waits for the database, which may only be slow.
    let stranger = UserId::trusted(&Uuid::now_v7().to_string());
    let unknown = tokio::spawn({
        let (memberships, room) = (memberships.clone(), room.clone());
        async move { memberships.find(&room, &stranger, feed).await }
    });
    while store.reads() < 4 {
        tokio::task::yield_now().await;
    }
    store.permits.add_permits(10);
    assert_eq!(unknown.await.unwrap(), Ok(None));
    assert_eq!(find().await, (None, Duration::ZERO));
}

fn chats_of(store: &Arc<OneRight>) -> (Chats, Actor) {
    let chats = Chats::new(
        store.clone(),
        memory::embedded(BackplaneLimits::default()).log,
        Arc::new(Memberships::new(store.clone())),
        Arc::new(UserRateLimiter::new(Rates::default(), None)),
    );
    let actor = Actor {
        user: Uuid::now_v7(),
        chat: Uuid::now_v7(),
    };
    (chats, actor)
}

#[tokio::test]
async fn adding_members_reads_the_head_where_it_counts_and_leaves_out_removed_ones() {
    let store = OneRight::new(100);
    let (chats, actor) = chats_of(&store);
    let [bob, carol] = [0, 1].map(|_| Uuid::now_v7());
    let users = [bob, carol].map(|user| user.to_string());
    let add = async || chats.add_members(actor, &users, ChatRole::Member).await;
    assert_eq!(add().await.unwrap().len(), 2);
    assert_eq!(std::mem::take(&mut *store.heads.lock()), [None]);
    store.behind.store(1, Ordering::SeqCst);
    *store.gone.lock() = Some(bob);
    let added = add().await.unwrap();
    assert_eq!(added.len(), 1, "bob was removed meanwhile");
    assert_eq!(added[0].user.as_str(), carol.to_string());
    assert_eq!(*store.heads.lock(), [None, Some(0)]);
}

#[tokio::test(start_paused = true)]
async fn adding_a_member_waits_for_the_archive_but_not_for_ever() {
    let store = OneRight::new(100);
    let (chats, actor) = chats_of(&store);
    let bob = [Uuid::now_v7().to_string()];
    let add = async || chats.add_members(actor, &bob, ChatRole::Member).await;
    store.behind.store(10, Ordering::SeqCst);
    assert_eq!(add().await.unwrap().len(), 1);
    store.behind.store(usize::MAX, Ordering::SeqCst);
    let begun = tokio::time::Instant::now();
    assert_eq!(add().await.unwrap_err().code, Code::Unavailable);
    assert!((2..3).contains(&begun.elapsed().as_secs()));
}
