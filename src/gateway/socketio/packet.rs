//! Socket.IO packets: recognises those of the namespace `/`, and makes the outgoing ones as frames
//! that every session can send.

use engineioxide::{Frame, ProtocolVersion};

use crate::domain::Refusal;
use crate::gateway::wire::{
    INVALID_NAMESPACE, connect_error as connect_error_object, connect_error_text,
};

/// Recognises an event of the namespace without attachments. Returns the offset of its JSON array,
/// and the number of the acknowledgement that the client asked for.
pub(super) fn event(packet: &str) -> Option<(usize, Option<i64>)> {
    let rest = packet.strip_prefix('2')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let ack = if digits == 0 {
        None
    } else {
        Some(rest[..digits].parse().ok()?)
    };
    rest[digits..].starts_with('[').then_some((1 + digits, ack))
}

/// Whether the packet is a DISCONNECT of the namespace, in any of the forms that clients write.
pub(super) fn is_disconnect(packet: &str) -> bool {
    let namespace = packet
        .strip_prefix('1')
        .and_then(|rest| rest.strip_prefix('/'));
    packet.starts_with('1') && namespace.is_none_or(|name| name.split(',').next() == Some(""))
}

/// An acknowledgement with that JSON as its only argument.
pub(super) fn ack(id: i64, json: &str) -> Frame {
    Frame::text(&format!("3{id}[{json}]"))
}

/// A DISCONNECT of the namespace: the client does not reconnect by itself.
pub(super) fn disconnect() -> Frame {
    Frame::text("1")
}

/// The refusal of a CONNECT to `/`. Engine.IO 3 carries Socket.IO protocol 4, in which the payload
/// is a text.
pub(super) fn connect_error(protocol: ProtocolVersion, refusal: &Refusal) -> Frame {
    let payload = match protocol {
        ProtocolVersion::V3 => connect_error_text(refusal),
        ProtocolVersion::V4 => connect_error_object(refusal),
    };
    Frame::text(&format!("4{payload}"))
}

/// The refusal of a CONNECT to a namespace that does not exist, for a client that sent this name.
///
/// Clients of Socket.IO protocol 4 append their query to the name, and know the namespace only
/// without it.
pub(super) fn invalid_namespace(protocol: ProtocolVersion, name: &str) -> Frame {
    let (object, text) = INVALID_NAMESPACE;
    let (name, payload) = match protocol {
        ProtocolVersion::V3 => (name.split('?').next().unwrap_or_default(), text),
        ProtocolVersion::V4 => (name, object),
    };
    Frame::text(&format!("4{name},{payload}"))
}

/// The namespace of a CONNECT_ERROR as socketioxide writes it; `/` for the one that has no name.
/// `None` for every other packet.
pub(super) fn namespace_of_connect_error(packet: &str) -> Option<&str> {
    let rest = packet.strip_prefix('4')?;
    if rest.starts_with('/') {
        rest.split(',').next()
    } else {
        Some("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_of_the_namespace_without_attachments_are_recognised() {
        assert_eq!(event(r#"2["a"]"#), Some((1, None)));
        assert_eq!(event(r#"2007["a"]"#), Some((4, Some(7))));
        assert_eq!(
            event("2["),
            Some((1, None)),
            "malformed JSON is refused when it is decoded"
        );
        let far = format!("2{}[]", "9".repeat(19));
        for other in [
            "",
            "2",
            "27",
            r#"2{"a":1}"#,
            "2/,[]",
            "2/a,7[]",
            "2-1[]",
            "2 []",
            "51-[]",
            "3[]",
            "1",
            "0",
            &far,
        ] {
            assert_eq!(event(other), None, "{other}");
        }
    }

    #[test]
    fn a_connect_error_is_recognised_with_its_namespace() {
        for (packet, expected) in [
            (r#"4{"message":"no"}"#, Some("/")),
            (r#"4/admin,{"message":"Invalid namespace"}"#, Some("/admin")),
            (r#"4/a?t=x,{"message":"Invalid namespace"}"#, Some("/a?t=x")),
            (r#"0{"sid":"x"}"#, None),
            ("1", None),
            (r#"2["4"]"#, None),
        ] {
            assert_eq!(namespace_of_connect_error(packet), expected, "{packet}");
        }
    }

    #[test]
    fn a_disconnect_of_another_namespace_is_not_recognised() {
        for own in ["1", "1/", "1/,", "1[]", "1,"] {
            assert!(is_disconnect(own), "{own}");
        }
        for other in ["1/admin", "1/admin,", "0", "2[]", "", "41"] {
            assert!(!is_disconnect(other), "{other}");
        }
    }
}
