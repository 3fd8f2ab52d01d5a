//! Meaning, acks, completeness, loss of data.

use super::tale::{ROOM, Tale, got, place};
use crate::history::Fact;

/// A message whose text differs from what its place says.
fn altered(at: &str, alter: impl Fn(&mut String, &mut Option<String>, &mut String)) -> Fact {
    let mut fact = got(&place(at));
    if let Fact::Got { id, msg, user, .. } = &mut fact {
        alter(id, msg, user);
    }
    fact
}

#[test]
fn a_place_means_the_same_to_everybody() {
    let all: [fn(&mut String, &mut Option<String>, &mut String); 3] = [
        |id, _, _| *id = "other".into(),
        |_, msg, _| *msg = Some("m-e1/9".into()),
        |_, _, user| *user = "eve".into(),
    ];
    for alter in all {
        let mut tale = Tale::of_two();
        tale.sends("e1/9")
            .talk("e1/1")
            .says("e1/2")
            .gets("sue", "e1/2")
            .tell("ann", altered("e1/2", alter));
        tale.is_wrong(&["two meanings"]);
    }
    // An ack that says otherwise.
    let mut tale = Tale::of_two();
    tale.talk("e1/1")
        .sends("e1/7")
        .acked_at("e1/7", "e1/1", true)
        .is_wrong(&["two meanings"]);
}

#[test]
fn a_message_and_an_id_have_one_place() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1").sends("e1/2").acked("e1/2", false);
    let again = altered("e1/2", |id, _, _| *id = "i-e1/1".into());
    tale.gets("sue", "e1/2")
        .tell("ann", again)
        .is_wrong(&["two meanings"]);
    let mut tale = Tale::of_two();
    let again = altered("e1/2", |id, _, _| *id = "i-e1/1".into());
    tale.talk("e1/1")
        .sends("e1/2")
        .tell("sue", again.clone())
        .tell("ann", again)
        .is_wrong(&["two meanings"]);
    let mut tale = Tale::of_two();
    tale.talk("e1/1").sends("e1/1");
    let twice = altered("e1/2", |_, msg, _| *msg = Some("m-e1/1".into()));
    tale.tell("sue", twice.clone())
        .tell("ann", twice)
        .is_wrong(&["two meanings"]);
}

#[test]
fn a_message_may_be_sent_again_when_data_was_lost() {
    let again = altered("e2/1", |_, msg, _| *msg = Some("m-e1/1".into()));
    let mut tale = Tale::of_two();
    tale.talk("e1/1")
        .sends("e1/1")
        .is_reset("sue", "e2/0")
        .is_reset("ann", "e2/0")
        .acked_at("e1/1", "e2/1", false);
    tale.tell("sue", again.clone()).tell("ann", again);
    let faults = tale.faults();
    assert!(
        faults.iter().any(|fault| fault.starts_with("two meanings")),
        "{faults:#?}"
    );
    tale.data_lost().head("e2/1").is_fine();
}

#[test]
fn a_message_that_nobody_sent_is_found() {
    let mut tale = Tale::of_two();
    tale.gets("sue", "e1/1")
        .gets("ann", "e1/1")
        .is_wrong(&["two meanings"]);
}

#[test]
fn a_send_may_be_repeated_until_it_is_acknowledged() {
    let mut tale = Tale::of_two();
    let refusal = Fact::Refused {
        room: ROOM.into(),
        msg: "m-e1/1".into(),
        code: "unavailable".into(),
    };
    tale.sends("e1/1").closes("sue").opens("sue").tell(
        "sue",
        Fact::Sent {
            room: ROOM.into(),
            msg: "m-e1/1".into(),
        },
    );
    tale.tell("sue", refusal)
        .sends("e1/1")
        .acked("e1/1", true)
        .gets("ann", "e1/1");
    tale.joined("sue", Some("e1/0"), "e1/1", true, false, 1)
        .gets("sue", "e1/1")
        .lists("sue", &["sue"]);
    tale.sends("e1/1")
        .acked("e1/1", true)
        .head("e1/1")
        .is_fine();
    let figures = tale.figures();
    assert_eq!(
        (
            figures.sent,
            figures.attempts,
            figures.refused,
            figures.unanswered
        ),
        (1, 4, 1, 0)
    );
}

#[test]
fn in_the_end_every_message_is_acknowledged() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1").sends("e1/2").is_fine();
    tale.head("e1/1").is_wrong(&["unanswered"]);
    // Nor does it help that it was refused for good, or that it came.
    let refusal = Fact::Refused {
        room: ROOM.into(),
        msg: "m-e1/1".into(),
        code: "internal".into(),
    };
    Tale::of_two()
        .sends("e1/1")
        .tell("sue", refusal)
        .head("e1/0")
        .is_wrong(&["unanswered"]);
    Tale::of_two()
        .sends("e1/1")
        .gets("sue", "e1/1")
        .gets("ann", "e1/1")
        .head("e1/1")
        .is_wrong(&["unanswered"]);
    Tale::of_two()
        .talk("e1/1")
        .sends("e1/2")
        .ends("sue")
        .head("e1/1")
        .is_fine();
}

#[test]
fn a_duplicate_has_the_place_of_the_first() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..2")
        .sends("e1/1")
        .acked_at("e1/1", "e1/3", true)
        .gets("sue", "e1/3");
    let faults = tale.faults();
    assert!(
        faults.iter().any(|fault| fault.starts_with("two meanings")),
        "{faults:#?}"
    );
    Tale::of_two()
        .talk("e1/1")
        .sends("e1/1")
        .acked("e1/1", false)
        .is_wrong(&["new twice"]);
}

#[test]
fn what_was_said_comes_to_everybody() {
    // Without the room's end, by others' word; with it, by that.
    let mut tale = Tale::of_two();
    tale.talk("e1/1..2")
        .says("e1/3..4")
        .gets("sue", "e1/3..4")
        .is_wrong(&["never came"]);
    tale.head("e1/4").is_wrong(&["never came"]);
    assert_eq!(tale.faults().len(), 1, "told once");
    // In another epoch.
    Tale::of_two()
        .talk("e1/1")
        .says("e2/2")
        .gets("sue", "e2/2")
        .is_wrong(&["never came"]);
    // A client that is still away.
    let mut tale = Tale::of_two();
    tale.talk("e1/1")
        .closes("ann")
        .says("e1/2")
        .gets("sue", "e1/2")
        .head("e1/2")
        .is_wrong(&["malformed", "never came"]);
}

#[test]
fn nothing_is_owed_to_who_came_later_left_or_ended() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..3")
        .enters("bob", "e1/3")
        .ends("ann")
        .says("e1/4")
        .gets("bob", "e1/4")
        .gets("sue", "e1/4");
    tale.leaves("bob")
        .says("e1/5")
        .gets("sue", "e1/5")
        .head("e1/5")
        .is_fine();
}

#[test]
fn clearing_up_excuses_nothing() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..2")
        .says("e1/3")
        .gets("sue", "e1/3")
        .head("e1/3")
        .ends("ann")
        .closes("ann");
    tale.is_wrong(&["never came"]);
}

#[test]
fn everybody_stands_at_the_head() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..3")
        .head("e1/2")
        .is_wrong(&["never came", "false ack"]);
    Tale::of_two().talk("e1/1..3").head("e2/3").is_fine();
    Tale::of_two()
        .talk("e1/1")
        .talk("e2/2")
        .head("e1/2")
        .is_wrong(&["never came"]);
    let mut tale = Tale::of_two();
    tale.promises.data_loss = true;
    tale.talk("e1/1..3")
        .enters("bob", "e2/1")
        .says("e2/2..3")
        .gets("bob", "e2/2..3")
        .head("e2/3");
    tale.is_wrong(&["never came"]);
}

#[test]
fn an_ack_is_in_the_log() {
    let mut tale = Tale::default();
    tale.says("e1/1..3").head("e1/2").is_wrong(&["false ack"]);
    // Nor does a loss of data excuse it in the epoch that goes on.
    tale.data_lost().is_wrong(&["false ack"]);
    Tale::default()
        .says("e1/1..3")
        .head("e2/2")
        .is_wrong(&["false ack"]);
    Tale::default()
        .says("e1/1..3")
        .head("e2/2")
        .data_lost()
        .is_fine();
}

#[test]
fn an_epoch_that_nobody_saw_is_found() {
    Tale::of_two()
        .talk("e1/1")
        .says("e2/1")
        .head("e1/1")
        .is_wrong(&["order of epochs", "never came", "false ack"]);
    Tale::of_two()
        .data_lost()
        .talk("e1/1")
        .says("e0/1")
        .head("e1/1")
        .is_fine();
}

#[test]
fn an_epoch_may_not_pass_over_what_was_said() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..2")
        .says("e1/3")
        .gets("sue", "e1/3")
        .ends("sue")
        .says("e2/3")
        .gets("ann", "e2/3")
        .head("e2/3");
    let faults = tale.faults();
    assert!(
        faults
            .iter()
            .any(|fault| fault.starts_with("never came: ") && fault.contains("e1/3..3")),
        "{faults:#?}"
    );
    assert!(
        faults
            .iter()
            .any(|fault| fault.starts_with("order of epochs")),
        "{faults:#?}"
    );
}

#[test]
fn what_is_lost_with_the_data_to_who_was_behind_is_counted() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..2")
        .says("e1/3..4")
        .gets("sue", "e1/3..4")
        .data_lost()
        .is_reset("sue", "e2/2");
    tale.talk("e2/3").head("e2/3").is_fine();
    assert_eq!(
        (
            tale.figures().lost_with_data,
            tale.figures().announced_lost.len()
        ),
        (2, 0)
    );
    // The same with nothing said since.
    let mut tale = Tale::of_two();
    tale.talk("e1/1..2")
        .says("e1/3..4")
        .gets("sue", "e1/3..4")
        .data_lost()
        .is_reset("sue", "e2/2")
        .head("e2/2");
    tale.is_fine();
    assert_eq!(tale.figures().lost_with_data, 2);
}

#[test]
fn what_the_new_epoch_has_is_owed_even_when_data_was_lost() {
    let mut tale = Tale::of_two();
    // ann had 3 and 4 of the old epoch, and is told nothing; sue gets others in their place.
    tale.talk("e1/1..2")
        .says("e1/3..4")
        .gets("ann", "e1/3..4")
        .data_lost()
        .says("e2/3..4")
        .gets("sue", "e2/3..4");
    tale.talk("e2/5").head("e2/5").is_wrong(&["never came"]);
    // The same, and one more epoch since, which has them too.
    tale.records.truncate(tale.records.len() - 5);
    tale.talk("e3/5").head("e3/5").is_wrong(&["never came"]);
    tale.records.truncate(tale.records.len() - 5);
    tale.head("e3/4").is_wrong(&["never came"]);
}

#[test]
fn a_gap_after_a_loss_shows_the_log_again() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1..5")
        .closes("ann")
        .says("e1/6..7")
        .gets("sue", "e1/6..7")
        .data_lost()
        .is_reset("sue", "e2/3");
    tale.says("e2/4")
        .gets("sue", "e2/4")
        .misses("ann", "e1/5", "e2/4", &["e1/1..3", "e2/4"]);
    tale.talk("e2/5").head("e2/5").is_fine();
    assert_eq!(
        (
            tale.figures().announced_lost["ann"],
            tale.figures().shown_again
        ),
        (2, 3)
    );
}

#[test]
fn many_faults_of_a_kind_are_summed_up() {
    let mut tale = Tale::of_two();
    tale.talk("e1/1");
    for _ in 0..50 {
        tale.gets("ann", "e1/1");
    }
    let faults = tale.faults();
    assert_eq!(
        (faults.len(), faults.last().unwrap().as_str()),
        (21, "repeat: and 30 more")
    );
    assert!(
        faults[0].contains("ann in lobby, at e1/1, got e1/1"),
        "{}",
        faults[0]
    );
    assert_eq!(tale.figures().repeats, 50);
}

#[test]
fn what_was_saved_is_not_lost() {
    // `ann` was away when the data went back to before `e1/2`, or, if it had been saved, should not have.
    let rolled_back = |saved: bool| {
        let mut tale = Tale::of_two();
        tale.talk("e1/1")
            .closes("ann")
            .says("e1/2")
            .gets("sue", "e1/2");
        if saved {
            tale.tell("lab", Fact::Saved);
        }
        tale.data_lost().ends("sue");
        tale.opens("ann")
            .joined("ann", Some("e1/1"), "e2/1", true, false, 0)
            .lists("ann", &["ann"])
            .head("e2/1");
        tale
    };
    rolled_back(false).is_fine();
    assert_eq!(rolled_back(false).figures().lost_with_data, 1);
    rolled_back(true).is_wrong(&["never came"]);
    // What was saved long ago, and lost the second time.
    let mut tale = rolled_back(false);
    tale.tell("lab", Fact::Saved).data_lost().is_fine();
}
