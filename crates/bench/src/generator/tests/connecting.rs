//! Connecting, losing the connection, and connecting again.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::super::connect::{STALL_TIMEOUT, StallDetector};
use super::*;

#[test]
fn a_client_that_has_joined_stays_connected() {
    let (mut generator, mut server) = upgrading();
    server.write_all(&server_bytes_for_one_room()).unwrap();
    generator.poll_once(None).unwrap();
    assert_eq!(
        (generator.joined, generator.retries.len()),
        (1, 0),
        "{}",
        generator.last_failure
    );
}

#[test]
fn the_end_of_the_stream_directly_after_the_last_bytes_is_noticed() {
    let (mut generator, mut server) = upgrading();
    server.write_all(&server_bytes_for_one_room()).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    generator.poll_once(None).unwrap();
    assert_eq!(generator.join_time.len(), 1, "the client had joined");
    assert_eq!(
        (generator.joined, generator.retries.len()),
        (0, 1),
        "{}",
        generator.last_failure
    );
}

#[test]
fn joining_again_after_a_lost_connection_is_no_progress() {
    let began = Instant::now();
    let mut stall = StallDetector {
        max_joined_rooms: 0,
        reached_at: began,
    };
    assert!(
        !stall.is_stalled(5, STALL_TIMEOUT, began + STALL_TIMEOUT),
        "five rooms are joined"
    );
    for (joined_rooms, seconds) in [(4, 1), (5, 20), (3, 25), (5, 30)] {
        let now = began + STALL_TIMEOUT + Duration::from_secs(seconds);
        assert!(!stall.is_stalled(joined_rooms, STALL_TIMEOUT, now));
    }
    let too_late = began + 2 * STALL_TIMEOUT + Duration::from_secs(1);
    assert!(stall.is_stalled(5, STALL_TIMEOUT, too_late));
    assert!(
        !stall.is_stalled(6, STALL_TIMEOUT, too_late),
        "a sixth room is progress"
    );
}

#[test]
fn a_client_resumes_in_all_of_its_rooms_after_its_connection_was_cut() {
    let (mut generator, listener) = one_client(2);
    let acks = [
        "431[{\"ok\":true,\"seq\":0,\"epoch\":\"a\"}]",
        "432[{\"ok\":true,\"seq\":7,\"epoch\":\"b\"}]",
    ];
    let mut server = dial(&mut generator, &listener);
    server.write_all(&server_bytes(&acks)).unwrap();
    generator.poll_once(None).unwrap();
    let requests = read_until(&mut server, "\"u1\"}]");
    assert!(
        requests.contains("421[\"join\",{\"room_id\":\"u0\"}]")
            && requests.contains("422[\"join\""),
        "{requests}"
    );
    let packet = sent_packet(&mut generator, 1, 8);
    generator.process_packet(0, &packet, 0).unwrap();
    generator.disconnect_all();
    assert_eq!((generator.joined, generator.joined_rooms), (0, 0));
    let mut server = dial(&mut generator, &listener);
    let resumed = "431[{\"ok\":true,\"seq\":0,\"epoch\":\"a\",\"recovered\":true}]";
    // In the other room the client has received number 8 already.
    let with_gap = "432[{\"ok\":true,\"seq\":7,\"epoch\":\"b\",\"recovered\":true}]";
    server
        .write_all(&server_bytes(&[resumed, with_gap]))
        .unwrap();
    generator.poll_once(None).unwrap();
    let requests = read_until(&mut server, "\"epoch\":\"b\"}]");
    assert!(
        requests.contains("\"u0\",\"since_seq\":0,\"epoch\":\"a\"}]"),
        "{requests}"
    );
    assert!(
        requests.contains("\"u1\",\"since_seq\":8,\"epoch\":\"b\"}]"),
        "{requests}"
    );
    assert_eq!((generator.joined, generator.joined_rooms), (1, 2));
    assert_eq!(
        generator.findings,
        Findings {
            gaps: 1,
            ..Findings::default()
        }
    );
}

#[test]
fn a_second_ack_of_one_join_does_not_count_for_another_room() {
    let (mut generator, listener) = one_client(2);
    let mut server = dial(&mut generator, &listener);
    let ack = "431[{\"ok\":true,\"seq\":0}]";
    server.write_all(&server_bytes(&[ack, ack])).unwrap();
    generator.poll_once(None).unwrap();
    assert_eq!(
        (generator.joined, generator.failed_attempts),
        (0, 1),
        "{}",
        generator.last_failure
    );
}

#[test]
fn a_client_that_is_refused_in_one_room_leaves_all_of_them() {
    let (mut generator, listener) = one_client(2);
    let mut server = dial(&mut generator, &listener);
    server
        .write_all(&server_bytes(&[
            "431[{\"ok\":true,\"seq\":0}]",
            "432[{\"ok\":false}]",
        ]))
        .unwrap();
    generator.poll_once(None).unwrap();
    assert_eq!(
        (
            generator.joined,
            generator.joined_rooms,
            generator.handshakes
        ),
        (0, 0, 0)
    );
    assert_eq!(
        (generator.failed_attempts, generator.retries.len()),
        (1, 1),
        "{}",
        generator.last_failure
    );
}
