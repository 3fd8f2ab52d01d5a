//! How events travel over the bus: a line of ASCII, then bytes that are passed on as they are. No JSON is parsed.
//!
//! ```text
//! M<seq> <epoch> <time>\n<record>                                 a message
//! C<version> <previous> <J|L|R> <total> <length of user>\n<user><name>   a change of a room's membership
//! S<version> <previous> <online> <last seen>\n<name>              a change of a user's status
//! T<typing> <length of user>\n<user><name>                        someone types
//! D\n<user>                                                       all connections of a user are to end
//! ```
//! The scripts write the first three; which room or user they are about is said by the channel.

use bytes::Bytes;

use crate::backplane::{BusEvent, BusTopic, Entry, Typing};
use crate::domain::{
    ChangeKind, Epoch, OnlineStatus, RoomChange, RoomId, Timestamp, UserId, Username,
};

/// What arrived on the topic's channel; `None` when it makes no sense.
pub(super) fn decode(topic: &BusTopic, payload: &Bytes) -> Option<BusEvent> {
    let end = payload.iter().position(|&byte| byte == b'\n')?;
    let (kind, line) = std::str::from_utf8(&payload[..end])
        .ok()?
        .split_at_checked(1)?;
    let mut words = line.split(' ');
    let body = end + 1;
    match (kind, topic) {
        ("M", BusTopic::Room(room)) => {
            let (seq, epoch, at) = (
                number(words.next())?,
                Epoch::trusted(words.next()?),
                number(words.next())?,
            );
            Some(BusEvent::Message(
                room.clone(),
                Entry {
                    seq,
                    epoch,
                    at: Timestamp(at),
                    record: payload.slice(body..),
                },
            ))
        }
        ("C", BusTopic::Room(room)) => {
            let (version, previous) = (number(words.next())?, number(words.next())?);
            let (kind, total) = (change_kind(words.next()?)?, number(words.next())?);
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
        ("S", BusTopic::User(user)) => Some(BusEvent::StatusChanged(OnlineStatus {
            user: user.clone(),
            version: number(words.next())?,
            previous: number(words.next())?,
            online: words.next()? == "1",
            last_seen: Some(Timestamp(number(words.next())?)),
            username: Some(Username::trusted(
                std::str::from_utf8(&payload[body..]).ok()?,
            )),
        })),
        ("T", BusTopic::Room(room)) => {
            let typing = words.next()? == "1";
            let (user, username) = names(&payload[body..], number(words.next())?)?;
            Some(BusEvent::Typing(Typing {
                room: room.clone(),
                user,
                username,
                typing,
            }))
        }
        ("D", BusTopic::Nodes) => Some(BusEvent::Disconnect(UserId::trusted(
            std::str::from_utf8(&payload[body..]).ok()?,
        ))),
        _ => None,
    }
}

/// What `publish_disconnect` sends.
pub(super) fn encode_disconnect(user: &UserId) -> Bytes {
    format!("D\n{user}").into()
}

/// What `publish_typing` sends.
pub(super) fn encode_typing(typing: &Typing) -> Bytes {
    let (user, name) = (typing.user.as_str(), typing.username.as_str());
    format!("T{} {}\n{user}{name}", u8::from(typing.typing), user.len()).into()
}

/// What the scripts call the kinds of changes.
pub(super) fn change_kind(text: &str) -> Option<ChangeKind> {
    match text {
        "J" => Some(ChangeKind::Joined),
        "L" => Some(ChangeKind::Left),
        "R" => Some(ChangeKind::Restored),
        _ => None,
    }
}

fn number(word: Option<&str>) -> Option<u64> {
    word?.parse().ok()
}

fn names(body: &[u8], length: u64) -> Option<(UserId, Username)> {
    let (user, name) = std::str::from_utf8(body)
        .ok()?
        .split_at_checked(usize::try_from(length).ok()?)?;
    Some((UserId::trusted(user), Username::trusted(name)))
}

/// A room topic, for callers that have only its id.
pub(super) fn room_topic(room: &RoomId) -> BusTopic {
    BusTopic::Room(room.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_comes_back() {
        let typing = Typing {
            room: RoomId::trusted("lobby"),
            user: UserId::trusted("ann\u{1F980}"),
            username: Username::trusted("Ann\n2"),
            typing: true,
        };
        let topic = room_topic(&typing.room);
        assert_eq!(
            decode(&topic, &encode_typing(&typing)),
            Some(BusEvent::Typing(typing))
        );
    }

    #[test]
    fn who_is_to_be_disconnected_comes_back() {
        let user = UserId::trusted("ann \u{1F980}");
        assert_eq!(
            decode(&BusTopic::Nodes, &encode_disconnect(&user)),
            Some(BusEvent::Disconnect(user.clone()))
        );
        assert_eq!(
            decode(&BusTopic::User(user.clone()), &encode_disconnect(&user)),
            None,
            "not where it belongs"
        );
    }

    #[test]
    fn a_message_keeps_its_bytes_and_nonsense_is_nothing() {
        let topic = room_topic(&RoomId::trusted("lobby"));
        let payload = Bytes::from_static(b"M7 abc 1000\n{\"a\":\"\\n\"}\n");
        let Some(BusEvent::Message(_, entry)) = decode(&topic, &payload) else {
            panic!("not a message")
        };
        assert_eq!(
            (entry.seq, entry.at, &entry.record[..]),
            (7, Timestamp(1000), &b"{\"a\":\"\\n\"}\n"[..])
        );
        for nonsense in [
            "",
            "\n",
            "M\n",
            "M7 abc\n",
            "é\n",
            "C1 0 X 1 1\nab",
            "T1 9\na",
            "S1 0 1 5\nann",
        ] {
            assert_eq!(
                decode(&topic, &Bytes::from_static(nonsense.as_bytes())),
                None,
                "{nonsense:?}"
            );
        }
    }
}
