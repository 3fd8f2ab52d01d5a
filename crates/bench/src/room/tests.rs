//! Tests of a room in the load generator.

use memchr::memmem;

use super::delivery_check::MAX_WINDOW;
use super::stamp::{PREFIX, Stamp};
use super::*;

/// Clients 7 and 8 are the members and take turns at sending. The server's newest message has the
/// number `seq`.
fn room_of_two(seq: Option<u64>) -> Room {
    let mut room = Room::new("r".into(), vec![7, 8], 2, 100, false);
    room.member_joined(seq);
    room
}

/// Sends the room's next message, due at `seq` × 10 µs. Returns the packet that a server which
/// numbers messages makes of it.
fn next_packet(room: &mut Room, seq: u64) -> Vec<u8> {
    let sender = room.next_sender();
    let frame = room.message_of(sender, seq * 10, 0);
    let fields_at = memmem::find(frame, b"\"room_id\"").unwrap();
    let fields = String::from_utf8(frame[fields_at..].to_vec()).unwrap();
    format!("42[\"message\",{{\"seq\":{seq},\"epoch\":\"e\",{fields}").into_bytes()
}

#[test]
fn content_has_the_requested_length_and_begins_with_the_stamp() {
    let mut room = room_of_two(Some(0));
    let packet = next_packet(&mut room, 1);
    let content = memmem::find(&packet, PREFIX).unwrap();
    assert_eq!(memmem::find(&packet[content..], b"\"").unwrap(), 100);
    assert_eq!(
        Stamp::find(&packet).unwrap().0,
        Stamp {
            sender: 0,
            counter: 1,
            due_us: 10
        }
    );
    let sender = room.next_sender();
    assert_eq!(room.client_of(sender), 8, "members take turns");
}

#[test]
fn complete_delivery_in_order_yields_no_findings() {
    let mut room = room_of_two(Some(5));
    let mut findings = Findings::default();
    let mut last_seqs = [5, 5];
    for seq in 6..20 {
        let packet = next_packet(&mut room, seq);
        for (member, last_seq) in last_seqs.iter_mut().enumerate() {
            assert_eq!(
                room.receive(member, last_seq, &packet, &mut findings),
                Some(seq * 10)
            );
        }
    }
    room.count_undelivered(&mut findings);
    assert!(findings.is_clean(), "{findings:?}");
    assert_eq!(room.check.fully_delivered(), 14);
}

#[test]
fn a_message_leaves_the_window_when_every_member_has_received_it() {
    for seq in [Some(0), None] {
        let mut room = room_of_two(seq);
        let mut findings = Findings::default();
        let mut last_seqs = [0, 0];
        let packets: Vec<_> = (1..=4).map(|seq| next_packet(&mut room, seq)).collect();
        for packet in &packets {
            room.receive(0, &mut last_seqs[0], packet, &mut findings);
        }
        assert_eq!(
            (
                room.check.fully_delivered(),
                room.is_drained(),
                room.check.window.len()
            ),
            (0, false, 4),
            "one of two members has received all"
        );
        room.receive(1, &mut last_seqs[1], &packets[0], &mut findings);
        assert_eq!(
            (room.check.fully_delivered(), room.check.window.len()),
            (1, 3)
        );
        for packet in &packets[1..] {
            room.receive(1, &mut last_seqs[1], packet, &mut findings);
        }
        assert_eq!(
            (
                room.check.fully_delivered(),
                room.is_drained(),
                room.check.window.len()
            ),
            (4, true, 0)
        );
        assert!(findings.is_clean(), "{findings:?}");
    }
}

#[test]
fn a_lost_message_does_not_grow_the_window_beyond_its_limit() {
    let mut room = room_of_two(Some(0));
    let mut findings = Findings::default();
    let mut last_seqs = [0, 0];
    for seq in 1..=(MAX_WINDOW as u64 + 100) {
        let packet = next_packet(&mut room, seq);
        room.receive(0, &mut last_seqs[0], &packet, &mut findings);
        if seq != 5 {
            room.receive(1, &mut last_seqs[1], &packet, &mut findings);
        }
    }
    assert!(
        room.check.window.len() <= MAX_WINDOW,
        "{}",
        room.check.window.len()
    );
    assert_eq!(room.check.fully_delivered(), room.sent() - 1);
    assert_eq!(
        findings,
        Findings {
            holes: 1,
            ..Findings::default()
        }
    );
}

#[test]
fn messages_of_one_sender_in_another_order_than_sent_are_reported() {
    let mut room = room_of_two(Some(0));
    let mut findings = Findings::default();
    let mut last_seqs = [0, 0];
    let packets: Vec<_> = [3, 2, 1]
        .map(|seq| next_packet(&mut room, seq))
        .into_iter()
        .rev()
        .collect();
    for packet in &packets {
        for (member, last_seq) in last_seqs.iter_mut().enumerate() {
            room.receive(member, last_seq, packet, &mut findings);
        }
    }
    assert_eq!(
        findings,
        Findings {
            two_orders: 1,
            ..Findings::default()
        },
        "the second message of member 0 came first"
    );
}

#[test]
fn holes_repeats_and_disorder_are_counted_separately() {
    let mut room = room_of_two(Some(0));
    let mut findings = Findings::default();
    let mut last_seq = 0;
    let packets: Vec<_> = (1..=4).map(|seq| next_packet(&mut room, seq)).collect();
    room.receive(0, &mut last_seq, &packets[0], &mut findings);
    room.receive(0, &mut last_seq, &packets[0], &mut findings);
    assert_eq!(
        findings,
        Findings {
            repeats: 1,
            ..Findings::default()
        }
    );
    room.receive(0, &mut last_seq, &packets[3], &mut findings);
    assert_eq!(
        findings,
        Findings {
            repeats: 1,
            holes: 2,
            ..Findings::default()
        }
    );
    room.receive(0, &mut last_seq, &packets[1], &mut findings);
    assert_eq!(
        findings,
        Findings {
            repeats: 1,
            holes: 1,
            disorder: 1,
            ..Findings::default()
        }
    );
}

#[test]
fn messages_that_never_arrive_are_holes_at_the_end() {
    let mut room = room_of_two(Some(0));
    let mut findings = Findings::default();
    let mut last_seq = 0;
    let packets: Vec<_> = (1..=3).map(|seq| next_packet(&mut room, seq)).collect();
    room.receive(0, &mut last_seq, &packets[0], &mut findings);
    room.receive(0, &mut last_seq, &packets[2], &mut findings);
    room.count_undelivered(&mut findings);
    assert_eq!(
        findings.holes, 4,
        "one of this member, three of the other member"
    );
}

#[test]
fn different_messages_under_one_number_are_reported() {
    let mut room = room_of_two(Some(0));
    let mut findings = Findings::default();
    let mut last_seqs = [0, 0];
    let one = next_packet(&mut room, 1);
    let other = next_packet(&mut room, 1);
    room.receive(0, &mut last_seqs[0], &one, &mut findings);
    room.receive(1, &mut last_seqs[1], &other, &mut findings);
    assert_eq!(
        findings,
        Findings {
            two_orders: 1,
            ..Findings::default()
        }
    );
}

#[test]
fn without_server_numbers_each_senders_counter_is_checked() {
    let mut room = room_of_two(None);
    let mut findings = Findings::default();
    let mut last_seq = 0;
    let packets: Vec<_> = (1..=4).map(|seq| next_packet(&mut room, seq)).collect();
    // Such a server guarantees no order between senders.
    for index in [1, 0, 2] {
        room.receive(1, &mut last_seq, &packets[index], &mut findings);
    }
    assert!(findings.is_clean(), "{findings:?}");
    room.receive(1, &mut last_seq, &packets[2], &mut findings);
    assert_eq!(
        findings,
        Findings {
            repeats: 1,
            ..Findings::default()
        }
    );
}

#[test]
fn a_message_without_a_stamp_is_no_delivery() {
    let mut room = room_of_two(Some(0));
    let mut findings = Findings::default();
    let mut last_seq = 0;
    let packet = b"42[\"message\",{\"seq\":1,\"content\":\"hello\"}]";
    assert_eq!(room.receive(0, &mut last_seq, packet, &mut findings), None);
    assert_eq!((findings.unreadable, room.check.delivered()), (1, 0));
}

#[test]
fn a_message_that_requests_an_acknowledgement_has_the_id_before_its_event() {
    let mut room = Room::new("r".into(), vec![7, 8], 2, 100, true);
    let frame = room.message_of(1, 10, 1_000_000_007).to_vec();
    assert!(memmem::find(&frame, b"421000000007[\"message\",{\"room_id\":\"r\"").is_some());
    let (stamp, _) = Stamp::find(&frame).unwrap();
    assert_eq!((stamp.sender, stamp.counter), (1, 1));
    let frame = room.message_of(1, 10, 1_000_000_008);
    assert!(memmem::find(frame, b"421000000008[").is_some());
}

#[test]
fn a_refused_message_may_be_delivered_or_not() {
    let mut room = room_of_two(Some(0));
    let mut findings = Findings::default();
    let mut last_seqs = [0, 0];
    let first = next_packet(&mut room, 1);
    // The second message is refused, and nobody receives it.
    next_packet(&mut room, 2);
    assert!(!room.is_drained());
    room.message_refused();
    for (member, last_seq) in last_seqs.iter_mut().enumerate() {
        room.receive(member, last_seq, &first, &mut findings);
    }
    assert!(room.is_drained());
    // The third one is refused, too, after it got its number.
    let third = next_packet(&mut room, 2);
    room.message_refused();
    for (member, last_seq) in last_seqs.iter_mut().enumerate() {
        room.receive(member, last_seq, &third, &mut findings);
    }
    room.count_undelivered(&mut findings);
    assert!(findings.is_clean(), "{findings:?}");
}
