//! A backend service that posts messages over REST. It repeats each message with the same
//! idempotency key until it is acknowledged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::ClientState;
use crate::history::{Fact, Recorder, digest};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_DELAY: Duration = Duration::from_millis(300);

/// By HTTP status: the number of responses. Requests without a response count as status 0.
type StatusCounts = BTreeMap<u16, u64>;

/// A running poster. Dropping it ends its task.
pub struct RestPoster {
    pub state: Arc<ClientState>,
    statuses: Arc<Mutex<StatusCounts>>,
    task: tokio::task::JoinHandle<()>,
}

impl RestPoster {
    /// Starts a poster that posts to the rooms in turn, one message per `interval` while `sending`
    /// is true. After a failure it uses the next address.
    pub fn start(
        name: &str,
        rooms: Vec<String>,
        addresses: Vec<SocketAddr>,
        interval: Duration,
        recorder: Recorder,
        sending: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .build()?;
        let state = Arc::new(ClientState::default());
        let statuses = Arc::new(Mutex::new(StatusCounts::new()));
        let task = PosterTask {
            name: name.to_owned(),
            rooms,
            addresses,
            interval,
            recorder,
            http,
            state: state.clone(),
            statuses: statuses.clone(),
        };
        Ok(Self {
            state,
            statuses,
            task: tokio::spawn(task.run(sending)),
        })
    }

    /// By HTTP status: the number of responses. Requests without a response count as status 0.
    pub fn statuses(&self) -> BTreeMap<u16, u64> {
        self.statuses.lock().clone()
    }
}

impl Drop for RestPoster {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct PosterTask {
    name: String,
    rooms: Vec<String>,
    addresses: Vec<SocketAddr>,
    interval: Duration,
    recorder: Recorder,
    http: reqwest::Client,
    state: Arc<ClientState>,
    statuses: Arc<Mutex<StatusCounts>>,
}

impl PosterTask {
    async fn run(self, mut sending: watch::Receiver<bool>) {
        let mut failures = 0;
        for number in 1u64.. {
            tokio::time::sleep(self.interval).await;
            if sending.wait_for(|sending| *sending).await.is_err() {
                return;
            }
            let msg = format!("{}-{number}", self.name);
            let room = &self.rooms[usize::try_from(number).unwrap_or(0) % self.rooms.len()];
            self.state.unacknowledged.store(1, Ordering::SeqCst);
            loop {
                let address = self.addresses[failures % self.addresses.len()];
                if self.post(room, &msg, address).await {
                    break;
                }
                failures += 1;
                tokio::time::sleep(RETRY_DELAY).await;
            }
            self.state.unacknowledged.store(0, Ordering::SeqCst);
        }
    }

    /// Makes one attempt. Returns whether the message is acknowledged.
    async fn post(&self, room: &str, msg: &str, address: SocketAddr) -> bool {
        let content = self.recorder.elapsed_micros().to_string();
        let body = json!({"room_id": room, "user_id": self.name, "content": content});
        let room = room.to_owned();
        let msg = msg.to_owned();
        self.recorder.record(
            &self.name,
            Fact::Sent {
                room: room.clone(),
                msg: msg.clone(),
                content: Some(digest(&content)),
            },
        );
        let request = self
            .http
            .post(format!("http://{address}/messages"))
            .header("idempotency-key", &msg)
            .json(&body);
        let (status, answer) = match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                (status, response.json::<Value>().await.unwrap_or_default())
            }
            Err(_) => (0, Value::Null),
        };
        *self.statuses.lock().entry(status).or_default() += 1;
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        if let (200 | 201, Some(seq)) = (status, answer["seq"].as_u64()) {
            let acked = Fact::Acked {
                room,
                msg,
                id: text("id"),
                epoch: text("epoch"),
                seq,
                duplicate: answer["duplicate"] == true,
            };
            self.recorder.record(&self.name, acked);
            return true;
        }
        let refused = Fact::Refused {
            room,
            msg,
            code: format!("{status} {}", text("code")),
        };
        self.recorder.record(&self.name, refused);
        false
    }
}
