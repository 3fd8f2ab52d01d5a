//! Messages with acknowledgements.

use std::io::Write;
use std::time::Duration;

use super::*;
use crate::send_schedule::SendSchedule;

/// A client that has joined its rooms and sends messages with acknowledgements.
fn joined(rooms: usize, allows_refusals: bool) -> (LoadGenerator, TcpStream) {
    let (mut generator, listener) = one_client_with(rooms, true);
    generator.expect_acks(allows_refusals).unwrap();
    let mut server = dial(&mut generator, &listener);
    let acks: Vec<_> = (1..=rooms)
        .map(|id| format!("43{id}[{{\"ok\":true,\"seq\":0,\"epoch\":\"e\"}}]"))
        .collect();
    let acks: Vec<&str> = acks.iter().map(String::as_str).collect();
    server.write_all(&server_bytes(&acks)).unwrap();
    generator.poll_once(None).unwrap();
    assert_eq!(generator.joined, 1, "{}", generator.last_failure);
    generator.latency_from = 0;
    (generator, server)
}

/// The client receives an answer to its message with this number, from 0.
fn answer(generator: &mut LoadGenerator, number: u64, payload: &str, now_us: u64) {
    let packet = format!("43{}[{payload}]", 1_000_000_000 + number);
    generator
        .process_packet(0, packet.as_bytes(), now_us)
        .unwrap();
}

/// The client receives its room's next message.
fn deliver(generator: &mut LoadGenerator, seq: u64) {
    let packet = format!(
        "42[\"message\",{{\"seq\":{seq},\"room_id\":\"u0\",\"content\":\"~hb{:06}{seq:010}{:015}\"}}]",
        0, 0
    );
    generator.process_packet(0, packet.as_bytes(), 0).unwrap();
}

fn accepted_and_refused(generator: &LoadGenerator) -> (u64, u64) {
    let acks = generator.acks.as_ref().unwrap();
    (acks.accepted, acks.refused)
}

#[test]
fn the_latency_of_an_acknowledgement_counts_from_when_its_message_was_due() {
    let (mut generator, mut server) = joined(1, false);
    generator.send_message(0, 1000);
    let sent = read_until(&mut server, "xx\"}]");
    assert!(sent.contains("421000000000[\"message\""), "{sent}");
    answer(&mut generator, 0, "{\"ok\":true,\"seq\":1}", 6000);
    let acks = generator.acks.as_ref().unwrap();
    assert_eq!((acks.latency.len(), acks.latency.min()), (1, 5000));
    assert_eq!(generator.messages_answered(), 1);
    assert!(!generator.is_drained(), "it was not delivered");
    deliver(&mut generator, 1);
    assert!(generator.is_drained() && generator.findings.is_clean());
}

#[test]
fn a_message_is_not_settled_before_its_acknowledgement() {
    let (mut generator, _server) = joined(1, false);
    generator.send_message(0, 0);
    deliver(&mut generator, 1);
    assert!(!generator.is_drained());
    assert_eq!(generator.messages_unanswered(), 1);
    answer(&mut generator, 0, "{\"seq\":1,\"ok\":true}", 0);
    assert_eq!(
        accepted_and_refused(&generator),
        (1, 0),
        "keys may have any order"
    );
    assert!(generator.is_drained());
}

#[test]
fn a_refusal_is_a_finding_unless_it_is_allowed() {
    let refusal = "{\"ok\":false,\"code\":\"unavailable\",\"error\":\"the database is away\"}";
    for allows_refusals in [false, true] {
        let (mut generator, _server) = joined(1, allows_refusals);
        generator.send_message(0, 0);
        answer(&mut generator, 0, refusal, 0);
        assert_eq!(accepted_and_refused(&generator), (0, 1));
        assert_eq!(generator.findings.refused, u64::from(!allows_refusals));
        assert_eq!(
            generator.acks.as_ref().unwrap().latency.len(),
            0,
            "a refusal has no latency"
        );
        assert!(generator.is_drained(), "it is not delivered");
        assert!(generator.load_limits.is_empty());
    }
}

#[test]
fn a_refusal_by_a_limit_makes_the_measurement_void_even_if_refusals_are_allowed() {
    let (mut generator, _server) = joined(1, true);
    generator.send_message(0, 0);
    let refusal = "{\"ok\":false,\"code\":\"rate_limited\",\"error\":\"too many events\"}";
    answer(&mut generator, 0, refusal, 0);
    assert!(!generator.load_limits.is_empty());
}

#[test]
fn an_acknowledgement_that_matches_no_message_is_a_finding() {
    let (mut generator, _server) = joined(1, false);
    generator.send_message(0, 0);
    answer(&mut generator, 0, "{\"ok\":true}", 0);
    answer(&mut generator, 0, "{\"ok\":true}", 0);
    answer(&mut generator, 7, "{\"ok\":true}", 0);
    assert_eq!(generator.findings.unreadable, 2);
    assert_eq!(accepted_and_refused(&generator), (1, 0));
}

#[test]
fn a_sender_sends_again_only_after_an_acknowledgement_and_later_after_a_refusal() {
    let (mut generator, _server) = joined(2, true);
    let mut schedule = SendSchedule::ack_paced(2);
    schedule.start(&mut generator);
    assert_eq!(
        (generator.rooms[0].sent(), generator.rooms[1].sent()),
        (2, 2)
    );
    schedule.send_due(&mut generator);
    assert_eq!(generator.messages_sent(), 4, "no message was answered");
    // The messages 0 and 1 are those of the first room.
    answer(&mut generator, 1, "{\"ok\":true}", 0);
    schedule.send_due(&mut generator);
    assert_eq!(
        (generator.rooms[0].sent(), generator.rooms[1].sent()),
        (3, 2)
    );
    answer(&mut generator, 0, "{\"ok\":false}", 0);
    let wait = schedule.send_due(&mut generator);
    assert!(wait <= Duration::from_millis(50), "{wait:?}");
    assert_eq!(generator.messages_sent(), 5, "the refused sender waits");
    std::thread::sleep(wait);
    schedule.send_due(&mut generator);
    assert_eq!(generator.rooms[0].sent(), 4);
}
