//! Deleting an account: its data is gone at once, and its messages become anonymous in steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hubbub::backplane::anonymous::{Unreadable, anonymise};
use hubbub::domain::{AccountName, DisplayName, EmailAddress, RoomId, UserId};
use hubbub::store::sql::SqlStore;
use hubbub::store::{
    AccountStore, AnnounceEnd, ArchivedEntry, CreateOutcome, DeleteOutcome, DeletionStep,
    DeletionStore, LoginName, NewAccount, NewOneTimeToken, NewRow, NewSession, Outbox,
    RecoveryStore, Rewrite, Rewritten, StoredKind, TokenPurpose,
};
use hubbub_test_support::database::DatabaseKind;
use uuid::Uuid;

use crate::fixture::{TestStore, entry, in_room, versions};

crate::on_every_database!(
    the_data_of_an_account_is_gone_with_its_deletion,
    messages_of_a_deleted_user_lose_the_name_in_steps_that_go_on_in_another_process,
    versions_lose_the_name_and_positions_are_removed,
    many_mentions_are_removed_in_steps,
    many_versions_are_rewritten_in_steps,
);

const HOUR: Duration = Duration::from_secs(3600);

pub fn job() -> NewRow {
    NewRow {
        room: None,
        kind: "forget".to_owned(),
        payload: "{}".to_owned(),
    }
}

pub fn announce() -> AnnounceEnd {
    Arc::new(|user: &UserId, _| NewRow {
        room: Some(RoomId::personal(user)),
        kind: "session_ended".to_owned(),
        payload: "{}".to_owned(),
    })
}

fn account() -> NewAccount {
    NewAccount {
        id: Uuid::now_v7(),
        username: AccountName::parse("ann").unwrap(),
        email: EmailAddress::parse("ann@example.com").unwrap(),
        display_name: DisplayName::parse("display_name", "Ann").unwrap(),
        password: "hash".to_owned(),
        role: None,
        rows: Vec::new(),
    }
}

pub async fn create(store: &SqlStore) -> Uuid {
    let account = account();
    let id = account.id;
    let session = NewSession {
        id: Uuid::now_v7(),
        refresh_token: [1; 32],
        lifetime: HOUR,
        address: "192.0.2.1".to_owned(),
        user_agent: "agent".to_owned(),
    };
    let created = crate::accounts::create(store, account, Some(session)).await;
    assert!(matches!(created, CreateOutcome::Created(_)));
    id
}

async fn kinds(store: &SqlStore) -> Vec<String> {
    let rows = store.list(0, 100).await.unwrap();
    rows.into_iter().map(|state| state.row.kind).collect()
}

async fn the_data_of_an_account_is_gone_with_its_deletion(test: &TestStore) {
    let store = &test.store;
    let user = create(store).await;
    let token = NewOneTimeToken {
        digest: [7; 32],
        user,
        purpose: TokenPurpose::ResetPassword,
        email: EmailAddress::parse("ann@example.com").unwrap(),
        lifetime: HOUR,
    };
    assert!(store.add_token(token).await.unwrap());
    for user in [user, Uuid::now_v7()] {
        test.execute(&format!(
            "INSERT INTO hubbub_outbox (type, payload, state) VALUES \
            ('address_changed', '{{\"user\":\"{user}\",\"email\":\"former@example.com\"}}', 1)"
        ))
        .await;
    }
    let wrong = "of an earlier password".to_owned();
    let kept = store.delete_account(user, wrong, job(), announce()).await;
    assert_eq!(kept.unwrap(), DeleteOutcome::Unknown);
    let deleted = store
        .delete_account(user, "hash".to_owned(), job(), announce())
        .await
        .unwrap();
    assert!(matches!(deleted, DeleteOutcome::Deleted(ended) if ended.len() == 1));
    // The failed notice to the user's former address is gone, and that of another user is not.
    let expected = ["address_changed", "session_ended", "forget"];
    assert_eq!(kinds(store).await, expected);
    let again = store
        .delete_account(user, "hash".to_owned(), job(), announce())
        .await
        .unwrap();
    assert_eq!(again, DeleteOutcome::Unknown);
    assert_eq!(kinds(store).await.len(), 3);
    let purpose = TokenPurpose::ResetPassword;
    let found = store.account_of_token(&[7; 32], purpose).await.unwrap();
    assert!(found.is_none());
    let name = LoginName::Username(AccountName::parse("ann").unwrap());
    assert!(store.credential(&name).await.unwrap().is_none());
    assert!(store.active_account(user).await.unwrap().is_none());
    assert!(store.sessions(user).await.unwrap().is_empty());
    let report = store.deletion(user).await.unwrap().unwrap();
    assert_eq!((report.passes, report.finished_at), (0, None));
    // The name and the address are free.
    let created = crate::accounts::create(store, account(), None).await;
    assert!(matches!(created, CreateOutcome::Created(_)));
}

pub fn message(user: &str, name: &str, room: &str, seq: u64) -> ArchivedEntry {
    let entry = entry(seq);
    let id = entry.id;
    let record = format!(
        r#"{{"id":"{id}","room_id":"{room}","user_id":"{user}","username":"{name}","content":"hi","type":"text","attachment_urls":[]}}"#
    );
    ArchivedEntry {
        user: UserId::trusted(user),
        record: record.into(),
        ..entry
    }
}

fn change(user: &str, seq: u64) -> ArchivedEntry {
    let entry = entry(seq);
    let id = entry.id;
    let record = format!(
        r#"{{"event":"member_added","entry_id":"{id}","room_id":"b","user_id":"{user}","username":"Ann"}}"#
    );
    ArchivedEntry {
        kind: StoredKind::CHANGE,
        user: UserId::trusted("system"),
        record: record.into(),
        ..entry
    }
}

pub fn rewrite(user: &str) -> Rewrite {
    let user = UserId::trusted(user);
    Arc::new(move |record| match anonymise(record, &user) {
        Ok(Some(record)) => Rewritten::Changed(record),
        Ok(None) => Rewritten::Unchanged,
        Err(Unreadable) => Rewritten::Unreadable,
    })
}

async fn messages_of_a_deleted_user_lose_the_name_in_steps_that_go_on_in_another_process(
    test: &TestStore,
) {
    let store = &test.store;
    let user = create(store).await;
    let id = user.to_string();
    // More than one step has in one room, and of others.
    for first in (0..1500).step_by(500) {
        let batch: Vec<ArchivedEntry> = (first + 1..=first + 500)
            .map(|seq| match seq % 3 {
                0 => message("bob", "Bob", "a", seq),
                _ => message(&id, "Ann", "a", seq),
            })
            .collect();
        test.commit(&in_room("a", &batch)).await;
    }
    let batch = [
        message(&id, "Ann", "b", 1),
        change(&id, 2),
        change("bob", 3),
    ];
    test.commit(&in_room("b", &batch)).await;
    store
        .delete_account(user, "hash".to_owned(), job(), announce())
        .await
        .unwrap();

    let rewrite = rewrite(&id);
    let mut steps = 0;
    loop {
        // Each step is that of a process which has just started.
        let process = SqlStore::open(&test.settings()).await.unwrap();
        let step = process.rewrite_next(user, rewrite.clone(), job()).await;
        process.close().await;
        steps += 1;
        if step.unwrap() == DeletionStep::FirstPassComplete {
            break;
        }
        assert!(steps < 20);
    }
    assert!(steps > 2, "{steps}");
    let mut anonymous = 0;
    for room in ["a", "b"] {
        for entry in test.all(room).await {
            let text = std::str::from_utf8(&entry.record).unwrap();
            let is_anonymous = text.contains(r#""username":"deleted user""#);
            assert_eq!(is_anonymous, text.contains(&id), "{text}");
            anonymous += u64::from(is_anonymous);
            assert!(text.contains(&format!("{}", entry.id)), "{text}");
        }
    }
    let report = store.deletion(user).await.unwrap().unwrap();
    assert_eq!((report.messages, report.passes), (1002, 1));
    assert_eq!(anonymous, 1002);
    // The second pass finds what was archived later. Its job is not due yet.
    assert_eq!(kinds(store).await, ["session_ended", "forget", "forget"]);
    test.commit(&in_room("b", &[message(&id, "Ann", "b", 4)]))
        .await;
    loop {
        let step = store.rewrite_next(user, rewrite.clone(), job()).await;
        if step.unwrap() == DeletionStep::Finished {
            break;
        }
    }
    let report = store.deletion(user).await.unwrap().unwrap();
    assert_eq!((report.messages, report.passes), (1003, 2));
    assert!(report.finished_at.is_some());
    let repeated = store.rewrite_next(user, rewrite, job()).await.unwrap();
    assert_eq!(repeated, DeletionStep::Finished);
    assert_eq!(kinds(store).await.len(), 3);
}

/// Versions of an edited message have the name, too.
async fn versions_lose_the_name_and_positions_are_removed(test: &TestStore) {
    use hubbub::store::{Changer, EditedRecord, MessageEdit, MessageRef, MessageStore as _};

    let store = &test.store;
    let user = create(store).await;
    let id = user.to_string();
    let original = message(&id, "Ann", "a", 1);
    test.commit(&in_room("a", std::slice::from_ref(&original)))
        .await;
    let edited = String::from_utf8(original.record.to_vec()).unwrap();
    let edited = EditedRecord {
        record: edited.replace("\"hi\"", "\"hello\"").into(),
        mentions: Some(vec![UserId::trusted(&id), UserId::trusted("bob")]),
    };
    let edit = MessageEdit {
        message: MessageRef {
            room: RoomId::trusted("a"),
            id: original.id,
        },
        by: Changer {
            user: UserId::trusted(&id),
            is_moderator: false,
            hidden_seq: 0,
        },
        version: None,
        record: Arc::new(move |_: &[u8]| Ok(edited.clone())),
    };
    store.edit(&edit).await.unwrap();
    for user in [&id, "bob"] {
        test.execute(&format!(
            "INSERT INTO hubbub_positions (user_id, room_no, read_seq, at) VALUES ('{user}', 1, 1, 1); \
             INSERT INTO hubbub_thread_positions (user_id, room_no, root_seq, read_seq) \
             VALUES ('{user}', 1, 1, 1)"
        ))
        .await;
    }
    store
        .delete_account(user, "hash".to_owned(), job(), announce())
        .await
        .unwrap();
    for table in ["positions", "thread_positions", "mentions"] {
        let users = format!("SELECT user_id FROM hubbub_{table}");
        assert_eq!(test.lines(&users).await, ["bob"], "{table}");
    }
    let rewrite = rewrite(&id);
    while store
        .rewrite_next(user, rewrite.clone(), job())
        .await
        .unwrap()
        == DeletionStep::More
    {}
    let versions = versions(test, &edit.message).await;
    assert_eq!(versions.len(), 2);
    for version in versions {
        let text = String::from_utf8(version.record.to_vec()).unwrap();
        assert!(text.contains(r#""username":"deleted user""#), "{text}");
    }
}

async fn count(test: &TestStore, table: &str) -> u64 {
    let text = format!("SELECT CAST(COUNT(*) AS CHAR(9)) FROM {table}");
    test.lines(&text).await[0].trim().parse().unwrap()
}

async fn many_mentions_are_removed_in_steps(test: &TestStore) {
    let store = &test.store;
    let user = create(store).await;
    let mention = async |user: &str, count: u64| {
        let rows = (1..=count).map(|seq| format!("(1, {seq}, '{user}', 'bob')"));
        let into = "hubbub_mentions (room_no, seq, user_id, author_id)";
        test.insert(into, rows).await;
    };
    mention(&user.to_string(), 12_000).await;
    mention("eve", 3).await;
    store
        .delete_account(user, "hash".to_owned(), job(), announce())
        .await
        .unwrap();
    let rewrite = rewrite(&user.to_string());
    let mut left = vec![count(test, "hubbub_mentions").await];
    for pass in [DeletionStep::FirstPassComplete, DeletionStep::Finished] {
        loop {
            let step = store.rewrite_next(user, rewrite.clone(), job()).await;
            left.push(count(test, "hubbub_mentions").await);
            match step.unwrap() {
                DeletionStep::More => assert!(left.len() < 20),
                end => break assert_eq!(end, pass),
            }
        }
        // As for a message that is archived late.
        if pass == DeletionStep::FirstPassComplete {
            mention(&user.to_string(), 6_000).await;
        }
    }
    assert_eq!(left, [7_003, 2_003, 3, 1_003, 3]);
    assert_eq!(
        test.lines("SELECT user_id FROM hubbub_mentions").await,
        ["eve"; 3]
    );
}

async fn many_versions_are_rewritten_in_steps(test: &TestStore) {
    let store = &test.store;
    let user = create(store).await;
    let id = user.to_string();
    let messages: Vec<ArchivedEntry> = (1..=4).map(|seq| message(&id, "Ann", "a", seq)).collect();
    test.commit(&in_room("a", &messages)).await;
    let record = r#"{"user_id":"USER","username":"Ann","content":"x"}"#.replace("USER", &id);
    let mut rows = Vec::new();
    for seq in 1..=3 {
        for revision in 1..=600 {
            let record = match test.kind() {
                DatabaseKind::Postgres => format!("'{record}'::bytea"),
                DatabaseKind::Sqlite => format!("CAST('{record}' AS BLOB)"),
                DatabaseKind::MariaDb => format!("'{record}'"),
            };
            rows.push(format!(
                "(1, {seq}, {revision}, 1, 0, 1, 1, 0, '{id}', {record})"
            ));
        }
    }
    let into = "hubbub_message_changes (room_no, seq, revision, kind, form, at, change_seq, \
        outbox_id, user_id, record)";
    test.insert(into, rows).await;
    store
        .delete_account(user, "hash".to_owned(), job(), announce())
        .await
        .unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let (counted, inner) = (calls.clone(), rewrite(&id));
    let rewrite: Rewrite = Arc::new(move |record| {
        counted.fetch_add(1, Ordering::Relaxed);
        inner(record)
    });
    let mut steps = Vec::new();
    while store
        .rewrite_next(user, rewrite.clone(), job())
        .await
        .unwrap()
        == DeletionStep::More
    {
        steps.push(calls.swap(0, Ordering::Relaxed));
    }
    assert_eq!(steps, [601, 601, 602]);
    let names = "SELECT user_id FROM hubbub_message_changes WHERE record = ";
    let left = match test.kind() {
        DatabaseKind::Postgres => format!("{names}'{record}'::bytea"),
        DatabaseKind::Sqlite => format!("{names}CAST('{record}' AS BLOB)"),
        DatabaseKind::MariaDb => format!("{names}'{record}'"),
    };
    assert_eq!(test.lines(&left).await, Vec::<String>::new());
}
