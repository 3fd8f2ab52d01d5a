//! Random input for the recognition of event packets, compared with socketioxide's own parser, and
//! of packets in msgpack.

use hubbub_fuzz::Target;
use socketioxide_core::packet::PacketData;
use socketioxide_core::parser::{Parse, ParseConfig, ParserState};
use socketioxide_core::{Str, Value};
use socketioxide_parser_common::CommonParser;

use super::msgpack;
use super::packet::event;

#[test]
fn fuzz_events() {
    let seeds: &[&[u8]] = &[
        br#"2["message",{"room_id":"lobby"}]"#,
        br#"217["a"]"#,
        b"2/a,1[]",
        b"51-[]",
        b"1",
    ];
    let words = &[
        "2",
        "[",
        "9223372036854775807",
        "0",
        "-",
        "+",
        "/",
        ",",
        "\u{660}",
        " ",
    ];
    Target {
        name: "events",
        seeds,
        words,
        longest: 64,
    }
    .run(|bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let found = event(&text).map(|(start, ack)| (text[start..].to_owned(), ack));
        let parsed = CommonParser.decode_str(
            &ParseConfig::default(),
            &ParserState::default(),
            Str::from(text),
        );
        if let Some((json, ack)) = &found {
            let packet =
                parsed.expect("socketioxide accepts every packet that is taken in its place");
            assert_eq!(packet.ns.as_str(), "/");
            let PacketData::Event(Value::Str(same, None), same_ack) = packet.inner else {
                panic!("no event")
            };
            assert_eq!((same.as_str(), same_ack), (json.as_str(), *ack));
        }
        found.map(|(json, ack)| (json.is_empty(), ack.is_some()))
    });
}

#[test]
fn fuzz_msgpack() {
    let seeds: &[&[u8]] = &[
        b"\x83\xa4type\x00\xa4data\x81\xa5token\xa1x\xa3nsp\xa1/",
        b"\x83\xa4type\x00\xa4data\xd4\x00\x00\xa3nsp\xd9\x02/a",
    ];
    Target {
        name: "msgpack",
        seeds,
        words: &["type", "nsp", "/", "data"],
        longest: 256,
    }
    .run(|bytes| {
        let namespace = msgpack::namespace_of_connect(bytes)?;
        let answer = msgpack::connect_error(namespace);
        assert!(
            answer
                .windows(namespace.len())
                .any(|part| part == namespace.as_bytes())
        );
        Some(namespace.len())
    });
}
