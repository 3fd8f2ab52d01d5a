//! Accounts, sessions and refresh tokens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hubbub::domain::{AccountName, DisplayName, EmailAddress, Role, RoomId};
use hubbub::store::sql::SqlStore;
use hubbub::store::{
    AccountStore, AnnounceEnd, CreateOutcome, Digest, EndedSessions, Exchange, ExchangeOutcome,
    LoginLimit, LoginName, NewAccount, NewRow, NewSession, Once, Outbox, RowState, SessionLimit,
};
use hubbub_test_support::database::DatabaseKind;
use uuid::Uuid;

use crate::fixture::TestStore;

crate::on_every_database!(
    an_account_is_created_once_by_name_and_by_address,
    of_accounts_that_are_created_at_once_one_is_the_first,
    a_session_is_that_of_its_account_until_it_ends,
    a_refresh_token_has_one_successor_however_often_it_is_exchanged,
    a_refresh_token_that_is_used_again_too_late_ends_its_session,
    a_session_that_was_not_refreshed_in_time_is_over,
    sessions_end_together_with_their_announcements,
    beyond_the_most_sessions_the_one_used_longest_ago_ends,
    failed_logins_are_counted_until_a_limit_and_a_window_end,
    logins_at_once_do_not_pass_the_limit,
    what_has_expired_is_removed,
);

pub const DAY: Duration = Duration::from_secs(86_400);

/// Creates an account by a request without an idempotency key.
pub async fn create(
    store: &SqlStore,
    account: NewAccount,
    session: Option<NewSession>,
) -> CreateOutcome {
    let performed = store.create(account, session, Once::without_key()).await;
    performed.unwrap().outcome().unwrap()
}

pub fn account(username: &str, email: &str) -> NewAccount {
    NewAccount {
        id: Uuid::now_v7(),
        username: AccountName::parse(username).unwrap(),
        email: EmailAddress::parse(email).unwrap(),
        display_name: DisplayName::parse("display_name", "Zoë 🐎").unwrap(),
        password: "$argon2id$…".to_owned(),
        role: None,
        rows: Vec::new(),
    }
}

pub fn session(token: Digest, lifetime: Duration) -> NewSession {
    NewSession {
        id: Uuid::now_v7(),
        refresh_token: token,
        lifetime,
        address: "2001:db8::1".to_owned(),
        user_agent: "Läufer/1".to_owned(),
    }
}

fn exchange(presented: Digest, successor: Digest, grace: Duration) -> Exchange {
    Exchange {
        presented,
        salt: successor,
        successor,
        grace,
        lifetime: DAY,
    }
}

/// Announces the end of a session.
pub fn announce() -> AnnounceEnd {
    Arc::new(|user, session| NewRow {
        room: Some(RoomId::personal(user)),
        kind: "session_ended".to_owned(),
        payload: session.to_string(),
    })
}

/// So many sessions of a user.
pub fn at_most(most: usize) -> SessionLimit {
    let announce = announce();
    SessionLimit { most, announce }
}

/// The outbox's rows, each by its room and its payload.
pub async fn announced(test: &TestStore) -> Vec<(String, String)> {
    let rows = test.store.list(0, 100).await.unwrap();
    let content = |row: RowState| {
        let room = row.row.room.map(|room| room.as_str().to_owned());
        (room.unwrap_or_default(), row.row.payload)
    };
    rows.into_iter().map(content).collect()
}

/// A user with a session whose refresh token has this digest.
async fn logged_in(test: &TestStore, token: Digest, lifetime: Duration) -> (Uuid, Uuid) {
    let name = format!("u{}", token[0]);
    let account = account(&name, &format!("{name}@example.com"));
    let session = session(token, lifetime);
    let (user, id) = (account.id, session.id);
    let created = create(&test.store, account, Some(session)).await;
    assert!(matches!(created, CreateOutcome::Created(_)));
    (user, id)
}

async fn an_account_is_created_once_by_name_and_by_address(test: &TestStore) {
    let store = &test.store;
    let new = account("Ann.Lee", "Ann@Example.com");
    let id = new.id;
    let created = create(store, new.clone(), None).await;
    let CreateOutcome::Created(created) = created else {
        panic!("{created:?}");
    };
    assert_eq!(created.id.as_str(), id.to_string());
    assert_eq!(created.role, Role::Admin, "the first account");
    for (username, email, expected) in [
        ("ann.lee", "other@example.com", "UsernameTaken"),
        ("other", "ANN@example.COM", "EmailTaken"),
        ("ANN.LEE", "ann@example.com", "UsernameTaken"),
    ] {
        let outcome = create(store, account(username, email), None).await;
        assert_eq!(format!("{outcome:?}"), expected);
    }
    let second = create(store, account("bob", "bob@example.com"), None).await;
    let CreateOutcome::Created(second) = second else {
        panic!("bob is new");
    };
    assert_eq!(second.role, Role::User);

    for login in [
        LoginName::Username(AccountName::parse("ANN.lee").unwrap()),
        LoginName::Email(EmailAddress::parse("ann@example.com").unwrap()),
    ] {
        let found = store.credential(&login).await.unwrap().unwrap();
        assert_eq!(found.password, new.password);
        let account = found.account;
        assert_eq!(account.id, created.id);
        assert_eq!(account.username, "Ann.Lee");
        assert_eq!(account.email.as_deref(), Some("Ann@Example.com"));
        assert_eq!(account.display_name, "Zoë 🐎");
        assert_eq!((account.avatar_url, account.status), (None, None));
        assert!(!account.is_email_verified && !account.is_disabled);
        assert_eq!(account.created_at, created.created_at);
        let age = hubbub::domain::Timestamp::now()
            .0
            .abs_diff(account.created_at.0);
        assert!(age < 60_000, "the clocks differ by {age} ms");
    }
    let unknown = LoginName::Username(AccountName::parse("nobody").unwrap());
    assert!(store.credential(&unknown).await.unwrap().is_none());
}

async fn of_accounts_that_are_created_at_once_one_is_the_first(test: &TestStore) {
    let accounts = (0..20).map(|number| {
        let store = test.store.clone();
        tokio::spawn(async move {
            // Each name is tried twice.
            let name = format!("user{}", number / 2);
            let email = format!("{number}@example.com");
            create(&store, account(&name, &email), None).await
        })
    });
    let mut roles = Vec::new();
    let mut taken = 0;
    for created in accounts.collect::<Vec<_>>() {
        match created.await.unwrap() {
            CreateOutcome::Created(account) => roles.push(account.role),
            CreateOutcome::UsernameTaken => taken += 1,
            outcome => panic!("no address is used twice: {outcome:?}"),
        }
    }
    assert_eq!((roles.len(), taken), (10, 10));
    let admins = roles.iter().filter(|role| **role == Role::Admin);
    assert_eq!(admins.count(), 1);
}

async fn a_session_is_that_of_its_account_until_it_ends(test: &TestStore) {
    let store = &test.store;
    let (user, first) = logged_in(test, [1; 32], DAY).await;
    let second = session([2; 32], DAY);
    let second_id = second.id;
    assert!(
        store
            .begin_session(user, None, second, at_most(9))
            .await
            .unwrap()
    );
    for id in [first, second_id] {
        let found = store.account_of_session(id).await.unwrap().unwrap();
        assert_eq!(found.id.as_str(), user.to_string());
    }
    let unknown = store.account_of_session(Uuid::now_v7()).await.unwrap();
    assert!(unknown.is_none());
    let other = Uuid::now_v7();
    let begun = store
        .begin_session(other, None, session([3; 32], DAY), at_most(9))
        .await;
    assert!(!begun.unwrap(), "there is no such user");

    let verified = |hash: &str| Some(hash.to_owned());
    for (hash, number) in [("$argon2id$…", 6), ("of an earlier password", 7)] {
        let begun =
            store.begin_session(user, verified(hash), session([number; 32], DAY), at_most(9));
        assert_eq!(begun.await.unwrap(), number == 6, "{hash}");
    }

    test.execute("UPDATE hubbub_users SET disabled_at = 1")
        .await;
    assert!(store.account_of_session(first).await.unwrap().is_none());
    let begun = store
        .begin_session(user, None, session([4; 32], DAY), at_most(9))
        .await;
    assert!(!begun.unwrap(), "the user is disabled");
    let exchanged = store
        .exchange(exchange([2; 32], [5; 32], DAY), announce())
        .await;
    assert!(matches!(exchanged.unwrap(), ExchangeOutcome::Invalid));
}

async fn a_refresh_token_has_one_successor_however_often_it_is_exchanged(test: &TestStore) {
    let (user, session) = logged_in(test, [1; 32], DAY).await;
    let exchanges = (0..20_u8).map(|number| {
        let store = test.store.clone();
        tokio::spawn(async move {
            let exchange = exchange([1; 32], [100 + number; 32], DAY);
            store.exchange(exchange, announce()).await.unwrap()
        })
    });
    let mut salts = BTreeSet::new();
    for exchanged in exchanges.collect::<Vec<_>>() {
        let ExchangeOutcome::Exchanged {
            account,
            session: of,
            salt,
        } = exchanged.await.unwrap()
        else {
            panic!("every exchange within the grace period succeeds");
        };
        assert_eq!((account.id.as_str(), of), (&*user.to_string(), session));
        salts.insert(salt);
    }
    assert_eq!(salts.len(), 1, "one successor");
    // The salt of this test is the digest of the successor, which continues the session.
    let successor = salts.pop_first().unwrap();
    let next = test
        .store
        .exchange(exchange(successor, [200; 32], DAY), announce())
        .await;
    assert!(matches!(next.unwrap(), ExchangeOutcome::Exchanged { .. }));
}

async fn a_refresh_token_that_is_used_again_too_late_ends_its_session(test: &TestStore) {
    let store = &test.store;
    let (user, session) = logged_in(test, [1; 32], DAY).await;
    let first = store
        .exchange(exchange([1; 32], [2; 32], DAY), announce())
        .await;
    assert!(matches!(first.unwrap(), ExchangeOutcome::Exchanged { .. }));
    test.execute("UPDATE hubbub_refresh_tokens SET used_at = used_at - 40000 WHERE used_at > 0")
        .await;
    let grace = Duration::from_secs(30);
    let late = store
        .exchange(exchange([1; 32], [3; 32], grace), announce())
        .await;
    let ExchangeOutcome::Reused {
        user: of,
        session: ended,
    } = late.unwrap()
    else {
        panic!("the token was used 40 s ago");
    };
    assert_eq!((of.as_str(), ended), (&*user.to_string(), session));
    assert!(store.account_of_session(session).await.unwrap().is_none());
    let feed = format!("user:{user}");
    assert_eq!(announced(test).await, [(feed, session.to_string())]);
    for token in [[1; 32], [2; 32], [3; 32]] {
        let exchanged = store
            .exchange(exchange(token, [4; 32], grace), announce())
            .await;
        assert!(matches!(exchanged.unwrap(), ExchangeOutcome::Invalid));
    }
}

async fn a_session_that_was_not_refreshed_in_time_is_over(test: &TestStore) {
    let store = &test.store;
    let (_, session) = logged_in(test, [1; 32], DAY).await;
    test.execute("UPDATE hubbub_sessions SET expires_at = 1")
        .await;
    let exchanged = store
        .exchange(exchange([1; 32], [2; 32], DAY), announce())
        .await;
    assert!(matches!(exchanged.unwrap(), ExchangeOutcome::Invalid));
    assert!(store.account_of_session(session).await.unwrap().is_none());
}

async fn sessions_end_together_with_their_announcements(test: &TestStore) {
    let store = &test.store;
    let (user, first) = logged_in(test, [1; 32], DAY).await;
    let (_, of_other) = logged_in(test, [2; 32], DAY).await;
    let mut sessions = vec![first];
    for number in 3..6 {
        let session = session([number; 32], DAY);
        sessions.push(session.id);
        assert!(
            store
                .begin_session(user, None, session, at_most(9))
                .await
                .unwrap()
        );
    }
    let listed = store.sessions(user).await.unwrap();
    let ids: BTreeSet<Uuid> = listed.iter().map(|session| session.id).collect();
    assert_eq!(ids, sessions.iter().copied().collect());
    assert_eq!(listed[0].user_agent, "Läufer/1");
    assert_eq!(listed[0].address, "2001:db8::1");

    for (which, expected) in [
        (EndedSessions::One(of_other), vec![]),
        (EndedSessions::One(first), vec![first]),
        (EndedSessions::One(first), vec![]),
        (EndedSessions::Others(sessions[1]), sessions[2..].to_vec()),
        (EndedSessions::All, vec![sessions[1]]),
    ] {
        let ended = store.end_sessions(user, which, announce()).await.unwrap();
        assert_eq!(ended, expected, "{which:?}");
    }
    let feed = format!("user:{user}");
    let expected = [sessions[0], sessions[2], sessions[3], sessions[1]];
    let expected = expected.map(|session| (feed.clone(), session.to_string()));
    assert_eq!(announced(test).await, expected);
    assert!(store.account_of_session(of_other).await.unwrap().is_some());
    for session in sessions {
        assert!(store.account_of_session(session).await.unwrap().is_none());
    }
    let exchanged = store.exchange(exchange([4; 32], [9; 32], DAY), announce());
    assert!(matches!(exchanged.await.unwrap(), ExchangeOutcome::Invalid));
}

const WINDOW: Duration = Duration::from_secs(900);

/// The limit of an account, which has a subject above 1, or that of the address 1.
fn limit(subject: u8, failures: u64) -> LoginLimit {
    LoginLimit {
        subject: [subject; 32],
        failures,
        forgotten_by_success: subject > 1,
    }
}

async fn beyond_the_most_sessions_the_one_used_longest_ago_ends(test: &TestStore) {
    let store = &test.store;
    let (user, first) = logged_in(test, [1; 32], DAY).await;
    let (_, of_other) = logged_in(test, [2; 32], DAY).await;
    let begin = async |number: u8, most: usize| {
        let new = session([number; 32], DAY);
        let id = new.id;
        // The transaction is repeated if the answer to its commit is lost.
        for _ in 0..2 {
            let begun = store.begin_session(user, None, new.clone(), at_most(most));
            assert!(begun.await.unwrap());
        }
        id
    };
    let second = begin(3, 3).await;
    let third = begin(4, 3).await;
    let feed = format!("user:{user}");
    assert_eq!(announced(test).await, []);
    // The first session was used last.
    let used = "UPDATE hubbub_sessions SET last_used_at = last_used_at + 60000 WHERE id";
    test.execute(&match test.kind() {
        DatabaseKind::Postgres => format!("{used} = '{first}'"),
        DatabaseKind::Sqlite | DatabaseKind::MariaDb => {
            format!("{used} = X'{}'", first.simple())
        }
    })
    .await;
    let fourth = begin(5, 3).await;
    let mut expected = vec![(feed.clone(), second.to_string())];
    assert_eq!(announced(test).await, expected);
    let exchanged = store.exchange(exchange([3; 32], [6; 32], DAY), announce());
    assert!(matches!(exchanged.await.unwrap(), ExchangeOutcome::Invalid));
    // A smaller limit ends several at once.
    let fifth = begin(7, 2).await;
    expected.extend([fourth, third].map(|ended| (feed.clone(), ended.to_string())));
    assert_eq!(announced(test).await, expected);
    let left: BTreeSet<Uuid> = store
        .sessions(user)
        .await
        .unwrap()
        .iter()
        .map(|it| it.id)
        .collect();
    assert_eq!(left, BTreeSet::from([first, fifth]));
    assert!(store.account_of_session(of_other).await.unwrap().is_some());
}

async fn failed_logins_are_counted_until_a_limit_and_a_window_end(test: &TestStore) {
    let store = &test.store;
    let of_account = [limit(9, 3), limit(1, 5)];
    for _ in 0..3 {
        assert_eq!(store.count_login(&of_account, WINDOW).await.unwrap(), None);
    }
    let wait = store
        .count_login(&of_account, WINDOW)
        .await
        .unwrap()
        .unwrap();
    assert!(wait <= WINDOW && wait > WINDOW / 2, "{wait:?}");
    // Two more from the address are allowed, for other accounts.
    for (account, is_allowed) in [(10, true), (11, true), (12, false)] {
        let limits = [limit(account, 3), limit(1, 5)];
        let counted = store.count_login(&limits, WINDOW).await.unwrap();
        assert_eq!(counted.is_none(), is_allowed, "{account}");
    }
    // A success forgets the account's failures, and its own of the address.
    store
        .uncount_login(&[limit(10, 3), limit(1, 5)])
        .await
        .unwrap();
    // Without the limit of an account, a success takes back only its own failure.
    for _ in 0..2 {
        store.uncount_login(&[limit(1, 5)]).await.unwrap();
        assert_eq!(
            store.count_login(&[limit(1, 5)], WINDOW).await.unwrap(),
            None
        );
    }
    let again = [limit(12, 3), limit(1, 5)];
    assert_eq!(store.count_login(&again, WINDOW).await.unwrap(), None);
    assert!(store.count_login(&again, WINDOW).await.unwrap().is_some());

    test.execute("UPDATE hubbub_login_failures SET began_at = began_at - 900000")
        .await;
    assert_eq!(store.count_login(&of_account, WINDOW).await.unwrap(), None);
}

async fn logins_at_once_do_not_pass_the_limit(test: &TestStore) {
    let logins = (0..40_u8).map(|number| {
        let store = test.store.clone();
        tokio::spawn(async move {
            let limits = [limit(number % 2, 10), limit(100, 15)];
            store.count_login(&limits, WINDOW).await.unwrap().is_none()
        })
    });
    let mut counted = 0;
    for login in logins.collect::<Vec<_>>() {
        counted += usize::from(login.await.unwrap());
    }
    assert_eq!(counted, 15);
}

async fn what_has_expired_is_removed(test: &TestStore) {
    let store = &test.store;
    let (user, old) = logged_in(test, [1; 32], Duration::from_millis(1)).await;
    let current = session([2; 32], DAY);
    let current_id = current.id;
    assert!(
        store
            .begin_session(user, None, current, at_most(9))
            .await
            .unwrap()
    );
    store.count_login(&[limit(9, 1)], WINDOW).await.unwrap();
    store.remove_expired(WINDOW).await.unwrap();
    let counted = store.count_login(&[limit(9, 1)], WINDOW).await.unwrap();
    assert!(counted.is_some(), "it was counted within the window");
    store.remove_expired(Duration::ZERO).await.unwrap();
    let counted = store.count_login(&[limit(9, 1)], WINDOW).await.unwrap();
    assert!(counted.is_none());
    assert!(store.account_of_session(old).await.unwrap().is_none());
    let found = store.account_of_session(current_id).await.unwrap();
    assert!(found.is_some());
    let exchanged = store.exchange(exchange([2; 32], [3; 32], DAY), announce());
    let exchanged = exchanged.await.unwrap();
    assert!(
        matches!(exchanged, ExchangeOutcome::Exchanged { .. }),
        "{exchanged:?}"
    );
}
