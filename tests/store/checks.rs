//! The check of the archive by nodes.

use hubbub::domain::Timestamp;
use hubbub::store::{ArchiveStore as _, MissingPage};

use crate::fixture::{TestStore, room};

crate::on_every_database!(
    missing_numbers_are_found_page_by_page,
    a_check_is_claimed_by_one_node_at_a_time,
);

async fn missing_numbers_are_found_page_by_page(store: &TestStore) {
    let find = async |after| store.store.find_missing(&room("r"), after).await.unwrap();
    assert_eq!(find(0).await, MissingPage::default());
    let absent = [2, 3, 10, 10_100, 10_300];
    let present = (1..=10_400).filter(|seq| !absent.contains(seq));
    store.fill("r", present).await;
    store.store.record_loss(&room("r"), 3..=3).await.unwrap();
    store
        .store
        .record_loss(&room("r"), 10_300..=10_300)
        .await
        .unwrap();
    let first = find(0).await;
    assert_eq!(first.missing, [2..=2, 10..=10]);
    // The page has 10,000 entries.
    assert_eq!(first.next, Some(10_003));
    let second = MissingPage {
        missing: vec![10_100..=10_100],
        next: None,
    };
    assert_eq!(find(10_003).await, second);
    assert_eq!(find(10_100).await, MissingPage::default());
    store
        .store
        .delete_up_to(&room("r"), 20, 1000)
        .await
        .unwrap();
    assert_eq!(
        find(0).await.missing,
        [] as [std::ops::RangeInclusive<u64>; 0]
    );
}

async fn a_check_is_claimed_by_one_node_at_a_time(store: &TestStore) {
    let claim = |now, since| store.store.claim_check(Timestamp(now), Timestamp(since));
    let (first, second) = tokio::join!(claim(1000, 1), claim(1000, 1));
    let mut claimed = [first.unwrap(), second.unwrap()];
    claimed.sort_unstable();
    assert_eq!(claimed, [false, true]);
    for (now, since, expected) in [
        (2000, 1000, false),
        (2000, 1001, true),
        (2000, 2000, false),
        (3000, 3000, true),
    ] {
        let claimed = claim(now, since).await.unwrap();
        assert_eq!(claimed, expected, "{now} {since}");
    }
}
