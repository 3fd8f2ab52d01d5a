//! Messages of several rooms on one connection.

use std::io::Write;

use super::*;

#[test]
fn each_room_of_a_connection_is_checked_separately() {
    let (mut generator, listener) = one_client(3);
    let mut server = dial(&mut generator, &listener);
    let acks = [
        "433[{\"ok\":true,\"seq\":30}]",
        "431[{\"ok\":true,\"seq\":10}]",
        "432[{\"ok\":true,\"seq\":20}]",
    ];
    let all = server_bytes(&acks);
    let (two_acks, last_ack) = all.split_at(server_bytes(&acks[..2]).len());
    server.write_all(two_acks).unwrap();
    generator.poll_once(None).unwrap();
    assert_eq!(
        (generator.joined, generator.joined_rooms),
        (0, 2),
        "one room is missing"
    );
    server.write_all(last_ack).unwrap();
    generator.poll_once(None).unwrap();
    assert_eq!((generator.joined, generator.joined_rooms), (1, 3));
    for (room, seq) in [(2, 31), (0, 11), (2, 32), (1, 21), (0, 12)] {
        let packet = sent_packet(&mut generator, room, seq);
        generator.process_packet(0, &packet, 0).unwrap();
    }
    assert!(
        generator.is_drained() && generator.findings.is_clean(),
        "{:?}",
        generator.findings
    );
    assert_eq!(generator.deliveries.count, 5);
    let skipped = sent_packet(&mut generator, 1, 22);
    let packet = sent_packet(&mut generator, 1, 23);
    generator.process_packet(0, &packet, 0).unwrap();
    assert_eq!(
        generator.findings,
        Findings {
            holes: 1,
            ..Findings::default()
        }
    );
    generator.process_packet(0, &skipped, 0).unwrap();
    generator.process_packet(0, &packet, 0).unwrap();
    assert_eq!(
        generator.findings,
        Findings {
            disorder: 1,
            repeats: 1,
            ..Findings::default()
        }
    );
}

#[test]
fn a_message_of_a_room_that_the_client_is_not_in_is_no_delivery() {
    let (mut generator, _listener) = one_client(2);
    for room_id in ["u2", "v1", "u", ""] {
        let packet =
            format!("42[\"message\",{{\"seq\":1,\"room_id\":\"{room_id}\",\"content\":\"~hb\"}}]");
        generator.process_packet(0, packet.as_bytes(), 0).unwrap();
    }
    assert_eq!(
        generator.findings,
        Findings {
            unreadable: 4,
            ..Findings::default()
        }
    );
    assert_eq!(generator.deliveries.count, 0);
}
