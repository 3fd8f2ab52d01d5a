//! Users as others see and administer them, and the audit log.

use hubbub::domain::{AccountName, Actor, AvatarUrl, DisplayName, EmailAddress, Role};
use hubbub::store::{
    AccountStore as _, CreateOutcome, EndedSessions, NewAccount, PasswordChange, ProfileChange,
    ProfileOutcome, UserChange, UserOutcome, UserQuery, UserStore as _,
};
use uuid::Uuid;

use crate::accounts::{DAY, account, announce, announced, at_most, session};
use crate::fixture::TestStore;

crate::on_every_database!(
    a_profile_changes_in_the_named_fields_only,
    of_changes_to_one_name_at_once_one_succeeds,
    users_are_listed_by_name_and_by_a_part_of_a_name,
    a_password_changes_only_from_the_expected_one,
    disabling_ends_sessions_with_their_announcements,
    of_admins_that_disable_each_other_at_once_one_stays,
    actions_of_admins_are_recorded,
);

/// Creates an account without a session.
async fn created(test: &TestStore, name: &str, role: Role) -> Uuid {
    let mut new = account(name, &format!("{name}@example.com"));
    new.role = Some(role);
    let id = new.id;
    let created = crate::accounts::create(&test.store, new, None).await;
    assert!(matches!(created, CreateOutcome::Created(_)));
    id
}

async fn a_profile_changes_in_the_named_fields_only(test: &TestStore) {
    let store = &test.store;
    let user = created(test, "ann", Role::User).await;
    test.execute("UPDATE hubbub_users SET email_verified_at = 1")
        .await;
    let full = ProfileChange {
        username: Some(AccountName::parse("Zoë".trim_end_matches('ë')).unwrap()),
        email: Some(EmailAddress::parse("ANN@example.com").unwrap()),
        display_name: Some(Some(DisplayName::parse("x", "🦄").unwrap())),
        avatar_url: Some(Some(AvatarUrl::parse("https://a.example/ä").unwrap())),
        status: Some(Some(DisplayName::parse("x", "wég").unwrap())),
    };
    let change = async |change: ProfileChange| {
        let outcome = store.change_profile(user, change, None).await.unwrap();
        let ProfileOutcome::Changed(account) = outcome else {
            panic!("{outcome:?}");
        };
        let found = store.user(user).await.unwrap().unwrap().account;
        assert_eq!(format!("{account:?}"), format!("{found:?}"));
        account
    };
    let changed = change(full).await;
    assert_eq!(changed.username, "Zo");
    assert_eq!(changed.email.as_deref(), Some("ANN@example.com"));
    assert!(changed.is_email_verified, "only its case has changed");
    assert_eq!(changed.display_name, "🦄");
    assert_eq!(changed.avatar_url.as_deref(), Some("https://a.example/ä"));
    assert_eq!(changed.status.as_deref(), Some("wég"));

    let same = change(ProfileChange::default()).await;
    assert_eq!(same.display_name, "🦄");
    let cleared = ProfileChange {
        email: Some(EmailAddress::parse("other@example.com").unwrap()),
        display_name: Some(None),
        avatar_url: Some(None),
        status: Some(None),
        ..ProfileChange::default()
    };
    let cleared = change(cleared).await;
    assert!(!cleared.is_email_verified);
    assert_eq!(cleared.display_name, "Zo");
    assert_eq!((cleared.avatar_url, cleared.status), (None, None));

    created(test, "bob", Role::User).await;
    let username = Some(AccountName::parse("BOB").unwrap());
    let email = Some(EmailAddress::parse("Bob@example.com").unwrap());
    let of_name = ProfileChange {
        username,
        ..ProfileChange::default()
    };
    let of_email = ProfileChange {
        email,
        ..ProfileChange::default()
    };
    for (user, change, expected) in [
        (user, of_name.clone(), "UsernameTaken"),
        (user, of_email, "EmailTaken"),
        (Uuid::now_v7(), of_name, "Unknown"),
    ] {
        let outcome = store.change_profile(user, change, None).await.unwrap();
        assert_eq!(format!("{outcome:?}"), expected);
    }
}

async fn of_changes_to_one_name_at_once_one_succeeds(test: &TestStore) {
    let mut changes = Vec::new();
    for number in 0..8 {
        let user = created(test, &format!("u{number}"), Role::User).await;
        let store = test.store.clone();
        changes.push(tokio::spawn(async move {
            let change = ProfileChange {
                username: Some(AccountName::parse("wanted").unwrap()),
                ..ProfileChange::default()
            };
            store.change_profile(user, change, None).await.unwrap()
        }));
    }
    let mut succeeded = 0;
    for change in changes {
        match change.await.unwrap() {
            ProfileOutcome::Changed(_) => succeeded += 1,
            ProfileOutcome::UsernameTaken => {}
            outcome => panic!("{outcome:?}"),
        }
    }
    assert_eq!(succeeded, 1);
}

async fn users_are_listed_by_name_and_by_a_part_of_a_name(test: &TestStore) {
    let store = &test.store;
    for name in ["Carl", "a_b", "aXb", "bob"] {
        created(test, name, Role::User).await;
    }
    test.execute("UPDATE hubbub_users SET disabled_at = 1 WHERE username_key = 'bob'")
        .await;
    test.execute("UPDATE hubbub_users SET search_key = 'carl 100%!' WHERE username_key = 'carl'")
        .await;
    for (text, after, limit, with_disabled, expected) in [
        ("", None, 10, true, &["a_b", "aXb", "bob", "Carl"][..]),
        ("", None, 10, false, &["a_b", "aXb", "Carl"]),
        ("", Some("a_b"), 2, true, &["aXb", "bob"]),
        ("b", None, 10, false, &["a_b", "aXb"]),
        ("a_b", None, 10, true, &["a_b"]),
        ("0%!", None, 10, true, &["Carl"]),
        ("zoë", None, 10, true, &["a_b", "aXb", "bob"]),
    ] {
        let query = UserQuery {
            text: text.to_owned(),
            after: after.map(str::to_owned),
            limit,
            with_disabled,
        };
        let users = store.users(&query).await.unwrap();
        let names: Vec<&str> = users.iter().map(|user| user.username.as_str()).collect();
        assert_eq!(names, expected, "{query:?}");
    }
}

async fn a_password_changes_only_from_the_expected_one(test: &TestStore) {
    let store = &test.store;
    let user = created(test, "ann", Role::User).await;
    let (first, second) = (session([1; 32], DAY), session([2; 32], DAY));
    let (kept, ended) = (first.id, second.id);
    for session in [first, second] {
        assert!(
            store
                .begin_session(user, None, session, at_most(9))
                .await
                .unwrap()
        );
    }
    let change = PasswordChange {
        user,
        expected: Some("another".to_owned()),
        password: "new".to_owned(),
        ended: EndedSessions::Others(kept),
        by: None,
        forgotten_failures: None,
    };
    let changed = store.change_password(change.clone(), announce()).await;
    assert_eq!(changed.unwrap(), None);
    assert_eq!(store.sessions(user).await.unwrap().len(), 2);
    let expected = store.user(user).await.unwrap().unwrap().password;
    let change = PasswordChange {
        expected: Some(expected),
        ..change
    };
    let changed = store.change_password(change.clone(), announce()).await;
    assert_eq!(changed.unwrap(), Some(vec![ended]));
    assert_eq!(store.user(user).await.unwrap().unwrap().password, "new");
    assert_eq!(
        announced(test).await,
        [(format!("user:{user}"), ended.to_string())]
    );
    assert!(store.audit(None, 10).await.unwrap().is_empty());
    let by_operator = PasswordChange {
        expected: None,
        by: Some(Actor::Operator),
        ended: EndedSessions::All,
        ..change
    };
    let changed = store.change_password(by_operator, announce()).await;
    assert_eq!(changed.unwrap(), Some(vec![kept]));
    let audit = store.audit(None, 10).await.unwrap();
    assert_eq!(
        (audit[0].action.as_str(), &audit[0].actor),
        ("password_reset", &None)
    );
}

async fn disabling_ends_sessions_with_their_announcements(test: &TestStore) {
    let store = &test.store;
    created(test, "admin", Role::Admin).await;
    let user = created(test, "ann", Role::Admin).await;
    let new = session([1; 32], DAY);
    let id = new.id;
    assert!(
        store
            .begin_session(user, None, new, at_most(9))
            .await
            .unwrap()
    );
    let change = UserChange {
        role: Some(Role::User),
        is_disabled: Some(true),
    };
    for expected in [vec![id], vec![]] {
        let outcome = store.change_user(Actor::Operator, user, change, announce());
        let UserOutcome::Changed { account, ended } = outcome.await.unwrap() else {
            panic!("there is another admin");
        };
        assert_eq!((account.role, account.is_disabled), (Role::User, true));
        assert_eq!(ended, expected);
    }
    assert_eq!(
        announced(test).await,
        [(format!("user:{user}"), id.to_string())]
    );
    assert!(store.account_of_session(id).await.unwrap().is_none());
    let enabled = UserChange {
        is_disabled: Some(false),
        ..UserChange::default()
    };
    let outcome = store.change_user(Actor::Operator, user, enabled, announce());
    let UserOutcome::Changed { account, .. } = outcome.await.unwrap() else {
        panic!("it is known");
    };
    assert!(!account.is_disabled);
    assert!(store.account_of_session(id).await.unwrap().is_none());
    let unknown = store.change_user(Actor::Operator, Uuid::now_v7(), change, announce());
    assert!(matches!(unknown.await.unwrap(), UserOutcome::Unknown));
}

async fn of_admins_that_disable_each_other_at_once_one_stays(test: &TestStore) {
    let mut admins = Vec::new();
    for number in 0..6 {
        admins.push(created(test, &format!("a{number}"), Role::Admin).await);
    }
    let changes = admins.iter().enumerate().map(|(number, user)| {
        let (store, user) = (test.store.clone(), *user);
        let change = if number % 2 == 0 {
            UserChange {
                role: Some(Role::User),
                is_disabled: None,
            }
        } else {
            UserChange {
                role: None,
                is_disabled: Some(true),
            }
        };
        tokio::spawn(async move {
            let outcome = store.change_user(Actor::Operator, user, change, announce());
            matches!(outcome.await.unwrap(), UserOutcome::LastAdmin)
        })
    });
    let mut refused = 0;
    for change in changes.collect::<Vec<_>>() {
        refused += usize::from(change.await.unwrap());
    }
    assert_eq!(refused, 1);
}

async fn actions_of_admins_are_recorded(test: &TestStore) {
    let store = &test.store;
    let admin = created(test, "admin", Role::Admin).await;
    let mut new = account("ann", "ann@example.com");
    new.role = Some(Role::User);
    let user = new.id;
    let outcome = store
        .create_user(Actor::Operator, new.clone())
        .await
        .unwrap();
    assert!(matches!(outcome, CreateOutcome::Created(_)));
    let same_name = NewAccount {
        id: Uuid::now_v7(),
        ..new
    };
    let outcome = store.create_user(Actor::Operator, same_name).await.unwrap();
    assert!(!matches!(outcome, CreateOutcome::Created(_)));
    let actor = Actor::Admin(admin);
    for (ended, of) in [(Some(vec![]), user), (None, Uuid::now_v7())] {
        let outcome = store.log_out_user(actor, of, announce()).await.unwrap();
        assert_eq!(outcome, ended);
    }
    let audit = store.audit(None, 10).await.unwrap();
    let target = user.to_string();
    let found: Vec<_> = audit
        .iter()
        .map(|entry| {
            (
                entry.action.as_str(),
                entry.actor.clone(),
                entry.details.as_str(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (
                "sessions_ended",
                Some(admin.to_string()),
                r#"{"sessions":"0"}"#
            ),
            ("user_created", None, r#"{"role":"user"}"#),
        ]
    );
    assert!(audit.iter().all(|entry| entry.target == target));
    let older = store.audit(Some(audit[0].id), 10).await.unwrap();
    assert_eq!(older, audit[1..]);
    assert_eq!(store.audit(None, 1).await.unwrap(), audit[..1]);
}
