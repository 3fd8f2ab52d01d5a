//! Decoding of requests, from packets and frames.

use super::*;
use crate::delivery::ReplayFrom;
use crate::domain::Epoch;
use crate::gateway::wire::{parse_frame, parse_packet};

fn decode(packet: &str) -> Result<Request, Refusal> {
    let limits = Limits::default();
    decode_event(parse_packet(packet, &limits), &limits).1
}

#[test]
fn names_are_unique_and_found() {
    for event in [
        ClientEvent::SendMessage,
        ClientEvent::Join,
        ClientEvent::Authenticate,
        ClientEvent::Leave,
        ClientEvent::Typing,
        ClientEvent::History,
        ClientEvent::SubscribeStatus,
        ClientEvent::UnsubscribeStatus,
        ClientEvent::Read,
        ClientEvent::React,
        ClientEvent::EditMessage,
        ClientEvent::DeleteMessage,
        ClientEvent::PinMessage,
        ClientEvent::UnpinMessage,
    ] {
        assert_eq!(ClientEvent::named(event.name()), Some(event));
    }
    assert_eq!(ClientEvent::named("Join"), None);
}

#[test]
fn only_authenticate_is_accepted_before_authentication() {
    let limits = Limits::default();
    for (packet, expected) in [
        (r#"["authenticate",{}]"#, true),
        (r#"["authenticate",{]"#, true),
        (r#"["authenticate"]"#, true),
        (r#"["join",{"room_id":"a"}]"#, false),
        (r#"["nonsense",{}]"#, false),
        ("", false),
    ] {
        let (name, _) = decode_event(parse_packet(packet, &limits), &limits);
        assert_eq!(name.allows_anonymous(), expected, "{packet}");
    }
}

#[test]
fn requests_are_decoded() {
    let from = |packet| match decode(packet) {
        Ok(Request::Join(join)) => join.from,
        other => panic!("{other:?}"),
    };
    assert_eq!(from(r#"["join",{"room_id":"a"}]"#), ReplayFrom::Live);
    assert_eq!(
        from(r#"["join",{"room_id":"a","limit":5},1,2]"#),
        ReplayFrom::Last(5)
    );
    assert_eq!(
        from(r#"["join",{"room_id":"a","since_seq":3,"epoch":null,"more":{}}]"#),
        ReplayFrom::Since {
            seq: 3,
            epoch: None,
            limit: None
        }
    );
    assert_eq!(
        from(r#"["join",{"room_id":"a","since_seq":3,"epoch":"e","replay_limit":10000}]"#),
        ReplayFrom::Since {
            seq: 3,
            epoch: Some(Epoch::trusted("e")),
            limit: Some(10_000)
        }
    );
    assert_eq!(
        from(r#"["join",{"room_id":"a","replay_limit":1,"epoch":"e"}]"#),
        ReplayFrom::Live
    );
    assert!(matches!(
        decode(r#"["typing",{"room_id":"a"}]"#),
        Ok(Request::Typing(typing)) if typing.is_typing
    ));
}

#[test]
fn invalid_packets_are_refused() {
    let deep = format!(r#"["join",{}{}]"#, "[".repeat(5000), "]".repeat(5000));
    let deep_id = format!(
        r#"["join",{{"room_id":{}{}}}]"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    for packet in [
        r#"["join"]"#,
        r#"["join",null]"#,
        r#"["join",1]"#,
        r#"["join","a"]"#,
        r#"["join",[]]"#,
        r#"["join",{}]"#,
        r#"["join",{"room_id":null}]"#,
        r#"["join",{"room_id":{"a":1}}]"#,
        r#"["join",{"room_id":"\ud800"}]"#,
        r#"["join",{"room_id":""}]"#,
        r#"["join",{"room_id":"a","since_seq":-1}]"#,
        r#"["join",{"room_id":"a","limit":201}]"#,
        r#"["join",{"room_id":"a","limit":5,"since_seq":1}]"#,
        r#"["join",{"room_id":"a","limit":5,"replay_limit":1}]"#,
        r#"["join",{"room_id":"a","since_seq":1,"replay_limit":0}]"#,
        r#"["join",{"room_id":"a","since_seq":1,"replay_limit":10001}]"#,
        r#"["join",{"room_id":"a","since_seq":1,"replay_limit":1.5}]"#,
        r#"["join",{"room_id":"a","replay_limit":"1"}]"#,
        r#"["join",{"room_id":"a","x":"\udfff"}]"#,
        r#"["join",{"room_id":"a\u0000"}]"#,
        r#"["history",{"room_id":"a","before_seq":1,"after_seq":1}]"#,
        r#"["history",{"room_id":"a","before_seq":1,"around_seq":1}]"#,
        r#"["history",{"room_id":"a","after_seq":1,"around_seq":1}]"#,
        r#"["history",{"room_id":"a","around_seq":-1}]"#,
        r#"["history",{"room_id":"a","limit":0}]"#,
        r#"["join",{"_placeholder":true,"num":0}]"#,
        &deep,
        &deep_id,
    ] {
        assert_eq!(
            decode(packet).unwrap_err().code,
            Code::BadRequest,
            "{packet}"
        );
    }
    assert_eq!(
        decode(r#"["__proto__",{}]"#).unwrap_err().code,
        Code::UnknownEvent
    );
    let long = format!(
        r#"["message",{{"room_id":"a","content":"{}"}}]"#,
        "x".repeat(70_000)
    );
    assert_eq!(decode(&long).unwrap_err().code, Code::TooLarge);
}

#[test]
fn a_refusal_names_the_event_even_if_the_packet_is_malformed() {
    let limits = Limits::default();
    let (name, _) = decode_event(parse_packet("[\"join\",{]", &limits), &limits);
    assert_eq!(name.as_str(), "join");
}

/// Event name, `ref` and request of a plain client's frame.
fn decode_frame(text: &str) -> (RequestName, Option<Box<str>>, Result<Request, Refusal>) {
    let frame = parse_frame(text);
    let (name, request) = decode_event(frame.event, &Limits::default());
    (name, frame.reference, request)
}

#[test]
fn frames_are_decoded_with_their_reference() {
    let (name, reference, request) =
        decode_frame(r#"{"type":"join","payload":{"room_id":"a"},"ref":"7","more":[1]}"#);
    assert_eq!(
        (name.as_str(), reference.as_deref()),
        ("join", Some("\"7\""))
    );
    assert!(matches!(request, Ok(Request::Join(_))));
    let (_, reference, request) =
        decode_frame(r#"{"ref":-1.5,"payload":{"room_id":"a"},"type":"leave"}"#);
    assert_eq!(reference.as_deref(), Some("-1.5"));
    assert!(matches!(request, Ok(Request::Leave(_))));
    let (_, reference, _) =
        decode_frame(r#"{"type":"leave","payload":{"room_id":"a"},"ref":null}"#);
    assert_eq!(reference, None);
}

#[test]
fn invalid_frames_are_refused_with_the_name_and_reference_as_far_as_they_are_valid() {
    let deep = format!(
        r#"{{"type":"join","payload":{}{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    for (text, event, code) in [
        ("", "", Code::BadRequest),
        ("ping", "", Code::BadRequest),
        ("[]", "", Code::BadRequest),
        ("{}", "", Code::BadRequest),
        (r#"{"type":5}"#, "", Code::BadRequest),
        (r#"{"type":"\ud800"}"#, "", Code::BadRequest),
        (r#"{"type":"join"}"#, "join", Code::BadRequest),
        (
            r#"{"type":"join","payload":null}"#,
            "join",
            Code::BadRequest,
        ),
        (r#"{"type":"join","payload":"a"}"#, "join", Code::BadRequest),
        (
            r#"{"type":"join","payload":{"room_id":"a"},"ref":{}}"#,
            "join",
            Code::BadRequest,
        ),
        (
            r#"{"type":"join","payload":{"room_id":"a"},"ref":true}"#,
            "join",
            Code::BadRequest,
        ),
        (
            r#"{"type":"task_created","payload":{}}"#,
            "task_created",
            Code::UnknownEvent,
        ),
        (
            r#"{"type":"join","payload":{"room_id":"a"},"ref":"\ud800"}"#,
            "join",
            Code::BadRequest,
        ),
        (&deep, "join", Code::BadRequest),
    ] {
        let (name, _, request) = decode_frame(text);
        assert_eq!(
            (name.as_str(), request.unwrap_err().code),
            (event, code),
            "{text}"
        );
    }
    let long = format!(
        r#"{{"type":"leave","payload":{{"room_id":"a"}},"ref":"{}"}}"#,
        "x".repeat(64)
    );
    let (_, _, request) = decode_frame(&long);
    assert_eq!(request.unwrap_err().code, Code::TooLarge);
    let (_, reference, request) =
        decode_frame(r#"{"type":"leave","payload":{"room_id":"\ud800"},"ref":"7"}"#);
    assert_eq!(
        (reference.as_deref(), request.unwrap_err().code),
        (Some("\"7\""), Code::BadRequest)
    );
    let long = format!(
        r#"{{"type":"message","payload":{{"content":"{}"}},"ref":1}}"#,
        "x".repeat(65_536)
    );
    let (_, reference, request) = decode_frame(&long);
    assert_eq!(
        (reference.as_deref(), request.unwrap_err().code),
        (Some("1"), Code::TooLarge)
    );
}
