//! Redis adds up the charges of a user on several nodes, and repays them by Redis's clock.

use std::time::Duration;

use hubbub::backplane::Backplane;
use hubbub::domain::{Charges, UserId};

use crate::fixture::{DEADLINE, Fixture, eventually, limits, user};

const HOUR: Duration = Duration::from_secs(3600);

async fn charge(node: &Backplane, charges: Vec<(UserId, Charges)>) -> Vec<(UserId, Charges)> {
    let mut debts = node
        .rate_limiter
        .as_ref()
        .expect("Redis has a shared rate limiter")
        .charge(charges)
        .await;
    debts.sort_unstable();
    debts
}

/// Whether the debt is the expected one, less at most 10 seconds that were repaid meanwhile on a
/// busy machine.
fn is_about(debt: Duration, expected: Duration) -> bool {
    debt <= expected && debt + 10 * Duration::from_secs(1) > expected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn charges_of_several_nodes_add_up_by_user_and_kind() {
    let mut fixture = Fixture::redis();
    let nodes = [fixture.start(limits()).await, fixture.start(limits()).await];
    let zero = Duration::ZERO;
    let unusual = user("{p00}:*\u{1F980}");
    let first = charge(
        &nodes[0],
        vec![
            (user("ann"), [HOUR, zero, HOUR, zero]),
            (unusual.clone(), [zero, HOUR, zero, zero]),
        ],
    );
    assert_eq!(first.await.len(), 2);
    let known = charge(
        &nodes[1],
        vec![
            (user("ann"), [HOUR, HOUR, zero, zero]),
            (user("bob"), [HOUR; 4]),
            (unusual, [zero; 4]),
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
                .all(|(debt, expected)| is_about(*debt, expected)),
            "{known:?}"
        );
    }
    // Many users of one partition take several script calls; each user is in the reply.
    let many: Vec<_> = (0..5000)
        .map(|n| (user(&format!("user-{n}")), [HOUR; 4]))
        .collect();
    assert_eq!(charge(&nodes[0], many).await.len(), 5000);
    let keys = fixture
        .server()
        .cli(&["--scan", "--pattern", "*q:*"])
        .lines()
        .count();
    assert_eq!(keys, 5003);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repaid_charges_expire_and_an_unavailable_redis_returns_no_debts() {
    let mut fixture = Fixture::redis();
    let node = fixture.start(limits()).await;
    let short = Duration::from_millis(300);
    charge(&node, vec![(user("ann"), [short; 4])]).await;
    let expired = async || {
        fixture
            .server()
            .cli(&["--scan", "--pattern", "*q:*"])
            .is_empty()
            .then_some(())
    };
    eventually(DEADLINE, "the key expires", expired).await;
    let known = charge(
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
        charge(&node, vec![(user("ann"), [short; 4])])
            .await
            .is_empty()
    );
}
