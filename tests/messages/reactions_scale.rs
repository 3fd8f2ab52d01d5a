//! Reactions of many members to one message.

use std::time::Duration;

use hubbub_test_support::database::DatabaseKind;

use crate::measure::reactions_of;

#[tokio::test(flavor = "multi_thread")]
async fn reactions_of_many_members_are_counted_exactly_and_announced_twice_a_second() {
    reactions_of(DatabaseKind::Postgres, 300, Duration::from_secs(2)).await;
}
