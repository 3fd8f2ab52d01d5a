//! Socket.IO packets of the namespace `/`: recognises the incoming ones, and makes the outgoing
//! ones as frames that every session can send.

use engineioxide::Frame;

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
    fn a_disconnect_of_another_namespace_is_not_recognised() {
        for own in ["1", "1/", "1/,", "1[]", "1,"] {
            assert!(is_disconnect(own), "{own}");
        }
        for other in ["1/admin", "1/admin,", "0", "2[]", "", "41"] {
            assert!(!is_disconnect(other), "{other}");
        }
    }
}
