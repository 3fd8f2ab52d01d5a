//! Histories that contradict themselves.

use super::history_builder::{HistoryBuilder, ROOM, position, received};
use crate::history::Fact;

#[test]
fn clients_connect_disconnect_and_end_in_order() {
    let mut history = HistoryBuilder::default();
    history
        .sends_acked("e1/1")
        .record("bob", received(&position("e1/1")))
        .final_head("e1/1")
        .assert_faults(&["malformed history"]);
    HistoryBuilder::with_two_members()
        .connects("ann")
        .assert_faults(&["malformed history"]);
    HistoryBuilder::with_two_members()
        .disconnects("bob")
        .assert_faults(&["malformed history"]);
    HistoryBuilder::with_two_members()
        .disconnects("ann")
        .leaves("ann")
        .assert_faults(&["malformed history"]);
    HistoryBuilder::with_two_members()
        .ends("ann")
        .disconnects("ann")
        .assert_accepted();
    HistoryBuilder::with_two_members()
        .ends("ann")
        .disconnects("ann")
        .connects("ann")
        .assert_faults(&["malformed history"]);
    HistoryBuilder::with_two_members()
        .disconnects("ann")
        .assert_faults(&["malformed history"]);
    HistoryBuilder::with_two_members()
        .disconnects("ann")
        .record("ann", Fact::Connected { user: "eve".into() })
        .assert_faults(&["malformed history"]);
    HistoryBuilder::with_two_members()
        .leaves("ann")
        .leaves("ann")
        .assert_faults(&["malformed history"]);
}

#[test]
fn only_the_lab_may_record_the_facts_of_the_lab() {
    HistoryBuilder::with_two_members()
        .record("ann", Fact::DataLost)
        .assert_faults(&["malformed history"]);
    HistoryBuilder::with_two_members()
        .unaffected("nobody")
        .assert_faults(&["malformed history"]);
}

#[test]
fn acks_and_refusals_need_a_send() {
    let mut history = HistoryBuilder::with_two_members();
    history
        .acked("e1/1", false)
        .receives("sue", "e1/1")
        .receives("ann", "e1/1")
        .assert_faults(&["malformed history"]);
    let mut history = HistoryBuilder::with_two_members();
    history.sends_to_both("e1/1").record(
        "sue",
        Fact::Acked {
            room: "elsewhere".into(),
            msg: "m-e1/1".into(),
            id: "i".into(),
            epoch: "e7".into(),
            seq: 0,
            duplicate: true,
        },
    );
    assert!(
        history.faults()[0].starts_with("malformed history"),
        "{:#?}",
        history.faults()
    );
    let refusal = Fact::Refused {
        room: ROOM.into(),
        msg: "m".into(),
        code: "unavailable".into(),
    };
    HistoryBuilder::with_two_members()
        .record("ann", refusal)
        .assert_faults(&["malformed history"]);
    let other = Fact::Sent {
        room: ROOM.into(),
        msg: "m-e1/1".into(),
        content: None,
    };
    HistoryBuilder::with_two_members()
        .sends_to_both("e1/1")
        .record("ann", other)
        .assert_faults(&["malformed history"]);
}
