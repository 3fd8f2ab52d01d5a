//! Status events.

use super::history_builder::HistoryBuilder;
use crate::checker::Presence;

const ON: bool = true;
const OFF: bool = false;

/// Two unaffected watchers of `tim`: he is online in version 5.
fn unaffected_pair() -> HistoryBuilder {
    let mut history = HistoryBuilder::default();
    history
        .connects("ann")
        .watches("ann", ON, 5)
        .connects("bob")
        .watches("bob", ON, 5)
        .unaffected("ann")
        .unaffected("bob");
    history
}

#[test]
fn one_event_per_change_is_accepted() {
    let mut history = unaffected_pair();
    history
        .presence_changed("tim", OFF)
        .sees_status("ann", OFF, 8)
        .presence_changed("tim", ON)
        .sees_status("ann", ON, 9);
    history
        .sees_status("bob", OFF, 8)
        .sees_status("bob", ON, 9)
        .final_status(ON, 9)
        .assert_accepted();
    assert_eq!(
        (
            history.stats().presence_expected,
            history.stats().presence_seen
        ),
        (4, 4)
    );
}

#[test]
fn a_change_without_an_event_is_a_fault() {
    let mut history = unaffected_pair();
    history
        .presence_changed("tim", OFF)
        .presence_changed("tim", ON)
        .sees_status("ann", OFF, 8)
        .sees_status("ann", ON, 9)
        .sees_status("bob", OFF, 8);
    history.assert_faults(&["missed status change"]);
    history
        .final_status(ON, 9)
        .assert_faults(&["missed status change", "wrong final status"]);
    // One event for several changes, although the watchers are unaffected.
    let mut history = unaffected_pair();
    history
        .presence_changed("tim", OFF)
        .presence_changed("tim", ON)
        .presence_changed("tim", OFF)
        .sees_status("ann", OFF, 8)
        .sees_status("bob", OFF, 8);
    history
        .final_status(OFF, 8)
        .assert_faults(&["missed status change"]);
}

#[test]
fn an_event_without_a_change_is_a_fault() {
    let mut history = unaffected_pair();
    history
        .sees_status("ann", OFF, 6)
        .sees_status("ann", ON, 7)
        .sees_status("bob", OFF, 6)
        .sees_status("bob", ON, 7)
        .final_status(ON, 7);
    history.assert_faults(&["unexpected status change"]);
    history.promises.presence = Presence::FinalState;
    history.assert_accepted();
}

#[test]
fn versions_must_rise() {
    // The same version twice, an older one, and the one of the initial state.
    let mut history = unaffected_pair();
    history
        .presence_changed("tim", OFF)
        .sees_status("ann", OFF, 8)
        .sees_status("bob", OFF, 8)
        .sees_status("ann", OFF, 8);
    history.assert_faults(&["stale status"]);
    let mut history = HistoryBuilder::default();
    history
        .connects("ann")
        .watches("ann", ON, 5)
        .sees_status("ann", OFF, 4)
        .assert_faults(&["stale status"]);
    HistoryBuilder::default()
        .connects("ann")
        .watches("ann", ON, 5)
        .sees_status("ann", ON, 5)
        .assert_faults(&["stale status"]);
    // Also across connections.
    let mut history = HistoryBuilder::default();
    history
        .connects("ann")
        .watches("ann", ON, 5)
        .disconnects("ann")
        .connects("ann")
        .watches("ann", OFF, 4);
    history.assert_faults(&["stale status"]);
    history.data_lost().assert_accepted();
    let mut history = HistoryBuilder::default();
    history
        .connects("ann")
        .watches("ann", ON, 5)
        .disconnects("ann")
        .connects("ann")
        .watches("ann", ON, 5)
        .assert_accepted();
}

#[test]
fn a_version_must_mean_the_same_to_every_client() {
    let mut history = HistoryBuilder::default();
    history
        .connects("ann")
        .watches("ann", ON, 5)
        .connects("bob")
        .watches("bob", OFF, 5);
    history.assert_faults(&["conflicting status"]);
    HistoryBuilder::default()
        .connects("ann")
        .watches("ann", ON, 5)
        .final_status(OFF, 5)
        .assert_faults(&["conflicting status", "wrong final status"]);
}

#[test]
fn other_watchers_may_get_one_event_for_several_changes_but_none_without_a_change() {
    let mut history = unaffected_pair();
    history.connects("cid").watches("cid", ON, 5);
    for watcher in ["ann", "bob"] {
        history
            .sees_status(watcher, OFF, 8)
            .sees_status(watcher, ON, 9)
            .sees_status(watcher, OFF, 11);
    }
    history
        .presence_changed("tim", OFF)
        .presence_changed("tim", ON)
        .presence_changed("tim", OFF)
        .sees_status("cid", OFF, 11)
        .final_status(OFF, 11)
        .assert_accepted();
    let mut history = unaffected_pair();
    history
        .connects("cid")
        .watches("cid", ON, 5)
        .sees_status("cid", OFF, 6)
        .sees_status("cid", ON, 8)
        .final_status(ON, 5);
    history.assert_faults(&["unknown status version", "wrong final status"]);
    // The same with a state that the watcher asked for.
    let mut history = unaffected_pair();
    history
        .connects("cid")
        .watches("cid", OFF, 6)
        .disconnects("cid")
        .ends("cid")
        .final_status(ON, 5)
        .assert_faults(&["unknown status version"]);
}

#[test]
fn every_watcher_must_know_the_true_status_at_the_end() {
    let mut history = HistoryBuilder::default();
    history
        .connects("ann")
        .watches("ann", ON, 5)
        .connects("bob")
        .watches("bob", ON, 5)
        .presence_changed("tim", OFF);
    history
        .sees_status("ann", OFF, 8)
        .final_status(OFF, 8)
        .assert_faults(&["wrong final status"]);
    HistoryBuilder::default()
        .connects("ann")
        .watches("ann", ON, 5)
        .ends("ann")
        .presence_changed("tim", OFF)
        .final_status(OFF, 8)
        .assert_accepted();
}

#[test]
fn a_client_that_does_not_watch_must_not_be_notified() {
    HistoryBuilder::default()
        .connects("ann")
        .sees_status("ann", ON, 5)
        .assert_faults(&["not subscribed"]);
    let mut history = HistoryBuilder::default();
    history
        .connects("ann")
        .watches("ann", ON, 5)
        .disconnects("ann")
        .connects("ann")
        .sees_status("ann", OFF, 6)
        .assert_faults(&["not subscribed"]);
}

#[test]
fn an_unaffected_client_must_stay_connected() {
    let mut history = unaffected_pair();
    history
        .disconnects("ann")
        .connects("ann")
        .watches("ann", ON, 5)
        .final_status(ON, 5)
        .assert_faults(&["malformed history"]);
    // But it may end: then its events must be the first ones of the expected ones.
    let mut history = unaffected_pair();
    history
        .presence_changed("tim", OFF)
        .sees_status("ann", OFF, 8)
        .sees_status("bob", OFF, 8)
        .ends("ann")
        .presence_changed("tim", ON);
    history
        .sees_status("bob", ON, 9)
        .final_status(ON, 9)
        .assert_accepted();
}

#[test]
fn a_short_absence_must_not_be_reported_as_offline() {
    let with_absence = |away: u64| {
        let mut history = HistoryBuilder::default();
        history.promises.no_departure_within = Some(2000);
        history
            .connects("ann")
            .watches("ann", ON, 5)
            .connects("tim")
            .disconnects("tim");
        let gone_at = history.records.last().unwrap().at;
        history
            .sees_status("ann", OFF, 8)
            .connects("tim")
            .sees_status("ann", ON, 9);
        let count = history.records.len();
        for (number, at) in [
            (count - 3, gone_at + away),
            (count - 2, gone_at + away + 5),
            (count - 1, gone_at + away + 9),
        ] {
            history.records[number].at = at;
        }
        history
    };
    with_absence(3000).assert_accepted();
    with_absence(1000).assert_faults(&["unexpected status change"]);
    // Another connection of `tim` stays.
    let mut history = with_absence(3000);
    let mut other = history.records[3].clone();
    other.source = "tim-2".into();
    history.records.insert(3, other);
    history.assert_faults(&["unexpected status change"]);
}
