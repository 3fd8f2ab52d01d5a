//! What users spend on several nodes is added up in Redis, and made up for by Redis's clock.

use std::time::Duration;

use hubbub::backplane::Backplane;
use hubbub::domain::{Charges, UserId};

use crate::fixture::{Fixture, SOON, eventually, limits, user};

const HOUR: Duration = Duration::from_secs(3600);

async fn spend(node: &Backplane, spent: Vec<(UserId, Charges)>) -> Vec<(UserId, Charges)> {
    let mut known = node
        .rate_limiter
        .as_ref()
        .expect("Redis adds up")
        .charge(spent)
        .await;
    known.sort_unstable();
    known
}

/// Within the second that a busy machine may have taken.
fn about(debt: Duration, expected: Duration) -> bool {
    debt <= expected && debt + 10 * Duration::from_secs(1) > expected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_add_up_by_user_and_kind() {
    let mut fixture = Fixture::redis();
    let nodes = [fixture.start(limits()).await, fixture.start(limits()).await];
    let zero = Duration::ZERO;
    let strange = user("{p00}:*\u{1F980}");
    let first = spend(
        &nodes[0],
        vec![
            (user("ann"), [HOUR, zero, HOUR, zero]),
            (strange.clone(), [zero, HOUR, zero, zero]),
        ],
    );
    assert_eq!(first.await.len(), 2);
    let known = spend(
        &nodes[1],
        vec![
            (user("ann"), [HOUR, HOUR, zero, zero]),
            (user("bob"), [HOUR; 4]),
            (strange, [zero; 4]),
        ],
    );
    let known = known.await;
    let expected = [
        [2 * HOUR, HOUR, HOUR, zero],
        [HOUR; 4],
        [zero, HOUR, zero, zero],
    ];
    assert_eq!(known.len(), 3);
    for ((_, debts), expected) in known.iter().zip(expected) {
        assert!(
            debts
                .iter()
                .zip(expected)
                .all(|(debt, expected)| about(*debt, expected)),
            "{known:?}"
        );
    }
    // Many users of one partition take several scripts; each comes back.
    let many: Vec<_> = (0..5000)
        .map(|n| (user(&format!("user-{n}")), [HOUR; 4]))
        .collect();
    assert_eq!(spend(&nodes[0], many).await.len(), 5000);
    let keys = fixture
        .server()
        .cli(&["--scan", "--pattern", "*q:*"])
        .lines()
        .count();
    assert_eq!(keys, 5003);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_up_for_is_forgotten_and_a_redis_away_answers_nothing() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let short = Duration::from_millis(300);
    spend(&node, vec![(user("ann"), [short; 4])]).await;
    let gone = async || {
        fixture
            .server()
            .cli(&["--scan", "--pattern", "*q:*"])
            .is_empty()
            .then_some(())
    };
    eventually(SOON, "the key expires", gone).await;
    let known = spend(
        &node,
        vec![(
            user("ann"),
            [short, Duration::ZERO, Duration::ZERO, Duration::ZERO],
        )],
    )
    .await;
    assert_eq!(
        known,
        [(
            user("ann"),
            [short, Duration::ZERO, Duration::ZERO, Duration::ZERO]
        )]
    );
    fixture.server().kill();
    assert!(
        spend(&node, vec![(user("ann"), [short; 4])])
            .await
            .is_empty()
    );
}
