//! Changes that are repeated.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::*;
use crate::backplane::{BackplaneLimits, memory};
use crate::delivery::{Delivery, DeliverySettings};
use crate::domain::policy::{Relation, RoomRights, RoomScope};
use crate::domain::{ChatRole, Limits, Membership, UserId};
use crate::features::chats::Memberships;
use crate::features::chats::tests::OneRight;
use crate::features::messages::MessageStores;
use crate::features::messaging::Messaging;
use crate::outbox::Publications;
use crate::store::testing::{FakeMessages, MessageCalls, NoPositions};
use crate::store::{self, MessageRef};

/// Deletions, each of which is made at its second attempt. The rights of each attempt.
#[derive(Default)]
struct Deletions(Mutex<Vec<bool>>);

#[async_trait]
impl MessageCalls for Deletions {
    async fn delete(&self, _: &MessageRef, by: &Changer) -> store::Result<ChangeOutcome> {
        let mut attempts = self.0.lock();
        attempts.push(by.is_moderator);
        if attempts.len() % 2 == 1 {
            return Ok(ChangeOutcome::Pending {
                target_seq: 7,
                revision: 1,
            });
        }
        Ok(ChangeOutcome::Changed(Changed {
            target_seq: 7,
            announcement: Announced::At(8),
        }))
    }

    async fn published(&self, _: &RoomId, _: u64, _: u64) -> store::Result<Option<u64>> {
        Ok(Some(8))
    }
}

#[tokio::test(start_paused = true)]
async fn rights_are_checked_again_before_each_repetition() {
    let right = OneRight::new(100);
    let backplane = memory::embedded(BackplaneLimits::default());
    let delivery = Arc::new(Delivery::start(&backplane, &DeliverySettings::default()));
    let presence = backplane.presence.clone();
    let messaging = Messaging::new(backplane, delivery, Limits::default())
        .with_memberships(Arc::new(Memberships::new(right.clone())));
    let deletions = Arc::new(FakeMessages(Deletions::default()));
    let stores = MessageStores {
        messages: deletions.clone(),
        positions: Arc::new(NoPositions),
        chats: None,
    };
    let parts = stores.parts(None, presence);
    let publications = Publications::new(deletions.clone());
    let messages = Messages::new(Arc::new(messaging), parts, stores, publications);
    let (room, user) = (
        RoomId::chat(Uuid::now_v7()),
        UserId::trusted(&Uuid::now_v7().to_string()),
    );
    let owner = Membership {
        role: ChatRole::Owner,
        hidden_seq: 0,
    };
    let by = ChangingUser::new(
        &user,
        &RoomRights {
            scope: &RoomScope::Everywhere,
            is_admin: false,
            relation: Relation::Member,
            room: &room,
            member: Some(owner),
        },
    );
    let id = Uuid::now_v7();

    // The owner has become a member.
    let attempt = messages.delete(by.clone(), id).await.unwrap();
    assert!(!attempt.is_made());
    let announced = messages.complete(attempt).await.unwrap();
    assert_eq!(announced, AnnouncedChange { id, seq: 8 });
    assert_eq!(*deletions.0.0.lock(), [true, false]);

    // The owner was removed.
    *right.right.lock() = None;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let attempt = messages.delete(by, id).await.unwrap();
    let Err(ChangeRefused::Refusal(refused)) = messages.complete(attempt).await else {
        panic!("the user is no member");
    };
    assert_eq!(refused.code, Code::NotFound);
    assert_eq!(*deletions.0.0.lock(), [true, false, true]);
}
