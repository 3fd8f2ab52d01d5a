//! Presence in rooms.

use super::tale::Tale;
use crate::checker::Presence;

/// `ann` is in the room, with `bob`.
fn ann_and_bob() -> Tale {
    let mut tale = Tale::default();
    tale.opens("ann")
        .joined("ann", None, "e1/0", false, false, 0)
        .lists("ann", &["ann", "bob"]);
    tale
}

#[test]
fn comings_and_goings_are_fine() {
    let mut tale = ann_and_bob();
    tale.calm("ann")
        .change("cid", true)
        .sees_enter("ann", "cid")
        .change("bob", false)
        .sees_go("ann", "bob");
    tale.change("bob", true)
        .sees_enter("ann", "bob")
        .members(&["bob", "ann", "cid"])
        .is_fine();
    assert_eq!(
        (
            tale.figures().entered,
            tale.figures().went,
            tale.figures().rosters
        ),
        (2, 1, 1)
    );
}

#[test]
fn nobody_comes_twice_or_goes_without_being_in() {
    let mut tale = ann_and_bob();
    tale.sees_enter("ann", "bob").is_wrong(&["came twice"]);
    tale.promises.presence = Presence::FinalState;
    tale.is_fine();
    let mut tale = ann_and_bob();
    tale.sees_go("ann", "cid")
        .is_wrong(&["went without being in"]);
    ann_and_bob()
        .sees_go("ann", "bob")
        .sees_go("ann", "bob")
        .is_wrong(&["went without being in"]);
}

#[test]
fn a_list_replaces_what_is_known() {
    let mut tale = ann_and_bob();
    tale.lists("ann", &["ann", "cid"])
        .sees_enter("ann", "bob")
        .members(&["ann", "bob", "cid"])
        .is_fine();
    let mut tale = ann_and_bob();
    tale.lists("ann", &["ann", "cid"])
        .sees_go("ann", "bob")
        .is_wrong(&["went without being in"]);
    // In a large room there is only a number: nobody knows who is in.
    let mut tale = ann_and_bob();
    tale.lists_of("ann", &[], 700)
        .members(&["ann", "dan"])
        .is_fine();
}

#[test]
fn nobody_is_told_of_itself() {
    ann_and_bob()
        .sees_enter("ann", "ann")
        .is_wrong(&["told of itself"]);
    ann_and_bob()
        .sees_go("ann", "ann")
        .is_wrong(&["told of itself"]);
}

#[test]
fn the_list_of_a_join_is_whole() {
    let join = || {
        let mut tale = Tale::default();
        tale.opens("ann")
            .joined("ann", None, "e1/0", false, false, 0);
        tale
    };
    join()
        .lists("ann", &["bob"])
        .is_wrong(&["wrong room_users"]);
    join()
        .lists("ann", &["ann", "ann"])
        .is_wrong(&["wrong room_users"]);
    join()
        .lists_of("ann", &["ann"], 2)
        .is_wrong(&["wrong room_users"]);
    join()
        .lists_of("ann", &["ann", "bob"], 1)
        .is_wrong(&["wrong room_users"]);
    join()
        .lists_of("ann", &[], 2)
        .is_wrong(&["wrong room_users"]);
    join()
        .sees_enter("ann", "bob")
        .is_wrong(&["wrong room_users"]);
    join().members(&["ann"]).is_wrong(&["wrong room_users"]);
    ann_and_bob()
        .leaves("ann")
        .sees_enter("ann", "cid")
        .is_wrong(&["wrong room_users"]);
    ann_and_bob()
        .leaves("ann")
        .lists("ann", &["ann"])
        .is_wrong(&["wrong room_users"]);
}

#[test]
fn in_the_end_everybody_knows_who_is_in() {
    ann_and_bob()
        .members(&["ann"])
        .is_wrong(&["wrong members in the end"]);
    ann_and_bob()
        .members(&["ann", "bob", "cid"])
        .is_wrong(&["wrong members in the end"]);
    ann_and_bob().leaves("ann").members(&["bob"]).is_fine();
    ann_and_bob().ends("ann").members(&["bob"]).is_fine();
}

#[test]
fn calm_members_are_told_of_no_more_than_there_was() {
    let mut tale = ann_and_bob();
    tale.calm("ann")
        .sees_go("ann", "bob")
        .sees_enter("ann", "bob")
        .members(&["ann", "bob"]);
    tale.is_wrong(&["noise in a room"]);
    tale.promises.presence = Presence::FinalState;
    tale.is_fine();
    // Nor may a list between hide it.
    let mut tale = ann_and_bob();
    tale.calm("ann")
        .lists("ann", &["ann"])
        .sees_enter("ann", "bob")
        .is_wrong(&["noise in a room"]);
    // A first join is no noise; a second one is.
    let mut tale = ann_and_bob();
    tale.calm("ann")
        .sees_enter("ann", "cid")
        .members(&["ann", "bob", "cid"])
        .is_fine();
    let mut tale = ann_and_bob();
    tale.calm("ann")
        .sees_enter("ann", "cid")
        .sees_go("ann", "cid")
        .is_wrong(&["noise in a room"]);
}

#[test]
fn who_leaves_by_itself_makes_no_noise() {
    let mut tale = ann_and_bob();
    tale.enters("bob", "e1/0")
        .calm("ann")
        .leaves("bob")
        .sees_go("ann", "bob");
    tale.joined("bob", None, "e1/0", false, false, 0)
        .lists("bob", &["ann", "bob"])
        .sees_enter("ann", "bob");
    tale.members(&["ann", "bob"]).is_fine();
}

#[test]
fn nobody_goes_from_a_room_who_was_hardly_away() {
    let told = |away: u64| {
        let mut tale = ann_and_bob();
        tale.promises.nobody_gone_within = Some(2000);
        tale.enters("bob", "e1/0").closes("bob");
        let gone_at = tale.records.last().unwrap().at;
        tale.sees_go("ann", "bob")
            .opens("bob")
            .joined("bob", Some("e1/0"), "e1/0", true, false, 0);
        tale.lists("bob", &["ann", "bob"]).sees_enter("ann", "bob");
        let count = tale.records.len();
        // Connected at once: what counts is when he was in the room again.
        tale.records[count - 4].at = gone_at + 1;
        for (number, at) in [
            (count - 5, away),
            (count - 3, away + 5),
            (count - 2, away + 5),
            (count - 1, away + 6),
        ] {
            tale.records[number].at = gone_at + at;
        }
        tale
    };
    told(3000).is_fine();
    told(1000).is_wrong(&["noise in a room"]);
    // He had left by himself.
    let mut tale = ann_and_bob();
    tale.promises.nobody_gone_within = Some(2000);
    tale.enters("bob", "e1/0").leaves("bob");
    tale.sees_go("ann", "bob").is_fine();
}
