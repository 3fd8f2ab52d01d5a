//! What the server tells clients: as Socket.IO event packets, and as the frames of plain clients.

use std::time::Duration;

use serde::Serialize;

use super::answer::StatusJson;
use crate::delivery::{Entry, Event};
use crate::domain::ChangeKind;

/// The events that the server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventName {
    /// Who one is now.
    Authenticated,
    /// A refusal of a request without an ack.
    Exception,
    /// A message.
    Message,
    /// A room's members.
    RoomUsers,
    /// Someone came into a room.
    UserJoined,
    /// Someone left a room.
    UserLeft,
    /// A watched user came online.
    UserOnline,
    /// A watched user went offline.
    UserOffline,
    /// Someone types.
    UserTyping,
    /// Continuity of a room is lost.
    RoomReset,
    /// This node drains.
    GoingAway,
    /// From where on broadcasts follow: to plain clients only.
    Resumed,
}

impl EventName {
    /// Every one.
    pub const ALL: [Self; 12] = [
        Self::Authenticated,
        Self::Exception,
        Self::Message,
        Self::RoomUsers,
        Self::UserJoined,
        Self::UserLeft,
        Self::UserOnline,
        Self::UserOffline,
        Self::UserTyping,
        Self::RoomReset,
        Self::GoingAway,
        Self::Resumed,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authenticated => "authenticated",
            Self::Exception => "exception",
            Self::Message => "message",
            Self::RoomUsers => "room_users",
            Self::UserJoined => "user_joined",
            Self::UserLeft => "user_left",
            Self::UserOnline => "user_online",
            Self::UserOffline => "user_offline",
            Self::UserTyping => "user_typing",
            Self::RoomReset => "room_reset",
            Self::GoingAway => "going_away",
            Self::Resumed => "resumed",
        }
    }
}

#[derive(Serialize)]
struct RoomUsers<'a> {
    room_id: &'a str,
    users: Vec<&'a str>,
    total: u64,
}

#[derive(Serialize)]
struct RoomUser<'a> {
    room_id: &'a str,
    user_id: &'a str,
    username: &'a str,
}

#[derive(Serialize)]
struct UserTyping<'a> {
    room_id: &'a str,
    user_id: &'a str,
    username: &'a str,
    is_typing: bool,
}

#[derive(Serialize)]
struct RoomReset<'a> {
    room_id: &'a str,
    seq: u64,
    epoch: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_from: Option<u64>,
}

#[derive(Serialize)]
struct GoingAway {
    reconnect_in_ms: u64,
}

#[derive(Serialize)]
struct StatusEvent<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    status: StatusJson<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    initial: bool,
}

/// What is around an event's name and its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    /// `2["name",payload]`: a Socket.IO event packet.
    SocketIo,
    /// `{"type":"name","payload":payload}`: a frame for a plain client.
    Plain,
}

impl Envelope {
    const fn around(self) -> [&'static str; 3] {
        match self {
            Self::SocketIo => ["2[\"", "\",", "]"],
            Self::Plain => ["{\"type\":\"", "\",\"payload\":", "}"],
        }
    }

    /// With that payload, which is JSON.
    #[must_use]
    pub fn wrap(self, name: EventName, json: &str) -> String {
        let [before, between, after] = self.around();
        [before, name.as_str(), between, json, after].concat()
    }
}

fn encode_named<T: Serialize>(envelope: Envelope, name: EventName, payload: &T) -> String {
    let json = serde_json::to_string(payload).expect("the wire's shapes always serialise");
    envelope.wrap(name, &json)
}

/// `going_away`: come back in that time.
#[must_use]
pub fn going_away(envelope: Envelope, reconnect_in: Duration) -> String {
    let reconnect_in_ms = u64::try_from(reconnect_in.as_millis()).unwrap_or(u64::MAX);
    encode_named(
        envelope,
        EventName::GoingAway,
        &GoingAway { reconnect_in_ms },
    )
}

/// Writes a message's JSON object: what the backplane gave, then the record byte for byte.
pub(super) fn write_message(entry: &Entry, out: &mut String) {
    out.push_str("{\"seq\":");
    out.push_str(itoa::Buffer::new().format(entry.seq));
    // Epochs are opaque strings of the backplane's own making; they need no escapes.
    out.extend([
        ",\"epoch\":\"",
        entry.epoch.as_str(),
        "\",\"timestamp\":\"",
        entry.at.text().as_str(),
        "\",",
    ]);
    // A record is a JSON object that was made as UTF-8; what follows its brace follows ours.
    out.push_str(
        std::str::from_utf8(&entry.record)
            .ok()
            .and_then(|record| record.strip_prefix('{'))
            .unwrap_or("}"),
    );
}

/// The event in its envelope.
#[must_use]
pub fn encode_event(envelope: Envelope, event: &Event) -> String {
    match event {
        Event::Message(entry) => {
            let [before, between, after] = envelope.around();
            let mut packet = String::with_capacity(entry.record.len() + 128);
            packet.extend([before, EventName::Message.as_str(), between]);
            write_message(entry, &mut packet);
            packet.push_str(after);
            packet
        }
        Event::RoomUsers { room, users, total } => {
            let users = users.iter().map(|user| user.as_str()).collect();
            encode_named(
                envelope,
                EventName::RoomUsers,
                &RoomUsers {
                    room_id: room.as_str(),
                    users,
                    total: *total,
                },
            )
        }
        Event::RoomChanged(room, change) => {
            let name = if change.kind == ChangeKind::Left {
                EventName::UserLeft
            } else {
                EventName::UserJoined
            };
            let (user_id, username) = (change.user.as_str(), change.username.as_str());
            encode_named(
                envelope,
                name,
                &RoomUser {
                    room_id: room.as_str(),
                    user_id,
                    username,
                },
            )
        }
        Event::Typing(typing) => encode_named(
            envelope,
            EventName::UserTyping,
            &UserTyping {
                room_id: typing.room.as_str(),
                user_id: typing.user.as_str(),
                username: typing.username.as_str(),
                is_typing: typing.typing,
            },
        ),
        Event::OnlineStatus { status, initial } => {
            let name = if status.online {
                EventName::UserOnline
            } else {
                EventName::UserOffline
            };
            let payload = StatusEvent {
                r#type: name.as_str(),
                status: StatusJson::of(status),
                initial: *initial,
            };
            encode_named(envelope, name, &payload)
        }
        Event::RoomReset {
            room,
            head,
            lost_from,
        } => encode_named(
            envelope,
            EventName::RoomReset,
            &RoomReset {
                room_id: room.as_str(),
                seq: head.seq,
                epoch: head.epoch.as_str(),
                lost_from: *lost_from,
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{EntryKind, Typing};
    use crate::domain::{
        Epoch, Head, OnlineStatus, RoomChange, RoomId, Timestamp, UserId, Username,
    };

    #[test]
    fn every_event_has_its_shape() {
        let room = RoomId::trusted("lobby");
        let (user, username) = (UserId::trusted("ann"), Username::trusted("Ann \"A\""));
        let entry = Entry {
            seq: 7,
            epoch: Epoch::trusted("e1"),
            at: Timestamp(1_769_853_600_000),
            kind: EntryKind::Message,
            record: r#"{"id":"x","content":"hi"}"#.into(),
        };
        let change = |kind| RoomChange {
            version: 2,
            previous: 1,
            kind,
            user: user.clone(),
            username: username.clone(),
            total: 1,
        };
        let status = OnlineStatus {
            user: user.clone(),
            username: Some(username.clone()),
            online: true,
            last_seen: Some(Timestamp(0)),
            version: 3,
            previous: 0,
        };
        for (event, packet) in [
            (
                Event::Message(entry),
                r#"2["message",{"seq":7,"epoch":"e1","timestamp":"2026-01-31T10:00:00.000Z","id":"x","content":"hi"}]"#,
            ),
            (
                Event::RoomUsers {
                    room: room.clone(),
                    users: vec![user.clone()],
                    total: 1,
                },
                r#"2["room_users",{"room_id":"lobby","users":["ann"],"total":1}]"#,
            ),
            (
                Event::RoomChanged(room.clone(), change(ChangeKind::Joined)),
                r#"2["user_joined",{"room_id":"lobby","user_id":"ann","username":"Ann \"A\""}]"#,
            ),
            (
                Event::RoomChanged(room.clone(), change(ChangeKind::Left)),
                r#"2["user_left",{"room_id":"lobby","user_id":"ann","username":"Ann \"A\""}]"#,
            ),
            (
                Event::Typing(Typing {
                    room: room.clone(),
                    user: user.clone(),
                    username,
                    typing: false,
                }),
                r#"2["user_typing",{"room_id":"lobby","user_id":"ann","username":"Ann \"A\"","is_typing":false}]"#,
            ),
            (
                Event::OnlineStatus {
                    status,
                    initial: true,
                },
                r#"2["user_online",{"type":"user_online","user_id":"ann","username":"Ann \"A\"","is_online":true,"last_seen":"1970-01-01T00:00:00.000Z","version":3,"initial":true}]"#,
            ),
            (
                Event::OnlineStatus {
                    status: OnlineStatus::never_seen(user),
                    initial: false,
                },
                r#"2["user_offline",{"type":"user_offline","user_id":"ann","is_online":false,"version":0}]"#,
            ),
            (
                Event::RoomReset {
                    room,
                    head: Head {
                        epoch: Epoch::trusted("e2"),
                        seq: 4,
                    },
                    lost_from: None,
                },
                r#"2["room_reset",{"room_id":"lobby","seq":4,"epoch":"e2"}]"#,
            ),
        ] {
            assert_eq!(encode_event(Envelope::SocketIo, &event), packet);
            let (name, payload) = packet[3..packet.len() - 1].split_once("\",").unwrap();
            let frame = format!(r#"{{"type":"{name}","payload":{payload}}}"#);
            assert_eq!(encode_event(Envelope::Plain, &event), frame);
        }
        let soon = Duration::from_millis(1500);
        assert_eq!(
            going_away(Envelope::SocketIo, soon),
            r#"2["going_away",{"reconnect_in_ms":1500}]"#
        );
        assert_eq!(
            going_away(Envelope::Plain, soon),
            r#"{"type":"going_away","payload":{"reconnect_in_ms":1500}}"#
        );
    }
}
