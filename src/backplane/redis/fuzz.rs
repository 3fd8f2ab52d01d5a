//! Fuzz tests of what Redis sends: events of the bus, and replies of scripts.

use bytes::Bytes;
use fred::types::Value;
use hubbub_fuzz::Target;

use super::append_outcome::parse_outcomes;
use super::frame;
use super::hot_log::parse_unarchived;
use super::log::{parse_entries, parse_span};
use super::presence::{parse_changes, parse_room_change, parse_roster};
use super::restore::{Claim, parse_claim};
use super::script::ScriptReply;
use crate::backplane::{BusEvent, BusTopic, EntryKind};
use crate::domain::{ChangeKind, RoomId, UserId};

/// Encodes an event as the scripts do.
fn encode(event: &BusEvent) -> Vec<u8> {
    match event {
        BusEvent::Message(_, entry) => {
            let letter = match entry.kind {
                EntryKind::Message | EntryKind::Amended => 'M',
                EntryKind::Pointer => 'P',
                EntryKind::Change => 'A',
                EntryKind::Unknown => 'X',
            };
            let head = format!("{letter}{} {} {}\n", entry.seq, entry.epoch, entry.at.0);
            [head.as_bytes(), &entry.record].concat()
        }
        BusEvent::RoomChanged(_, change) => {
            let kind = match change.kind {
                ChangeKind::Joined => 'J',
                ChangeKind::Left => 'L',
                ChangeKind::Restored => 'R',
            };
            let (user, name) = (change.user.as_str(), change.username.as_str());
            let (version, previous, total) = (change.version, change.previous, change.total);
            format!(
                "C{version} {previous} {kind} {total} {}\n{user}{name}",
                user.len()
            )
            .into_bytes()
        }
        BusEvent::StatusChanged(status) => {
            let (online, last_seen) = (
                u8::from(status.online),
                status.last_seen.map_or(0, |at| at.0),
            );
            let name = status.username.as_ref().map_or("", |name| name.as_str());
            format!(
                "S{} {} {online} {last_seen}\n{name}",
                status.version, status.previous
            )
            .into_bytes()
        }
        BusEvent::Typing(typing) => frame::encode_typing(typing).to_vec(),
        BusEvent::Receipt(receipt) => frame::encode_receipt(receipt).to_vec(),
        BusEvent::Disconnect(user) => frame::encode_disconnect(user).to_vec(),
    }
}

#[test]
fn fuzz_bus() {
    let seeds: &[&[u8]] = &[
        b"M7 abc 1000\n{\"a\":\"\\n\"}",
        b"X8 abc 1000\n{}",
        b"P8 abc 1000 2\n{}8 0 3 abc 900 O 0\n",
        b"C12 11 J 3 3\nannAnn",
        b"C12 0 L 0 3\nannAnn\n2",
        b"S5 4 1 1769853600000\nAnn",
        "T1 7\nann\u{1F980}Ann".as_bytes(),
        b"D\nann",
        b"r7\nann",
    ];
    let topics = [
        BusTopic::Nodes,
        BusTopic::Room(RoomId::trusted("lobby")),
        BusTopic::User(UserId::trusted("ann")),
    ];
    Target {
        name: "bus",
        seeds,
        words: &["\n", " ", "M", "C1 0 R 1 1\n", "\u{1F980}"],
        longest: 4096,
    }
    .run(|bytes| {
        let payload = Bytes::copy_from_slice(bytes);
        topics.each_ref().map(|topic| {
            let event = frame::decode(topic, &payload);
            if let Some(event) = &event {
                assert_eq!(
                    frame::decode(topic, &encode(event).into()).as_ref(),
                    Some(event)
                );
            }
            event.as_ref().map(std::mem::discriminant)
        })
    });
}

/// Reads a reply from text: words, with `#` before a number and parentheses around a list.
fn reply(text: &str) -> Value {
    let mut lists = vec![Vec::new()];
    for word in text.split_whitespace() {
        let value = match word.strip_prefix('#') {
            _ if word == "(" => {
                lists.push(Vec::new());
                continue;
            }
            _ if word == ")" && lists.len() > 1 => Value::Array(lists.pop().unwrap_or_default()),
            Some(number) => number.parse().map_or(Value::Null, Value::Integer),
            None if word == "null" => Value::Null,
            None if word == "true" => Value::Boolean(true),
            None if word.starts_with('%') => {
                Value::Bytes(Bytes::copy_from_slice(&[0xff, word.as_bytes()[0]]))
            }
            None => Value::String(word.into()),
        };
        if let Some(list) = lists.last_mut() {
            list.push(value);
        }
    }
    Value::Array(lists.into_iter().next().unwrap_or_default())
}

#[test]
fn fuzz_redis_replies() {
    let seeds: &[&[u8]] = &[
        b"e1 #7 #1 e0_5_e00_3 #6 e1 #1000 m {} #7 e1 #1000 x {} ",
        b"#3 #12 ann bob cid",
        b"1000 e1 #7 #8 e2 1_3f2504e0-4f89-11d3-9a0c-0305e82c3301_7_e1_1000",
        b"1000 e1 #7 !_refused e2 #9",
        b"1000 e1 #7 ? e2 #9",
        b"CLAIMED e1 7 5 e0_5 6 #1 6 7 e1 1000 m {} ",
        b"bG9iYnk 6 7 YXR0aWM 0 1",
        b"#13 ( ( 12-0 ( k J u ann n Ann t #1 p #11 ) ) ( 13-0 ( k L u ann n Ann t #0 p #12 ) ) )",
        b"null true %",
    ];
    let words = &[
        "( ", " )", " null ", " #", " #-1 ", " % ", "-0", " true ", "_",
    ];
    let ids = [vec![uuid::Uuid::nil(); 2], vec![uuid::Uuid::nil()]];
    Target {
        name: "redis_replies",
        seeds,
        words,
        longest: 4096,
    }
    .run(|bytes| {
        // Spaces inside a text of Redis are written as `_`, and replaced by no-break spaces here, at
        // which the text isn't split.
        let text = String::from_utf8_lossy(bytes).replace('_', "\u{a0}");
        let value = reply(&text);
        let given = || ScriptReply::new(value.clone());
        let mut entries = None;
        let mut rest = given();
        if let Ok(span) = parse_span(&mut rest, 1000) {
            assert!(span.past.len() * 3 <= text.len());
            entries = parse_entries(rest).ok();
        }
        let changes = parse_changes(given(), 11, parse_room_change);
        let roster = parse_roster(given());
        (
            entries.map(|entries| entries.len().min(3)),
            changes.is_ok(),
            roster.ok().map(|roster| roster.users.len().min(3)),
            parse_outcomes(given(), &ids).is_ok(),
            match parse_claim(given()) {
                Ok(Claim::Claimed(Some(hot))) => Some(hot.archived.len().min(3)),
                Ok(_) => Some(0),
                Err(_) => None,
            },
            parse_unarchived(given())
                .ok()
                .map(|rooms| rooms.len().min(3)),
        )
    });
}
