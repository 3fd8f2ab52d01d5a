//! The requests of a client, and the answers to them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::task::{ClientTask, Session};
use crate::history::{Fact, Position};

/// A refused join or subscription is repeated after this time, unless the answer says otherwise.
const DEFAULT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// A request that is answered by an acknowledgement.
pub(super) enum Request {
    Authenticate,
    /// Joins a room, and resumes from the position, if there is one.
    Join(String, Option<Position>),
    /// Watches a user's status.
    Watch(String),
    /// Sends the message with this `client_msg_id` and this content.
    Send(String, String),
}

impl ClientTask {
    pub async fn request(&mut self, session: &mut Session, request: Request) -> anyhow::Result<()> {
        let (event, payload) = match &request {
            Request::Authenticate => ("authenticate", json!({"user_id": self.config.user})),
            Request::Join(room, None) => ("join", json!({"room_id": room})),
            Request::Join(room, Some(since)) => (
                "join",
                json!({"room_id": room, "since_seq": since.seq, "epoch": since.epoch}),
            ),
            Request::Watch(target) => ("subscribe_status", json!({"target_user_id": target})),
            Request::Send(msg, content) => {
                let Some(message) = self.unsent.front() else {
                    return Ok(());
                };
                (
                    "message",
                    json!({"room_id": message.room, "content": content, "client_msg_id": msg}),
                )
            }
        };
        session.last_request_id += 1;
        let id = session.last_request_id;
        session.connection.emit(id, event, &payload).await?;
        session.pending.insert(id, request);
        Ok(())
    }

    /// Handles the answer to a request.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub async fn handle_answer(
        &mut self,
        session: &mut Session,
        request: Request,
        answer: &Value,
    ) -> anyhow::Result<()> {
        if answer["ok"] != true {
            return self.handle_refusal(session, request, answer);
        }
        match request {
            Request::Authenticate => self.handle_authenticated(session).await?,
            Request::Join(room, since) => self.handle_joined(session, room, since, answer),
            Request::Watch(target) => {
                self.record(Fact::Watching {
                    target,
                    online: answer["is_online"] == true,
                    version: number(answer, "version"),
                });
                self.state.pending_requests.fetch_sub(1, Ordering::SeqCst);
            }
            Request::Send(msg, _) => {
                self.record(Fact::Acked {
                    room: text(answer, "room_id"),
                    msg: msg.clone(),
                    id: text(answer, "id"),
                    epoch: text(answer, "epoch"),
                    seq: number(answer, "seq"),
                    duplicate: answer["duplicate"] == true,
                });
                self.remove_unsent(session, &msg);
            }
        }
        Ok(())
    }

    async fn handle_authenticated(&mut self, session: &mut Session) -> anyhow::Result<()> {
        session.authenticated = true;
        self.record(Fact::Connected {
            user: self.config.user.clone(),
        });
        let requests = self.config.rooms.len() + self.config.watches.len();
        self.state
            .pending_requests
            .store(requests, Ordering::SeqCst);
        self.state.connected.store(true, Ordering::SeqCst);
        for room in self.config.rooms.clone() {
            let since = self.state.positions.lock().get(&room).cloned();
            self.request(session, Request::Join(room, since)).await?;
        }
        for target in self.config.watches.clone() {
            self.request(session, Request::Watch(target)).await?;
        }
        Ok(())
    }

    fn handle_joined(
        &mut self,
        session: &mut Session,
        room: String,
        since: Option<Position>,
        answer: &Value,
    ) {
        let epoch = text(answer, "epoch");
        let seq = number(answer, "seq");
        let replayed = number(answer, "replayed");
        let recovered = answer["recovered"] == true;
        let position = Position {
            epoch: epoch.clone(),
            seq: match &since {
                Some(since) if recovered => since.seq,
                _ => seq.saturating_sub(replayed),
            },
        };
        self.state.positions.lock().insert(room.clone(), position);
        session.joined.insert(room.clone());
        self.record(Fact::Joined {
            room,
            since,
            epoch,
            seq,
            recovered,
            gap: answer["gap"] == true,
            replayed,
        });
        self.state.pending_requests.fetch_sub(1, Ordering::SeqCst);
    }

    fn handle_refusal(
        &mut self,
        session: &mut Session,
        request: Request,
        answer: &Value,
    ) -> anyhow::Result<()> {
        let code = answer["code"].as_str().unwrap_or("none");
        let delay = answer["retry_after_ms"].as_u64().map(Duration::from_millis);
        match request {
            Request::Authenticate => bail!("authenticate was refused: {code}"),
            Request::Send(msg, _) => {
                let room = self.unsent.front().map(|message| message.room.clone());
                self.record(Fact::Refused {
                    room: room.unwrap_or_default(),
                    msg: msg.clone(),
                    code: code.to_owned(),
                });
                match delay {
                    Some(delay) => {
                        session.resend_at = None;
                        session.not_before = Instant::now() + delay;
                    }
                    None if code == "not_in_room" => session.resend_at = None,
                    None => self.remove_unsent(session, &msg),
                }
            }
            Request::Join(..) | Request::Watch(_) => {
                let retry_at = Instant::now() + delay.unwrap_or(DEFAULT_RETRY_DELAY);
                session.deferred.push((retry_at, request));
            }
        }
        Ok(())
    }

    /// The message needs no further attempt.
    fn remove_unsent(&mut self, session: &mut Session, msg: &str) {
        // An answer that comes after the timeout may belong to a message that isn't the first one
        // any more.
        if self.unsent.front().is_some_and(|first| first.msg == msg) {
            self.unsent.pop_front();
            session.resend_at = None;
        }
        self.update_unacknowledged();
    }
}

fn text(answer: &Value, field: &str) -> String {
    answer[field].as_str().unwrap_or_default().to_owned()
}

fn number(answer: &Value, field: &str) -> u64 {
    answer[field].as_u64().unwrap_or_default()
}
