//! One-time tokens: each is exchanged once, for its own purpose, while it is valid.

use std::sync::Arc;
use std::time::Duration;

use hubbub::domain::{AccountName, DisplayName, EmailAddress, RoomId, UserId};
use hubbub::store::{
    AccountStore, AnnounceEnd, CreateOutcome, LoginLimit, LoginName, NewAccount, NewOneTimeToken,
    NewRow, NewSession, Outbox, PasswordReset, RecoveryStore, TokenPurpose,
};
use uuid::Uuid;

use crate::fixture::TestStore;

crate::on_every_database!(
    an_account_is_created_together_with_its_rows,
    a_mail_is_added_for_active_accounts_only,
    a_token_sets_one_password_and_ends_all_sessions,
    a_token_is_exchanged_by_one_of_many,
    a_token_verifies_the_address_that_it_was_sent_to,
    a_token_is_not_valid_after_its_time_or_for_a_disabled_account,
);

const HOUR: Duration = Duration::from_secs(3600);

fn row(kind: &str) -> NewRow {
    NewRow {
        room: None,
        kind: kind.to_owned(),
        payload: "{}".to_owned(),
    }
}

fn announce() -> AnnounceEnd {
    Arc::new(|user: &UserId, session| NewRow {
        room: Some(RoomId::personal(user)),
        kind: "session_ended".to_owned(),
        payload: format!("{{\"session_id\":\"{session}\"}}"),
    })
}

fn email() -> EmailAddress {
    EmailAddress::parse("Ann@example.com").unwrap()
}

/// Creates the account of Ann, with a session.
async fn create(test: &TestStore, rows: Vec<NewRow>) -> Uuid {
    let id = Uuid::now_v7();
    let account = NewAccount {
        id,
        username: AccountName::parse("ann").unwrap(),
        email: email(),
        display_name: DisplayName::parse("display_name", "Ann").unwrap(),
        password: "old".to_owned(),
        role: None,
        rows,
    };
    let session = NewSession {
        id: Uuid::now_v7(),
        refresh_token: [1; 32],
        lifetime: HOUR,
        address: String::new(),
        user_agent: String::new(),
    };
    let created = crate::accounts::create(&test.store, account, Some(session)).await;
    assert!(matches!(created, CreateOutcome::Created(_)));
    id
}

fn token(user: Uuid, purpose: TokenPurpose, number: u8) -> NewOneTimeToken {
    NewOneTimeToken {
        digest: [number; 32],
        user,
        purpose,
        email: email(),
        lifetime: HOUR,
    }
}

fn reset(number: u8) -> PasswordReset {
    PasswordReset {
        token: [number; 32],
        password: format!("new {number}"),
        forgotten_failures: [99; 32],
    }
}

async fn kinds(test: &TestStore) -> Vec<String> {
    let rows = test.store.list(0, 100).await.unwrap();
    rows.into_iter().map(|state| state.row.kind).collect()
}

async fn password(test: &TestStore) -> String {
    let name = LoginName::Username(AccountName::parse("ann").unwrap());
    test.store
        .credential(&name)
        .await
        .unwrap()
        .unwrap()
        .password
}

async fn an_account_is_created_together_with_its_rows(test: &TestStore) {
    create(test, vec![row("mail")]).await;
    assert_eq!(kinds(test).await, ["mail"]);
    let again = NewAccount {
        id: Uuid::now_v7(),
        username: AccountName::parse("ANN").unwrap(),
        email: email(),
        display_name: DisplayName::parse("display_name", "Ann").unwrap(),
        password: String::new(),
        role: None,
        rows: vec![row("other")],
    };
    let taken = crate::accounts::create(&test.store, again, None).await;
    assert!(matches!(taken, CreateOutcome::UsernameTaken));
    assert_eq!(kinds(test).await, ["mail"]);
}

async fn a_mail_is_added_for_active_accounts_only(test: &TestStore) {
    let store = &test.store;
    let user = create(test, Vec::new()).await;
    let mail = Arc::new(move |found| {
        assert_eq!(found, user);
        row("mail")
    });
    let bob = EmailAddress::parse("bob@example.com").unwrap();
    assert!(!store.add_mail_to(&bob, mail.clone()).await.unwrap());
    let other_case = EmailAddress::parse("ann@EXAMPLE.com").unwrap();
    assert!(store.add_mail_to(&other_case, mail.clone()).await.unwrap());
    assert!(store.active_account(user).await.unwrap().is_some());
    for column in ["disabled_at", "deleted_at"] {
        let set = format!("UPDATE hubbub_users SET {column} = 1");
        test.execute(&set).await;
        assert!(!store.add_mail_to(&email(), mail.clone()).await.unwrap());
        assert!(store.active_account(user).await.unwrap().is_none());
        let new = token(user, TokenPurpose::ResetPassword, 1);
        assert!(!store.add_token(new).await.unwrap());
        test.execute(&format!("UPDATE hubbub_users SET {column} = NULL"))
            .await;
    }
    store.add_row(row("other")).await.unwrap();
    assert_eq!(kinds(test).await, ["mail", "other"]);
}

async fn a_token_sets_one_password_and_ends_all_sessions(test: &TestStore) {
    let store = &test.store;
    let user = create(test, Vec::new()).await;
    let purpose = TokenPurpose::ResetPassword;
    for number in [1, 2] {
        assert!(store.add_token(token(user, purpose, number)).await.unwrap());
    }
    let failed = LoginLimit {
        subject: [99; 32],
        failures: 1,
        forgotten_by_success: true,
    };
    let counted = store.count_login(&[failed], HOUR).await.unwrap();
    assert_eq!(counted, None);
    let found = store.account_of_token(&[1; 32], purpose).await.unwrap();
    assert_eq!(found.unwrap().id.as_str(), user.to_string());
    let other = TokenPurpose::VerifyEmail;
    let found = store.account_of_token(&[1; 32], other).await.unwrap();
    assert!(found.is_none());
    assert!(!store.verify_email(&[1; 32]).await.unwrap());

    let ended = store.reset_password(reset(1), announce()).await.unwrap();
    assert_eq!(ended.unwrap().len(), 1);
    assert_eq!(password(test).await, "new 1");
    assert_eq!(kinds(test).await, ["session_ended"]);
    assert!(store.sessions(user).await.unwrap().is_empty());
    let account = store.active_account(user).await.unwrap().unwrap();
    assert!(account.is_email_verified, "the mail has reached the user");
    let counted = store.count_login(&[failed], HOUR).await.unwrap();
    assert_eq!(counted, None, "failed logins are forgotten");
    for number in [1, 2, 3] {
        let reset = store.reset_password(reset(number), announce()).await;
        assert_eq!(reset.unwrap(), None, "{number}");
    }
    assert_eq!(password(test).await, "new 1");
}

async fn a_token_is_exchanged_by_one_of_many(test: &TestStore) {
    let store = &test.store;
    let user = create(test, Vec::new()).await;
    let new = token(user, TokenPurpose::ResetPassword, 1);
    assert!(store.add_token(new).await.unwrap());
    let calls = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.reset_password(reset(1), announce()).await.unwrap() })
    });
    let mut succeeded = 0;
    for call in calls.collect::<Vec<_>>() {
        succeeded += usize::from(call.await.unwrap().is_some());
    }
    assert_eq!(succeeded, 1);
}

async fn a_token_verifies_the_address_that_it_was_sent_to(test: &TestStore) {
    let store = &test.store;
    let user = create(test, Vec::new()).await;
    let is_verified = async || {
        let account = store.active_account(user).await.unwrap();
        account.unwrap().is_email_verified
    };
    let purpose = TokenPurpose::VerifyEmail;
    assert!(store.add_token(token(user, purpose, 1)).await.unwrap());
    test.execute("UPDATE hubbub_users SET email_key = 'other@example.com'")
        .await;
    assert!(!store.verify_email(&[1; 32]).await.unwrap());
    assert!(!store.add_token(token(user, purpose, 2)).await.unwrap());
    assert!(!is_verified().await);
    test.execute("UPDATE hubbub_users SET email_key = 'ann@example.com'")
        .await;
    assert!(store.verify_email(&[1; 32]).await.unwrap());
    assert!(is_verified().await);
    assert!(!store.verify_email(&[1; 32]).await.unwrap());
}

async fn a_token_is_not_valid_after_its_time_or_for_a_disabled_account(test: &TestStore) {
    let store = &test.store;
    let user = create(test, Vec::new()).await;
    let purpose = TokenPurpose::ResetPassword;
    let expired = NewOneTimeToken {
        lifetime: Duration::ZERO,
        ..token(user, purpose, 1)
    };
    assert!(store.add_token(expired).await.unwrap());
    assert!(store.add_token(token(user, purpose, 2)).await.unwrap());
    test.execute("UPDATE hubbub_users SET disabled_at = 1")
        .await;
    for number in [1, 2] {
        let found = store.account_of_token(&[number; 32], purpose).await;
        assert!(found.unwrap().is_none());
        let reset = store.reset_password(reset(number), announce()).await;
        assert_eq!(reset.unwrap(), None);
    }
    test.execute("UPDATE hubbub_users SET disabled_at = NULL")
        .await;
    let found = store.account_of_token(&[1; 32], purpose).await.unwrap();
    assert!(found.is_none());
    let reset = store.reset_password(reset(1), announce()).await.unwrap();
    assert_eq!(reset, None);
    let found = store.account_of_token(&[2; 32], purpose).await.unwrap();
    assert!(found.is_some());
    assert_eq!(password(test).await, "old");
}
