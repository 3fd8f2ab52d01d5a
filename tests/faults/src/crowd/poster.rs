//! A backend service that posts messages over REST, and repeats each under the same key until it is acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Standing;
use crate::history::{Fact, History};

/// A running poster.
pub struct Poster {
    pub standing: Arc<Standing>,
    /// How often which status was answered; 0 is no answer at all.
    statuses: Arc<Mutex<BTreeMap<u16, u64>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Poster {
    /// Posts to the rooms in turn, a message each `pace` while `loud` is true, to the doors in turn after a failure.
    pub fn start(
        name: &str,
        rooms: Vec<String>,
        doors: Vec<std::net::SocketAddr>,
        pace: Duration,
        history: History,
        loud: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .build()?;
        let (standing, statuses) = (
            Arc::new(Standing::default()),
            Arc::new(Mutex::new(BTreeMap::new())),
        );
        let work = Work {
            name: name.to_owned(),
            rooms,
            doors,
            pace,
            history,
            http,
            standing: standing.clone(),
            statuses: statuses.clone(),
        };
        Ok(Self {
            standing,
            statuses,
            task: tokio::spawn(work.run(loud)),
        })
    }

    /// How often which status was answered; 0 is no answer at all.
    pub fn statuses(&self) -> BTreeMap<u16, u64> {
        self.statuses.lock().clone()
    }
}

impl Drop for Poster {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Work {
    name: String,
    rooms: Vec<String>,
    doors: Vec<std::net::SocketAddr>,
    pace: Duration,
    history: History,
    http: reqwest::Client,
    standing: Arc<Standing>,
    statuses: Arc<Mutex<BTreeMap<u16, u64>>>,
}

impl Work {
    async fn run(self, mut loud: watch::Receiver<bool>) {
        use std::sync::atomic::Ordering::SeqCst;
        let mut door = 0;
        for number in 1u64.. {
            tokio::time::sleep(self.pace).await;
            if loud.wait_for(|loud| *loud).await.is_err() {
                return;
            }
            let msg = format!("{}-{number}", self.name);
            let room = self.rooms[usize::try_from(number).unwrap_or(0) % self.rooms.len()].clone();
            self.standing.unanswered.store(1, SeqCst);
            while !self
                .post(&room, &msg, self.doors[door % self.doors.len()])
                .await
            {
                door += 1;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            self.standing.unanswered.store(0, SeqCst);
        }
    }

    /// One attempt; whether it is settled.
    async fn post(&self, room: &str, msg: &str, door: std::net::SocketAddr) -> bool {
        let body = json!({"room_id": room, "user_id": self.name, "content": self.history.micros().to_string()});
        self.history.write(
            &self.name,
            Fact::Sent {
                room: room.to_owned(),
                msg: msg.to_owned(),
            },
        );
        let request = self
            .http
            .post(format!("http://{door}/messages"))
            .header("idempotency-key", msg)
            .json(&body);
        let (status, answer) = match request.send().await {
            Ok(answer) => (
                answer.status().as_u16(),
                answer.json::<Value>().await.unwrap_or_default(),
            ),
            Err(_) => (0, Value::Null),
        };
        *self.statuses.lock().entry(status).or_default() += 1;
        let (room, msg) = (room.to_owned(), msg.to_owned());
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let fact = match (status, answer["seq"].as_u64()) {
            (200 | 201, Some(seq)) => {
                let (id, epoch, duplicate) =
                    (text("id"), text("epoch"), answer["duplicate"] == true);
                Fact::Acked {
                    room,
                    msg,
                    id,
                    epoch,
                    seq,
                    duplicate,
                }
            }
            _ => Fact::Refused {
                room,
                msg,
                code: format!("{status} {}", text("code")),
            },
        };
        let settled = matches!(fact, Fact::Acked { .. });
        self.history.write(&self.name, fact);
        settled
    }
}
