//! One attempt to change a message: as an event for the socket or as a request over REST, and the meaning
//! of the answer.

use reqwest::Method;
use serde_json::{Value, json};

use crate::clients::chat::Answer;
use crate::history::changes::MessageChange;

/// Codes of refusals that a repeat may not meet. `not_in_room`: the reader has not joined again yet.
const TEMPORARY: [&str; 4] = ["unavailable", "rate_limited", "overloaded", "not_in_room"];

/// A change of a message that is known by number and id. The id is empty for a new message.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub room: String,
    pub target: u64,
    pub id: String,
    pub change: MessageChange,
    /// The `client_msg_id` of a new message.
    pub send_key: String,
}

/// The meaning of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The number of the message, and that of its change; 0 if the answer doesn't tell it.
    Acked {
        target: u64,
        seq: u64,
    },
    Refused(String),
    /// The answer tells nothing for good, or there is none.
    Unknown,
}

impl Wanted {
    /// The event for the socket.
    pub fn event(&self) -> (&'static str, Value) {
        let (room, id) = (&self.room, &self.id);
        match &self.change {
            MessageChange::Send { content, thread } => {
                let key = &self.send_key;
                let mut message =
                    json!({"room_id": room, "content": content, "client_msg_id": key});
                if let Some(thread) = thread {
                    message["thread_id"] = thread.as_str().into();
                }
                ("message", message)
            }
            MessageChange::Edit { content, condition } => {
                let mut edit = json!({"room_id": room, "id": id, "content": content});
                if let Some(version) = condition {
                    edit["version"] = (*version).into();
                }
                ("edit_message", edit)
            }
            MessageChange::Delete => ("delete_message", json!({"room_id": room, "id": id})),
            MessageChange::React { emoji, on, .. } => (
                "react",
                json!({"room_id": room, "id": id, "emoji": emoji, "on": on}),
            ),
            MessageChange::Pin { on } => {
                let event = if *on { "pin_message" } else { "unpin_message" };
                (event, json!({"room_id": room, "id": id}))
            }
        }
    }

    /// Method, path and body of the request over REST.
    pub fn request(&self) -> (Method, String, Option<Value>) {
        let room = format!("/api/v1/rooms/{}", self.room);
        let message = format!("{room}/messages/{}", self.id);
        let put_or_delete = |on| if on { Method::PUT } else { Method::DELETE };
        match &self.change {
            MessageChange::Send { .. } => {
                let (_, message) = self.event();
                (Method::POST, format!("{room}/messages"), Some(message))
            }
            MessageChange::Edit { .. } => {
                let (_, edit) = self.event();
                (Method::PATCH, message, Some(edit))
            }
            MessageChange::Delete => (Method::DELETE, message, None),
            MessageChange::React { emoji, on, .. } => {
                let path = format!("{message}/reactions/{emoji}/me");
                (put_or_delete(*on), path, None)
            }
            MessageChange::Pin { on } => {
                let path = format!("{room}/pins/{}", self.id);
                (put_or_delete(*on), path, None)
            }
        }
    }

    /// The meaning of the acknowledgement of the event.
    pub fn outcome_of_ack(&self, answer: &Value) -> Outcome {
        if answer["ok"] == true {
            return self.acked(answer["seq"].as_u64().unwrap_or_default());
        }
        refused(&answer["code"])
    }

    /// The meaning of an answer over REST.
    pub fn outcome_of_answer(&self, answer: &Answer) -> Outcome {
        if !matches!(answer.status, 200 | 201) {
            return refused(&answer.body["code"]);
        }
        let seq = match &self.change {
            // The answer is the message as it is now, perhaps with the text of a later edit.
            MessageChange::Edit { content, .. } if answer.body["content"] != content.as_str() => {
                &Value::Null
            }
            MessageChange::Edit { .. } => &answer.body["version"],
            _ => &answer.body["seq"],
        };
        self.acked(seq.as_u64().unwrap_or_default())
    }

    fn acked(&self, seq: u64) -> Outcome {
        match self.change {
            MessageChange::Send { .. } => Outcome::Acked { target: seq, seq },
            // Reactions are announced later.
            MessageChange::React { .. } => Outcome::Acked {
                target: self.target,
                seq: 0,
            },
            MessageChange::Edit { .. } | MessageChange::Delete | MessageChange::Pin { .. } => {
                Outcome::Acked {
                    target: self.target,
                    seq,
                }
            }
        }
    }
}

fn refused(code: &Value) -> Outcome {
    match code.as_str() {
        Some(code) if !TEMPORARY.contains(&code) => Outcome::Refused(code.to_owned()),
        _ => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit() -> Wanted {
        Wanted {
            room: "r".into(),
            target: 3,
            id: "i".into(),
            change: MessageChange::Edit {
                content: "x".into(),
                condition: Some(3),
            },
            send_key: String::new(),
        }
    }

    #[test]
    fn an_edit_without_its_text_in_the_answer_has_no_known_number() {
        let outcome = |content: &str| {
            let body = json!({"seq": 3, "version": 8, "content": content});
            edit().outcome_of_answer(&Answer { status: 200, body })
        };
        let acked = |seq| Outcome::Acked { target: 3, seq };
        assert_eq!(outcome("x"), acked(8));
        assert_eq!(outcome("later"), acked(0));
    }

    #[test]
    fn a_refusal_is_final_unless_a_repeat_may_help() {
        let outcome = |code: &str| edit().outcome_of_ack(&json!({"ok": false, "code": code}));
        assert_eq!(outcome("conflict"), Outcome::Refused("conflict".into()));
        assert_eq!(outcome("unavailable"), Outcome::Unknown);
        let no_answer = Answer {
            status: 0,
            body: Value::Null,
        };
        assert_eq!(edit().outcome_of_answer(&no_answer), Outcome::Unknown);
    }
}
