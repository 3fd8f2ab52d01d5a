//! Reactions in batches.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use uuid::Uuid;

use super::*;
use crate::domain::{Emoji, RoomId, UserId};
use crate::store::testing::{FakeMessages, MessageCalls};
use crate::store::{Announced, Changed, Changer, MessageRef, Result};

/// The changes of each transaction.
#[derive(Default)]
struct Transactions {
    committed: Mutex<Vec<Vec<ReactionChange>>>,
    /// So many transactions fail, or panic.
    failures: Mutex<usize>,
    panics: Mutex<usize>,
    /// The transactions that are under way, and the most there were.
    running: Mutex<usize>,
    most: Mutex<usize>,
}

fn takes_one(left: &Mutex<usize>) -> bool {
    let mut left = left.lock();
    let is_taken = *left > 0;
    *left = left.saturating_sub(1);
    is_taken
}

#[async_trait]
impl MessageCalls for Transactions {
    async fn react(&self, changes: &[ReactionChange]) -> Result<Vec<ChangeOutcome>> {
        let running = {
            let mut running = self.running.lock();
            *running += 1;
            *running
        };
        let most = running.max(*self.most.lock());
        *self.most.lock() = most;
        let is_stuck = changes[0].message.room.as_str().starts_with("stuck");
        let took = if is_stuck { 60_000 } else { 5 };
        tokio::time::sleep(Duration::from_millis(took)).await;
        *self.running.lock() -= 1;
        if changes.iter().any(|it| it.emoji.as_str() == "broken") {
            return Err(StoreError::Broken("on purpose".to_owned()));
        }
        assert!(!takes_one(&self.panics), "on purpose");
        if takes_one(&self.failures) {
            return Err(StoreError::Unavailable("on purpose".to_owned()));
        }
        self.committed.lock().push(changes.to_vec());
        let outcome = |change: &ReactionChange| {
            if change.emoji.as_str() == "forbidden" {
                return ChangeOutcome::Forbidden;
            }
            ChangeOutcome::Changed(Changed {
                // Tells the outcomes apart.
                target_seq: number(change),
                announcement: Announced::At(0),
            })
        };
        Ok(changes.iter().map(outcome).collect())
    }
}

fn change(user: &str, number: u64, emoji: &str) -> ReactionChange {
    ReactionChange {
        message: MessageRef {
            room: RoomId::trusted("lobby"),
            id: Uuid::from_u128(number.into()),
        },
        by: Changer {
            user: UserId::trusted(user),
            is_moderator: false,
            hidden_seq: 0,
        },
        emoji: Emoji::trusted(emoji),
        on: true,
    }
}

fn in_room(room: &str, number: u64) -> ReactionChange {
    let mut change = change("ann", number, "+1");
    change.message.room = RoomId::trusted(room);
    change
}

fn number(change: &ReactionChange) -> u64 {
    change.message.id.as_u64_pair().1
}

fn batches() -> (ReactionBatches, Arc<FakeMessages<Transactions>>) {
    let store = Arc::new(FakeMessages(Transactions::default()));
    (ReactionBatches::new(store.clone()), store)
}

fn target(outcome: Outcome) -> u64 {
    match outcome {
        Ok(ChangeOutcome::Changed(changed)) => changed.target_seq,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn many_reactions_take_few_transactions_and_each_call_gets_its_outcome() {
    let (batches, store) = batches();
    let calls = (0..10_000).map(|number| batches.react(change("ann", number, "+1")));
    let outcomes = join_all(calls).await;
    for (number, outcome) in (0..).zip(outcomes) {
        assert_eq!(target(outcome), number);
    }
    let committed = store.0.committed.lock();
    let largest = committed.iter().map(Vec::len).max();
    assert_eq!((committed.len(), largest), (20, Some(500)));
    let numbers = committed.iter().flatten().map(number);
    assert!(numbers.eq(0..10_000), "the order of the calls is kept");
}

#[tokio::test(start_paused = true)]
async fn the_order_of_each_user_and_message_is_kept() {
    let (batches, store) = batches();
    let users = ["ann", "bob", "cy"];
    let calls = users.map(|user| {
        let batches = &batches;
        async move {
            for step in 0..50 {
                let change = ReactionChange {
                    on: step % 2 == 0,
                    ..change(user, 7, "+1")
                };
                target(batches.react(change).await);
            }
        }
    });
    join_all(calls).await;
    let committed = store.0.committed.lock();
    for user in users {
        let changes = committed.iter().flatten();
        let states: Vec<bool> = changes
            .filter(|change| change.by.user.as_str() == user)
            .map(|change| change.on)
            .collect();
        let expected: Vec<bool> = (0..50).map(|step| step % 2 == 0).collect();
        assert_eq!(states, expected, "{user}");
    }
    // While the first call's transaction runs, the other two queue.
    assert!(committed.len() <= 101, "{}", committed.len());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_costs_others_nothing() {
    let (batches, store) = batches();
    let mut calls: Vec<_> = (0..10)
        .map(|number| Box::pin(batches.react(change("ann", number, "+1"))))
        .collect();
    for call in &mut calls {
        assert!(futures_util::poll!(call.as_mut()).is_pending());
    }
    // Also the first call, which has begun the work.
    calls.retain({
        let mut number = 0;
        move |_| {
            number += 1;
            number % 2 == 0
        }
    });
    let outcomes = join_all(calls).await.into_iter().map(target);
    assert!(outcomes.eq([1, 3, 5, 7, 9]));
    assert_eq!(store.0.committed.lock().iter().flatten().count(), 10);
    target(batches.react(change("bob", 1, "+1")).await);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_fails_fails_its_reactions_only() {
    let (batches, store) = batches();
    *store.0.failures.lock() = 1;
    let calls = (0..600).map(|number| batches.react(change("ann", number, "+1")));
    let outcomes = join_all(calls).await;
    let (failed, made) = outcomes.split_at(500);
    for outcome in failed {
        assert_eq!(outcome.as_ref().unwrap_err().code, Code::Unavailable);
    }
    assert!(made.iter().all(|outcome| outcome.is_ok()));
    *store.0.panics.lock() = 1;
    let refused = batches.react(change("ann", 1, "+1")).await.unwrap_err();
    assert_eq!(refused.code, Code::Internal);
    let outcome = batches.react(change("ann", 1, "forbidden")).await;
    assert_eq!(outcome, Ok(ChangeOutcome::Forbidden));
}

#[tokio::test(start_paused = true)]
async fn the_reactions_that_wait_are_bounded() {
    let (batches, _store) = batches();
    let mut received = Vec::new();
    for number in 0..MAX_WAITING_OF_ROOM as u64 {
        received.push(batches.0.push(change("ann", number, "+1")).unwrap());
    }
    let refused = batches.react(change("ann", 1, "+1")).await.unwrap_err();
    assert_eq!(refused.code, Code::Overloaded);
    target(batches.react(in_room("elsewhere", 1)).await);
    for received in received {
        received.await.unwrap().unwrap();
    }
    target(batches.react(change("ann", 1, "+1")).await);
    assert_eq!(batches.waiting(), 0);
    assert!(batches.0.queues.lock().rooms.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_held_up_delays_no_other_room() {
    let (batches, _store) = batches();
    let mut stuck = Box::pin(batches.react(in_room("stuck", 1)));
    assert!(futures_util::poll!(stuck.as_mut()).is_pending());
    tokio::time::sleep(Duration::from_millis(1)).await;
    // The second call waits for the transaction of the first one.
    let mut behind = Box::pin(batches.react(in_room("stuck", 2)));
    assert!(futures_util::poll!(behind.as_mut()).is_pending());
    let began = Instant::now();
    for number in 0..10 {
        target(batches.react(in_room("lobby", number)).await);
    }
    assert!(began.elapsed() < Duration::from_secs(1));
    target(stuck.await);
    let refused = behind.await.unwrap_err();
    assert_eq!(
        refused.code,
        Code::Unavailable,
        "it has waited for too long"
    );
}

#[tokio::test(start_paused = true)]
async fn few_transactions_are_under_way_at_a_time() {
    let (batches, store) = batches();
    let rooms: Vec<String> = (0..50).map(|number| format!("room{number}")).collect();
    let calls = rooms.iter().map(|room| batches.react(in_room(room, 1)));
    join_all(calls).await.into_iter().for_each(|outcome| {
        target(outcome);
    });
    assert_eq!(*store.0.most.lock(), CONCURRENT);
    assert_eq!(store.0.committed.lock().len(), rooms.len());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_database_refuses_fails_no_other_one() {
    let (batches, store) = batches();
    let calls = (0..100).map(|number| {
        let emoji = if number == 70 { "broken" } else { "+1" };
        batches.react(change("ann", number % 99, emoji))
    });
    let outcomes = join_all(calls).await;
    for (number, outcome) in outcomes.into_iter().enumerate() {
        if number == 70 {
            assert_eq!(outcome.unwrap_err().code, Code::Internal);
        } else {
            assert_eq!(target(outcome), number as u64 % 99);
        }
    }
    let committed = store.0.committed.lock().len();
    assert_eq!(committed, 98, "by message");
}
