//! Messages that change: histories with one broken rule each.

use std::collections::{BTreeMap, BTreeSet};

use crate::checker::{Promises, check};
use crate::history::changes::{ChangeFact, FinalMessage, MessageChange};
use crate::history::{Fact, Record};

fn message(content: Option<&str>) -> FinalMessage {
    FinalMessage {
        seq: 1,
        id: "i".into(),
        version: 2,
        content: content.map(str::to_owned),
        edited_at: None,
        pinned: false,
        reactions: BTreeMap::from([("+1".into(), BTreeSet::from(["sue".into()]))]),
        replies: 0,
    }
}

fn last(observer: &str, message: FinalMessage) -> ChangeFact {
    let is_history = observer.starts_with("node");
    ChangeFact::Final {
        observer: observer.into(),
        is_history,
        room: "r".into(),
        messages: vec![message],
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

fn edit(seq: u64, content: &str) -> ChangeFact {
    acked(
        seq,
        MessageChange::Edit {
            content: content.into(),
            condition: Some(1),
        },
    )
}

fn react(on: bool) -> ChangeFact {
    acked(
        0,
        MessageChange::React {
            user: "sue".into(),
            emoji: "+1".into(),
            on,
        },
    )
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

/// The faults of a correct run, with these facts too. The first of them is at 10 ms.
fn faults(content: Option<&str>, more: Vec<ChangeFact>) -> String {
    let mut facts = more;
    facts.extend(["node-1", "node-2", "client"].map(|name| last(name, message(content))));
    let records = (10..).zip(facts).map(|(at, fact)| Record {
        at,
        source: "c".into(),
        fact: Fact::Change(fact),
    });
    let records: Vec<Record> = records.collect();
    check(&records, &Promises::default()).faults.join("\n")
}

#[test]
fn correct_runs_pass() {
    let run = vec![
        edit(2, "b"),
        edit(2, "b"),
        react(false),
        react(true),
        shown(50),
    ];
    assert_eq!(faults(Some("b"), run), "");
    assert_eq!(
        faults(
            None,
            vec![edit(2, "b"), acked(2, MessageChange::Delete), shown(11)]
        ),
        ""
    );
    let rate = vec![
        announced(3, 0),
        announced(4, 500),
        announced(5, 1000),
        announced(6, 1500),
    ];
    assert_eq!(faults(Some("b"), rate), "");
}

#[test]
fn each_broken_rule_is_found() {
    let node = last("node-3", message(Some("a")));
    let client = last("phone", message(Some("a")));
    let rate = (0..4).map(|n| announced(n, n * 100)).collect();
    for (content, facts, label) in [
        (
            Some("b"),
            vec![edit(2, "b"), client],
            "history and folded state differ",
        ),
        (
            Some("b"),
            vec![edit(2, "b"), node],
            "history and folded state differ",
        ),
        (
            Some("b"),
            vec![edit(2, "b"), edit(1, "c")],
            "one version edited twice",
        ),
        (Some("b"), vec![edit(3, "c")], "lost change"),
        (Some("b"), vec![edit(2, "c")], "lost change"),
        (
            Some("b"),
            vec![acked(2, MessageChange::Delete)],
            "lost change",
        ),
        (Some("b"), vec![react(false)], "lost change"),
        (
            None,
            vec![acked(2, MessageChange::Delete), shown(11)],
            "shown after the deletion",
        ),
        (Some("b"), rate, "too many announcements"),
    ] {
        let found = faults(content, facts);
        assert!(found.contains(label), "{label}: {found}");
    }
}
