//! Order, holes, repeats, joins.

use super::history_builder::{HistoryBuilder, ROOM};
use crate::checker::Promises;
use crate::history::Fact;

#[test]
fn messages_in_order_are_accepted() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..5")
        .final_head("e1/5")
        .assert_accepted();
    let stats = history.stats();
    assert_eq!(
        (
            stats.sent,
            stats.acknowledged,
            stats.delivered,
            stats.epochs
        ),
        (5, 5, 10, 1)
    );
    assert!(
        stats
            .to_string()
            .starts_with("2 clients, 1 rooms, 1 epochs; 5 messages in 5 attempts: 5 acknowledged")
    );
}

#[test]
fn a_resume_is_accepted() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..3")
        .disconnects("ann")
        .sends_acked("e1/4..6")
        .receives("sue", "e1/4..6")
        .connects_and_resumes("ann", "e1/3", "e1/6");
    history
        .sends_to_both("e1/7")
        .final_head("e1/7")
        .assert_accepted();
    assert_eq!(history.stats().resumes, 1);
}

#[test]
fn a_resume_into_a_new_epoch_is_accepted() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..3")
        .disconnects("ann")
        .sends_acked("e1/4")
        .receives("sue", "e1/4")
        .sends_acked("e2/5")
        .receives("sue", "e2/5");
    history
        .connects("ann")
        .joined("ann", Some("e1/3"), "e2/5", true, false, 2);
    history
        .receives("ann", "e1/4")
        .receives("ann", "e2/5")
        .gets_room_users("ann", &["ann"])
        .final_head("e2/5")
        .assert_accepted();
}

#[test]
fn a_client_may_resume_in_an_epoch_without_messages() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..3")
        .disconnects("ann")
        .connects_and_resumes("ann", "e1/3", "e2/3")
        .disconnects("ann")
        .connects_and_resumes("ann", "e2/3", "e3/3");
    history
        .disconnects("ann")
        .connects_and_resumes("ann", "e2/3", "e3/3")
        .sends_to_both("e3/4")
        .final_head("e3/4")
        .assert_accepted();
}

#[test]
fn a_join_without_resume_may_replay_received_messages() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..5")
        .leaves("ann")
        .disconnects("ann")
        .connects_and_joins_with_replay("ann", "e1/5", "e1/3..5");
    history
        .sends_to_both("e1/6")
        .final_head("e1/6")
        .assert_accepted();
    assert_eq!(history.stats().replayed_again, 3);
}

#[test]
fn a_replay_may_begin_in_an_epoch_that_the_client_left() {
    let mut history = HistoryBuilder::with_two_members();
    // Only `ann` is in the room.
    history
        .leaves("sue")
        .data_lost()
        .sends_acked("e1/1..3")
        .sends_acked("e2/4..5")
        .sends_acked("e3/4");
    history
        .receives("ann", "e1/1..3")
        .receives("ann", "e2/4..5")
        .disconnects("ann");
    history
        .connects_with_gap("ann", "e2/5", "e3/4", &["e1/1..3", "e3/4"])
        .final_head("e3/4")
        .assert_accepted();
}

#[test]
fn an_interrupted_replay_continues_with_the_next_join() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..5")
        .disconnects("ann")
        .data_lost()
        .is_reset("sue", "e2/4")
        .sends_acked("e2/5")
        .receives("sue", "e2/5")
        .connects("ann");
    history
        .joined("ann", Some("e1/5"), "e2/5", false, true, 5)
        .receives("ann", "e1/1..2")
        .disconnects("ann")
        .connects("ann");
    history
        .joined("ann", Some("e1/2"), "e2/5", true, false, 3)
        .receives("ann", "e1/3..4")
        .receives("ann", "e2/5");
    history
        .gets_room_users("ann", &["ann"])
        .final_head("e2/5")
        .assert_accepted();
    assert_eq!(history.stats().replayed_again, 4);
}

#[test]
fn a_loss_of_data_does_not_excuse_a_gap_in_the_same_epoch() {
    let mut history = HistoryBuilder::with_two_members();
    history.promises.data_loss = true;
    history
        .sends_to_both("e1/1")
        .ends("sue")
        .disconnects("ann")
        .connects_with_gap("ann", "e1/1", "e1/1", &[])
        .assert_faults(&["unexpected announcement of a loss"]);
}

#[test]
fn an_announced_gap_is_accepted_if_gaps_are_allowed() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..2")
        .disconnects("ann")
        .sends_acked("e1/3..9")
        .receives("sue", "e1/3..9");
    history
        .connects_with_gap("ann", "e1/2", "e1/9", &["e1/8..9"])
        .sends_to_both("e1/10")
        .final_head("e1/10")
        .assert_faults(&["unexpected announcement of a loss"]);
    history.promises.gaps = Some(2);
    history.assert_accepted();
    assert_eq!(history.stats().announced_lost["ann"], 5);
}

#[test]
fn a_reset_is_accepted_if_gaps_are_allowed() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..2")
        .sends_acked("e1/3..9")
        .receives("sue", "e1/3..9")
        .is_reset("ann", "e1/7")
        .receives("ann", "e1/8..9");
    history
        .final_head("e1/9")
        .assert_faults(&["unexpected announcement of a loss"]);
    history.promises.gaps = Some(2);
    history.assert_accepted();
    assert_eq!(
        (
            history.stats().resets,
            history.stats().announced_lost["ann"]
        ),
        (1, 5)
    );
}

#[test]
fn a_hole_is_a_fault() {
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1..3")
        .sends_acked("e1/4..6")
        .receives("sue", "e1/4..6")
        .receives("ann", "e1/6")
        .assert_faults(&["hole"]);
    // Before the first message, and within a replay.
    HistoryBuilder::with_two_members()
        .sends_acked("e1/1..2")
        .receives("sue", "e1/1..2")
        .receives("ann", "e1/2")
        .assert_faults(&["hole"]);
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1")
        .disconnects("ann")
        .sends_acked("e1/2..4")
        .receives("sue", "e1/2..4")
        .connects("ann");
    history
        .joined("ann", Some("e1/1"), "e1/4", true, false, 3)
        .receives("ann", "e1/2")
        .receives("ann", "e1/4");
    history
        .gets_room_users("ann", &["ann"])
        .assert_faults(&["hole"]);
    // After a reset.
    let mut history = HistoryBuilder::with_two_members();
    history.promises.gaps = Some(2);
    history
        .sends_to_both("e1/1")
        .sends_acked("e1/2..9")
        .receives("sue", "e1/2..9")
        .is_reset("ann", "e1/7")
        .receives("ann", "e1/9");
    history.assert_faults(&["hole"]);
}

#[test]
fn the_epoch_may_change_only_at_the_next_number() {
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1..3")
        .sends_to_both("e2/4")
        .final_head("e2/4")
        .assert_accepted();
    let mut history = HistoryBuilder::with_two_members();
    history.promises.data_loss = true;
    history
        .sends_to_both("e1/1..3")
        .sends_acked("e2/4..5")
        .receives("sue", "e2/4..5")
        .receives("ann", "e2/5")
        .assert_faults(&["hole"]);
    let mut history = HistoryBuilder::with_two_members();
    history.promises.data_loss = true;
    history
        .sends_to_both("e1/1..3")
        .sends_acked("e2/3")
        .receives("ann", "e2/3")
        .ends("sue")
        .assert_faults(&["out of order"]);
}

#[test]
fn a_repeated_message_is_a_fault() {
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1..3")
        .receives("ann", "e1/3")
        .assert_faults(&["repeated message"]);
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..3")
        .disconnects("ann")
        .connects_and_resumes("ann", "e1/3", "e1/3")
        .receives("ann", "e1/1")
        .assert_faults(&["repeated message"]);
    // A replay with a repeated message, and one with a hole.
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..5")
        .leaves("ann")
        .disconnects("ann")
        .connects_and_joins_with_replay("ann", "e1/5", "e1/3..5")
        .receives("ann", "e1/4");
    history.assert_faults(&["repeated message"]);
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..5")
        .leaves("ann")
        .disconnects("ann")
        .connects("ann")
        .joined("ann", None, "e1/5", false, false, 3);
    history
        .receives("ann", "e1/3")
        .receives("ann", "e1/5")
        .gets_room_users("ann", &["ann"])
        .assert_faults(&["hole"]);
    // Received before, and not part of the replay.
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..5")
        .leaves("ann")
        .disconnects("ann")
        .connects_and_joins("ann", "e1/2")
        .receives("ann", "e1/3")
        .assert_faults(&["repeated message"]);
}

#[test]
fn a_message_out_of_order_is_a_fault() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_acked("e1/1..3")
        .receives("sue", "e1/1..3")
        .receives("ann", "e1/1")
        .receives("ann", "e1/3")
        .receives("ann", "e1/2");
    history.assert_faults(&["out of order", "hole"]);
}

#[test]
fn an_epoch_that_a_client_left_must_not_return() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..3")
        .sends_to_both("e2/4")
        .sends_acked("e1/5")
        .receives("ann", "e1/5")
        .ends("ann")
        .ends("sue");
    history.assert_faults(&["out of order", "order of epochs", "missing message"]);
    history.promises.data_loss = true;
    history.assert_faults(&["out of order"]);
}

#[test]
fn clients_must_agree_on_the_order_of_epochs() {
    let mut history = HistoryBuilder::with_two_members();
    history.promises = Promises {
        data_loss: true,
        gaps: Some(2),
        ..Promises::default()
    };
    history
        .connects_and_joins("bob", "e2/0")
        .sends_to_both("e1/1")
        .sends_acked("e2/2")
        .receives("sue", "e2/2")
        .receives("ann", "e2/2");
    history
        .sends_acked("e2/1")
        .receives("bob", "e2/1")
        .sends_acked("e1/2")
        .receives("bob", "e1/2");
    let faults = history.faults();
    assert!(
        faults
            .iter()
            .any(|fault| fault.starts_with("order of epochs") && fault.contains("bob")),
        "{faults:#?}"
    );
}

#[test]
fn nothing_may_reach_a_client_that_is_not_in_the_room() {
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1")
        .connects("bob")
        .receives("bob", "e1/1")
        .assert_faults(&["not subscribed"]);
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1")
        .leaves("ann")
        .sends_acked("e1/2")
        .receives("sue", "e1/2")
        .receives("ann", "e1/2")
        .assert_faults(&["not subscribed"]);
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1")
        .ends("ann")
        .sends_acked("e1/2")
        .receives("sue", "e1/2")
        .receives("ann", "e1/2")
        .assert_faults(&["not subscribed"]);
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1")
        .connects("bob")
        .is_reset("bob", "e1/1")
        .assert_faults(&["not subscribed"]);
    // Connected again, but not yet in the room.
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1")
        .disconnects("ann")
        .connects("ann")
        .sends_acked("e1/2")
        .receives("ann", "e1/2")
        .receives("sue", "e1/2")
        .assert_faults(&["not subscribed", "missing message"]);
}

#[test]
fn a_client_must_resume_from_its_own_position() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..3")
        .disconnects("ann")
        .connects_and_resumes("ann", "e1/2", "e1/2")
        .assert_faults(&["wrong resume position"]);
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..3")
        .disconnects("ann")
        .sends_acked("e1/4")
        .receives("sue", "e1/4")
        .connects_and_resumes("ann", "e1/4", "e1/4");
    history
        .final_head("e1/4")
        .assert_faults(&["wrong resume position"]);
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..3")
        .disconnects("ann")
        .connects_and_resumes("ann", "e0/3", "e1/3")
        .assert_faults(&["wrong resume position"]);
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1")
        .connects_and_resumes("bob", "e1/1", "e1/1")
        .assert_faults(&["wrong resume position"]);
}

#[test]
fn the_answer_to_a_join_must_fit_the_request() {
    let answers = [
        (None, true, false, 0),
        (None, false, true, 0),
        (None, false, false, 4),
        (Some("e1/3"), false, false, 0),
        (Some("e1/3"), true, true, 0),
        (Some("e1/3"), true, false, 1),
    ];
    for (since, recovered, gap, replayed) in answers {
        let mut history = HistoryBuilder::with_two_members();
        history.promises.gaps = Some(2);
        history
            .sends_to_both("e1/1..3")
            .disconnects("ann")
            .connects("ann")
            .joined("ann", since, "e1/3", recovered, gap, replayed);
        let faults = history.faults();
        assert!(
            faults
                .iter()
                .any(|fault| fault.starts_with("impossible answer to join")),
            "{faults:#?}"
        );
    }
}

#[test]
fn numbers_must_not_go_down_within_an_epoch() {
    let mut history = HistoryBuilder::with_two_members();
    history.promises.gaps = Some(2);
    history
        .sends_to_both("e1/1..5")
        .ends("sue")
        .disconnects("ann")
        .connects_with_gap("ann", "e1/5", "e1/4", &[])
        .assert_faults(&["order of epochs"]);
    let mut history = HistoryBuilder::with_two_members();
    history.promises.gaps = Some(2);
    history
        .sends_to_both("e1/1..5")
        .ends("sue")
        .is_reset("ann", "e1/4")
        .assert_faults(&["order of epochs"]);
}

#[test]
fn replay_room_users_and_live_messages_must_follow_a_join_in_this_order() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1")
        .disconnects("ann")
        .sends_acked("e1/2")
        .receives("sue", "e1/2")
        .connects("ann");
    history
        .joined("ann", Some("e1/1"), "e1/2", true, false, 1)
        .gets_room_users("ann", &["ann"])
        .receives("ann", "e1/2");
    history.assert_faults(&["wrong sequence after join"]);
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1")
        .disconnects("ann")
        .connects("ann")
        .joined("ann", Some("e1/1"), "e1/1", true, false, 0)
        .sends_to_both("e1/2");
    history
        .gets_room_users("ann", &["ann"])
        .assert_faults(&["wrong sequence after join"]);
}

#[test]
fn only_messages_that_are_no_longer_kept_may_be_announced_as_lost() {
    // The log keeps two messages, and `ann` missed two.
    let mut history = HistoryBuilder::with_two_members();
    history.promises.gaps = Some(2);
    history
        .sends_to_both("e1/1")
        .disconnects("ann")
        .sends_acked("e1/2..3")
        .receives("sue", "e1/2..3")
        .connects_with_gap("ann", "e1/1", "e1/3", &["e1/2..3"]);
    history
        .final_head("e1/3")
        .assert_faults(&["unexpected announcement of a loss"]);
    // No message, or fewer than announced, lies between.
    let mut history = HistoryBuilder::with_two_members();
    history.promises.gaps = Some(2);
    history
        .sends_to_both("e1/1")
        .is_reset("ann", "e1/1")
        .sends_to_both("e1/2")
        .assert_faults(&["unexpected announcement of a loss"]);
    let lost_from = |from: u64| {
        let mut history = HistoryBuilder::with_two_members();
        history.promises.gaps = Some(2);
        history
            .sends_to_both("e1/1")
            .sends_acked("e1/2..9")
            .receives("sue", "e1/2..9");
        let reset = Fact::Reset {
            room: ROOM.into(),
            epoch: "e1".into(),
            seq: 7,
            lost_from: Some(from),
        };
        history
            .record("ann", reset)
            .receives("ann", "e1/8..9")
            .final_head("e1/9");
        history
    };
    lost_from(2).assert_accepted();
    lost_from(3).assert_faults(&["unexpected announcement of a loss"]);
    lost_from(1).assert_faults(&["unexpected announcement of a loss"]);
    // Only one of the two kept messages is replayed.
    let mut history = HistoryBuilder::with_two_members();
    history.promises.gaps = Some(2);
    history
        .sends_to_both("e1/1")
        .disconnects("ann")
        .sends_acked("e1/2..9")
        .receives("sue", "e1/2..9")
        .connects_with_gap("ann", "e1/1", "e1/9", &["e1/9"]);
    history
        .final_head("e1/9")
        .assert_faults(&["missing message"]);
}
