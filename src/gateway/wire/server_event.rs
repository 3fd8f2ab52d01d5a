//! Events that the server sends: as Socket.IO packets, and as frames for plain WebSocket clients.

use std::time::Duration;

use serde::Serialize;

use super::acks::{StatusJson, to_json};
use crate::delivery::{ChangeParts, Entry, EntryKind, Event, ReadReceipt, ReceiptAudience};
use crate::domain::ChangeKind;

/// Every event that the server sends, with its name on the wire.
macro_rules! server_events {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// The events that the server sends.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ServerEvent { $($(#[$doc])* $variant),* }

        impl ServerEvent {
            /// Every event that the server sends.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The event's name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

server_events! {
    /// The connection's user, after authentication.
    Authenticated = "authenticated";
    /// The refusal of an event that asked for no acknowledgement.
    Exception = "exception";
    /// A message.
    Message = "message";
    /// A message was edited.
    MessageEdited = "message_edited";
    /// A message was deleted.
    MessageDeleted = "message_deleted";
    /// The reactions to a message have changed.
    ReactionsChanged = "reactions_changed";
    /// A message was pinned to its room.
    MessagePinned = "message_pinned";
    /// A message is no longer pinned.
    MessageUnpinned = "message_unpinned";
    /// A user in a room has read it.
    ReadReceipt = "read_receipt";
    /// The user's own position in a room: in the personal feed, or by itself for users without one.
    Read = "read";
    /// A room's occupants.
    RoomUsers = "room_users";
    /// A user came into a room.
    UserJoined = "user_joined";
    /// A user left a room.
    UserLeft = "user_left";
    /// A watched user came online.
    UserOnline = "user_online";
    /// A watched user went offline.
    UserOffline = "user_offline";
    /// A user types, or has stopped.
    UserTyping = "user_typing";
    /// Messages of a room may be lost: its numbering continues from another position.
    RoomReset = "room_reset";
    /// This node drains.
    GoingAway = "going_away";
    /// The position from which on broadcasts follow: for plain WebSocket clients only.
    Resumed = "resumed";
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
struct Receipt<'a> {
    room_id: &'a str,
    user_id: &'a str,
    last_read_seq: u64,
}

#[derive(Serialize)]
struct OwnPosition<'a> {
    room_id: &'a str,
    last_read_seq: u64,
    unread: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    capped: bool,
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

/// The text around an event's name and its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    /// `2["name",payload]`: a Socket.IO event packet.
    SocketIo,
    /// `{"type":"name","payload":payload}`: a frame for a plain WebSocket client.
    Plain,
}

impl Envelope {
    /// The texts before the name, between name and payload, and after the payload.
    const fn parts(self) -> [&'static str; 3] {
        match self {
            Self::SocketIo => ["2[\"", "\",", "]"],
            Self::Plain => ["{\"type\":\"", "\",\"payload\":", "}"],
        }
    }

    /// The event with that payload, which must be JSON.
    #[must_use]
    pub fn wrap(self, event: ServerEvent, json: &str) -> String {
        let [before, between, after] = self.parts();
        [before, event.name(), between, json, after].concat()
    }

    fn encode<T: Serialize>(self, event: ServerEvent, payload: &T) -> String {
        self.wrap(event, &to_json(payload))
    }
}

/// `going_away`: asks the client to reconnect after that time.
#[must_use]
pub fn going_away(envelope: Envelope, reconnect_in: Duration) -> String {
    let reconnect_in_ms = u64::try_from(reconnect_in.as_millis()).unwrap_or(u64::MAX);
    envelope.encode(ServerEvent::GoingAway, &GoingAway { reconnect_in_ms })
}

/// Begins an entry's JSON object with the fields that the backplane assigned, and a comma.
fn write_position(entry: &Entry, out: &mut String) {
    out.push_str("{\"seq\":");
    out.push_str(itoa::Buffer::new().format(entry.seq));
    // The backplane generates epochs, from characters that need no escapes.
    out.extend([
        ",\"epoch\":\"",
        entry.epoch.as_str(),
        "\",\"timestamp\":\"",
        entry.at.text().as_str(),
        "\",",
    ]);
}

/// Appends a message's JSON object: the fields that the backplane assigned, then the record, byte
/// for byte. The record of an edited message has its version; without one it is the message's own number.
pub(super) fn write_message(entry: &Entry, out: &mut String) {
    write_position(entry, out);
    if entry.kind == EntryKind::Message {
        out.push_str("\"version\":");
        out.push_str(itoa::Buffer::new().format(entry.seq));
        out.push(',');
    }
    // A record is a JSON object in UTF-8. Its fields follow the ones above in the same object, so
    // its opening brace is left out. For a damaged record only `}` is appended: the object is
    // invalid JSON then.
    out.push_str(
        std::str::from_utf8(&entry.record)
            .ok()
            .and_then(|record| record.strip_prefix('{'))
            .unwrap_or("}"),
    );
}

fn encode_message(envelope: Envelope, entry: &Entry) -> String {
    let [before, between, after] = envelope.parts();
    let mut text = String::with_capacity(entry.record.len() + 128);
    text.extend([before, ServerEvent::Message.name(), between]);
    write_message(entry, &mut text);
    text.push_str(after);
    text
}

/// The event of a change, under its own name. A damaged record becomes `null`.
fn encode_change(envelope: Envelope, entry: &Entry) -> String {
    let [before, between, after] = envelope.parts();
    let Some(parts) = ChangeParts::of(&entry.record) else {
        tracing::error!(seq = entry.seq, "a change is damaged");
        return [before, "damaged", between, "null", after].concat();
    };
    let mut text = String::with_capacity(entry.record.len() + 128);
    text.extend([before, parts.event, between]);
    write_position(entry, &mut text);
    text.extend([parts.fields, after]);
    text
}

fn encode_receipt(envelope: Envelope, receipt: &ReadReceipt) -> String {
    match receipt.audience {
        ReceiptAudience::Others => {
            let payload = Receipt {
                room_id: receipt.room.as_str(),
                user_id: receipt.user.as_str(),
                last_read_seq: receipt.last_read_seq,
            };
            envelope.encode(ServerEvent::ReadReceipt, &payload)
        }
        ReceiptAudience::Own { unread, is_capped } => {
            let payload = OwnPosition {
                room_id: receipt.room.as_str(),
                last_read_seq: receipt.last_read_seq,
                unread,
                capped: is_capped,
            };
            envelope.encode(ServerEvent::Read, &payload)
        }
    }
}

/// The event in that envelope.
#[must_use]
pub fn encode_event(envelope: Envelope, event: &Event) -> String {
    match event {
        Event::Message(entry) if entry.kind == EntryKind::Change => encode_change(envelope, entry),
        Event::Message(entry) => encode_message(envelope, entry),
        Event::RoomUsers { room, users, total } => {
            let payload = RoomUsers {
                room_id: room.as_str(),
                users: users.iter().map(|user| user.as_str()).collect(),
                total: *total,
            };
            envelope.encode(ServerEvent::RoomUsers, &payload)
        }
        Event::RoomChanged(room, change) => {
            let event = match change.kind {
                ChangeKind::Left => ServerEvent::UserLeft,
                ChangeKind::Joined | ChangeKind::Restored => ServerEvent::UserJoined,
            };
            let payload = RoomUser {
                room_id: room.as_str(),
                user_id: change.user.as_str(),
                username: change.username.as_str(),
            };
            envelope.encode(event, &payload)
        }
        Event::Typing(typing) => {
            let payload = UserTyping {
                room_id: typing.room.as_str(),
                user_id: typing.user.as_str(),
                username: typing.username.as_str(),
                is_typing: typing.typing,
            };
            envelope.encode(ServerEvent::UserTyping, &payload)
        }
        Event::Receipt(receipt) => encode_receipt(envelope, receipt),
        Event::OnlineStatus { status, initial } => {
            let event = if status.online {
                ServerEvent::UserOnline
            } else {
                ServerEvent::UserOffline
            };
            let payload = StatusEvent {
                r#type: event.name(),
                status: StatusJson::of(status),
                initial: *initial,
            };
            envelope.encode(event, &payload)
        }
        Event::RoomReset {
            room,
            head,
            lost_from,
        } => {
            let payload = RoomReset {
                room_id: room.as_str(),
                seq: head.seq,
                epoch: head.epoch.as_str(),
                lost_from: *lost_from,
            };
            envelope.encode(ServerEvent::RoomReset, &payload)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Typing;
    use crate::domain::{
        Epoch, Head, OnlineStatus, RoomChange, RoomId, Timestamp, UserId, Username,
    };

    #[test]
    fn every_event_is_encoded_in_both_envelopes() {
        let room = RoomId::trusted("lobby");
        let (user, username) = (UserId::trusted("ann"), Username::trusted("Ann \"A\""));
        let entry = Entry {
            seq: 7,
            epoch: Epoch::trusted("e1"),
            at: Timestamp(1_769_853_600_000),
            kind: EntryKind::Message,
            record: r#"{"id":"x","content":"hi"}"#.into(),
        };
        let amended = Entry {
            kind: EntryKind::Amended,
            record: r#"{"id":"x","content":"new","version":9}"#.into(),
            ..entry.clone()
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
                r#"2["message",{"seq":7,"epoch":"e1","timestamp":"2026-01-31T10:00:00.000Z","version":7,"id":"x","content":"hi"}]"#,
            ),
            (
                Event::Message(amended),
                r#"2["message",{"seq":7,"epoch":"e1","timestamp":"2026-01-31T10:00:00.000Z","id":"x","content":"new","version":9}]"#,
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
                Event::Receipt(ReadReceipt {
                    room: room.clone(),
                    user: user.clone(),
                    last_read_seq: 7,
                    audience: ReceiptAudience::Others,
                }),
                r#"2["read_receipt",{"room_id":"lobby","user_id":"ann","last_read_seq":7}]"#,
            ),
            (
                Event::Receipt(ReadReceipt {
                    room: room.clone(),
                    user: user.clone(),
                    last_read_seq: 7,
                    audience: ReceiptAudience::Own {
                        unread: 2,
                        is_capped: false,
                    },
                }),
                r#"2["read",{"room_id":"lobby","last_read_seq":7,"unread":2}]"#,
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
