//! Tokens of bots.

use std::time::Duration;

use hubbub::domain::{Actor, DisplayName, Role, TokenScope};
use hubbub::store::{BotTokenStore as _, NewBotToken, UserChange, UserOutcome, UserStore as _};
use uuid::Uuid;

use crate::accounts::{DAY, account, announce, announced};
use crate::fixture::TestStore;

crate::on_every_database!(
    a_token_is_valid_until_it_expires_or_is_deleted,
    a_user_has_a_limited_number_of_tokens,
    the_tokens_of_a_disabled_user_are_not_valid_for_as_long,
);

async fn user(test: &TestStore) -> Uuid {
    let mut new = account("ann", "ann@example.com");
    new.role = Some(Role::User);
    let id = new.id;
    crate::accounts::create(&test.store, new, None).await;
    id
}

fn token(user: Uuid, number: u8) -> NewBotToken {
    NewBotToken {
        id: Uuid::now_v7(),
        user,
        digest: [number; 32],
        name: DisplayName::parse("name", "Böt 🤖").unwrap(),
        scopes: [TokenScope::Read, TokenScope::Admin].into_iter().collect(),
        lifetime: DAY,
        most: 3,
    }
}

async fn a_token_is_valid_until_it_expires_or_is_deleted(test: &TestStore) {
    let store = &test.store;
    let user = user(test).await;
    let (first, second) = (token(user, 1), token(user, 2));
    let made = store
        .create_bot_token(first.clone())
        .await
        .unwrap()
        .unwrap();
    store
        .create_bot_token(second.clone())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((made.id, made.name.as_str()), (first.id, "Böt 🤖"));
    assert_eq!((made.scopes, made.last_used_at), (first.scopes, None));
    assert_eq!(made.expires_at.0 - made.created_at.0, 86_400_000);

    let (account, found) = store.account_of_bot([1; 32]).await.unwrap().unwrap();
    assert_eq!(account.id.as_str(), user.to_string());
    assert_eq!(found, made);
    assert!(store.is_bot_token_valid(first.id).await.unwrap());
    let listed = store.bot_tokens(user).await.unwrap();
    let used: Vec<bool> = listed.iter().map(|it| it.last_used_at.is_some()).collect();
    assert_eq!(used, [true, false]);
    assert!(store.account_of_bot([3; 32]).await.unwrap().is_none());
    assert!(!store.is_bot_token_valid(user).await.unwrap());

    test.execute("UPDATE hubbub_bot_tokens SET expires_at = 1 WHERE last_used_at IS NULL")
        .await;
    assert!(store.account_of_bot([2; 32]).await.unwrap().is_none());
    assert!(!store.is_bot_token_valid(second.id).await.unwrap());
    for (of, expected) in [(Uuid::now_v7(), false), (user, true), (user, false)] {
        let deleted = store.delete_bot_token(of, first.id, announce()).await;
        assert_eq!(deleted.unwrap(), expected);
    }
    assert!(store.account_of_bot([1; 32]).await.unwrap().is_none());
    let feed = format!("user:{user}");
    assert_eq!(announced(test).await, [(feed, first.id.to_string())]);
}

async fn a_user_has_a_limited_number_of_tokens(test: &TestStore) {
    let store = &test.store;
    let user = user(test).await;
    let made = (0..8_u8).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let made = store.create_bot_token(token(user, number)).await;
            usize::from(made.unwrap().is_some())
        })
    });
    let mut count = 0;
    for made in made.collect::<Vec<_>>() {
        count += made.await.unwrap();
    }
    assert_eq!(count, 3);
    // Those that have expired make way.
    test.execute("UPDATE hubbub_bot_tokens SET expires_at = 1")
        .await;
    assert!(
        store
            .create_bot_token(token(user, 9))
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(store.bot_tokens(user).await.unwrap().len(), 1);
    let unknown = store.create_bot_token(token(Uuid::now_v7(), 10)).await;
    assert!(unknown.unwrap().is_none());
}

async fn the_tokens_of_a_disabled_user_are_not_valid_for_as_long(test: &TestStore) {
    let store = &test.store;
    let user = user(test).await;
    let new = token(user, 1);
    store.create_bot_token(new.clone()).await.unwrap().unwrap();
    for is_disabled in [true, false] {
        let change = UserChange {
            is_disabled: Some(is_disabled),
            ..UserChange::default()
        };
        let outcome = store.change_user(Actor::Operator, user, change, announce());
        let UserOutcome::Changed { ended, .. } = outcome.await.unwrap() else {
            panic!("it is no admin");
        };
        let expected: &[Uuid] = if is_disabled { &[new.id] } else { &[] };
        assert_eq!(ended, expected);
        let found = store.account_of_bot([1; 32]).await.unwrap();
        assert_eq!(found.is_none(), is_disabled);
        assert_eq!(
            store.is_bot_token_valid(new.id).await.unwrap(),
            !is_disabled
        );
        let made = store.create_bot_token(token(user, 2)).await.unwrap();
        assert_eq!(made.is_none(), is_disabled);
    }
    let feed = format!("user:{user}");
    assert_eq!(announced(test).await, [(feed, new.id.to_string())]);
    let lifetime = Duration::ZERO;
    let over = NewBotToken {
        lifetime,
        ..token(user, 3)
    };
    store.create_bot_token(over).await.unwrap().unwrap();
    assert!(store.account_of_bot([3; 32]).await.unwrap().is_none());
}
