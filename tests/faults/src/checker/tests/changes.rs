//! Messages that change: histories with one broken rule each.

use std::collections::BTreeSet;

use crate::checker::{Promises, check};
use crate::history::changes::{ChangeFact, FinalMessage, MessageChange, Reactions};
use crate::history::{Fact, Record};

fn message(content: Option<&str>) -> FinalMessage {
    let deleted = FinalMessage {
        seq: 1,
        id: "i".into(),
        user: "ann".into(),
        version: 2,
        ..FinalMessage::default()
    };
    let Some(content) = content else {
        return FinalMessage {
            deleted_by: Some("ann".into()),
            ..deleted
        };
    };
    FinalMessage {
        content: Some(content.into()),
        edited_at: Some("t".into()),
        pinned: true,
        pinned_seq: Some(5),
        reactions: Reactions::from([("+1".into(), BTreeSet::from(["sue".into()]))]),
        reactions_seq: Some(6),
        ..deleted
    }
}

fn last(observer: &str, messages: &[FinalMessage]) -> ChangeFact {
    ChangeFact::Final {
        observer: observer.into(),
        is_history: observer.starts_with("node"),
        room: "r".into(),
        messages: messages.to_vec(),
    }
}

fn attempted(change: MessageChange) -> ChangeFact {
    ChangeFact::Attempted {
        room: "r".into(),
        target: 1,
        change,
        is_repeat: false,
    }
}

fn acked(seq: u64, change: MessageChange) -> ChangeFact {
    ChangeFact::Acked {
        room: "r".into(),
        target: 1,
        seq,
        change,
    }
}

fn refused(code: &str, change: MessageChange) -> ChangeFact {
    ChangeFact::Refused {
        room: "r".into(),
        target: 1,
        change,
        code: code.into(),
    }
}

fn edit_of(content: &str, condition: Option<u64>) -> MessageChange {
    let content = content.into();
    MessageChange::Edit { content, condition }
}

fn edit(seq: u64, content: &str) -> ChangeFact {
    acked(seq, edit_of(content, Some(1)))
}

fn reaction(on: bool) -> MessageChange {
    MessageChange::React {
        user: "sue".into(),
        emoji: "+1".into(),
        on,
    }
}

fn react(on: bool) -> ChangeFact {
    acked(0, reaction(on))
}

fn announced(seq: u64, timestamp: u64) -> ChangeFact {
    ChangeFact::ReactionsReceived {
        room: "r".into(),
        target: 1,
        seq,
        timestamp,
    }
}

fn shown(began: u64) -> ChangeFact {
    ChangeFact::Shown {
        room: "r".into(),
        target: 1,
        began,
    }
}

fn joined(position: u64, is_resume: bool, recovered: bool) -> ChangeFact {
    ChangeFact::Joined {
        room: "r".into(),
        position,
        is_resume,
        recovered,
        gap: !recovered,
    }
}

fn received(seq: u64, target: u64, version: Option<u64>) -> ChangeFact {
    ChangeFact::Received {
        room: "r".into(),
        seq,
        name: "message_edited".into(),
        target,
        version,
    }
}

/// The faults of a run with these facts, in which "b" was written and all observers end with these
/// messages. The first of the facts is at 10 ms.
fn faults_with(messages: &[FinalMessage], more: Vec<ChangeFact>) -> String {
    let mut facts = more;
    facts.push(attempted(edit_of("b", None)));
    facts.extend(["node-1", "node-2", "client"].map(|name| last(name, messages)));
    let records = (10..).zip(facts).map(|(at, fact)| Record {
        at,
        source: "c".into(),
        fact: Fact::Change(fact),
    });
    let records: Vec<Record> = records.collect();
    check(&records, &Promises::default()).faults.join("\n")
}

fn faults(content: Option<&str>, more: Vec<ChangeFact>) -> String {
    faults_with(&[message(content)], more)
}

fn assert_found(content: Option<&str>, facts: Vec<ChangeFact>, label: &str) {
    let found = faults(content, facts);
    assert!(found.contains(label), "{label}: {found:?}");
}

#[test]
fn correct_runs_pass() {
    let conflict = refused("conflict", edit_of("c", Some(1)));
    let run = vec![
        edit(2, "b"),
        edit(2, "b"),
        edit(0, "b"),
        conflict,
        react(false),
        react(true),
        acked(5, MessageChange::Pin { on: true }),
        acked(4, MessageChange::Pin { on: false }),
        refused("too_large", MessageChange::Pin { on: true }),
        shown(50),
    ];
    assert_eq!(faults(Some("b"), run), "");
    let deletion = vec![
        attempted(MessageChange::Delete),
        edit(2, "b"),
        acked(2, MessageChange::Delete),
        refused("message_deleted", reaction(true)),
        shown(11),
    ];
    assert_eq!(faults(None, deletion), "");
    let times = [(3, 0), (4, 500), (5, 1000), (6, 1500)];
    let rate = times.map(|(seq, timestamp)| announced(seq, timestamp));
    assert_eq!(faults(Some("b"), rate.into()), "");
    let deliveries = vec![
        joined(0, false, true),
        received(1, 1, None),
        received(2, 1, Some(2)),
        joined(2, true, true),
        received(3, 1, Some(7)),
        joined(8, true, false),
        received(9, 1, None),
    ];
    assert_eq!(faults(Some("b"), deliveries), "");
}

#[test]
fn a_final_state_that_differs_in_one_field_is_found() {
    let label = "history and folded state differ";
    let fields: [fn(&mut FinalMessage); 8] = [
        |message| message.content = Some("a".into()),
        |message| message.version = 3,
        |message| message.edited_at = None,
        |message| message.pinned = false,
        |message| message.pinned_seq = None,
        |message| message.reactions.clear(),
        |message| message.reactions_seq = Some(5),
        |message| message.thread_id = Some("root".into()),
    ];
    for observer in ["node-3", "phone"] {
        for field in fields {
            let mut other = message(Some("b"));
            field(&mut other);
            assert_found(Some("b"), vec![last(observer, &[other])], label);
        }
        assert_found(Some("b"), vec![last(observer, &[])], label);
        let second = FinalMessage {
            seq: 2,
            ..message(Some("b"))
        };
        let both = [message(Some("b")), second];
        assert_found(Some("b"), vec![last(observer, &both)], label);
        assert_found(None, vec![last(observer, &[message(Some("b"))])], label);
    }
}

#[test]
fn a_client_may_know_reactions_and_pins_by_later_numbers() {
    let label = "history and folded state differ";
    let later = FinalMessage {
        pinned_seq: Some(9),
        reactions_seq: Some(9),
        ..message(Some("b"))
    };
    let folded = |message: FinalMessage| vec![last("phone", &[message])];
    assert_eq!(faults(Some("b"), folded(later.clone())), "");
    assert_found(
        Some("b"),
        vec![last("node-3", std::slice::from_ref(&later))],
        label,
    );
    let no_pin = FinalMessage {
        pinned: false,
        ..later.clone()
    };
    assert_found(Some("b"), folded(no_pin), label);
    let earlier = FinalMessage {
        reactions_seq: Some(5),
        ..later
    };
    assert_found(Some("b"), folded(earlier), label);
}

#[test]
fn a_lost_change_is_found() {
    let label = "lost change";
    assert_found(Some("b"), vec![edit(3, "c")], label);
    assert_found(Some("b"), vec![edit(2, "c")], label);
    assert_found(Some("b"), vec![acked(2, MessageChange::Delete)], label);
    for (seq, on) in [(6, true), (5, false)] {
        let pin = acked(seq, MessageChange::Pin { on });
        assert_found(Some("b"), vec![pin], label);
    }
    assert_found(Some("b"), vec![react(false)], label);
    let mut unpinned = message(Some("b"));
    (unpinned.pinned, unpinned.pinned_seq) = (false, None);
    let acked = |on| vec![acked(1, MessageChange::Pin { on })];
    assert_eq!(faults_with(&[unpinned.clone()], acked(false)), "");
    assert!(faults_with(&[unpinned], acked(true)).contains(label));
    // Nobody knows the outcome of the last change.
    let unknown = vec![react(false), attempted(reaction(true))];
    assert_eq!(faults(Some("b"), unknown), "");
}

#[test]
fn two_edits_of_one_version_are_found_also_without_their_numbers() {
    for seq in [0, 1] {
        let edits = vec![edit(2, "b"), edit(seq, "c")];
        assert_found(Some("b"), edits, "one version edited twice");
    }
}

#[test]
fn contents_that_nobody_wrote_or_that_come_twice_are_found() {
    assert_found(Some("x"), vec![], "conflicting messages");
    let second = FinalMessage {
        seq: 2,
        ..message(Some("b"))
    };
    let found = faults_with(&[message(Some("b")), second], vec![]);
    assert!(found.contains("conflicting messages"), "{found:?}");
    let sent = |content: &str| {
        let content = content.into();
        let thread = None;
        acked(1, MessageChange::Send { content, thread })
    };
    assert_found(
        Some("b"),
        vec![sent("x"), sent("y")],
        "conflicting messages",
    );
}

#[test]
fn a_refusal_without_a_reason_is_found() {
    let label = "refused change";
    for (code, change) in [
        ("conflict", edit_of("c", None)),
        ("message_deleted", edit_of("c", None)),
        ("too_large", MessageChange::Pin { on: false }),
        ("not_found", MessageChange::Delete),
    ] {
        assert_found(Some("b"), vec![refused(code, change)], label);
    }
}

#[test]
fn content_that_is_shown_after_its_deletion_is_found() {
    let facts = vec![acked(2, MessageChange::Delete), shown(11)];
    assert_found(None, facts, "shown after the deletion");
}

#[test]
fn too_many_announcements_are_found() {
    let rate = (0..4).map(|n| announced(n, n * 100)).collect();
    assert_found(Some("b"), rate, "too many announcements");
}

#[test]
fn broken_deliveries_are_found() {
    let start = || joined(0, false, true);
    let one = || received(1, 1, None);
    for (facts, label) in [
        (vec![one()], "not subscribed"),
        (vec![start(), received(2, 1, None)], "hole"),
        (vec![start(), one(), one()], "repeated message"),
        (
            vec![start(), one(), received(2, 1, None), one()],
            "out of order",
        ),
        (
            vec![start(), one(), joined(2, true, true)],
            "impossible answer to join",
        ),
        (
            vec![start(), one(), joined(0, true, false)],
            "impossible answer to join",
        ),
        (
            vec![start(), one(), start(), received(1, 2, None)],
            "conflicting messages",
        ),
        (vec![start(), one(), received(2, 1, Some(1))], "stale form"),
        (
            vec![start(), ChangeFact::Reset { room: "r".into() }],
            "unexpected announcement of a loss",
        ),
    ] {
        assert_found(Some("b"), facts, label);
    }
}

#[test]
fn a_row_that_is_left_in_the_outbox_is_found() {
    let row = ChangeFact::LeftInOutbox {
        row: 7,
        kind: "message_edited".into(),
        failed: true,
    };
    assert_found(Some("b"), vec![row], "left in the outbox");
}
