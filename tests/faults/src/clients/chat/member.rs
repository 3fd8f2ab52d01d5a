//! A client of a user with an account. It joins the rooms of all chats that it knows, as often as it is
//! allowed to, sends messages there, and records everything that it receives.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::account::Account;
use crate::clients::connection::{Connection, Packet};
use crate::history::chats::{ChatEvent, ChatFact, feed_of, room_of};
use crate::history::{Fact, Recorder};

const TICK: Duration = Duration::from_millis(100);
/// A refused join is repeated after this time.
const JOIN_DELAY: Duration = Duration::from_millis(300);
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
const RECONNECT_MILLIS: std::ops::Range<u64> = 200..1000;

pub struct MemberConfig {
    /// Unique in the run.
    pub name: String,
    pub account: Account,
    pub addresses: Vec<SocketAddr>,
    pub home_node: usize,
    /// The chats that it knows from the start. It hears of others in its feed.
    pub chats: Vec<String>,
    /// It remains a member of these chats, and resumes their rooms.
    pub stays: bool,
    /// The mean time between two messages.
    pub send_interval: Duration,
}

/// By chat: the epoch and the number of the last event of its room.
type Positions = BTreeMap<String, (Option<String>, u64)>;

/// A running client. Dropping it ends its task.
pub struct Member {
    pub name: String,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    joined: BTreeMap<String, bool>,
    positions: Positions,
    has_unacknowledged: bool,
}

impl Member {
    /// Starts a client. It sends messages while `sending` is true.
    pub fn start(
        config: MemberConfig,
        seed: u64,
        recorder: Recorder,
        sending: watch::Receiver<bool>,
    ) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let task = MemberTask {
            rng: ChaCha8Rng::seed_from_u64(seed),
            recorder,
            sending,
            state: state.clone(),
            known: config.chats.clone(),
            unacknowledged: None,
            sent: 0,
            config,
        };
        Self {
            name: task.config.name.clone(),
            state,
            task: tokio::spawn(task.run()),
        }
    }

    /// Whether it is in the rooms of all these chats.
    pub fn has_joined(&self, chats: &[String]) -> bool {
        let state = self.state.lock();
        chats
            .iter()
            .all(|chat| state.joined.get(chat) == Some(&true))
    }

    /// The number of the last event of the chat's room.
    pub fn position(&self, chat: &str) -> u64 {
        let state = self.state.lock();
        state.positions.get(chat).map_or(0, |(_, seq)| *seq)
    }

    pub fn has_unacknowledged(&self) -> bool {
        self.state.lock().has_unacknowledged
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct MemberTask {
    config: MemberConfig,
    rng: ChaCha8Rng,
    recorder: Recorder,
    sending: watch::Receiver<bool>,
    state: Arc<Mutex<State>>,
    /// The chats that it tries to join.
    known: Vec<String>,
    /// The chat and the `client_msg_id` of the last message, while it isn't acknowledged.
    unacknowledged: Option<(String, String)>,
    sent: u64,
}

enum Request {
    Authenticate,
    /// The position from which it asked to resume.
    Join(String, Option<u64>),
    /// The message with this `client_msg_id`.
    Send(String),
}

struct Session {
    connection: Connection,
    last_request: u64,
    pending: HashMap<u64, Request>,
    authenticated: bool,
    /// By chat: when the next join may be tried. `None` while one is pending, or has succeeded.
    join_at: BTreeMap<String, Option<Instant>>,
    resend_at: Option<Instant>,
    next_message_at: Instant,
}

impl MemberTask {
    async fn run(mut self) {
        let mut address = self.config.home_node;
        loop {
            let target = self.config.addresses[address % self.config.addresses.len()];
            let token = &self.config.account.token;
            if let Ok(connection) = Connection::open_with_token(target, token).await {
                let _ = self.serve(connection).await;
            }
            for joined in self.state.lock().joined.values_mut() {
                *joined = false;
            }
            address += 1;
            let millis = self.rng.random_range(RECONNECT_MILLIS);
            sleep(Duration::from_millis(millis)).await;
        }
    }

    fn record(&self, fact: ChatFact) {
        self.recorder.record(&self.config.name, Fact::Chat(fact));
    }

    /// Serves a connection until it ends.
    async fn serve(&mut self, connection: Connection) -> anyhow::Result<()> {
        let mut session = Session {
            connection,
            last_request: 0,
            pending: HashMap::new(),
            authenticated: false,
            join_at: BTreeMap::new(),
            resend_at: None,
            next_message_at: Instant::now() + self.next_interval(),
        };
        self.request(
            &mut session,
            "authenticate",
            &json!({}),
            Request::Authenticate,
        )
        .await?;
        let mut tick = Instant::now() + TICK;
        loop {
            tokio::select! {
                packet = session.connection.next() => match packet? {
                    Packet::Ack(id, answer) => {
                        if let Some(request) = session.pending.remove(&id) {
                            self.handle_answer(&mut session, request, &answer)?;
                        }
                    }
                    Packet::Event(name, payload) => {
                        let event = serde_json::from_str(payload.get())?;
                        self.handle_event(&mut session, &name, &event);
                    }
                    Packet::Disconnect => anyhow::bail!("disconnected"),
                },
                () = sleep_until(tick) => {
                    tick = Instant::now() + TICK;
                    if session.authenticated {
                        self.join_due(&mut session).await?;
                        self.send_due(&mut session).await?;
                    }
                }
            }
        }
    }

    async fn request(
        &self,
        session: &mut Session,
        event: &str,
        payload: &Value,
        request: Request,
    ) -> anyhow::Result<()> {
        session.last_request += 1;
        let id = session.last_request;
        session.pending.insert(id, request);
        session.connection.emit(id, event, payload).await
    }

    async fn join_due(&mut self, session: &mut Session) -> anyhow::Result<()> {
        let now = Instant::now();
        for chat in self.known.clone() {
            let due = session.join_at.entry(chat.clone()).or_insert(Some(now));
            if due.is_none_or(|due| due > now) {
                continue;
            }
            *due = None;
            let mut payload = json!({"room_id": room_of(&chat)});
            let mut since = None;
            if self.config.stays {
                let position = self.state.lock().positions.get(&chat).cloned();
                let (epoch, seq) = position.unwrap_or((None, 0));
                payload["since_seq"] = seq.into();
                if let Some(epoch) = epoch {
                    payload["epoch"] = epoch.into();
                }
                since = Some(seq);
            }
            self.request(session, "join", &payload, Request::Join(chat, since))
                .await?;
        }
        Ok(())
    }

    async fn send_due(&mut self, session: &mut Session) -> anyhow::Result<()> {
        let now = Instant::now();
        if self.unacknowledged.is_none() {
            if !*self.sending.borrow() || session.next_message_at > now {
                return Ok(());
            }
            session.next_message_at = now + self.next_interval();
            let joined = self.joined_chats();
            let Some(chat) = joined.into_iter().choose(&mut self.rng) else {
                return Ok(());
            };
            self.sent += 1;
            let msg = format!("{}-{}", self.config.name, self.sent);
            self.set_unacknowledged(Some((chat, msg)));
        } else if session.resend_at.is_some_and(|at| at > now) {
            return Ok(());
        }
        let Some((chat, msg)) = self.unacknowledged.clone() else {
            return Ok(());
        };
        if !self.joined_chats().contains(&chat) {
            // A removed member doesn't try again. The message may have been stored.
            if !self.config.stays {
                self.set_unacknowledged(None);
            }
            return Ok(());
        }
        session.resend_at = Some(now + ACK_TIMEOUT);
        let room = room_of(&chat);
        let payload = json!({"room_id": room, "content": msg, "client_msg_id": msg});
        self.record(ChatFact::Sent {
            room,
            msg: msg.clone(),
        });
        self.request(session, "message", &payload, Request::Send(msg))
            .await
    }

    fn joined_chats(&self) -> Vec<String> {
        let state = self.state.lock();
        let joined = state.joined.iter().filter(|(_, joined)| **joined);
        joined.map(|(chat, _)| chat.clone()).collect()
    }

    fn set_unacknowledged(&mut self, message: Option<(String, String)>) {
        self.state.lock().has_unacknowledged = message.is_some();
        self.unacknowledged = message;
    }

    fn next_interval(&mut self) -> Duration {
        let factor = self.rng.random_range(0.5..1.5);
        self.config.send_interval.mul_f64(factor)
    }

    fn handle_answer(
        &mut self,
        session: &mut Session,
        request: Request,
        answer: &Value,
    ) -> anyhow::Result<()> {
        let is_ok = answer["ok"] == true;
        match request {
            Request::Authenticate => {
                anyhow::ensure!(is_ok, "authenticate was refused: {answer}");
                session.authenticated = true;
            }
            Request::Join(chat, since) if is_ok => {
                let number = |field: &str| answer[field].as_u64().unwrap_or_default();
                let position = match since {
                    Some(since) if answer["recovered"] == true => since,
                    _ => number("seq") - number("replayed").min(number("seq")),
                };
                let epoch = answer["epoch"].as_str().map(str::to_owned);
                let mut state = self.state.lock();
                state.joined.insert(chat.clone(), true);
                state.positions.insert(chat.clone(), (epoch, position));
                drop(state);
                self.record(ChatFact::Joined {
                    chat,
                    user: self.config.account.id.clone(),
                    position,
                    gap: answer["gap"] == true,
                });
            }
            Request::Join(chat, _) => {
                session
                    .join_at
                    .insert(chat, Some(Instant::now() + JOIN_DELAY));
            }
            Request::Send(msg) => self.handle_sent(session, &msg, answer),
        }
        Ok(())
    }

    fn handle_sent(&mut self, session: &mut Session, sent: &str, answer: &Value) {
        let Some((chat, msg)) = self.unacknowledged.clone() else {
            return;
        };
        if msg != sent {
            return;
        }
        if answer["ok"] == true {
            self.record(ChatFact::Acked {
                room: room_of(&chat),
                msg,
                seq: answer["seq"].as_u64().unwrap_or_default(),
            });
            self.set_unacknowledged(None);
        } else if answer["retry_after_ms"].is_u64() || self.config.stays {
            session.resend_at = Some(Instant::now() + JOIN_DELAY);
        } else {
            self.set_unacknowledged(None);
        }
    }

    /// The `exception` that follows a removal is ignored: it may come after the client has joined again.
    fn handle_event(&mut self, session: &mut Session, name: &str, event: &Value) {
        let room = event["room_id"].as_str().unwrap_or_default();
        let chat = room.strip_prefix("chat:");
        let (Some(seq), Some(parsed)) = (event["seq"].as_u64(), ChatEvent::of(name, event)) else {
            return;
        };
        let user = self.config.account.id.clone();
        if let Some(chat) = chat {
            let mut state = self.state.lock();
            let epoch = event["epoch"].as_str().map(str::to_owned);
            state.positions.insert(chat.to_owned(), (epoch, seq));
        }
        self.record(ChatFact::Received {
            room: room.to_owned(),
            user: user.clone(),
            seq,
            event: parsed.clone(),
        });
        match (parsed, chat) {
            (ChatEvent::MemberRemoved { user: removed, .. }, Some(chat)) if removed == user => {
                self.leave(session, chat);
            }
            (ChatEvent::MemberAdded { chat, .. }, None)
                if room == feed_of(&user) && !self.known.contains(&chat) =>
            {
                self.known.push(chat);
            }
            (ChatEvent::MemberRemoved { chat, .. }, None)
                if room == feed_of(&user) && !self.config.chats.contains(&chat) =>
            {
                self.known.retain(|known| *known != chat);
            }
            _ => {}
        }
    }

    /// The client is out of the room of the chat.
    fn leave(&mut self, session: &mut Session, chat: &str) {
        self.state.lock().joined.insert(chat.to_owned(), false);
        session
            .join_at
            .insert(chat.to_owned(), Some(Instant::now() + JOIN_DELAY));
    }
}
