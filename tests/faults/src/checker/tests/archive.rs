//! The archive: acknowledged messages, numbers, contents, and the messages that the server returns.

use super::history_builder::{HistoryBuilder, ROOM, kept, position, received};
use crate::checker::{Archive, Promises};
use crate::history::{Fact, KeptMessage, LAB};

/// `sue` and `ann` are in an empty room, with an archive behind it.
fn archived_room(archive: Archive) -> HistoryBuilder {
    let mut history = HistoryBuilder::with_two_members();
    history.promises = Promises {
        archive: Some(archive),
        ..Promises::default()
    };
    history
}

fn strict() -> HistoryBuilder {
    archived_room(Archive::AckAfterArchive)
}

#[test]
fn an_archive_with_every_message_is_accepted() {
    let mut history = strict();
    history
        .sends_to_both("e1/1..3")
        .ends_with_archive("e1/3", &["e1/1..3"])
        .assert_accepted();
    assert_eq!(history.stats().archived, 3);
}

#[test]
fn the_archive_must_have_been_read() {
    strict()
        .sends_to_both("e1/1")
        .final_head("e1/1")
        .assert_faults(&["malformed history"]);
}

#[test]
fn an_acknowledged_message_must_be_archived() {
    // At the end, and the head says so.
    strict()
        .sends_to_both("e1/1..3")
        .ends_with_archive("e1/3", &["e1/1..2"])
        .assert_faults(&["not archived", "log and archive differ"]);
    // In the middle.
    strict()
        .sends_to_both("e1/1..3")
        .ends_with_archive("e1/3", &["e1/1", "e1/3"])
        .assert_faults(&["not archived", "hole in the archive"]);
    // The whole room.
    let mut history = strict();
    history
        .sends_to_both("e1/1")
        .final_head("e1/1")
        .record(LAB, Fact::ArchiveRead)
        .assert_faults(&["not archived"]);
}

#[test]
fn a_message_that_only_reached_clients_must_be_archived_too() {
    // Nothing acknowledged is lost, but the numbering has a hole.
    strict()
        .sends("e1/1")
        .receives("sue", "e1/1")
        .receives("ann", "e1/1")
        .sends_to_both("e1/2")
        .ends_with_archive("e1/2", &["e1/2"])
        .assert_faults(&["unacknowledged message", "hole in the archive"]);
}

#[test]
fn an_archived_message_must_reach_the_members() {
    let mut history = strict();
    history
        .sends_acked("e1/1..2")
        .receives("sue", "e1/1..2")
        .receives("ann", "e1/1")
        .leaves("sue")
        .ends_with_archive("e1/2", &["e1/1..2"])
        .assert_faults(&["missing message"]);
}

#[test]
fn nothing_is_recorded_as_lost_unless_data_was_lost() {
    strict()
        .sends_to_both("e1/1..3")
        .ends_with_archive("e1/3", &["e1/1", "e1/3"])
        .archived_gap(2, 2)
        .assert_faults(&["not archived", "hole in the archive"]);
    // A number that came after all.
    let mut history = strict();
    history
        .sends_to_both("e1/1..3")
        .data_lost()
        .ends_with_archive("e1/3", &["e1/1..3"])
        .archived_gap(2, 2)
        .assert_accepted();
    let stats = history.stats();
    assert_eq!((stats.archive_gaps, stats.archived_late), (0, 1));
}

/// Redis loses the end of its data: `e1/3`. Messages of a new epoch follow.
fn with_data_loss(archive: Archive) -> HistoryBuilder {
    let mut history = archived_room(archive);
    history
        .sends_to_both("e1/1..3")
        .data_lost()
        .is_reset("sue", "e2/2")
        .is_reset("ann", "e2/2")
        .sends_to_both("e2/3..4")
        .ends_with_archive("e2/4", &["e1/1..2", "e2/3..4"]);
    history
}

#[test]
fn only_acknowledgements_that_wait_for_the_archive_survive_a_loss_of_data() {
    with_data_loss(Archive::AckAfterArchive).assert_faults(&["not archived"]);
    let tolerant = with_data_loss(Archive::AckAfterLog);
    tolerant.assert_accepted();
    assert_eq!(tolerant.stats().acked_not_archived, 1);
}

#[test]
fn without_a_loss_of_data_every_acknowledged_message_is_archived() {
    archived_room(Archive::AckAfterLog)
        .sends_to_both("e1/1..3")
        .ends_with_archive("e1/3", &["e1/1..2"])
        .assert_faults(&["not archived", "log and archive differ"]);
}

#[test]
fn a_message_acknowledged_after_the_loss_must_be_archived() {
    let mut history = archived_room(Archive::AckAfterLog);
    history.sends_to_both("e1/1..2").data_lost();
    for _ in 0..200 {
        history.record(
            LAB,
            Fact::Step {
                text: "two seconds pass".into(),
            },
        );
    }
    history
        .is_reset("sue", "e2/2")
        .is_reset("ann", "e2/2")
        .sends_to_both("e2/3..4")
        .ends_with_archive("e2/4", &["e1/1..2", "e2/3"])
        .assert_faults(&["not archived", "log and archive differ"]);
}

#[test]
fn numbers_that_were_lost_with_the_data_are_recorded() {
    // `e1/3` reached clients and was never acknowledged; the new epoch begins after it.
    let mut history = strict();
    history
        .sends_to_both("e1/1..2")
        .sends("e1/3")
        .receives("sue", "e1/3")
        .data_lost()
        .sends("e2/4")
        .acked("e2/4", false)
        .receives("sue", "e2/4")
        .is_reset("ann", "e2/3")
        .receives("ann", "e2/4")
        .sends("e1/3")
        .acked_at("e1/3", "e2/5", false);
    let resent = |client: &mut HistoryBuilder, name: &str| {
        let mut fact = received(&position("e2/5"));
        if let Fact::Received { msg, .. } = &mut fact {
            *msg = Some("m-e1/3".into());
        }
        client.record(name, fact);
    };
    resent(&mut history, "sue");
    resent(&mut history, "ann");
    history.final_head("e2/5").archive_read();
    let mut last = kept(&position("e2/5"));
    last.msg = Some("m-e1/3".into());
    for range in ["e1/1..2", "e2/4"] {
        history.archived(range).logged(range);
    }
    history
        .record(LAB, Fact::Archived(last.clone()))
        .record(LAB, Fact::Logged(last));
    let without_gap = history.clone();
    history.archived_gap(3, 3).assert_accepted();
    assert_eq!(history.stats().archive_gaps, 1);
    without_gap.assert_faults(&["hole in the archive"]);
}

#[test]
fn the_loss_of_a_message_that_the_archive_has_must_not_be_announced() {
    strict()
        .sends_acked("e1/1..2")
        .receives("sue", "e1/1..2")
        .data_lost()
        .is_reset("ann", "e2/2")
        .ends_with_archive("e2/2", &["e1/1..2"])
        .assert_faults(&["missing message"]);
}

/// The end of a run in which the archive has another message at `e1/2`.
fn with_altered_entry(alter: impl Fn(&mut KeptMessage)) -> HistoryBuilder {
    let mut history = strict();
    history
        .sends("e1/9")
        .sends_to_both("e1/1..2")
        .final_head("e1/2")
        .archive_read();
    history.archived("e1/1").logged("e1/1");
    let mut entry = kept(&position("e1/2"));
    alter(&mut entry);
    history
        .record(LAB, Fact::Archived(entry.clone()))
        .record(LAB, Fact::Logged(entry));
    history
}

#[test]
fn the_archive_has_the_message_that_clients_received() {
    let all: [fn(&mut KeptMessage); 3] = [
        |entry| entry.id = "other".into(),
        |entry| entry.msg = Some("m-e1/9".into()),
        |entry| entry.user = "eve".into(),
    ];
    for alter in all {
        let history = with_altered_entry(alter);
        let faults = history.faults();
        assert!(
            faults
                .iter()
                .any(|fault| fault.starts_with("conflicting messages")),
            "{faults:#?}"
        );
    }
}

#[test]
fn a_number_has_the_meaning_that_was_acknowledged() {
    // The same number in another epoch: the acknowledged one is lost.
    let history = with_altered_entry(|entry| *entry = kept(&position("e2/2")));
    let faults = history.faults();
    assert!(
        faults.iter().any(|fault| fault.starts_with("not archived")
            && fault.contains("e1/2")
            && fault.contains("the archive has e2/2")),
        "{faults:#?}"
    );
}

#[test]
fn the_archive_has_nothing_twice() {
    // A repeated send has become a second message.
    let mut history = strict();
    history
        .sends("e1/2")
        .sends_to_both("e1/1")
        .acked_at("e1/1", "e1/2", false);
    let faults = history
        .ends_with_archive("e1/2", &["e1/1"])
        .record(LAB, {
            let mut entry = kept(&position("e1/2"));
            entry.msg = Some("m-e1/1".into());
            Fact::Archived(entry)
        })
        .faults();
    assert!(
        faults
            .iter()
            .any(|fault| fault.starts_with("archived twice")),
        "{faults:#?}"
    );
    // A number comes again.
    let mut history = strict();
    let faults = history
        .sends_to_both("e1/1..2")
        .ends_with_archive("e1/2", &["e1/1..2"])
        .archived("e1/2")
        .faults();
    assert!(
        faults
            .iter()
            .any(|fault| fault.starts_with("archived twice")),
        "{faults:#?}"
    );
}

#[test]
fn a_content_is_one_that_was_sent() {
    let send = |content| Fact::Sent {
        room: ROOM.into(),
        msg: "m-e1/1".into(),
        content: Some(content),
    };
    // Two attempts; the archive has the content of the second one, 7.
    let mut history = strict();
    history.record("sue", send(5)).record("sue", send(7));
    history
        .acked("e1/1", false)
        .receives("sue", "e1/1")
        .receives("ann", "e1/1")
        .ends_with_archive("e1/1", &["e1/1"])
        .assert_accepted();
    // A content that was received, and is not the one in the archive.
    let mut history = strict();
    history.record("sue", send(5)).record("sue", send(7));
    let mut delivery = received(&position("e1/1"));
    if let Fact::Received { content, .. } = &mut delivery {
        *content = Some(5);
    }
    history
        .acked("e1/1", false)
        .record("sue", delivery)
        .receives("ann", "e1/1")
        .ends_with_archive("e1/1", &["e1/1"])
        .assert_faults(&["conflicting messages"]);
    // A content that no attempt had.
    let mut delivery = received(&position("e1/1"));
    if let Fact::Received { content, .. } = &mut delivery {
        *content = Some(6);
    }
    let mut history = strict();
    history
        .record("sue", send(7))
        .record("sue", delivery)
        .receives("ann", "e1/1")
        .acked("e1/1", false)
        .final_head("e1/1")
        .archive_read()
        .archived("e1/1")
        .logged("e1/1")
        .assert_faults(&["conflicting messages"]);
}

#[test]
fn the_server_returns_what_the_archive_has() {
    let mut history = strict();
    history
        .sends_to_both("e1/1..3")
        .final_head("e1/3")
        .archive_read()
        .archived("e1/1..3")
        .logged("e1/2..3")
        .assert_faults(&["log and archive differ"]);
    let mut history = strict();
    history
        .sends_to_both("e1/1..3")
        .final_head("e1/3")
        .archive_read()
        .archived("e1/1..3")
        .logged("e1/1..2");
    let mut last = kept(&position("e1/3"));
    last.content = 8;
    history
        .record(LAB, Fact::Logged(last))
        .assert_faults(&["log and archive differ"]);
}

#[test]
fn the_epochs_of_the_archive_have_the_order_that_clients_saw() {
    let mut history = strict();
    history
        .sends_to_both("e1/1")
        .sends_to_both("e2/2")
        .ends_with_archive("e2/2", &["e1/1", "e2/2"])
        .assert_accepted();
    let mut history = strict();
    history
        .sends_to_both("e1/1")
        .data_lost()
        .is_reset("sue", "e2/0")
        .is_reset("ann", "e2/0")
        .sends_to_both("e2/1")
        .ends_with_archive("e2/1", &["e2/1"])
        .archived("e1/2")
        .sends("e1/2");
    let faults = history.faults();
    assert!(
        faults
            .iter()
            .any(|fault| fault.starts_with("order of epochs")
                && fault.contains("the archive from e2 to e1")),
        "{faults:#?}"
    );
}

#[test]
fn after_a_reset_to_the_archive_its_messages_come_again() {
    // `e1/3` came late to the archive: the new epoch had already begun after `e1/2`.
    let mut history = strict();
    history
        .sends_to_both("e1/1..3")
        .data_lost()
        .is_reset("sue", "e2/2")
        .receives("sue", "e1/3")
        .is_reset("ann", "e2/2")
        .receives("ann", "e1/3")
        .sends_to_both("e3/4")
        .ends_with_archive("e3/4", &["e1/1..3", "e3/4"]);
    history.assert_accepted();
    assert_eq!(history.stats().replayed_again, 2);
    // Not beyond the messages that the client had.
    let mut history = strict();
    history
        .sends_to_both("e1/1..3")
        .data_lost()
        .is_reset("sue", "e2/2")
        .receives("sue", "e1/3")
        .receives("sue", "e1/3")
        .is_reset("ann", "e2/2")
        .receives("ann", "e1/3")
        .ends_with_archive("e2/3", &["e1/1..3"])
        .assert_faults(&["repeated message"]);
}

/// Two primaries: `e2` and `e3` begin after `e1/1`. The archive takes `e2/2`, then `e3/3`, then `e2/4`.
fn with_two_primaries() -> HistoryBuilder {
    let mut history = strict();
    history.promises.two_primaries = true;
    history
        .sends_to_both("e1/1")
        .data_lost()
        .sends_acked("e2/2")
        .receives("sue", "e2/2")
        .sends("e3/2")
        .receives("ann", "e3/2")
        .is_reset("ann", "e4/1")
        .receives("ann", "e2/2")
        .sends_acked("e3/3")
        .receives("ann", "e3/3")
        .is_reset("sue", "e5/2")
        .receives("sue", "e3/3")
        .sends_acked("e2/4")
        .receives("sue", "e2/4");
    history
}

#[test]
fn with_two_primaries_the_archive_has_the_order() {
    let resend = |history: &mut HistoryBuilder| {
        let mut fact = received(&position("e6/5"));
        if let Fact::Received { msg, .. } = &mut fact {
            *msg = Some("m-e3/2".into());
        }
        history.sends("e3/2").acked_at("e3/2", "e6/5", false);
        history.record("sue", fact.clone()).record("ann", fact);
        let mut last = kept(&position("e6/5"));
        last.msg = Some("m-e3/2".into());
        history.ends_with_archive("e6/5", &["e1/1", "e2/2", "e3/3", "e2/4"]);
        history
            .record(LAB, Fact::Archived(last.clone()))
            .record(LAB, Fact::Logged(last));
    };
    let mut history = with_two_primaries();
    history.receives("ann", "e2/4");
    resend(&mut history);
    history.assert_accepted();
    // A message of the archive that a client did not receive.
    let mut history = with_two_primaries();
    resend(&mut history);
    history.assert_faults(&["hole"]);
    // Its loss was announced: counted.
    let mut history = with_two_primaries();
    history.is_reset("ann", "e5/4");
    resend(&mut history);
    history.assert_accepted();
    assert_eq!(history.stats().announced_but_archived, 1);
}

/// A client that resumes before numbers that were lost is notified, also within an epoch.
#[test]
fn a_recorded_loss_may_be_announced_within_an_epoch() {
    let with_reset_to = |to: &str| {
        let mut history = strict();
        history
            .sends_to_both("e1/1..2")
            .data_lost()
            .is_reset("ann", "e2/2")
            .is_reset("ann", to)
            .is_reset("sue", "e2/5")
            .sends_acked("e2/6..7")
            .receives("ann", "e2/6..7")
            .receives("sue", "e2/6..7")
            .archived_gap(3, 5)
            .ends_with_archive("e2/7", &["e1/1..2", "e2/6..7"]);
        history
    };
    with_reset_to("e2/5").assert_accepted();
    with_reset_to("e2/4").assert_faults(&["hole", "unexpected announcement of a loss"]);
}
