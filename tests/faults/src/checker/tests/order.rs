//! Order, holes, repeats, joins.

use super::tale::{ROOM, Tale};
use crate::checker::Promises;
use crate::history::Fact;

#[test]
fn a_plain_talk_is_fine() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..5").head("e1/5").is_fine();
    let figures = tale.figures();
    assert_eq!(
        (
            figures.sent,
            figures.acknowledged,
            figures.delivered,
            figures.epochs
        ),
        (5, 5, 10, 1)
    );
    assert!(
        figures
            .to_string()
            .starts_with("2 clients, 1 rooms, 1 epochs; 5 messages in 5 attempts: 5 acknowledged")
    );
}

#[test]
fn a_resume_is_fine() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..3")
        .closes("ann")
        .says("e1/4..6")
        .gets("sue", "e1/4..6")
        .resumes("ann", "e1/3", "e1/6");
    tale.talk("e1/7").head("e1/7").is_fine();
    assert_eq!(tale.figures().resumes, 1);
}

#[test]
fn a_resume_into_a_new_epoch_is_fine() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..3")
        .closes("ann")
        .says("e1/4")
        .gets("sue", "e1/4")
        .says("e2/5")
        .gets("sue", "e2/5");
    tale.opens("ann")
        .joined("ann", Some("e1/3"), "e2/5", true, false, 2);
    tale.gets("ann", "e1/4")
        .gets("ann", "e2/5")
        .lists("ann", &["ann"])
        .head("e2/5")
        .is_fine();
}

#[test]
fn an_epoch_in_which_nothing_was_said_may_be_given_as_ones_own() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..3")
        .closes("ann")
        .resumes("ann", "e1/3", "e2/3")
        .closes("ann")
        .resumes("ann", "e2/3", "e3/3");
    tale.closes("ann")
        .resumes("ann", "e2/3", "e3/3")
        .talk("e3/4")
        .head("e3/4")
        .is_fine();
}

#[test]
fn who_begins_anew_may_be_shown_again_what_it_had() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..5")
        .leaves("ann")
        .closes("ann")
        .enters_with("ann", "e1/5", "e1/3..5");
    tale.talk("e1/6").head("e1/6").is_fine();
    assert_eq!(tale.figures().shown_again, 3);
}

#[test]
fn a_replay_may_begin_in_an_epoch_that_was_left() {
    let mut tale = Tale::of_two();
    // Only ann listens.
    tale.leaves("sue")
        .data_lost()
        .says("e1/1..3")
        .says("e2/4..5")
        .says("e3/4");
    tale.gets("ann", "e1/1..3")
        .gets("ann", "e2/4..5")
        .closes("ann");
    tale.misses("ann", "e2/5", "e3/4", &["e1/1..3", "e3/4"])
        .head("e3/4")
        .is_fine();
}

#[test]
fn a_replay_that_broke_off_goes_on_with_the_next_join() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..5")
        .closes("ann")
        .data_lost()
        .is_reset("sue", "e2/4")
        .says("e2/5")
        .gets("sue", "e2/5")
        .opens("ann");
    tale.joined("ann", Some("e1/5"), "e2/5", false, true, 5)
        .gets("ann", "e1/1..2")
        .closes("ann")
        .opens("ann");
    tale.joined("ann", Some("e1/2"), "e2/5", true, false, 3)
        .gets("ann", "e1/3..4")
        .gets("ann", "e2/5");
    tale.lists("ann", &["ann"]).head("e2/5").is_fine();
    assert_eq!(tale.figures().shown_again, 4);
}

#[test]
fn a_loss_of_data_excuses_no_gap_in_the_same_epoch() {
    let mut tale = Tale::of_two();
    tale.promises.data_loss = true;
    tale.talk("e1/1")
        .ends("sue")
        .closes("ann")
        .misses("ann", "e1/1", "e1/1", &[])
        .is_wrong(&["announced loss"]);
}

#[test]
fn an_announced_gap_is_fine_where_gaps_are_allowed() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..2")
        .closes("ann")
        .says("e1/3..9")
        .gets("sue", "e1/3..9");
    tale.misses("ann", "e1/2", "e1/9", &["e1/8..9"])
        .talk("e1/10")
        .head("e1/10")
        .is_wrong(&["announced loss"]);
    tale.promises.gaps = Some(2);
    tale.is_fine();
    assert_eq!(tale.figures().announced_lost["ann"], 5);
}

#[test]
fn a_reset_is_fine_where_gaps_are_allowed() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..2")
        .says("e1/3..9")
        .gets("sue", "e1/3..9")
        .is_reset("ann", "e1/7")
        .gets("ann", "e1/8..9");
    tale.head("e1/9").is_wrong(&["announced loss"]);
    tale.promises.gaps = Some(2);
    tale.is_fine();
    assert_eq!(
        (tale.figures().resets, tale.figures().announced_lost["ann"]),
        (1, 5)
    );
}

#[test]
fn a_hole_is_found() {
    Tale::of_two()
        .talk("e1/1..3")
        .says("e1/4..6")
        .gets("sue", "e1/4..6")
        .gets("ann", "e1/6")
        .is_wrong(&["hole"]);
    // Before the first live message, and within a replay.
    Tale::of_two()
        .says("e1/1..2")
        .gets("sue", "e1/1..2")
        .gets("ann", "e1/2")
        .is_wrong(&["hole"]);
    let mut tale = Tale::of_two();
    tale.talk("e1/1")
        .closes("ann")
        .says("e1/2..4")
        .gets("sue", "e1/2..4")
        .opens("ann");
    tale.joined("ann", Some("e1/1"), "e1/4", true, false, 3)
        .gets("ann", "e1/2")
        .gets("ann", "e1/4");
    tale.lists("ann", &["ann"]).is_wrong(&["hole"]);
    // After a reset.
    let mut tale = Tale::of_two();
    tale.promises.gaps = Some(2);
    tale.talk("e1/1")
        .says("e1/2..9")
        .gets("sue", "e1/2..9")
        .is_reset("ann", "e1/7")
        .gets("ann", "e1/9");
    tale.is_wrong(&["hole"]);
}

#[test]
fn an_epoch_changes_at_the_next_number_only() {
    Tale::of_two()
        .talk("e1/1..3")
        .talk("e2/4")
        .head("e2/4")
        .is_fine();
    let mut tale = Tale::of_two();
    tale.promises.data_loss = true;
    tale.talk("e1/1..3")
        .says("e2/4..5")
        .gets("sue", "e2/4..5")
        .gets("ann", "e2/5")
        .is_wrong(&["hole"]);
    let mut tale = Tale::of_two();
    tale.promises.data_loss = true;
    tale.talk("e1/1..3")
        .says("e2/3")
        .gets("ann", "e2/3")
        .ends("sue")
        .is_wrong(&["disorder"]);
}

#[test]
fn a_repeat_is_found() {
    Tale::of_two()
        .talk("e1/1..3")
        .gets("ann", "e1/3")
        .is_wrong(&["repeat"]);
    let mut tale = Tale::of_two();
    tale.talk("e1/1..3")
        .closes("ann")
        .resumes("ann", "e1/3", "e1/3")
        .gets("ann", "e1/1")
        .is_wrong(&["repeat"]);
    // Shown again twice, and shown again with a hole.
    let mut tale = Tale::of_two();
    tale.talk("e1/1..5")
        .leaves("ann")
        .closes("ann")
        .enters_with("ann", "e1/5", "e1/3..5")
        .gets("ann", "e1/4");
    tale.is_wrong(&["repeat"]);
    let mut tale = Tale::of_two();
    tale.talk("e1/1..5")
        .leaves("ann")
        .closes("ann")
        .opens("ann")
        .joined("ann", None, "e1/5", false, false, 3);
    tale.gets("ann", "e1/3")
        .gets("ann", "e1/5")
        .lists("ann", &["ann"])
        .is_wrong(&["hole"]);
    // Shown again, but not by the replay.
    let mut tale = Tale::of_two();
    tale.talk("e1/1..5")
        .leaves("ann")
        .closes("ann")
        .enters("ann", "e1/2")
        .gets("ann", "e1/3")
        .is_wrong(&["repeat"]);
}

#[test]
fn disorder_is_found() {
    let mut tale = Tale::of_two();
    tale.says("e1/1..3")
        .gets("sue", "e1/1..3")
        .gets("ann", "e1/1")
        .gets("ann", "e1/3")
        .gets("ann", "e1/2");
    tale.is_wrong(&["disorder", "hole"]);
}

#[test]
fn an_epoch_that_was_left_never_returns() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..3")
        .talk("e2/4")
        .says("e1/5")
        .gets("ann", "e1/5")
        .ends("ann")
        .ends("sue");
    tale.is_wrong(&["disorder", "order of epochs", "never came"]);
    tale.promises.data_loss = true;
    tale.is_wrong(&["disorder"]);
}

#[test]
fn clients_agree_on_the_order_of_epochs() {
    let mut tale = Tale::of_two();
    tale.promises = Promises {
        data_loss: true,
        gaps: Some(2),
        ..Promises::default()
    };
    tale.enters("bob", "e2/0")
        .talk("e1/1")
        .says("e2/2")
        .gets("sue", "e2/2")
        .gets("ann", "e2/2");
    tale.says("e2/1")
        .gets("bob", "e2/1")
        .says("e1/2")
        .gets("bob", "e1/2");
    let faults = tale.faults();
    assert!(
        faults
            .iter()
            .any(|fault| fault.starts_with("order of epochs") && fault.contains("bob")),
        "{faults:#?}"
    );
}

#[test]
fn nothing_comes_to_who_is_not_in() {
    Tale::of_two()
        .talk("e1/1")
        .opens("bob")
        .gets("bob", "e1/1")
        .is_wrong(&["uninvited"]);
    Tale::of_two()
        .talk("e1/1")
        .leaves("ann")
        .says("e1/2")
        .gets("sue", "e1/2")
        .gets("ann", "e1/2")
        .is_wrong(&["uninvited"]);
    Tale::of_two()
        .talk("e1/1")
        .ends("ann")
        .says("e1/2")
        .gets("sue", "e1/2")
        .gets("ann", "e1/2")
        .is_wrong(&["uninvited"]);
    Tale::of_two()
        .talk("e1/1")
        .opens("bob")
        .is_reset("bob", "e1/1")
        .is_wrong(&["uninvited"]);
    // Back, but not yet in.
    Tale::of_two()
        .talk("e1/1")
        .closes("ann")
        .opens("ann")
        .says("e1/2")
        .gets("ann", "e1/2")
        .gets("sue", "e1/2")
        .is_wrong(&["uninvited", "never came"]);
}

#[test]
fn a_client_resumes_from_where_it_stands() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..3")
        .closes("ann")
        .resumes("ann", "e1/2", "e1/2")
        .is_wrong(&["resumed elsewhere"]);
    let mut tale = Tale::of_two();
    tale.talk("e1/1..3")
        .closes("ann")
        .says("e1/4")
        .gets("sue", "e1/4")
        .resumes("ann", "e1/4", "e1/4");
    tale.head("e1/4").is_wrong(&["resumed elsewhere"]);
    let mut tale = Tale::of_two();
    tale.talk("e1/1..3")
        .closes("ann")
        .resumes("ann", "e0/3", "e1/3")
        .is_wrong(&["resumed elsewhere"]);
    Tale::of_two()
        .talk("e1/1")
        .resumes("bob", "e1/1", "e1/1")
        .is_wrong(&["resumed elsewhere"]);
}

#[test]
fn an_answer_fits_what_was_asked() {
    let answers = [
        (None, true, false, 0),
        (None, false, true, 0),
        (None, false, false, 4),
        (Some("e1/3"), false, false, 0),
        (Some("e1/3"), true, true, 0),
        (Some("e1/3"), true, false, 1),
    ];
    for (since, recovered, gap, replayed) in answers {
        let mut tale = Tale::of_two();
        tale.promises.gaps = Some(2);
        tale.talk("e1/1..3")
            .closes("ann")
            .opens("ann")
            .joined("ann", since, "e1/3", recovered, gap, replayed);
        let faults = tale.faults();
        assert!(
            faults
                .iter()
                .any(|fault| fault.starts_with("impossible answer")),
            "{faults:#?}"
        );
    }
}

#[test]
fn numbers_never_go_back_in_an_epoch() {
    let mut tale = Tale::of_two();
    tale.promises.gaps = Some(2);
    tale.talk("e1/1..5")
        .ends("sue")
        .closes("ann")
        .misses("ann", "e1/5", "e1/4", &[])
        .is_wrong(&["order of epochs"]);
    let mut tale = Tale::of_two();
    tale.promises.gaps = Some(2);
    tale.talk("e1/1..5")
        .ends("sue")
        .is_reset("ann", "e1/4")
        .is_wrong(&["order of epochs"]);
}

#[test]
fn after_a_join_come_the_replay_then_the_users_then_live_messages() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1")
        .closes("ann")
        .says("e1/2")
        .gets("sue", "e1/2")
        .opens("ann");
    tale.joined("ann", Some("e1/1"), "e1/2", true, false, 1)
        .lists("ann", &["ann"])
        .gets("ann", "e1/2");
    tale.is_wrong(&["opening out of order"]);
    let mut tale = Tale::of_two();
    tale.talk("e1/1")
        .closes("ann")
        .opens("ann")
        .joined("ann", Some("e1/1"), "e1/1", true, false, 0)
        .talk("e1/2");
    tale.lists("ann", &["ann"])
        .is_wrong(&["opening out of order"]);
}

#[test]
fn only_what_is_no_longer_kept_may_be_said_to_be_lost() {
    // The log keeps two; `ann` lacked two.
    let mut tale = Tale::of_two();
    tale.promises.gaps = Some(2);
    tale.talk("e1/1")
        .closes("ann")
        .says("e1/2..3")
        .gets("sue", "e1/2..3")
        .misses("ann", "e1/1", "e1/3", &["e1/2..3"]);
    tale.head("e1/3").is_wrong(&["announced loss"]);
    // Nothing, or less than is said, lies between.
    let mut tale = Tale::of_two();
    tale.promises.gaps = Some(2);
    tale.talk("e1/1")
        .is_reset("ann", "e1/1")
        .talk("e1/2")
        .is_wrong(&["announced loss"]);
    let lost_from = |from: u64| {
        let mut tale = Tale::of_two();
        tale.promises.gaps = Some(2);
        tale.talk("e1/1").says("e1/2..9").gets("sue", "e1/2..9");
        let reset = Fact::Reset {
            room: ROOM.into(),
            epoch: "e1".into(),
            seq: 7,
            lost_from: Some(from),
        };
        tale.tell("ann", reset).gets("ann", "e1/8..9").head("e1/9");
        tale
    };
    lost_from(2).is_fine();
    lost_from(3).is_wrong(&["announced loss"]);
    lost_from(1).is_wrong(&["announced loss"]);
    // One of the two that are kept is held back.
    let mut tale = Tale::of_two();
    tale.promises.gaps = Some(2);
    tale.talk("e1/1")
        .closes("ann")
        .says("e1/2..9")
        .gets("sue", "e1/2..9")
        .misses("ann", "e1/1", "e1/9", &["e1/9"]);
    tale.head("e1/9").is_wrong(&["never came"]);
}
