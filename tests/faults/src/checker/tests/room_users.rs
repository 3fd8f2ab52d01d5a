//! Presence in rooms.

use super::history_builder::HistoryBuilder;
use crate::checker::Presence;

/// `ann` is in the room, with `bob`.
fn ann_with_bob() -> HistoryBuilder {
    let mut history = HistoryBuilder::default();
    history
        .connects("ann")
        .joined("ann", None, "e1/0", false, false, 0)
        .gets_room_users("ann", &["ann", "bob"]);
    history
}

#[test]
fn joins_and_departures_that_the_lab_caused_are_accepted() {
    let mut history = ann_with_bob();
    history
        .unaffected("ann")
        .presence_changed("cid", true)
        .sees_join("ann", "cid")
        .presence_changed("bob", false)
        .sees_leave("ann", "bob");
    history
        .presence_changed("bob", true)
        .sees_join("ann", "bob")
        .final_members(&["bob", "ann", "cid"])
        .assert_accepted();
    assert_eq!(
        (
            history.stats().user_joined,
            history.stats().user_left,
            history.stats().room_users
        ),
        (2, 1, 1)
    );
}

#[test]
fn a_user_must_not_join_twice_or_leave_while_absent() {
    let mut history = ann_with_bob();
    history
        .sees_join("ann", "bob")
        .assert_faults(&["user joined twice"]);
    history.promises.presence = Presence::FinalState;
    history.assert_accepted();
    let mut history = ann_with_bob();
    history
        .sees_leave("ann", "cid")
        .assert_faults(&["absent user left"]);
    ann_with_bob()
        .sees_leave("ann", "bob")
        .sees_leave("ann", "bob")
        .assert_faults(&["absent user left"]);
}

#[test]
fn a_list_replaces_the_known_users() {
    let mut history = ann_with_bob();
    history
        .gets_room_users("ann", &["ann", "cid"])
        .sees_join("ann", "bob")
        .final_members(&["ann", "bob", "cid"])
        .assert_accepted();
    let mut history = ann_with_bob();
    history
        .gets_room_users("ann", &["ann", "cid"])
        .sees_leave("ann", "bob")
        .assert_faults(&["absent user left"]);
    // For a large room there is only a total: no member knows the users.
    let mut history = ann_with_bob();
    history
        .gets_room_users_of("ann", &[], 700)
        .final_members(&["ann", "dan"])
        .assert_accepted();
}

#[test]
fn a_client_must_not_be_notified_of_its_own_user() {
    ann_with_bob()
        .sees_join("ann", "ann")
        .assert_faults(&["notified of its own user"]);
    ann_with_bob()
        .sees_leave("ann", "ann")
        .assert_faults(&["notified of its own user"]);
}

#[test]
fn the_list_after_a_join_must_be_complete() {
    let join = || {
        let mut history = HistoryBuilder::default();
        history
            .connects("ann")
            .joined("ann", None, "e1/0", false, false, 0);
        history
    };
    join()
        .gets_room_users("ann", &["bob"])
        .assert_faults(&["wrong room_users"]);
    join()
        .gets_room_users("ann", &["ann", "ann"])
        .assert_faults(&["wrong room_users"]);
    join()
        .gets_room_users_of("ann", &["ann"], 2)
        .assert_faults(&["wrong room_users"]);
    join()
        .gets_room_users_of("ann", &["ann", "bob"], 1)
        .assert_faults(&["wrong room_users"]);
    join()
        .gets_room_users_of("ann", &[], 2)
        .assert_faults(&["wrong room_users"]);
    join()
        .sees_join("ann", "bob")
        .assert_faults(&["wrong room_users"]);
    join()
        .final_members(&["ann"])
        .assert_faults(&["wrong room_users"]);
    ann_with_bob()
        .leaves("ann")
        .sees_join("ann", "cid")
        .assert_faults(&["wrong room_users"]);
    ann_with_bob()
        .leaves("ann")
        .gets_room_users("ann", &["ann"])
        .assert_faults(&["wrong room_users"]);
}

#[test]
fn every_member_must_know_the_true_users_at_the_end() {
    ann_with_bob()
        .final_members(&["ann"])
        .assert_faults(&["wrong final members"]);
    ann_with_bob()
        .final_members(&["ann", "bob", "cid"])
        .assert_faults(&["wrong final members"]);
    ann_with_bob()
        .leaves("ann")
        .final_members(&["bob"])
        .assert_accepted();
    ann_with_bob()
        .ends("ann")
        .final_members(&["bob"])
        .assert_accepted();
}

#[test]
fn unaffected_members_must_not_be_notified_of_more_than_happened() {
    let mut history = ann_with_bob();
    history
        .unaffected("ann")
        .sees_leave("ann", "bob")
        .sees_join("ann", "bob")
        .final_members(&["ann", "bob"]);
    history.assert_faults(&["unexpected membership change"]);
    history.promises.presence = Presence::FinalState;
    history.assert_accepted();
    // A list in between must not hide it.
    let mut history = ann_with_bob();
    history
        .unaffected("ann")
        .gets_room_users("ann", &["ann"])
        .sees_join("ann", "bob")
        .assert_faults(&["unexpected membership change"]);
    // A first join is accepted; a departure that the lab did not cause is not.
    let mut history = ann_with_bob();
    history
        .unaffected("ann")
        .sees_join("ann", "cid")
        .final_members(&["ann", "bob", "cid"])
        .assert_accepted();
    let mut history = ann_with_bob();
    history
        .unaffected("ann")
        .sees_join("ann", "cid")
        .sees_leave("ann", "cid")
        .assert_faults(&["unexpected membership change"]);
}

#[test]
fn users_that_leave_by_themselves_may_come_and_go() {
    let mut history = ann_with_bob();
    history
        .connects_and_joins("bob", "e1/0")
        .unaffected("ann")
        .leaves("bob")
        .sees_leave("ann", "bob");
    history
        .joined("bob", None, "e1/0", false, false, 0)
        .gets_room_users("bob", &["ann", "bob"])
        .sees_join("ann", "bob");
    history.final_members(&["ann", "bob"]).assert_accepted();
}

#[test]
fn a_short_absence_must_not_be_reported_as_leaving_a_room() {
    let with_absence = |away: u64| {
        let mut history = ann_with_bob();
        history.promises.no_departure_within = Some(2000);
        history.connects_and_joins("bob", "e1/0").disconnects("bob");
        let gone_at = history.records.last().unwrap().at;
        history.sees_leave("ann", "bob").connects("bob").joined(
            "bob",
            Some("e1/0"),
            "e1/0",
            true,
            false,
            0,
        );
        history
            .gets_room_users("bob", &["ann", "bob"])
            .sees_join("ann", "bob");
        let count = history.records.len();
        // He connects at once, but the absence lasts until he has joined the room again.
        history.records[count - 4].at = gone_at + 1;
        for (number, at) in [
            (count - 5, away),
            (count - 3, away + 5),
            (count - 2, away + 5),
            (count - 1, away + 6),
        ] {
            history.records[number].at = gone_at + at;
        }
        history
    };
    with_absence(3000).assert_accepted();
    with_absence(1000).assert_faults(&["unexpected membership change"]);
    // He left by himself.
    let mut history = ann_with_bob();
    history.promises.no_departure_within = Some(2000);
    history.connects_and_joins("bob", "e1/0").leaves("bob");
    history.sees_leave("ann", "bob").assert_accepted();
}
