//! Positions, acknowledgements, completeness, loss of data.

use super::history_builder::{HistoryBuilder, ROOM, position, received};
use crate::history::{Fact, LAB};

/// The delivery of the message at a position, with one of its properties altered.
fn altered(at: &str, alter: impl Fn(&mut String, &mut Option<String>, &mut String)) -> Fact {
    let mut fact = received(&position(at));
    if let Fact::Received { id, msg, user, .. } = &mut fact {
        alter(id, msg, user);
    }
    fact
}

#[test]
fn a_position_has_the_same_message_for_every_client() {
    let all: [fn(&mut String, &mut Option<String>, &mut String); 3] = [
        |id, _, _| *id = "other".into(),
        |_, msg, _| *msg = Some("m-e1/9".into()),
        |_, _, user| *user = "eve".into(),
    ];
    for alter in all {
        let mut history = HistoryBuilder::with_two_members();
        history
            .sends("e1/9")
            .sends_to_both("e1/1")
            .sends_acked("e1/2")
            .receives("sue", "e1/2")
            .record("ann", altered("e1/2", alter));
        history.assert_faults(&["conflicting messages"]);
    }
    // An acknowledgement that names another message.
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1")
        .sends("e1/7")
        .acked_at("e1/7", "e1/1", true)
        .assert_faults(&["conflicting messages"]);
}

#[test]
fn a_message_and_an_id_have_one_position() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1")
        .sends("e1/2")
        .acked("e1/2", false);
    let again = altered("e1/2", |id, _, _| *id = "i-e1/1".into());
    history
        .receives("sue", "e1/2")
        .record("ann", again)
        .assert_faults(&["conflicting messages"]);
    let mut history = HistoryBuilder::with_two_members();
    let again = altered("e1/2", |id, _, _| *id = "i-e1/1".into());
    history
        .sends_to_both("e1/1")
        .sends("e1/2")
        .record("sue", again.clone())
        .record("ann", again)
        .assert_faults(&["conflicting messages"]);
    let mut history = HistoryBuilder::with_two_members();
    history.sends_to_both("e1/1").sends("e1/1");
    let twice = altered("e1/2", |_, msg, _| *msg = Some("m-e1/1".into()));
    history
        .record("sue", twice.clone())
        .record("ann", twice)
        .assert_faults(&["conflicting messages"]);
}

#[test]
fn a_message_may_get_a_second_position_after_a_loss_of_data() {
    let again = altered("e2/1", |_, msg, _| *msg = Some("m-e1/1".into()));
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1")
        .sends("e1/1")
        .is_reset("sue", "e2/0")
        .is_reset("ann", "e2/0")
        .acked_at("e1/1", "e2/1", false);
    history.record("sue", again.clone()).record("ann", again);
    let faults = history.faults();
    assert!(
        faults
            .iter()
            .any(|fault| fault.starts_with("conflicting messages")),
        "{faults:#?}"
    );
    history.data_lost().final_head("e2/1").assert_accepted();
}

#[test]
fn a_message_that_no_client_sent_is_a_fault() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .receives("sue", "e1/1")
        .receives("ann", "e1/1")
        .assert_faults(&["conflicting messages"]);
}

#[test]
fn a_send_may_be_repeated_until_it_is_acknowledged() {
    let mut history = HistoryBuilder::with_two_members();
    let refusal = Fact::Refused {
        room: ROOM.into(),
        msg: "m-e1/1".into(),
        code: "unavailable".into(),
    };
    history
        .sends("e1/1")
        .disconnects("sue")
        .connects("sue")
        .record(
            "sue",
            Fact::Sent {
                room: ROOM.into(),
                msg: "m-e1/1".into(),
                content: None,
            },
        );
    history
        .record("sue", refusal)
        .sends("e1/1")
        .acked("e1/1", true)
        .receives("ann", "e1/1");
    history
        .joined("sue", Some("e1/0"), "e1/1", true, false, 1)
        .receives("sue", "e1/1")
        .gets_room_users("sue", &["sue"]);
    history
        .sends("e1/1")
        .acked("e1/1", true)
        .final_head("e1/1")
        .assert_accepted();
    let stats = history.stats();
    assert_eq!(
        (
            stats.sent,
            stats.attempts,
            stats.refused,
            stats.unacknowledged
        ),
        (1, 4, 1, 0)
    );
}

#[test]
fn every_message_must_be_acknowledged_at_the_end() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1")
        .sends("e1/2")
        .assert_accepted();
    history
        .final_head("e1/1")
        .assert_faults(&["unacknowledged message"]);
    // This holds even if the message was refused for good, or was delivered.
    let refusal = Fact::Refused {
        room: ROOM.into(),
        msg: "m-e1/1".into(),
        code: "internal".into(),
    };
    HistoryBuilder::with_two_members()
        .sends("e1/1")
        .record("sue", refusal)
        .final_head("e1/0")
        .assert_faults(&["unacknowledged message"]);
    HistoryBuilder::with_two_members()
        .sends("e1/1")
        .receives("sue", "e1/1")
        .receives("ann", "e1/1")
        .final_head("e1/1")
        .assert_faults(&["unacknowledged message"]);
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1")
        .sends("e1/2")
        .ends("sue")
        .final_head("e1/1")
        .assert_accepted();
}

#[test]
fn a_duplicate_must_have_the_position_of_the_first_send() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..2")
        .sends("e1/1")
        .acked_at("e1/1", "e1/3", true)
        .receives("sue", "e1/3");
    let faults = history.faults();
    assert!(
        faults
            .iter()
            .any(|fault| fault.starts_with("conflicting messages")),
        "{faults:#?}"
    );
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1")
        .sends("e1/1")
        .acked("e1/1", false)
        .assert_faults(&["acknowledged as new twice"]);
}

#[test]
fn every_message_must_reach_every_member() {
    // If the room's head is unknown, another client's delivery proves that the message exists; else
    // the head does.
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..2")
        .sends_acked("e1/3..4")
        .receives("sue", "e1/3..4")
        .assert_faults(&["missing message"]);
    history
        .final_head("e1/4")
        .assert_faults(&["missing message"]);
    assert_eq!(history.faults().len(), 1, "reported once");
    // In another epoch.
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1")
        .sends_acked("e2/2")
        .receives("sue", "e2/2")
        .assert_faults(&["missing message"]);
    // A client that is still away.
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1")
        .disconnects("ann")
        .sends_acked("e1/2")
        .receives("sue", "e1/2")
        .final_head("e1/2")
        .assert_faults(&["malformed history", "missing message"]);
}

#[test]
fn messages_need_not_reach_clients_that_joined_later_left_or_ended() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..3")
        .connects_and_joins("bob", "e1/3")
        .ends("ann")
        .sends_acked("e1/4")
        .receives("bob", "e1/4")
        .receives("sue", "e1/4");
    history
        .leaves("bob")
        .sends_acked("e1/5")
        .receives("sue", "e1/5")
        .final_head("e1/5")
        .assert_accepted();
}

#[test]
fn cleaning_up_at_the_end_excuses_nothing() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..2")
        .sends_acked("e1/3")
        .receives("sue", "e1/3")
        .final_head("e1/3")
        .ends("ann")
        .disconnects("ann");
    history.assert_faults(&["missing message"]);
}

#[test]
fn every_member_must_be_at_the_head_at_the_end() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..3")
        .final_head("e1/2")
        .assert_faults(&["missing message", "false ack"]);
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1..3")
        .final_head("e2/3")
        .assert_accepted();
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1")
        .sends_to_both("e2/2")
        .final_head("e1/2")
        .assert_faults(&["missing message"]);
    let mut history = HistoryBuilder::with_two_members();
    history.promises.data_loss = true;
    history
        .sends_to_both("e1/1..3")
        .connects_and_joins("bob", "e2/1")
        .sends_acked("e2/2..3")
        .receives("bob", "e2/2..3")
        .final_head("e2/3");
    history.assert_faults(&["missing message"]);
}

#[test]
fn an_acknowledged_message_must_be_in_the_log() {
    let mut history = HistoryBuilder::default();
    history
        .sends_acked("e1/1..3")
        .final_head("e1/2")
        .assert_faults(&["false ack"]);
    // A loss of data does not excuse it if the epoch continues.
    history.data_lost().assert_faults(&["false ack"]);
    HistoryBuilder::default()
        .sends_acked("e1/1..3")
        .final_head("e2/2")
        .assert_faults(&["false ack"]);
    HistoryBuilder::default()
        .sends_acked("e1/1..3")
        .final_head("e2/2")
        .data_lost()
        .assert_accepted();
}

#[test]
fn an_acknowledged_epoch_that_no_member_observed_is_a_fault() {
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1")
        .sends_acked("e2/1")
        .final_head("e1/1")
        .assert_faults(&["order of epochs", "missing message", "false ack"]);
    HistoryBuilder::with_two_members()
        .data_lost()
        .sends_to_both("e1/1")
        .sends_acked("e0/1")
        .final_head("e1/1")
        .assert_accepted();
}

#[test]
fn a_new_epoch_must_not_skip_messages_of_the_old_one() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..2")
        .sends_acked("e1/3")
        .receives("sue", "e1/3")
        .ends("sue")
        .sends_acked("e2/3")
        .receives("ann", "e2/3")
        .final_head("e2/3");
    let faults = history.faults();
    assert!(
        faults
            .iter()
            .any(|fault| fault.starts_with("missing message: ") && fault.contains("e1/3..3")),
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
fn messages_lost_with_the_data_before_a_client_received_them_are_counted() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..2")
        .sends_acked("e1/3..4")
        .receives("sue", "e1/3..4")
        .data_lost()
        .is_reset("sue", "e2/2");
    history
        .sends_to_both("e2/3")
        .final_head("e2/3")
        .assert_accepted();
    assert_eq!(
        (
            history.stats().lost_with_data,
            history.stats().announced_lost.len()
        ),
        (2, 0)
    );
    // The same without a message since.
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..2")
        .sends_acked("e1/3..4")
        .receives("sue", "e1/3..4")
        .data_lost()
        .is_reset("sue", "e2/2")
        .final_head("e2/2");
    history.assert_accepted();
    assert_eq!(history.stats().lost_with_data, 2);
}

#[test]
fn messages_of_the_new_epoch_must_arrive_even_after_a_loss_of_data() {
    let mut history = HistoryBuilder::with_two_members();
    // `ann` received 3 and 4 of the old epoch, and is not notified; `sue` receives other messages
    // at these numbers.
    history
        .sends_to_both("e1/1..2")
        .sends_acked("e1/3..4")
        .receives("ann", "e1/3..4")
        .data_lost()
        .sends_acked("e2/3..4")
        .receives("sue", "e2/3..4");
    history
        .sends_to_both("e2/5")
        .final_head("e2/5")
        .assert_faults(&["missing message"]);
    // The same with one more epoch since, which contains them, too.
    history.records.truncate(history.records.len() - 5);
    history
        .sends_to_both("e3/5")
        .final_head("e3/5")
        .assert_faults(&["missing message"]);
    history.records.truncate(history.records.len() - 5);
    history
        .final_head("e3/4")
        .assert_faults(&["missing message"]);
}

#[test]
fn a_gap_after_a_loss_of_data_may_replay_the_whole_log() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .sends_to_both("e1/1..5")
        .disconnects("ann")
        .sends_acked("e1/6..7")
        .receives("sue", "e1/6..7")
        .data_lost()
        .is_reset("sue", "e2/3");
    history
        .sends_acked("e2/4")
        .receives("sue", "e2/4")
        .connects_with_gap("ann", "e1/5", "e2/4", &["e1/1..3", "e2/4"]);
    history
        .sends_to_both("e2/5")
        .final_head("e2/5")
        .assert_accepted();
    assert_eq!(
        (
            history.stats().announced_lost["ann"],
            history.stats().replayed_again
        ),
        (2, 3)
    );
}

#[test]
fn only_the_first_faults_of_a_kind_are_reported_in_full() {
    let mut history = HistoryBuilder::with_two_members();
    history.sends_to_both("e1/1");
    for _ in 0..50 {
        history.receives("ann", "e1/1");
    }
    let faults = history.faults();
    assert_eq!(
        (faults.len(), faults.last().unwrap().as_str()),
        (21, "repeated message: and 30 more")
    );
    assert!(
        faults[0].contains("ann in lobby, at e1/1, received e1/1"),
        "{}",
        faults[0]
    );
    assert_eq!(history.stats().repeats, 50);
}

#[test]
fn saved_messages_must_not_be_lost() {
    // `ann` is away while the data goes back to a state before `e1/2`, which must not happen if
    // `e1/2` was saved.
    let rolled_back = |saved: bool| {
        let mut history = HistoryBuilder::with_two_members();
        history
            .sends_to_both("e1/1")
            .disconnects("ann")
            .sends_acked("e1/2")
            .receives("sue", "e1/2");
        if saved {
            history.record(LAB, Fact::DataSaved);
        }
        history.data_lost().ends("sue");
        history
            .connects("ann")
            .joined("ann", Some("e1/1"), "e2/1", true, false, 0)
            .gets_room_users("ann", &["ann"])
            .final_head("e2/1");
        history
    };
    rolled_back(false).assert_accepted();
    assert_eq!(rolled_back(false).stats().lost_with_data, 1);
    rolled_back(true).assert_faults(&["missing message"]);
    // A save after the first loss, and before a second one.
    let mut history = rolled_back(false);
    history
        .record(LAB, Fact::DataSaved)
        .data_lost()
        .assert_accepted();
}
