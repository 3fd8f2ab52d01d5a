//! Jobs: each is claimed by one at a time, until it is done or given up.

use std::time::Duration;

use hubbub::store::{JobEnd, JobQueue, Outbox, OutboxRow};

use crate::fixture::TestStore;

crate::on_every_database!(
    jobs_of_known_kinds_are_claimed_and_announcements_are_not,
    a_claim_that_has_ended_changes_nothing,
    a_job_that_failed_is_due_after_its_pause_or_when_it_is_revived,
    many_workers_do_each_job_once,
);

const LEASE: Duration = Duration::from_secs(60);

async fn add(test: &TestStore, kinds: &[&str]) {
    for kind in kinds {
        test.execute(&format!(
            "INSERT INTO hubbub_outbox (room_id, type, payload) VALUES (NULL, '{kind}', '{{}}')"
        ))
        .await;
    }
}

fn kinds(rows: &[OutboxRow]) -> Vec<&str> {
    rows.iter().map(|row| row.kind.as_str()).collect()
}

async fn jobs_of_known_kinds_are_claimed_and_announcements_are_not(test: &TestStore) {
    let store = &test.store;
    add(test, &["mail", "later", "forget"]).await;
    test.execute("INSERT INTO hubbub_outbox (room_id, type, payload) VALUES ('a', 'mail', '{}')")
        .await;
    let known = ["forget", "mail"];
    assert_eq!(store.next_job_due(&[]).await.unwrap(), None);
    assert!(store.claim_jobs(&[], 9, LEASE).await.unwrap().is_empty());
    let due = store.next_job_due(&known).await.unwrap();
    assert_eq!(due, Some(Duration::ZERO));
    let claimed = store.claim_jobs(&known, 9, LEASE).await.unwrap();
    assert_eq!(kinds(&claimed), ["mail", "forget"]);
    assert!(
        claimed
            .iter()
            .all(|job| job.room.is_none() && job.attempts == 1)
    );
    assert!(store.claim_jobs(&known, 9, LEASE).await.unwrap().is_empty());
    let due = store.next_job_due(&known).await.unwrap().unwrap();
    assert!(due > LEASE / 2 && due <= LEASE, "{due:?}");
    let announcements = store.claim(9, LEASE).await.unwrap();
    assert_eq!(announcements.len(), 1);
    assert!(announcements[0].room.is_some());
    for job in &claimed {
        assert!(store.end_job(job, JobEnd::Done).await.unwrap());
    }
    assert_eq!(store.next_job_due(&known).await.unwrap(), None);
    let left = store.list(0, 9).await.unwrap();
    assert_eq!(left[0].row.kind, "later");
}

async fn a_claim_that_has_ended_changes_nothing(test: &TestStore) {
    let store = &test.store;
    add(test, &["mail"]).await;
    let first = store
        .claim_jobs(&["mail"], 1, Duration::ZERO)
        .await
        .unwrap();
    let first = &first[0];
    assert!(store.renew_job(first, Duration::ZERO).await.unwrap());
    let second = store.claim_jobs(&["mail"], 1, LEASE).await.unwrap();
    let second = &second[0];
    assert_eq!((second.id, second.attempts), (first.id, 2));
    assert!(!store.renew_job(first, LEASE).await.unwrap());
    let ends = [
        JobEnd::Done,
        JobEnd::Retry {
            delay: Duration::ZERO,
            reason: "late".to_owned(),
        },
        JobEnd::Failed {
            reason: "late".to_owned(),
        },
    ];
    for end in ends {
        assert!(!store.end_job(first, end).await.unwrap());
    }
    let listed = store.list(0, 9).await.unwrap();
    assert_eq!((listed[0].has_failed, &listed[0].reason), (false, &None));
    assert!(store.renew_job(second, LEASE).await.unwrap());
    assert!(store.end_job(second, JobEnd::Done).await.unwrap());
    assert!(!store.renew_job(second, LEASE).await.unwrap());
}

async fn a_job_that_failed_is_due_after_its_pause_or_when_it_is_revived(test: &TestStore) {
    let store = &test.store;
    add(test, &["mail"]).await;
    let claim = async || {
        let claimed = store.claim_jobs(&["mail"], 1, LEASE).await.unwrap();
        claimed.into_iter().next()
    };
    let job = claim().await.unwrap();
    assert!(!store.revive(job.id).await.unwrap(), "it is claimed");
    let (delay, reason) = (LEASE, "the server is away".to_owned());
    let retry = JobEnd::Retry { delay, reason };
    assert!(store.end_job(&job, retry).await.unwrap());
    assert!(claim().await.is_none());
    let listed = store.list(0, 9).await.unwrap();
    assert_eq!(listed[0].reason.as_deref(), Some("the server is away"));
    assert!(store.revive(job.id).await.unwrap());
    let job = claim().await.unwrap();
    assert_eq!(job.attempts, 1, "it has all its attempts again");
    let reason = "no such address".to_owned();
    let failed = JobEnd::Failed { reason };
    assert!(store.end_job(&job, failed).await.unwrap());
    assert_eq!(store.next_job_due(&["mail"]).await.unwrap(), None);
    assert!(store.list(0, 9).await.unwrap()[0].has_failed);
    assert!(store.revive(job.id).await.unwrap());
    assert!(claim().await.is_some());
}

async fn many_workers_do_each_job_once(test: &TestStore) {
    add(test, &["mail"; 60]).await;
    let workers = (0..4).map(|_| {
        let store = test.store.clone();
        tokio::spawn(async move {
            let mut done = Vec::new();
            loop {
                let claimed = store.claim_jobs(&["mail"], 3, LEASE).await.unwrap();
                if claimed.is_empty() {
                    return done;
                }
                for job in claimed {
                    assert!(store.end_job(&job, JobEnd::Done).await.unwrap());
                    done.push(job.id);
                }
            }
        })
    });
    let mut done = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        done.extend(worker.await.unwrap());
    }
    done.sort_unstable();
    let count = done.len();
    done.dedup();
    assert_eq!((count, done.len()), (60, 60));
}
