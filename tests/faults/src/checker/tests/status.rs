//! Presence by status.

use super::tale::Tale;
use crate::checker::Presence;

const ON: bool = true;
const OFF: bool = false;

/// Two calm watchers of `tim`, who is online in version 5.
fn calm_pair() -> Tale {
    let mut tale = Tale::default();
    tale.opens("ann")
        .watches("ann", ON, 5)
        .opens("bob")
        .watches("bob", ON, 5)
        .calm("ann")
        .calm("bob");
    tale
}

#[test]
fn each_change_is_told_once() {
    let mut tale = calm_pair();
    tale.change("tim", OFF)
        .is_told("ann", OFF, 8)
        .change("tim", ON)
        .is_told("ann", ON, 9);
    tale.is_told("bob", OFF, 8)
        .is_told("bob", ON, 9)
        .state(ON, 9)
        .is_fine();
    assert_eq!(
        (
            tale.figures().presence_expected,
            tale.figures().presence_seen
        ),
        (4, 4)
    );
}

#[test]
fn a_change_that_was_not_told_is_found() {
    let mut tale = calm_pair();
    tale.change("tim", OFF)
        .change("tim", ON)
        .is_told("ann", OFF, 8)
        .is_told("ann", ON, 9)
        .is_told("bob", OFF, 8);
    tale.is_wrong(&["missed change"]);
    tale.state(ON, 9)
        .is_wrong(&["missed change", "wrong state in the end"]);
    // Told as one, though calm.
    let mut tale = calm_pair();
    tale.change("tim", OFF)
        .change("tim", ON)
        .change("tim", OFF)
        .is_told("ann", OFF, 8)
        .is_told("bob", OFF, 8);
    tale.state(OFF, 8).is_wrong(&["missed change"]);
}

#[test]
fn a_change_that_was_not_is_noise() {
    let mut tale = calm_pair();
    tale.is_told("ann", OFF, 6)
        .is_told("ann", ON, 7)
        .is_told("bob", OFF, 6)
        .is_told("bob", ON, 7)
        .state(ON, 7);
    tale.is_wrong(&["noise"]);
    tale.promises.presence = Presence::FinalState;
    tale.is_fine();
}

#[test]
fn versions_rise() {
    // The same twice, an older one, and one that the initial state had.
    let mut tale = calm_pair();
    tale.change("tim", OFF)
        .is_told("ann", OFF, 8)
        .is_told("bob", OFF, 8)
        .is_told("ann", OFF, 8);
    tale.is_wrong(&["old status"]);
    let mut tale = Tale::default();
    tale.opens("ann")
        .watches("ann", ON, 5)
        .is_told("ann", OFF, 4)
        .is_wrong(&["old status"]);
    Tale::default()
        .opens("ann")
        .watches("ann", ON, 5)
        .is_told("ann", ON, 5)
        .is_wrong(&["old status"]);
    // Over connections too.
    let mut tale = Tale::default();
    tale.opens("ann")
        .watches("ann", ON, 5)
        .closes("ann")
        .opens("ann")
        .watches("ann", OFF, 4);
    tale.is_wrong(&["old status"]);
    tale.data_lost().is_fine();
    let mut tale = Tale::default();
    tale.opens("ann")
        .watches("ann", ON, 5)
        .closes("ann")
        .opens("ann")
        .watches("ann", ON, 5)
        .is_fine();
}

#[test]
fn a_version_means_one_thing() {
    let mut tale = Tale::default();
    tale.opens("ann")
        .watches("ann", ON, 5)
        .opens("bob")
        .watches("bob", OFF, 5);
    tale.is_wrong(&["status with two meanings"]);
    Tale::default()
        .opens("ann")
        .watches("ann", ON, 5)
        .state(OFF, 5)
        .is_wrong(&["status with two meanings", "wrong state in the end"]);
}

#[test]
fn others_may_be_told_of_several_changes_at_once_but_of_none_that_was_not() {
    let mut tale = calm_pair();
    tale.opens("cid").watches("cid", ON, 5);
    for who in ["ann", "bob"] {
        tale.is_told(who, OFF, 8)
            .is_told(who, ON, 9)
            .is_told(who, OFF, 11);
    }
    tale.change("tim", OFF)
        .change("tim", ON)
        .change("tim", OFF)
        .is_told("cid", OFF, 11)
        .state(OFF, 11)
        .is_fine();
    let mut tale = calm_pair();
    tale.opens("cid")
        .watches("cid", ON, 5)
        .is_told("cid", OFF, 6)
        .is_told("cid", ON, 8)
        .state(ON, 5);
    tale.is_wrong(&["invented version", "wrong state in the end"]);
    // As a state, too.
    let mut tale = calm_pair();
    tale.opens("cid")
        .watches("cid", OFF, 6)
        .closes("cid")
        .ends("cid")
        .state(ON, 5)
        .is_wrong(&["invented version"]);
}

#[test]
fn in_the_end_everybody_knows_the_truth() {
    let mut tale = Tale::default();
    tale.opens("ann")
        .watches("ann", ON, 5)
        .opens("bob")
        .watches("bob", ON, 5)
        .change("tim", OFF);
    tale.is_told("ann", OFF, 8)
        .state(OFF, 8)
        .is_wrong(&["wrong state in the end"]);
    Tale::default()
        .opens("ann")
        .watches("ann", ON, 5)
        .ends("ann")
        .change("tim", OFF)
        .state(OFF, 8)
        .is_fine();
}

#[test]
fn who_watches_nobody_is_told_nothing() {
    Tale::default()
        .opens("ann")
        .is_told("ann", ON, 5)
        .is_wrong(&["uninvited"]);
    let mut tale = Tale::default();
    tale.opens("ann")
        .watches("ann", ON, 5)
        .closes("ann")
        .opens("ann")
        .is_told("ann", OFF, 6)
        .is_wrong(&["uninvited"]);
}

#[test]
fn who_is_calm_stays_connected() {
    let mut tale = calm_pair();
    tale.closes("ann")
        .opens("ann")
        .watches("ann", ON, 5)
        .state(ON, 5)
        .is_wrong(&["malformed"]);
    // But may end: then what came is a beginning of what was.
    let mut tale = calm_pair();
    tale.change("tim", OFF)
        .is_told("ann", OFF, 8)
        .is_told("bob", OFF, 8)
        .ends("ann")
        .change("tim", ON);
    tale.is_told("bob", ON, 9).state(ON, 9).is_fine();
}

#[test]
fn nobody_is_offline_who_was_not_away() {
    let told = |away: u64| {
        let mut tale = Tale::default();
        tale.promises.nobody_gone_within = Some(2000);
        tale.opens("ann")
            .watches("ann", ON, 5)
            .opens("tim")
            .closes("tim");
        let gone_at = tale.records.last().unwrap().at;
        tale.is_told("ann", OFF, 8)
            .opens("tim")
            .is_told("ann", ON, 9);
        let count = tale.records.len();
        for (number, at) in [
            (count - 3, gone_at + away),
            (count - 2, gone_at + away + 5),
            (count - 1, gone_at + away + 9),
        ] {
            tale.records[number].at = at;
        }
        tale
    };
    told(3000).is_fine();
    told(1000).is_wrong(&["noise"]);
    // Another of his connections lives.
    let mut tale = told(3000);
    let mut other = tale.records[3].clone();
    other.who = "tim-2".into();
    tale.records.insert(3, other);
    tale.is_wrong(&["noise"]);
}
