//! Random input for the decoders of packets, frames and REST bodies.

use hubbub_fuzz::Target;
use serde_json::{Value, json};
use socketioxide_core::packet::PacketData;
use socketioxide_core::parser::{Parse, ParseConfig, ParserState};
use socketioxide_core::{Str, Value as Payload};
use socketioxide_parser_common::CommonParser;

use super::packet::parse_packet_by_parts;
use super::*;
use crate::backplane::record;
use crate::delivery::{Entry, EntryKind, Event};
use crate::domain::{
    Code, Epoch, Limits, MessageFields, NewMessage, Refusal, RoomId, Timestamp, UserId, Username,
};
use crate::gateway::connections::{Request, decode_event};

/// Text that parsers tend to fail on, and the words of the protocol.
const WORDS: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    "[[[[",
    "{\"a\":",
    "\"",
    "\\",
    ",",
    ":",
    "null",
    "true",
    "1e999",
    "-1",
    "9007199254740993",
    "5.0",
    "\\ud800",
    "\\udc00",
    "\\ud83d\\ude00",
    "\\u0000",
    "\u{0}",
    "\u{1F980}",
    "\u{feff}",
    "\"room_id\":",
    "\"content\":",
    "\"payload\":",
    "\"type\":",
    "\"title\":",
    "\"attachment_urls\":[",
    "\"https://a.example/b\"",
    "\"client_msg_id\":",
    "\"since_seq\":",
    "\"epoch\":",
    "\"limit\":",
    "\"before_seq\":",
    "\"after_seq\":",
    "\"is_typing\":",
    "\"token\":",
    "\"user_id\":",
    "\"username\":",
    "\"target_user_id\":",
    "{\"_placeholder\":true,\"num\":0}",
    "__proto__",
    "toString",
    "\"data\":",
    "\"ref\":",
    "\"ping\"",
    "/admin,",
    "51-",
    "2",
    "42",
];

/// A refusal must blame the client, be short, and always serialise.
fn check_refusal(refusal: &Refusal, event: &str) {
    assert!(
        matches!(
            refusal.code,
            Code::BadRequest | Code::TooLarge | Code::UnknownEvent
        ),
        "{refusal:?}"
    );
    assert!((1..=200).contains(&refusal.text.len()), "{refusal:?}");
    let exception = serde_json::to_value(Exception::of(refusal, Some(event))).unwrap();
    assert_eq!(
        (&exception["ok"], &exception["event"]),
        (&json!(false), &json!(event))
    );
}

/// A message must be delivered unchanged, in a packet that every JSON parser accepts, and that
/// could be sent again.
fn check_message(room: RoomId, fields: MessageFields, limits: &Limits) -> Option<Code> {
    let sent = fields.clone();
    let user = UserId::trusted("ann");
    let message = match NewMessage::new(room, user.clone(), Username::from(&user), fields, limits) {
        Ok(message) => message,
        Err(refusal) => {
            check_refusal(&refusal, "message");
            return Some(refusal.code);
        }
    };
    let record = record::encode(&message);
    let entry = Entry {
        seq: 1,
        epoch: Epoch::trusted("e"),
        at: Timestamp(0),
        kind: EntryKind::Message,
        record,
    };
    let packet = encode_event(Envelope::SocketIo, &Event::Message(entry));
    let delivered: Value = serde_json::from_str(&packet[1..]).unwrap();
    assert_eq!(
        (
            &delivered[0],
            &delivered[1]["seq"],
            &delivered[1]["room_id"]
        ),
        (&json!("message"), &json!(1), &json!(message.room.as_str()))
    );
    assert_eq!(delivered[1]["content"].as_str(), Some(&*sent.content));
    let unlimited = Limits {
        event_bytes: usize::MAX,
        ..limits.clone()
    };
    let (_, again) = decode_event(parse_packet(&packet[1..], &unlimited), &unlimited);
    let Ok(Request::SendMessage(again)) = again else {
        panic!("{again:?}")
    };
    let kind = Some(sent.kind.unwrap_or_else(|| "text".to_owned()));
    assert_eq!(again.fields, MessageFields { kind, ..sent });
    None
}

#[test]
fn fuzz_packets() {
    let seeds: &[&[u8]] = &[
        br#"20["authenticate",{"user_id":"ann","username":"Ann","token":"a.b.c"}]"#,
        br#"21["join",{"room_id":"lobby","since_seq":3,"epoch":"e1"}]"#,
        br#"21["join",{"room_id":"lobby","limit":50}]"#,
        br#"22["leave",{"room_id":"lobby"}]"#,
        br#"2999["message",{"room_id":"lobby","content":"hi \ud83d\ude00","type":"text","title":"t","payload":{"a":[1,{"b":1.0}]},"attachment_urls":["https://a.example/b"],"client_msg_id":"x"}]"#,
        br#"2["message",{"room_id":"lobby","content":"hi"},"more",1]"#,
        br#"2["subscribe_status",{"target_user_id":"bob"}]"#,
        br#"23["unsubscribe_status",{"target_user_id":"bob"}]"#,
        br#"24["history",{"room_id":"lobby","before_seq":7,"limit":5}]"#,
        br#"24["history",{"room_id":"lobby","after_seq":7.0}]"#,
        br#"25["typing",{"room_id":"lobby","is_typing":false}]"#,
        br#"51-["message",{"room_id":"lobby","payload":{"_placeholder":true,"num":0}}]"#,
        br#"0{"token":"a.b.c"}"#,
        br#"0/admin,{}"#,
        br#"1"#,
        br#"31["done"]"#,
    ];
    let limits = Limits {
        event_bytes: 16_384,
        content_bytes: 1024,
        payload_bytes: 1024,
        ..Limits::default()
    };
    Target {
        name: "packets",
        seeds,
        words: WORDS,
        longest: 32_768,
    }
    .run(|bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let parsed = CommonParser.decode_str(
            &ParseConfig::default(),
            &ParserState::default(),
            Str::from(text),
        );
        let packet = match parsed {
            Ok(packet) => packet,
            Err(error) => return (Some(std::mem::discriminant(&error)), None, None, None),
        };
        let (PacketData::Event(Payload::Str(event, _), _)
        | PacketData::BinaryEvent(Payload::Str(event, _), _)) = packet.inner
        else {
            return (None, None, None, None);
        };
        let decoded = decode_event(parse_packet(&event, &limits), &limits);
        let decoded_by_parts = decode_event(parse_packet_by_parts(&event), &limits);
        assert_eq!(format!("{decoded:?}"), format!("{decoded_by_parts:?}"));
        let (name, request) = decoded;
        let name = name.as_str().to_owned();
        let refused = match request {
            Err(refusal) => {
                check_refusal(&refusal, &name);
                return (None, None, Some(refusal.text), None);
            }
            Ok(Request::SendMessage(send)) => check_message(send.room, send.fields, &limits),
            Ok(Request::History(history)) => {
                assert!((1..=200).contains(&history.limit));
                None
            }
            Ok(_) => None,
        };
        (None, Some(name), None, refused)
    });
}

#[test]
fn fuzz_bodies() {
    let seeds: &[&[u8]] = &[
        br#"{"room_id":"lobby","content":"hi"}"#,
        br#"{"room_id":"lobby","content":"","payload":[1,2,{"a":null}],"user_id":"bot","username":"Bot"}"#,
        br#"{"room_id":"lobby","content":"hi","client_msg_id":"key","attachment_urls":["http://a.example"]}"#,
        br#"{"room_id":"lobby","content":null,"title":"t","type":"note","payload":"\u00e9"}"#,
    ];
    let limits = Limits {
        event_bytes: 16_384,
        content_bytes: 1024,
        payload_bytes: 1024,
        ..Limits::default()
    };
    Target {
        name: "bodies",
        seeds,
        words: WORDS,
        longest: 32_768,
    }
    .run(|bytes| {
        let body = String::from_utf8_lossy(bytes);
        [None, Some("key")].map(|key| match PostRequest::decode(&body, key, &limits) {
            Err(refusal) => {
                check_refusal(&refusal, "message");
                Some(refusal.text)
            }
            Ok(post) => {
                assert!(
                    (1..=128).contains(&post.user.as_str().len())
                        && (1..=128).contains(&post.username.as_str().len())
                );
                check_message(post.room, post.fields, &limits)
                    .map(|code| code.as_str().to_owned().into())
            }
        })
    });
}

#[test]
fn fuzz_plain_frames() {
    let seeds: &[&[u8]] = &[
        br#"{"type":"ping"}"#,
        br#"{"type":"authenticate","payload":{"token":"a.b.c"},"ref":1}"#,
        br#"{"type":"join","payload":{"room_id":"lobby","since_seq":3,"epoch":"e1"},"ref":"7"}"#,
        br#"{"type":"leave","payload":{"room_id":"lobby"}}"#,
        br#"{"type":"message","payload":{"room_id":"lobby","content":"hi \ud83d\ude00","payload":{"a":[1]},"client_msg_id":"x"},"ref":"m"}"#,
        br#"{"type":"history","payload":{"room_id":"lobby","before_seq":7,"limit":5},"ref":-1.5}"#,
        br#"{"ref":"t","payload":{"room_id":"lobby","is_typing":false},"type":"typing"}"#,
        br#"{"type":"subscribe_status","payload":{"target_user_id":"bob"},"ref":null}"#,
    ];
    let limits = Limits {
        event_bytes: 16_384,
        content_bytes: 1024,
        payload_bytes: 1024,
        ..Limits::default()
    };
    Target {
        name: "plain_frames",
        seeds,
        words: WORDS,
        longest: 32_768,
    }
    .run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let frame = parse_frame(&text);
        // The acknowledgement is JSON and repeats the client's reference.
        if let Some(reference) = &frame.reference {
            assert!(reference.len() <= 64);
            let ack: Value = serde_json::from_str(&encode_ack(reference, "{}")).unwrap();
            assert_eq!(
                ack["ref"],
                serde_json::from_str::<Value>(reference).unwrap()
            );
        }
        let (name, request) = decode_event(frame.event, &limits);
        let name = name.as_str().to_owned();
        if is_ping(&text) {
            assert_eq!(name, "ping");
        }
        let refused = match request {
            Err(refusal) => {
                check_refusal(&refusal, &name);
                return (Some(refusal.text), None, None);
            }
            Ok(Request::SendMessage(send)) => check_message(send.room, send.fields, &limits),
            Ok(_) => None,
        };
        (None, Some(name), refused)
    });
}

#[test]
fn fuzz_broadcasts() {
    let seeds: &[&[u8]] = &[
        br#"{"type":"task_created","data":{"id":7,"title":"\u00e9"}}"#,
        br#"{"type":"task_deleted","data":[1,2,{"a":null}],"client_msg_id":"k"}"#,
        br#"{"type":"refresh"}"#,
    ];
    let limits = Limits {
        event_bytes: 16_384,
        payload_bytes: 1024,
        ..Limits::default()
    };
    Target {
        name: "broadcasts",
        seeds,
        words: WORDS,
        longest: 32_768,
    }
    .run(|bytes| {
        let body = String::from_utf8_lossy(bytes);
        let fields = match BroadcastRequest::decode(&body, None, &limits) {
            Ok(fields) => fields,
            Err(refusal) => {
                check_refusal(&refusal, "broadcast");
                return Some(refusal.text);
            }
        };
        let (kind, payload) = (fields.kind.clone(), fields.payload.clone());
        let user = UserId::trusted("system");
        let message = match NewMessage::new(
            RoomId::trusted("broadcast"),
            user.clone(),
            Username::from(&user),
            fields,
            &limits,
        ) {
            Ok(message) => message,
            Err(refusal) => return Some(refusal.code.as_str().into()),
        };
        // It is delivered unchanged, in a frame that every JSON parser accepts, and with a type that
        // is not reserved by the protocol.
        let entry = Entry {
            seq: 1,
            epoch: Epoch::trusted("e"),
            at: Timestamp(0),
            kind: EntryKind::Message,
            record: record::encode(&message),
        };
        let frame = encode_broadcast(&entry).unwrap();
        let delivered: Value = serde_json::from_str(&frame).unwrap();
        assert_eq!(
            (delivered["type"].as_str(), &delivered["seq"]),
            (kind.as_deref(), &json!(1))
        );
        assert_eq!(
            delivered["payload"],
            serde_json::from_str::<Value>(&payload.unwrap()).unwrap()
        );
        assert!(
            ServerEvent::ALL
                .iter()
                .all(|event| Some(event.name()) != delivered["type"].as_str())
        );
        None
    });
}
