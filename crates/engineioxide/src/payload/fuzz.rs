//! Random polling bodies: packets that can be decoded keep their meaning when encoded again.

use hubbub_fuzz::Target;

use super::*;
use crate::packet::Incoming;

const WORDS: &[&str] = &[
    "4",
    "b",
    "b4",
    "b4AQID",
    "2probe",
    "\u{1e}",
    ":",
    "1:",
    "3:4😀",
    "99999999999999999999:",
    "\u{1F980}",
];

/// The frame with the same meaning as a packet. Only messages consist of more than their type.
fn frame(packet: &Incoming, protocol: ProtocolVersion) -> Frame {
    match packet {
        Incoming::Message(text) => Frame::text(text),
        Incoming::Binary(data) => Frame::binary(data, protocol),
        Incoming::Close => Frame::packet("1"),
        Incoming::Ping => Frame::packet("2"),
        Incoming::Pong => Frame::packet("3"),
        Incoming::Probe => Frame::packet("2probe"),
        Incoming::Upgrade => Frame::packet("5"),
        Incoming::Noop => Frame::packet("6"),
    }
}

fn length(packet: &Incoming) -> usize {
    match packet {
        Incoming::Message(text) => text.len(),
        Incoming::Binary(data) => data.len(),
        _ => 0,
    }
}

/// Decodes a body, encodes its packets in every form of the protocol, and decodes those again.
/// Returns the kinds of the first four packets, as the shape of the input.
fn check(
    body: &[u8],
    protocol: ProtocolVersion,
    binary: bool,
) -> Option<Vec<std::mem::Discriminant<Incoming>>> {
    let whole = decode_all(body, protocol, binary);
    for size in [1, 3] {
        let pieces = decode_pieces(body.chunks(size), protocol, binary, usize::MAX);
        assert_eq!(pieces, whole, "pieces of {size} bytes");
    }
    let packets = whole.ok()?;
    assert!(!packets.is_empty());
    assert!(
        packets.iter().map(length).sum::<usize>() <= body.len(),
        "the packets hold more bytes than the body"
    );
    let frames: Vec<Frame> = packets
        .iter()
        .map(|packet| frame(packet, protocol))
        .collect();
    for b64 in [true, false] {
        let again = encode(&frames, protocol, b64);
        assert_eq!(
            decode_all(&again.bytes, protocol, again.binary).as_ref(),
            Ok(&packets),
            "b64: {b64}"
        );
    }
    Some(packets.iter().take(4).map(std::mem::discriminant).collect())
}

#[test]
fn fuzz_polling_v4() {
    let seeds: &[&[u8]] = &[
        b"4hello\x1e3\x1ebAQIDBA==",
        "4€ 😀\x1e4é".as_bytes(),
        b"1",
        b"5\x1e6\x1e2probe",
    ];
    Target {
        name: "polling_v4",
        seeds,
        words: WORDS,
        longest: 8192,
    }
    .run(|body| check(body, ProtocolVersion::V4, false));
}

#[test]
fn fuzz_polling_v3_text() {
    let seeds: &[&[u8]] = &[
        "2:4é2:4€3:4😀6:4hello".as_bytes(),
        b"6:4hello10:b4AQIDBA==",
        b"1:21:31:11:51:6",
        b"6:2probe",
    ];
    Target {
        name: "polling_v3_text",
        seeds,
        words: WORDS,
        longest: 8192,
    }
    .run(|body| check(body, ProtocolVersion::V3, false));
}

#[test]
fn fuzz_polling_v3_binary() {
    let seeds: &[&[u8]] = &[
        &[0, 4, 255, b'4', 0xE2, 0x82, 0xAC, 1, 5, 255, 4, 1, 2, 3, 4],
        &[0, 1, 255, b'2'],
        &[0, 6, 255, b'2', b'p'],
    ];
    let words = &["\u{0}\u{1}", "\u{1}\u{9}\u{9}", "4", "2probe"];
    Target {
        name: "polling_v3_binary",
        seeds,
        words,
        longest: 8192,
    }
    .run(|body| check(body, ProtocolVersion::V3, true));
}
