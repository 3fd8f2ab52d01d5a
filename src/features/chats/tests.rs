//! The rights that a node knows: how long, and until which change.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::*;
use crate::domain::{ChatMember, ChatRole, RoomId, UserId};
use crate::store::{ChatChange, ChatOfMember, ChatOutcome, NewGroup as StoredGroup, Result};

/// A store with one right, whose reads wait for permits after they have read.
struct OneRight {
    right: Mutex<Option<Membership>>,
    reads: AtomicUsize,
    permits: Semaphore,
}

impl OneRight {
    fn new(permits: usize) -> Arc<Self> {
        let right = Membership {
            role: ChatRole::Member,
            hidden_seq: 0,
        };
        Arc::new(Self {
            right: Mutex::new(Some(right)),
            reads: AtomicUsize::new(0),
            permits: Semaphore::new(permits),
        })
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl ChatStore for OneRight {
    async fn membership(&self, _: Uuid, _: Uuid) -> Result<Option<Membership>> {
        let right = *self.right.lock();
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        Ok(right)
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

    async fn chat_member(&self, _: Uuid, _: Uuid) -> Result<Option<ChatMember>> {
        unreachable!("tests read rights only")
    }

    async fn change_chat(
        &self,
        _: Uuid,
        _: Uuid,
        _: ChatChange,
        _: Announce,
    ) -> Result<ChatOutcome<Vec<UserId>>> {
        unreachable!("tests read rights only")
    }
}

fn room_and_user() -> (RoomId, UserId) {
    let user = UserId::trusted("01890000-0000-7000-8000-000000000000");
    (RoomId::chat(Uuid::now_v7()), user)
}

#[tokio::test(start_paused = true)]
async fn a_right_is_known_for_half_a_second_or_until_it_changes() {
    let store = OneRight::new(100);
    let memberships = Memberships::new(store.clone());
    let (room, user) = room_and_user();
    let has_right = async || memberships.find(&room, &user).await.unwrap().is_some();
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
    assert_eq!(memberships.find(&room, &user).await.unwrap(), Some(right));
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
        async move { memberships.find(&room, &user).await.unwrap() }
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
    assert_eq!(memberships.find(&room, &user).await.unwrap(), None);
}

#[tokio::test]
async fn a_room_that_is_no_chat_and_a_user_without_an_account_cost_no_read() {
    let store = OneRight::new(0);
    let memberships = Memberships::new(store.clone());
    let (room, user) = room_and_user();
    for (room, user) in [
        (RoomId::trusted("lobby"), user.clone()),
        (RoomId::personal(&user), user.clone()),
        (room, UserId::trusted("ann")),
    ] {
        assert_eq!(memberships.find(&room, &user).await.unwrap(), None);
    }
    assert_eq!(store.reads(), 0);
}
