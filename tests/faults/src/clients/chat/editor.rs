//! Makes changes over REST, at random nodes. Each change is repeated until it is answered.

use std::net::SocketAddr;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::account::{Account, Answer};
use crate::history::chats::{ChatFact, Wanted};
use crate::history::{Fact, Recorder};

const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Makes changes, one after another.
pub struct Editor {
    /// Unique in the run.
    name: String,
    pub addresses: Vec<SocketAddr>,
    pub recorder: Recorder,
    pub rng: ChaCha8Rng,
    /// A change without an answer is given up after this time.
    timeout: Duration,
    changes: u64,
}

impl Editor {
    pub fn new(
        name: &str,
        addresses: Vec<SocketAddr>,
        recorder: Recorder,
        seed: u64,
        timeout: Duration,
    ) -> Self {
        Self {
            name: name.to_owned(),
            addresses,
            recorder,
            rng: ChaCha8Rng::seed_from_u64(seed),
            timeout,
            changes: 0,
        }
    }

    pub fn record(&self, fact: ChatFact) {
        self.recorder.record(&self.name, Fact::Chat(fact));
    }

    /// A name that no other chat of the run has, or had.
    pub fn new_title(&self) -> String {
        format!("title-{}-{}", self.name, self.changes + 1)
    }

    /// Makes a change in the name of a user. Returns the id of the chat, or `None` if the change was
    /// refused or given up: then it is unknown whether it took effect.
    pub async fn perform(&mut self, actor: &Account, wanted: Wanted) -> Option<String> {
        self.changes += 1;
        let change = format!("{}-{}", self.name, self.changes);
        let deadline = Instant::now() + self.timeout;
        for attempt in 0.. {
            // Recorded first: the checker must know of every change that a node may have made.
            self.record(ChatFact::ChangeAttempted {
                change: change.clone(),
                wanted: wanted.clone(),
            });
            let address = self.addresses[self.rng.random_range(0..self.addresses.len())];
            let answer = attempt_change(actor, address, &change, &wanted).await;
            if let Some(chat) = acknowledged_chat(&answer, &wanted, attempt) {
                self.record(ChatFact::ChangeAcked {
                    change,
                    chat: chat.clone(),
                });
                return Some(chat);
            }
            if !answer.is_temporary() {
                let status = answer.status;
                self.record(ChatFact::ChangeRefused { change, status });
                return None;
            }
            if Instant::now() > deadline {
                return None;
            }
            sleep(RETRY_DELAY).await;
        }
        None
    }
}

/// The id of the chat if the answer acknowledges the change. A removal that is repeated finds nothing
/// to remove if an earlier attempt took effect.
fn acknowledged_chat(answer: &Answer, wanted: &Wanted, attempt: u32) -> Option<String> {
    let is_success = matches!(answer.status, 200 | 201);
    match wanted {
        Wanted::Open { .. } if is_success => answer.body["id"].as_str().map(str::to_owned),
        Wanted::Open { .. } => None,
        Wanted::Remove { chat, .. } | Wanted::Delete { chat, .. } => {
            let is_repeated = answer.status == 404 && attempt > 0;
            (is_success || is_repeated).then(|| chat.clone())
        }
        Wanted::Rename { chat, .. } | Wanted::Add { chat, .. } | Wanted::SetRole { chat, .. } => {
            is_success.then(|| chat.clone())
        }
    }
}

async fn attempt_change(
    actor: &Account,
    address: SocketAddr,
    change: &str,
    wanted: &Wanted,
) -> Answer {
    let chats = "/api/v1/chats";
    let (method, path, body) = match wanted {
        Wanted::Open { name, users } => {
            let body = json!({"user_ids": users[1..], "name": name});
            (Method::POST, chats.to_owned(), Some(body))
        }
        Wanted::Rename { chat, name } => {
            let body = json!({"name": name});
            (Method::PATCH, format!("{chats}/{chat}"), Some(body))
        }
        Wanted::Add { chat, user, role } => {
            let body = json!({"user_id": user, "role": role.as_str()});
            (Method::POST, format!("{chats}/{chat}/members"), Some(body))
        }
        Wanted::SetRole { chat, user, role } => {
            let path = format!("{chats}/{chat}/members/{user}");
            (Method::PATCH, path, Some(json!({"role": role.as_str()})))
        }
        Wanted::Remove { chat, user } => {
            let path = format!("{chats}/{chat}/members/{user}");
            (Method::DELETE, path, None)
        }
        Wanted::Delete { chat, .. } => (Method::DELETE, format!("{chats}/{chat}"), None),
    };
    let key = (method == Method::POST).then_some(change);
    actor
        .request(method, address, &path, key, body.as_ref())
        .await
}
