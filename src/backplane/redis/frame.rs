//! The format of events on the bus: a line of ASCII, then bytes that are passed on unchanged. No JSON
//! is parsed.
//!
//! ```text
//! M<seq> <epoch> <time>\n<record>                                   a log entry of kind message
//! P<seq> <epoch> <time> <bytes of the pointer>\n<pointer><form>         a change of a message
//! C<version> <previous> <J|L|R> <total> <length of user>\n<user><name>   a membership change
//! S<version> <previous> <online> <last seen>\n<name>                a status change
//! T<typing> <length of user>\n<user><name>                          a typing notice
//! r<last number that was read>\n<user>                              a read receipt, for other users
//! u<last number that was read> <unread> <capped>\n<user>            a read receipt, for the user's connections
//! D\n<user>                                                         close all connections of a user
//! ```
//!
//! The scripts write the first four. The channel tells which room or user they are about. Any other
//! upper-case letter is a log entry of a kind that a later release has added, in the format of the
//! first line; see [`entry_kind`].

use bytes::Bytes;

use super::entry_kind;
use crate::backplane::{
    BusEvent, BusTopic, Entry, EntryKind, ReadReceipt, ReceiptAudience, Typing, message_form,
};
use crate::domain::{ChangeKind, Epoch, OnlineStatus, RoomChange, Timestamp, UserId, Username};

/// Decodes an event that arrived on the topic's channel; `None` if it isn't in a known format.
pub(super) fn decode(topic: &BusTopic, payload: &Bytes) -> Option<BusEvent> {
    let line_end = payload.iter().position(|&byte| byte == b'\n')?;
    let line = std::str::from_utf8(&payload[..line_end]).ok()?;
    let (letter, rest) = line.split_at_checked(1)?;
    let mut words = rest.split(' ');
    let body = line_end + 1;
    match (letter.as_bytes()[0], topic) {
        (b'C', BusTopic::Room(room)) => {
            let (version, previous) = (number(words.next())?, number(words.next())?);
            let kind = change_kind(words.next()?)?;
            let total = number(words.next())?;
            let (user, username) = names(&payload[body..], number(words.next())?)?;
            Some(BusEvent::RoomChanged(
                room.clone(),
                RoomChange {
                    version,
                    previous,
                    kind,
                    user,
                    username,
                    total,
                },
            ))
        }
        (b'T', BusTopic::Room(room)) => {
            let typing = words.next()? == "1";
            let (user, username) = names(&payload[body..], number(words.next())?)?;
            Some(BusEvent::Typing(Typing {
                room: room.clone(),
                user,
                username,
                typing,
            }))
        }
        (b'r', BusTopic::Room(room)) => Some(BusEvent::Receipt(ReadReceipt {
            room: room.clone(),
            user: UserId::trusted(std::str::from_utf8(&payload[body..]).ok()?),
            last_read_seq: number(words.next())?,
            audience: ReceiptAudience::Others,
        })),
        (b'u', BusTopic::Room(room)) => Some(BusEvent::Receipt(ReadReceipt {
            room: room.clone(),
            user: UserId::trusted(std::str::from_utf8(&payload[body..]).ok()?),
            last_read_seq: number(words.next())?,
            audience: ReceiptAudience::Own {
                unread: number(words.next())?,
                is_capped: words.next()? == "1",
            },
        })),
        (b'P', BusTopic::Room(room)) => {
            let mut entry = entry(EntryKind::Pointer, &mut words, Bytes::new())?;
            let length = usize::try_from(number(words.next())?).ok()?;
            if length > payload.len() - body {
                return None;
            }
            entry.record = payload.slice(body..body + length);
            // A pointer without a form that can be read keeps its place.
            let form = message_form::decode(&payload.slice(body + length..));
            let forms = form.map(|form| (form.position.seq, form));
            let forms = forms.into_iter().collect();
            message_form::resolve(std::slice::from_mut(&mut entry), &forms);
            Some(BusEvent::Message(room.clone(), entry))
        }
        (letter, BusTopic::Room(room)) => {
            let kind = entry_kind::of_frame(letter)?;
            let entry = entry(kind, &mut words, payload.slice(body..))?;
            Some(BusEvent::Message(room.clone(), entry))
        }
        (b'S', BusTopic::User(user)) => Some(BusEvent::StatusChanged(OnlineStatus {
            user: user.clone(),
            version: number(words.next())?,
            previous: number(words.next())?,
            online: words.next()? == "1",
            last_seen: Some(Timestamp(number(words.next())?)),
            username: Some(Username::trusted(
                std::str::from_utf8(&payload[body..]).ok()?,
            )),
        })),
        (b'D', BusTopic::Nodes) => Some(BusEvent::Disconnect(UserId::trusted(
            std::str::from_utf8(&payload[body..]).ok()?,
        ))),
        _ => None,
    }
}

fn entry<'a>(
    kind: EntryKind,
    words: &mut impl Iterator<Item = &'a str>,
    record: Bytes,
) -> Option<Entry> {
    Some(Entry {
        seq: number(words.next())?,
        epoch: Epoch::trusted(words.next()?),
        at: Timestamp(number(words.next())?),
        kind,
        record,
    })
}

/// Encodes the command to close all connections of a user.
pub(super) fn encode_disconnect(user: &UserId) -> Bytes {
    format!("D\n{user}").into()
}

/// Encodes a typing notice.
pub(super) fn encode_typing(typing: &Typing) -> Bytes {
    let (user, name) = (typing.user.as_str(), typing.username.as_str());
    format!("T{} {}\n{user}{name}", u8::from(typing.typing), user.len()).into()
}

/// Encodes a read receipt. An older node ignores the letter, as it is no upper-case one.
pub(super) fn encode_receipt(receipt: &ReadReceipt) -> Bytes {
    let (seq, user) = (receipt.last_read_seq, &receipt.user);
    match receipt.audience {
        ReceiptAudience::Others => format!("r{seq}\n{user}").into(),
        ReceiptAudience::Own { unread, is_capped } => {
            format!("u{seq} {unread} {}\n{user}", u8::from(is_capped)).into()
        }
    }
}

/// The kind of change for which the scripts write this letter.
pub(super) fn change_kind(letter: &str) -> Option<ChangeKind> {
    match letter {
        "J" => Some(ChangeKind::Joined),
        "L" => Some(ChangeKind::Left),
        "R" => Some(ChangeKind::Restored),
        _ => None,
    }
}

fn number(word: Option<&str>) -> Option<u64> {
    word?.parse().ok()
}

/// Splits `<user><name>` behind the user, whose length in bytes is given.
fn names(body: &[u8], length: u64) -> Option<(UserId, Username)> {
    let (user, name) = std::str::from_utf8(body)
        .ok()?
        .split_at_checked(usize::try_from(length).ok()?)?;
    Some((UserId::trusted(user), Username::trusted(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RoomId;

    fn lobby() -> BusTopic {
        BusTopic::Room(RoomId::trusted("lobby"))
    }

    #[test]
    fn a_receipt_is_decoded_as_it_was_encoded() {
        let own = |unread, is_capped| ReceiptAudience::Own { unread, is_capped };
        for audience in [ReceiptAudience::Others, own(3, false), own(1000, true)] {
            let receipt = ReadReceipt {
                room: RoomId::trusted("lobby"),
                user: UserId::trusted("ann \u{1f600}"),
                last_read_seq: 7,
                audience,
            };
            assert_eq!(
                decode(&lobby(), &encode_receipt(&receipt)),
                Some(BusEvent::Receipt(receipt))
            );
        }
    }

    #[test]
    fn a_typing_notice_is_decoded_as_it_was_encoded() {
        let typing = Typing {
            room: RoomId::trusted("lobby"),
            user: UserId::trusted("ann\u{1F980}"),
            username: Username::trusted("Ann\n2"),
            typing: true,
        };
        assert_eq!(
            decode(&lobby(), &encode_typing(&typing)),
            Some(BusEvent::Typing(typing))
        );
    }

    #[test]
    fn a_disconnect_is_decoded_on_its_topic_only() {
        let user = UserId::trusted("ann \u{1F980}");
        assert_eq!(
            decode(&BusTopic::Nodes, &encode_disconnect(&user)),
            Some(BusEvent::Disconnect(user.clone()))
        );
        assert_eq!(
            decode(&BusTopic::User(user.clone()), &encode_disconnect(&user)),
            None
        );
        assert_eq!(decode(&lobby(), &encode_disconnect(&user)), None);
    }

    #[test]
    fn a_record_is_passed_on_byte_for_byte() {
        let payload = Bytes::from_static(b"M7 abc 1000\n{\"a\":\"\\n\"}\n");
        let Some(BusEvent::Message(_, entry)) = decode(&lobby(), &payload) else {
            panic!("not a message")
        };
        assert_eq!(
            (entry.seq, entry.at, entry.kind, &entry.record[..]),
            (
                7,
                Timestamp(1000),
                EntryKind::Message,
                &b"{\"a\":\"\\n\"}\n"[..]
            )
        );
    }

    #[test]
    fn a_change_of_a_message_is_resolved_when_it_arrives() {
        let id = "00000000-0000-0000-0000-000000000001";
        let record = format!(
            "{{\"event\":\"message_edited\",\"entry_id\":\"{id}\",\"room_id\":\"lobby\",\
             \"id\":\"{id}\",\"target_seq\":3}}"
        );
        let content = r#"{"id":"x","content":"new"}"#;
        let form = format!("8 1000 3 abc 900 E {}\n{content}", content.len());
        let decoded = |form: &str| {
            let payload = format!("P8 abc 1000 {}\n{record}{form}", record.len());
            let Some(BusEvent::Message(_, entry)) = decode(&lobby(), &payload.into()) else {
                panic!("not an entry")
            };
            assert_eq!((entry.seq, entry.at), (8, Timestamp(1000)));
            entry
        };
        let entry = decoded(&form);
        assert_eq!(entry.kind, EntryKind::Change);
        let json: serde_json::Value = serde_json::from_slice(&entry.record).unwrap();
        assert_eq!(
            (&json["message"]["content"], &json["message"]["version"]),
            (&"new".into(), &8.into())
        );
        assert_eq!(decoded("damaged").kind, EntryKind::Unknown);
    }

    #[test]
    fn an_entry_of_a_later_kind_keeps_its_position() {
        let payload = Bytes::from_static(b"X8 abc 1000\nany bytes \xff");
        let Some(BusEvent::Message(_, entry)) = decode(&lobby(), &payload) else {
            panic!("not an entry")
        };
        assert_eq!(
            (entry.seq, entry.epoch, entry.kind),
            (8, Epoch::trusted("abc"), EntryKind::Unknown)
        );
    }

    #[test]
    fn malformed_frames_are_ignored() {
        for malformed in [
            "",
            "\n",
            "M\n",
            "M7 abc\n",
            "P7 abc 1000\n{}",
            "P7 abc 1000 9\n{}",
            "X7 abc\n",
            "m7 abc 1000\n{}",
            "é\n",
            "C1 0 X 1 1\nab",
            "T1 9\na",
            "S1 0 1 5\nann",
        ] {
            assert_eq!(
                decode(&lobby(), &Bytes::from_static(malformed.as_bytes())),
                None,
                "{malformed:?}"
            );
        }
    }
}
