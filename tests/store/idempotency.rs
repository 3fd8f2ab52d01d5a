//! Idempotent requests: their work is done once, and repeats get the first answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hubbub::domain::AccountName;
use hubbub::store::sql::SqlStore;
use hubbub::store::{
    AccountStore, CreateOutcome, DeletableContent, IdempotencyStore, IdempotentRequest, LoginName,
    Once, Performed, Repeat, Result, StoredAnswer,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

use crate::accounts::{account, session};
use crate::fixture::TestStore;

crate::on_every_database!(
    a_repeat_gets_the_first_answer_and_does_no_work,
    of_requests_at_once_one_does_the_work,
    a_request_that_is_refused_leaves_its_key_free,
    a_transaction_that_fails_leaves_its_key_free,
    an_answer_is_kept_for_a_day,
    old_answers_are_removed_in_batches_by_any_number_of_nodes,
    work_outside_of_the_database_reserves_its_key,
    the_content_of_a_deleted_object_disappears_from_its_answer,
    the_answers_of_a_user_can_be_forgotten,
    work_is_done_once_in_any_order_of_repeats_and_cancelled_requests,
);

const DAY: Duration = Duration::from_secs(86_400);

fn request(key: u8, body: u8) -> IdempotentRequest {
    IdempotentRequest {
        digest: [key; 32],
        user: Some(Uuid::from_u128(1)),
        route: "POST /api/v1/things".to_owned(),
        bodies: vec![[body; 32]],
    }
}

fn answer(body: &str) -> StoredAnswer {
    StoredAnswer {
        status: 201,
        body: body.as_bytes().to_vec(),
        content: None,
    }
}

/// Creates an account by a request. Its answer is the id of the account.
async fn create(
    store: &SqlStore,
    request: IdempotentRequest,
    username: &str,
) -> Result<Performed<CreateOutcome>> {
    let new = account(username, &format!("{username}@example.com"));
    let answer = |outcome: &CreateOutcome| match outcome {
        CreateOutcome::Created(account) => Some(answer(account.id.as_str())),
        _ => None,
    };
    let once = Once::for_request(Arc::new(request), Arc::new(answer));
    store.create(new, None, once).await
}

/// The answer, and whether the work was done now.
#[track_caller]
fn answered(performed: Performed<CreateOutcome>) -> (StoredAnswer, bool) {
    match performed {
        Performed::Now(_, Some(answer)) => (answer, true),
        Performed::Before(Repeat::Answered(answer)) => (answer, false),
        other => panic!("{other:?}"),
    }
}

async fn exists(store: &SqlStore, username: &str) -> bool {
    let login = LoginName::Username(AccountName::parse(username).unwrap());
    store.credential(&login).await.unwrap().is_some()
}

async fn make_older(test: &TestStore, millis: u64) {
    let statement = format!("UPDATE hubbub_idempotency SET created_at = created_at - {millis}");
    test.execute(&statement).await;
}

async fn a_repeat_gets_the_first_answer_and_does_no_work(test: &TestStore) {
    let store = &test.store;
    assert_eq!(store.find_repeat(&request(1, 1)).await.unwrap(), None);
    let (first, is_new) = answered(create(store, request(1, 1), "ann").await.unwrap());
    assert!(is_new);
    assert_eq!(first.status, 201);
    // The repeat's own work would succeed.
    let (again, is_new) = answered(create(store, request(1, 1), "bob").await.unwrap());
    assert_eq!((&again, is_new), (&first, false));
    assert!(!exists(store, "bob").await);
    let found = store.find_repeat(&request(1, 1)).await.unwrap();
    assert_eq!(found, Some(Repeat::Answered(first)));

    let other = create(store, request(1, 2), "bob").await.unwrap();
    assert!(matches!(other, Performed::Before(Repeat::OtherBody)));
    let found = store.find_repeat(&request(1, 2)).await.unwrap();
    assert_eq!(found, Some(Repeat::OtherBody));
    assert!(!exists(store, "bob").await);
    // While the server's secret is being changed, a body has two digests.
    let mut rotated = request(1, 3);
    rotated.bodies.push([1; 32]);
    assert!(!answered(create(store, rotated, "bob").await.unwrap()).1);

    let (_, is_new) = answered(create(store, request(2, 1), "bob").await.unwrap());
    assert!(is_new, "another key");
}

async fn of_requests_at_once_one_does_the_work(test: &TestStore) {
    // Two nodes.
    let other = SqlStore::open(&test.settings()).await.unwrap();
    for round in 0..5 {
        let requests = (0..16).map(|number| {
            let store = if number % 2 == 0 { &test.store } else { &other };
            let store = store.clone();
            let name = format!("u{round}_{number}");
            let task = async move { create(&store, request(round, 1), &name).await };
            tokio::spawn(task)
        });
        let mut answers = Vec::new();
        let mut done = 0;
        for task in requests.collect::<Vec<_>>() {
            let (answer, is_new) = answered(task.await.unwrap().unwrap());
            answers.push(answer.body);
            done += u8::from(is_new);
        }
        answers.dedup();
        assert_eq!((answers.len(), done), (1, 1), "round {round}");
        let mut accounts = 0;
        for number in 0..16 {
            accounts += u8::from(exists(&test.store, &format!("u{round}_{number}")).await);
        }
        assert_eq!(accounts, 1, "round {round}");
    }
    other.close().await;
}

async fn a_request_that_is_refused_leaves_its_key_free(test: &TestStore) {
    let store = &test.store;
    answered(create(store, request(1, 1), "ann").await.unwrap());
    let refused = create(store, request(2, 1), "ann").await.unwrap();
    assert!(matches!(
        refused,
        Performed::Now(CreateOutcome::UsernameTaken, None)
    ));
    assert_eq!(store.find_repeat(&request(2, 1)).await.unwrap(), None);
    // The client corrects the body.
    let (_, is_new) = answered(create(store, request(2, 2), "bob").await.unwrap());
    assert!(is_new);
}

async fn a_transaction_that_fails_leaves_its_key_free(test: &TestStore) {
    let store = &test.store;
    let new_session = session([1; 32], DAY);
    for (username, key) in [("ann", 1), ("bob", 2)] {
        let new = account(username, &format!("{username}@example.com"));
        let request = Arc::new(request(key, 1));
        let once = Once::for_request(request, Arc::new(|_| Some(answer("done"))));
        let created = store.create(new, Some(new_session.clone()), once).await;
        // There is a session with this id.
        assert_eq!(created.is_err(), username == "bob", "{created:?}");
    }
    assert!(!exists(store, "bob").await);
    assert_eq!(store.find_repeat(&request(2, 1)).await.unwrap(), None);
    assert!(answered(create(store, request(2, 1), "bob").await.unwrap()).1);
}

async fn an_answer_is_kept_for_a_day(test: &TestStore) {
    let store = &test.store;
    answered(create(store, request(1, 1), "ann").await.unwrap());
    make_older(test, 86_400_000 - 60_000).await;
    assert!(!answered(create(store, request(1, 1), "bob").await.unwrap()).1);
    assert_eq!(store.remove_old_answers(10).await.unwrap(), 0);
    make_older(test, 60_000).await;
    assert_eq!(store.find_repeat(&request(1, 1)).await.unwrap(), None);
    // With another body: the key is free, although the old answer has not been removed.
    let (renewed, is_new) = answered(create(store, request(1, 2), "bob").await.unwrap());
    assert!(is_new);
    assert_eq!(store.remove_old_answers(10).await.unwrap(), 0);
    let (again, is_new) = answered(create(store, request(1, 2), "carl").await.unwrap());
    assert_eq!((again, is_new), (renewed, false));
}

async fn old_answers_are_removed_in_batches_by_any_number_of_nodes(test: &TestStore) {
    let store = &test.store;
    for key in 0..30 {
        store
            .keep_answer(&request(key, 1), answer("old"))
            .await
            .unwrap();
    }
    make_older(test, 86_400_000).await;
    store
        .keep_answer(&request(99, 1), answer("new"))
        .await
        .unwrap();
    assert_eq!(store.remove_old_answers(4).await.unwrap(), 4);
    let nodes = (0..4).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut removed = 0;
            for _ in 0..10 {
                removed += store.remove_old_answers(3).await.unwrap();
            }
            removed
        })
    });
    let mut removed = 0;
    for node in nodes.collect::<Vec<_>>() {
        removed += node.await.unwrap();
    }
    assert_eq!(removed, 26);
    assert!(store.find_repeat(&request(99, 1)).await.unwrap().is_some());
}

async fn work_outside_of_the_database_reserves_its_key(test: &TestStore) {
    let store = &test.store;
    for _ in 0..2 {
        assert_eq!(store.reserve(&request(1, 1)).await.unwrap(), None);
    }
    let other = store.reserve(&request(1, 2)).await.unwrap();
    assert_eq!(other, Some(Repeat::OtherBody));
    assert_eq!(store.find_repeat(&request(1, 1)).await.unwrap(), None);
    let first = Repeat::Answered(answer("first"));
    for body in ["first", "second"] {
        let kept = store.keep_answer(&request(1, 1), answer(body)).await;
        assert_eq!(kept.unwrap(), first, "{body}");
    }
    assert_eq!(store.reserve(&request(1, 1)).await.unwrap(), Some(first));
}

async fn the_content_of_a_deleted_object_disappears_from_its_answer(test: &TestStore) {
    let store = &test.store;
    let content = |subject: &str| DeletableContent {
        subject: subject.to_owned(),
        redacted: b"id only".to_vec(),
    };
    for (key, subject) in [(1, "m1"), (2, "m2")] {
        let answer = StoredAnswer {
            content: Some(content(subject)),
            ..answer("id and content")
        };
        store.keep_answer(&request(key, 1), answer).await.unwrap();
    }
    for _ in 0..2 {
        store.redact_answers("m1").await.unwrap();
    }
    let deleted = store.find_repeat(&request(1, 1)).await.unwrap();
    assert_eq!(deleted, Some(Repeat::Answered(answer("id only"))));
    let Some(Repeat::Answered(kept)) = store.find_repeat(&request(2, 1)).await.unwrap() else {
        panic!("the other answer is gone");
    };
    assert_eq!(
        (&kept.body[..], kept.content),
        (&b"id and content"[..], Some(content("m2")))
    );
}

async fn the_answers_of_a_user_can_be_forgotten(test: &TestStore) {
    let store = &test.store;
    let others = IdempotentRequest {
        user: None,
        ..request(2, 1)
    };
    for request in [&request(1, 1), &others] {
        store.keep_answer(request, answer("x")).await.unwrap();
    }
    store.forget_user(Uuid::from_u128(1)).await.unwrap();
    assert_eq!(store.find_repeat(&request(1, 1)).await.unwrap(), None);
    assert!(store.find_repeat(&others).await.unwrap().is_some());
}

/// A request of the property test.
#[derive(Debug, Clone)]
struct Step {
    key: u8,
    body: u8,
    /// The polls after which its future is dropped, as of a client that disconnects; `None`: it ends.
    dropped_after: Option<usize>,
    /// Whether the next step begins before this one has ended.
    is_concurrent: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0..3_u8,
        0..2_u8,
        prop::option::of(0..4_usize),
        any::<bool>(),
    );
    let step = step.prop_map(|(key, body, dropped_after, is_concurrent)| Step {
        key,
        body,
        dropped_after,
        is_concurrent,
    });
    prop::collection::vec(step, 1..12)
}

/// Polls a future at most this often, then drops it.
async fn dropped_after<T>(polls: Option<usize>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    let mut polled = 0;
    std::future::poll_fn(|context| {
        if Some(polled) == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Runs the steps. Each would create an account of its own.
async fn run(
    store: &SqlStore,
    case: u8,
    steps: Vec<Step>,
) -> Vec<(Step, String, Option<Performed<CreateOutcome>>)> {
    let mut results = Vec::new();
    let mut running = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        let (store, of_step) = (store.clone(), step.clone());
        let name = format!("c{case}_{number}");
        let task = tokio::spawn(async move {
            let request = request(case * 3 + of_step.key, of_step.body);
            let work = create(&store, request, &name);
            let done = dropped_after(of_step.dropped_after, work).await;
            (of_step, name, done.map(|done| done.unwrap()))
        });
        running.push(task);
        if !step.is_concurrent {
            for task in running.drain(..) {
                results.push(task.await.unwrap());
            }
        }
    }
    for task in running {
        results.push(task.await.unwrap());
    }
    results
}

async fn check(test: &TestStore, case: u8, steps: Vec<Step>) {
    let results = run(&test.store, case, steps).await;
    // A transaction goes on after its caller has gone.
    test.wait_until_idle().await;
    let mut accounts: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    let mut answers: BTreeMap<u8, Vec<StoredAnswer>> = BTreeMap::new();
    for (step, name, performed) in results {
        if exists(&test.store, &name).await {
            accounts.entry(step.key).or_default().push(name);
        }
        match performed {
            None | Some(Performed::Before(Repeat::OtherBody)) => {}
            Some(performed) => answers
                .entry(step.key)
                .or_default()
                .push(answered(performed).0),
        }
    }
    for (key, names) in &accounts {
        assert_eq!(
            names.len(),
            1,
            "the work of key {key} was done for {names:?}"
        );
    }
    for (key, mut answers) in answers {
        answers.dedup();
        assert_eq!(answers.len(), 1, "key {key} has several answers");
        let login = LoginName::Username(AccountName::parse(&accounts[&key][0]).unwrap());
        let created = test.store.credential(&login).await.unwrap().unwrap();
        assert_eq!(answers[0].body, created.account.id.as_str().as_bytes());
    }
}

async fn work_is_done_once_in_any_order_of_repeats_and_cancelled_requests(test: &TestStore) {
    let runtime = tokio::runtime::Handle::current();
    let cases = 40;
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let case = std::cell::Cell::new(0_u8);
    let outcome = tokio::task::block_in_place(|| {
        runner.run(&steps(), |steps| {
            case.set(case.get().wrapping_add(1) % 80);
            runtime.block_on(check(test, case.get(), steps));
            Ok(())
        })
    });
    outcome.unwrap();
}
