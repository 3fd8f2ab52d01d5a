//! Messages and their changes as the server sends them.

use std::collections::BTreeSet;

use anyhow::Context;
use serde_json::Value;

use super::fold::{Event, Shown, Tombstone};
use crate::history::changes::{FinalMessage, FinalThread, Reactions};

/// Reads an event. `None` if it changes no message.
///
/// # Errors
/// A field is missing.
pub fn event(name: &str, event: &Value) -> anyhow::Result<Option<Event>> {
    let seq = || number(event, "seq");
    let target = || number(event, "target_seq");
    Ok(Some(match name {
        "message" => Event::Shown(shown(event)?),
        "message_edited" => Event::Shown(shown(&event["message"])?),
        "message_deleted" => Event::Deleted(tombstone(event, target()?)?),
        "reactions_changed" => Event::Reactions {
            seq: seq()?,
            target: target()?,
            reactions: reactions(&event["reactions"])?,
        },
        "message_pinned" | "message_unpinned" => Event::Pinned {
            seq: seq()?,
            target: target()?,
            on: name == "message_pinned",
        },
        _ => return Ok(None),
    }))
}

/// The events that lead to the state that a message of a history shows.
///
/// # Errors
/// A field is missing.
pub fn listed(message: &Value) -> anyhow::Result<Vec<Event>> {
    let target = number(message, "seq")?;
    if message["deleted"] == true {
        return Ok(vec![Event::Deleted(tombstone(message, target)?)]);
    }
    let mut events = vec![Event::Shown(shown(message)?)];
    if let Some(seq) = message["reactions_seq"].as_u64() {
        let reactions = reactions(&message["reactions"])?;
        events.push(Event::Reactions {
            seq,
            target,
            reactions,
        });
    }
    if let Some(seq) = message["pinned_seq"].as_u64() {
        let on = message["pinned"] == true;
        events.push(Event::Pinned { seq, target, on });
    }
    Ok(events)
}

/// A message of a history, as the checker compares it.
///
/// # Errors
/// A field is missing.
pub fn final_message(message: &Value) -> anyhow::Result<FinalMessage> {
    let mut last = FinalMessage {
        seq: number(message, "seq")?,
        id: text(message, "id")?,
        user: text(message, "user_id")?,
        version: number(message, "version")?,
        thread_id: optional_text(message, "thread_id"),
        ..FinalMessage::default()
    };
    if message["deleted"] == true {
        last.deleted_by = Some(text(message, "deleted_by")?);
        last.content = optional_text(message, "content");
        return Ok(last);
    }
    last.content = Some(text(message, "content")?);
    last.edited_at = optional_text(message, "edited_at");
    last.pinned = message["pinned"] == true;
    last.pinned_seq = message["pinned_seq"].as_u64();
    if let Some(seq) = message["reactions_seq"].as_u64() {
        last.reactions_seq = Some(seq);
        last.reactions = reactions(&message["reactions"])?;
    }
    let thread = &message["thread"];
    if thread.is_object() {
        let participants: BTreeSet<String> = users(&thread["participants"]);
        last.thread = Some(FinalThread {
            replies: number(thread, "replies")?,
            last_seq: number(thread, "last_seq")?,
            participants,
        });
    }
    Ok(last)
}

fn shown(message: &Value) -> anyhow::Result<Shown> {
    Ok(Shown {
        id: text(message, "id")?,
        seq: number(message, "seq")?,
        user: text(message, "user_id")?,
        version: number(message, "version")?,
        content: text(message, "content")?,
        edited_at: optional_text(message, "edited_at"),
        thread_id: optional_text(message, "thread_id"),
    })
}

fn tombstone(event: &Value, seq: u64) -> anyhow::Result<Tombstone> {
    Ok(Tombstone {
        id: text(event, "id")?,
        seq,
        user: text(event, "user_id")?,
        version: number(event, "version")?,
        deleted_by: text(event, "deleted_by")?,
        thread_id: optional_text(event, "thread_id"),
    })
}

fn reactions(reactions: &Value) -> anyhow::Result<Reactions> {
    let mut by_emoji = Reactions::new();
    for reaction in reactions.as_array().context("no reactions")? {
        let users = users(&reaction["user_ids"]);
        let count = number(reaction, "count")?;
        anyhow::ensure!(count == users.len() as u64, "the count of {reaction}");
        by_emoji.insert(text(reaction, "emoji")?, users);
    }
    Ok(by_emoji)
}

fn users(ids: &Value) -> BTreeSet<String> {
    let ids = ids.as_array().into_iter().flatten();
    ids.filter_map(|id| Some(id.as_str()?.to_owned())).collect()
}

fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    let text = optional_text(value, field);
    text.with_context(|| format!("no {field}: {value}"))
}

fn optional_text(value: &Value, field: &str) -> Option<String> {
    value[field].as_str().map(str::to_owned)
}

fn number(value: &Value, field: &str) -> anyhow::Result<u64> {
    let number = value[field].as_u64();
    number.with_context(|| format!("no {field}: {value}"))
}

/// The milliseconds since 1970 of a time such as `2026-01-31T10:00:00.000Z`.
pub fn timestamp_millis(text: &str) -> Option<u64> {
    let field = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (field(0..4)?, field(5..7)?, field(8..10)?);
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days_since_1970 = days.checked_sub(719_468)?;
    let (hours, minutes, seconds) = (field(11..13)?, field(14..16)?, field(17..19)?);
    let seconds = ((days_since_1970 * 24 + hours) * 60 + minutes) * 60 + seconds;
    Some(seconds * 1000 + field(20..23)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fold::Room;
    use super::*;

    #[test]
    fn events_and_histories_lead_to_the_same_final_state() {
        let base = json!({"seq": 1, "id": "a", "user_id": "sue", "content": "x", "version": 7,
            "edited_at": "t"});
        let edited = json!({"seq": 7, "message": base.clone()});
        let reactions = json!([{"emoji": "+1", "count": 1, "user_ids": ["ann"]}]);
        let reacted = json!({"seq": 8, "target_seq": 1, "reactions": reactions});
        let unpinned = json!({"seq": 9, "target_seq": 1});
        let reply = json!({"seq": 2, "id": "b", "user_id": "bob", "content": "y", "version": 2,
            "thread_id": "a"});
        let deleted = json!({"seq": 10, "target_seq": 3, "id": "c", "user_id": "sue",
            "version": 10, "deleted_by": "eve"});
        let mut folded = Room::default();
        for (name, payload) in [
            ("message_edited", &edited),
            ("reactions_changed", &reacted),
            ("message_unpinned", &unpinned),
            ("message", &reply),
            ("message_deleted", &deleted),
        ] {
            folded.apply(event(name, payload).unwrap().unwrap());
        }
        let mut root = base;
        root["reactions"] = reactions;
        root["reactions_seq"] = 8.into();
        root["pinned"] = false.into();
        root["pinned_seq"] = 9.into();
        root["thread"] = json!({"replies": 1, "last_seq": 2, "participants": ["bob"]});
        let tombstone = json!({"seq": 3, "id": "c", "user_id": "sue", "version": 10,
            "deleted": true, "deleted_by": "eve"});
        let history = [root, reply, tombstone];
        let last: Vec<_> = history
            .iter()
            .map(|message| final_message(message).unwrap())
            .collect();
        assert_eq!(folded.final_messages(), last);
        let mut fetched = Room::default();
        for message in &history {
            for event in listed(message).unwrap() {
                fetched.apply(event);
            }
        }
        assert_eq!(fetched, folded);
    }

    #[test]
    fn content_behind_a_tombstone_is_not_overlooked() {
        let message = json!({"seq": 3, "id": "c", "user_id": "sue", "version": 10,
            "deleted": true, "deleted_by": "eve", "content": "secret"});
        assert!(final_message(&message).unwrap().content.is_some());
    }

    #[test]
    fn a_timestamp_is_read_to_the_millisecond() {
        assert_eq!(timestamp_millis("1970-01-01T00:00:00.000Z"), Some(0));
        let text = "2026-01-31T10:00:01.250Z";
        assert_eq!(timestamp_millis(text), Some(1_769_853_601_250));
        assert_eq!(timestamp_millis("never"), None);
    }
}
