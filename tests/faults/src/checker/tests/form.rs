//! Histories that contradict themselves.

use super::tale::{ROOM, Tale, got, place};
use crate::history::Fact;

#[test]
fn clients_open_close_and_end_in_order() {
    let mut tale = Tale::default();
    tale.says("e1/1")
        .tell("bob", got(&place("e1/1")))
        .head("e1/1")
        .is_wrong(&["malformed"]);
    Tale::of_two().opens("ann").is_wrong(&["malformed"]);
    Tale::of_two().closes("bob").is_wrong(&["malformed"]);
    Tale::of_two()
        .closes("ann")
        .leaves("ann")
        .is_wrong(&["malformed"]);
    Tale::of_two().ends("ann").closes("ann").is_fine();
    Tale::of_two()
        .ends("ann")
        .closes("ann")
        .opens("ann")
        .is_wrong(&["malformed"]);
    Tale::of_two().closes("ann").is_wrong(&["malformed"]);
    Tale::of_two()
        .closes("ann")
        .tell("ann", Fact::Opened { user: "eve".into() })
        .is_wrong(&["malformed"]);
    Tale::of_two()
        .leaves("ann")
        .leaves("ann")
        .is_wrong(&["malformed"]);
}

#[test]
fn only_the_lab_writes_what_is_the_labs() {
    Tale::of_two()
        .tell("ann", Fact::DataLost)
        .is_wrong(&["malformed"]);
    Tale::of_two().calm("nobody").is_wrong(&["malformed"]);
}

#[test]
fn acks_and_refusals_have_a_send() {
    let mut tale = Tale::of_two();
    tale.acked("e1/1", false)
        .gets("sue", "e1/1")
        .gets("ann", "e1/1")
        .is_wrong(&["malformed"]);
    let mut tale = Tale::of_two();
    tale.talk("e1/1").tell(
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
        tale.faults()[0].starts_with("malformed"),
        "{:#?}",
        tale.faults()
    );
    let refusal = Fact::Refused {
        room: ROOM.into(),
        msg: "m".into(),
        code: "unavailable".into(),
    };
    Tale::of_two().tell("ann", refusal).is_wrong(&["malformed"]);
    let other = Fact::Sent {
        room: ROOM.into(),
        msg: "m-e1/1".into(),
    };
    Tale::of_two()
        .talk("e1/1")
        .tell("ann", other)
        .is_wrong(&["malformed"]);
}
