//! Chats: announcements, tables, removals and rights.

use crate::checker::{Promises, Stats, check};
use crate::history::chats::{ChatEvent, ChatFact, Role, Wanted, feed_of, room_of};
use crate::history::{Fact, LAB, Record};

const CHAT: &str = "c";

/// A correct run: `sue` opens a chat with `ann`, who becomes an owner, is removed, and added again. The
/// client `watcher` is sue's, and `member` is ann's.
#[derive(Clone)]
struct Run {
    changes: Vec<(u64, Wanted, bool)>,
    room: Vec<ChatEvent>,
    feed_of_sue: Vec<ChatEvent>,
    feed_of_ann: Vec<ChatEvent>,
    /// What the member did: times, and positions of joins (true) or numbers of events.
    member: Vec<(u64, bool, u64)>,
    watcher: Vec<u64>,
    members: Vec<(&'static str, Role)>,
    title: &'static str,
    lab: Vec<ChatFact>,
    drivers: Vec<ChatFact>,
}

fn added(user: &str, role: Role) -> ChatEvent {
    ChatEvent::MemberAdded {
        chat: CHAT.into(),
        user: user.into(),
        role: Some(role),
    }
}

fn removed(user: &str) -> ChatEvent {
    ChatEvent::MemberRemoved {
        chat: CHAT.into(),
        user: user.into(),
        role: Some(Role::Owner),
    }
}

fn updated(title: &str, role: Option<Role>) -> ChatEvent {
    ChatEvent::ChatUpdated {
        chat: CHAT.into(),
        title: Some(title.into()),
        role,
    }
}

fn created(role: Role) -> ChatEvent {
    ChatEvent::ChatCreated {
        chat: CHAT.into(),
        title: Some("first".into()),
        role: Some(role),
    }
}

fn message(msg: &str) -> ChatEvent {
    ChatEvent::Message {
        msg: Some(msg.into()),
        sender: "sue".into(),
    }
}

impl Run {
    fn new() -> Self {
        let chat = || CHAT.to_owned();
        let ann = || "ann".to_owned();
        let changes = [
            Wanted::Open {
                name: "first".into(),
                users: vec!["sue".into(), ann()],
            },
            Wanted::SetRole {
                chat: chat(),
                user: ann(),
                role: Role::Owner,
            },
            Wanted::Rename {
                chat: chat(),
                name: "second".into(),
            },
            Wanted::Remove {
                chat: chat(),
                user: ann(),
            },
            Wanted::Add {
                chat: chat(),
                user: ann(),
                role: Role::Member,
            },
        ];
        let changes = changes.into_iter().enumerate();
        Self {
            changes: changes
                .map(|(index, wanted)| (100 * index as u64, wanted, true))
                .collect(),
            room: vec![
                added("sue", Role::Owner),
                added("ann", Role::Member),
                message("m1"),
                updated("first", None),
                updated("second", None),
                removed("ann"),
                message("m2"),
                added("ann", Role::Member),
                message("m3"),
            ],
            feed_of_sue: vec![
                created(Role::Owner),
                added("sue", Role::Owner),
                updated("second", Some(Role::Owner)),
            ],
            feed_of_ann: vec![
                created(Role::Member),
                added("ann", Role::Member),
                updated("first", Some(Role::Owner)),
                updated("second", Some(Role::Owner)),
                removed("ann"),
                added("ann", Role::Member),
            ],
            member: vec![
                (50, true, 2),
                (60, false, 3),
                (110, false, 4),
                (210, false, 5),
                (310, false, 6),
                (450, true, 8),
                (460, false, 9),
            ],
            watcher: (1..=9).collect(),
            members: vec![("sue", Role::Owner), ("ann", Role::Member)],
            title: "second",
            lab: Vec::new(),
            drivers: Vec::new(),
        }
    }

    fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut add = |at: u64, source: &str, fact: ChatFact| {
            records.push(Record {
                at,
                source: source.into(),
                fact: Fact::Chat(fact),
            });
        };
        let room = || room_of(CHAT);
        for (index, (at, wanted, is_acked)) in self.changes.iter().enumerate() {
            let change = format!("d-{index}");
            let wanted = wanted.clone();
            let attempted = ChatFact::ChangeAttempted {
                change: change.clone(),
                wanted,
            };
            add(*at, "d", attempted);
            if *is_acked {
                let chat = CHAT.into();
                add(at + 5, "d", ChatFact::ChangeAcked { change, chat });
            }
        }
        let joined = |user: &str, position| ChatFact::Joined {
            chat: CHAT.into(),
            user: user.into(),
            position,
            gap: false,
        };
        let received = |user: &str, seq: u64| ChatFact::Received {
            room: room(),
            user: user.into(),
            seq,
            event: self.room[seq as usize - 1].clone(),
        };
        add(40, "watcher", joined("sue", 0));
        for msg in ["m1", "m2", "m3"] {
            let msg = msg.to_owned();
            add(50, "watcher", ChatFact::Sent { room: room(), msg });
        }
        let (msg, seq) = ("m1".into(), 3);
        let room_id = room();
        let acked = ChatFact::Acked {
            room: room_id,
            msg,
            seq,
        };
        add(55, "watcher", acked);
        for seq in &self.watcher {
            add(500, "watcher", received("sue", *seq));
        }
        for (at, is_join, number) in &self.member {
            let fact = match is_join {
                true => joined("ann", *number),
                false => received("ann", *number),
            };
            add(*at, "member", fact);
        }
        for fact in &self.drivers {
            add(600, "d", fact.clone());
        }
        let watcher = ChatFact::Watcher {
            client: "watcher".into(),
            chat: CHAT.into(),
        };
        add(600, LAB, watcher);
        let feeds = [("sue", &self.feed_of_sue), ("ann", &self.feed_of_ann)];
        let feeds = feeds.map(|(user, events)| (feed_of(user), events));
        for (room, events) in feeds.into_iter().chain([(room(), &self.room)]) {
            for (index, event) in events.iter().enumerate() {
                let entry = ChatFact::KeptEntry {
                    room: room.clone(),
                    seq: index as u64 + 1,
                    id: format!("{room}-{index}"),
                    event: event.clone(),
                };
                add(700, LAB, entry);
            }
        }
        if !self.members.is_empty() {
            let (chat, name) = (CHAT.into(), Some(self.title.into()));
            add(700, LAB, ChatFact::KeptChat { chat, name });
        }
        for (user, role) in &self.members {
            let member = ChatFact::KeptMember {
                chat: CHAT.into(),
                user: (*user).into(),
                role: *role,
            };
            add(700, LAB, member);
        }
        add(700, LAB, ChatFact::TablesRead);
        for fact in &self.lab {
            add(700, LAB, fact.clone());
        }
        records
    }

    fn check(&self) -> (Vec<String>, Stats) {
        let verdict = check(&self.records(), &Promises::default());
        (verdict.faults, verdict.stats)
    }

    /// Among the faults is one that begins with these words.
    fn assert_fault(&self, label: &str) {
        let (faults, _) = self.check();
        let found = faults.iter().any(|fault| fault.starts_with(label));
        assert!(found, "no {label:?} in {faults:#?}");
    }

    fn assert_accepted(&self) {
        assert_eq!(self.check().0, Vec::<String>::new());
    }
}

#[test]
fn a_run_in_which_each_change_is_announced_once_is_accepted() {
    let run = Run::new();
    run.assert_accepted();
    let (_, stats) = run.check();
    assert_eq!((stats.changes, stats.acknowledged), (5, 1));
    assert_eq!((stats.announced_in_rooms, stats.announced_in_feeds), (6, 9));
}

#[test]
fn a_lost_announcement_is_noticed_wherever_it_is_missing() {
    for missing in [1, 3, 4, 5, 7] {
        let mut run = Run::new();
        run.room.remove(missing);
        run.watcher.pop();
        run.member.clear();
        run.assert_fault("lost announcement");
    }
    for missing in 0..6 {
        let mut run = Run::new();
        run.feed_of_ann.remove(missing);
        run.assert_fault("lost announcement");
    }
    for missing in 0..3 {
        let mut run = Run::new();
        run.feed_of_sue.remove(missing);
        run.assert_fault("lost announcement");
    }
}

#[test]
fn a_doubled_announcement_is_noticed_wherever_it_is_doubled() {
    for doubled in [0, 1, 3, 4, 5, 7] {
        let mut run = Run::new();
        run.room.insert(doubled + 1, run.room[doubled].clone());
        run.watcher.push(10);
        run.member.clear();
        run.assert_fault("doubled announcement");
    }
    for doubled in 0..6 {
        let mut run = Run::new();
        let event = run.feed_of_ann[doubled].clone();
        run.feed_of_ann.insert(doubled + 1, event);
        run.assert_fault("doubled announcement");
    }
    let mut run = Run::new();
    run.feed_of_sue.push(updated("second", Some(Role::Owner)));
    run.assert_fault("doubled announcement");
}

#[test]
fn announcements_have_the_order_of_the_changes() {
    let mut run = Run::new();
    run.feed_of_ann.swap(4, 5);
    run.assert_fault("order of announcements");
}

#[test]
fn users_receive_the_announcements_of_a_room_in_one_order() {
    let mut run = Run::new();
    (run.member[2].2, run.member[3].2) = (5, 4);
    run.assert_fault("order in a room");
}

#[test]
fn a_change_without_an_acknowledgement_may_be_announced_once_or_not_at_all() {
    let mut run = Run::new();
    run.changes[4].2 = false;
    run.assert_accepted();
    run.room.remove(7);
    run.watcher.pop();
    run.member.truncate(5);
    run.feed_of_ann.pop();
    run.members.pop();
    run.assert_accepted();
    run.changes[4].2 = true;
    run.assert_fault("lost announcement");
}

#[test]
fn the_tables_are_the_result_of_the_announcements() {
    let mut run = Run::new();
    run.members[1].1 = Role::Owner;
    run.assert_fault("tables and announcements differ");
    let mut run = Run::new();
    run.members.pop();
    run.assert_fault("tables and announcements differ");
    let mut run = Run::new();
    run.members.push(("eve", Role::Member));
    run.assert_fault("tables and announcements differ");
    let mut run = Run::new();
    run.title = "first";
    run.assert_fault("tables and announcements differ");
}

#[test]
fn nothing_reaches_a_user_after_the_removal() {
    let mut run = Run::new();
    run.member.insert(5, (320, false, 7));
    run.assert_fault("received after the removal");
    // Also if the client has joined again, before anybody began to add the user again.
    let mut run = Run::new();
    run.member.insert(5, (390, true, 6));
    run.member.insert(6, (395, false, 7));
    run.assert_fault("received after the removal");
    // An addition has an effect before its announcement has a number.
    let mut run = Run::new();
    run.member[5] = (405, true, 6);
    run.member.insert(6, (406, false, 7));
    run.member.insert(7, (407, false, 8));
    run.assert_accepted();
}

#[test]
fn clients_receive_each_event_once_and_without_a_hole() {
    let mut run = Run::new();
    run.member.remove(2);
    run.assert_fault("hole");
    let mut run = Run::new();
    run.member.insert(2, (70, false, 3));
    run.assert_fault("repeated message");
    let mut run = Run::new();
    run.member.remove(0);
    run.assert_fault("not subscribed");
    let mut run = Run::new();
    run.watcher.pop();
    run.assert_fault("missing message");
}

#[test]
fn messages_are_archived_once_where_they_were_acknowledged() {
    let mut run = Run::new();
    run.room[2] = message("m2");
    run.assert_fault("archived twice");
    run.assert_fault("not archived");
}

#[test]
fn a_refusal_is_noticed_where_none_is_justified() {
    let mut run = Run::new();
    let (change, status) = ("d-1".into(), 409);
    run.drivers = vec![ChatFact::ChangeRefused { change, status }];
    run.assert_fault("refused change");
}

#[test]
fn a_removed_user_finds_nothing() {
    let mut run = Run::new();
    let read = |status| ChatFact::ReadAfterRemoval {
        chat: CHAT.into(),
        user: "ann".into(),
        node: 1,
        status,
    };
    run.drivers = vec![read(404), read(503), read(0)];
    run.assert_accepted();
    assert_eq!(run.check().1.reads_refused, 1);
    run.drivers = vec![read(200)];
    run.assert_fault("wrong right");
}

#[test]
fn each_node_grants_the_rights_of_the_table() {
    let mut run = Run::new();
    let right = |user: &str, granted| ChatFact::FinalRight {
        chat: CHAT.into(),
        user: user.into(),
        node: 0,
        request: "join".into(),
        granted,
    };
    run.lab = vec![right("sue", true), right("eve", false)];
    run.assert_accepted();
    run.lab = vec![right("sue", false)];
    run.assert_fault("wrong right");
    run.lab = vec![right("eve", true)];
    run.assert_fault("wrong right");
}

#[test]
fn nothing_may_be_left_in_the_outbox() {
    let mut run = Run::new();
    run.lab = vec![ChatFact::LeftInOutbox {
        row: 7,
        kind: "member_added".into(),
        failed: true,
    }];
    run.assert_fault("left in the outbox");
}

#[test]
fn the_tables_must_have_been_read() {
    let mut records = Run::new().records();
    records.retain(|record| record.fact != Fact::Chat(ChatFact::TablesRead));
    let faults = check(&records, &Promises::default()).faults;
    assert!(faults[0].starts_with("malformed history"), "{faults:?}");
}
