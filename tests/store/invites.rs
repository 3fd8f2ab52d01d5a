//! Invitations to sign up.

use hubbub::domain::{Actor, EmailAddress};
use hubbub::store::{CreateOutcome, InviteStore as _, NewInvite, Once, UserStore as _};

use crate::accounts::{DAY, account, session};
use crate::fixture::TestStore;

crate::on_every_database!(
    an_invitation_is_valid_until_it_expires_and_for_its_address,
    of_accounts_by_one_invitation_at_once_one_is_created,
);

fn invite(number: u8, email: Option<&str>) -> NewInvite {
    NewInvite {
        digest: [number; 32],
        email: email.map(|email| EmailAddress::parse(email).unwrap()),
        lifetime: DAY,
    }
}

async fn signed_up(test: &TestStore, name: &str, number: u8) -> String {
    let account = account(name, &format!("{name}@example.com"));
    let session = session([number; 32], DAY);
    let once = Once::without_key();
    let created = test
        .store
        .create_invited(account, session, [number; 32], once);
    match created.await.unwrap().outcome().unwrap() {
        CreateOutcome::Created(_) => "Created".to_owned(),
        outcome => format!("{outcome:?}"),
    }
}

async fn an_invitation_is_valid_until_it_expires_and_for_its_address(test: &TestStore) {
    let store = &test.store;
    let only = Some("Ann@example.com");
    for invite in [invite(1, only), invite(2, None), invite(3, None)] {
        let once = Once::without_key();
        let made = store.create_invite(Actor::Operator, invite, once).await;
        let expires_at = made.unwrap().outcome().unwrap();
        let age = expires_at
            .0
            .abs_diff(hubbub::domain::Timestamp::now().0 + 86_400_000);
        assert!(age < 60_000, "{age}");
    }
    for (name, number, expected) in [
        ("bob", 9, "InviteInvalid"),
        ("bob", 1, "InviteInvalid"),
        ("ann", 1, "Created"),
        ("ann", 1, "InviteInvalid"),
        ("ann", 2, "UsernameTaken"),
        ("bob", 2, "Created"),
        ("carl", 2, "InviteInvalid"),
    ] {
        assert_eq!(
            signed_up(test, name, number).await,
            expected,
            "{name} {number}"
        );
    }
    test.execute("UPDATE hubbub_invites SET expires_at = 1")
        .await;
    assert_eq!(signed_up(test, "carl", 3).await, "InviteInvalid");
    let audit = store.audit(None, 10).await.unwrap();
    let targets: Vec<&str> = audit.iter().map(|entry| entry.target.as_str()).collect();
    assert_eq!(targets, ["", "", "ann@example.com"]);
}

async fn of_accounts_by_one_invitation_at_once_one_is_created(test: &TestStore) {
    let made = test
        .store
        .create_invite(Actor::Operator, invite(1, None), Once::without_key())
        .await;
    made.unwrap();
    let calls = (0..8_u8).map(|number| {
        let store = test.store.clone();
        tokio::spawn(async move {
            let account = account(&format!("u{number}"), &format!("{number}@example.com"));
            let session = session([number + 10; 32], DAY);
            let once = Once::without_key();
            let created = store.create_invited(account, session, [1; 32], once).await;
            matches!(created.unwrap().outcome(), Some(CreateOutcome::Created(_)))
        })
    });
    let mut created = 0;
    for call in calls.collect::<Vec<_>>() {
        created += usize::from(call.await.unwrap());
    }
    assert_eq!(created, 1);
}
