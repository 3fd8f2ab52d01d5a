//! A client as the protocol's documentation asks for one: it comes back by itself, resumes each room at the last message
//! that it saw, and repeats a message under the same name until it is acknowledged.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::link::{Link, Packet};
use super::{Latencies, Standing};
use crate::history::{Fact, History, Position};

/// What a client is to do.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Unique in the run.
    pub name: String,
    /// Several clients may be one user.
    pub user: String,
    pub rooms: Vec<String>,
    /// Users whose status it watches.
    pub watches: Vec<String>,
    /// Where it may connect; after a loss it takes the next one.
    pub doors: Vec<SocketAddr>,
    /// Which of them comes first.
    pub home: usize,
    /// The mean time between two messages, if it sends at all.
    pub pace: Option<Duration>,
    /// Bytes of a message's content, at least.
    pub size: usize,
    /// What the kernel may take in for it, where it must not hide that nobody reads.
    pub window: Option<u32>,
    /// How long its messages took is measured.
    pub measures: bool,
}

enum Order {
    /// Break the connection and stay away so long.
    Leave(Duration),
    /// Don't read for so long.
    StopReading(Duration),
    /// End for good.
    End,
    /// Send one message now.
    Say(String),
}

/// A running client.
pub struct Member {
    pub part: Part,
    pub standing: Arc<Standing>,
    orders: mpsc::UnboundedSender<Order>,
    task: tokio::task::JoinHandle<()>,
}

impl Member {
    /// Starts it. It sends while `loud` is true.
    pub fn start(
        part: Part,
        seed: u64,
        history: History,
        loud: watch::Receiver<bool>,
        latencies: Latencies,
    ) -> Self {
        let standing = Arc::new(Standing::default());
        let (orders, given) = mpsc::unbounded_channel();
        let work = Work {
            door: part.home,
            part: part.clone(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            history,
            loud,
            latencies,
            standing: standing.clone(),
            orders: given,
            unsent: VecDeque::new(),
            numbered: 0,
        };
        let task = tokio::spawn(work.run());
        Self {
            part,
            standing,
            orders,
            task,
        }
    }

    /// Breaks its connection; it stays away so long.
    pub fn leave_for(&self, time: Duration) {
        let _ = self.orders.send(Order::Leave(time));
    }

    /// It doesn't read for so long.
    pub fn stop_reading(&self, time: Duration) {
        let _ = self.orders.send(Order::StopReading(time));
    }

    /// It ends for good, without a word to the server.
    pub fn end(&self) {
        let _ = self.orders.send(Order::End);
    }

    /// It sends one message.
    pub fn say(&self, room: &str) {
        // From now on, or who looks at once would take it to be at rest.
        self.standing.unanswered.fetch_add(1, Ordering::SeqCst);
        let _ = self.orders.send(Order::Say(room.to_owned()));
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Draft {
    msg: String,
    room: String,
}

/// What an answer is awaited for.
enum Asked {
    Authenticate,
    Join(String, Option<Position>),
    Watch(String),
    Send(String),
}

/// How a connection ended.
enum Outcome {
    Lost,
    Away(Duration),
    Ended,
    /// The server told it to stay away.
    Expelled,
}

struct Work {
    part: Part,
    /// Index of the door to knock at.
    door: usize,
    rng: ChaCha8Rng,
    history: History,
    loud: watch::Receiver<bool>,
    latencies: Latencies,
    standing: Arc<Standing>,
    orders: mpsc::UnboundedReceiver<Order>,
    /// Not acknowledged yet, in order; the first one may be under way.
    unsent: VecDeque<Draft>,
    numbered: u64,
}

/// The state of one connection.
struct Session {
    link: Link,
    next_id: u64,
    asked: HashMap<u64, Asked>,
    joined: HashMap<String, bool>,
    /// The first unsent message is under way, until then.
    under_way: Option<Instant>,
    /// No message before.
    not_before: Instant,
    /// To be asked again then.
    later: Vec<(Instant, Asked)>,
    next_message: Option<Instant>,
    deaf_until: Option<Instant>,
}

const ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// More than this are not produced while none gets through.
const BACKLOG: usize = 30;

impl Work {
    async fn run(mut self) {
        let mut failures = 0u32;
        loop {
            let address = self.part.doors[self.door % self.part.doors.len()];
            let outcome = match Link::open(address, self.part.window).await {
                Ok(link) => {
                    let outcome = self.live(link, &mut failures).await;
                    self.standing.connected.store(false, Ordering::SeqCst);
                    outcome
                }
                Err(_) => Outcome::Lost,
            };
            let wait = match outcome {
                Outcome::Ended | Outcome::Expelled => return,
                Outcome::Away(time) => {
                    self.door = self.rng.random_range(0..self.part.doors.len());
                    time
                }
                // As the official client waits: a second, doubled up to five, give or take a half.
                Outcome::Lost => {
                    self.door += 1;
                    let base = 1000u64.saturating_mul(1 << failures.min(3)).min(5000);
                    failures += 1;
                    Duration::from_millis(self.rng.random_range(base / 2..base * 3 / 2))
                }
            };
            if self.pause(wait).await {
                return;
            }
        }
    }

    /// Waits, and says whether it was told to end meanwhile.
    async fn pause(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return false,
                order = self.orders.recv() => match order {
                    None => return true,
                    Some(Order::End) => { self.say_ended(); return true; }
                    Some(Order::Say(room)) => self.produce(room),
                    Some(_) => {}
                }
            }
        }
    }

    fn write(&self, fact: Fact) {
        self.history.write(&self.part.name, fact);
    }

    fn say_ended(&self) {
        self.write(Fact::Ended);
        self.standing.ended.store(true, Ordering::SeqCst);
        self.standing.unanswered.store(0, Ordering::SeqCst);
    }

    fn produce(&mut self, room: String) {
        self.numbered += 1;
        let msg = format!("{}-{}", self.part.name, self.numbered);
        self.unsent.push_back(Draft { msg, room });
        self.standing
            .unanswered
            .store(self.unsent.len(), Ordering::SeqCst);
    }

    async fn live(&mut self, link: Link, failures: &mut u32) -> Outcome {
        let now = Instant::now();
        let mut session = Session {
            link,
            next_id: 0,
            asked: HashMap::new(),
            joined: HashMap::new(),
            under_way: None,
            not_before: now,
            later: Vec::new(),
            next_message: None,
            deaf_until: None,
        };
        let mut opened = false;
        let outcome = self
            .talk(&mut session, &mut opened)
            .await
            .unwrap_or(Outcome::Lost);
        if opened {
            *failures = 0;
            if matches!(outcome, Outcome::Ended) {
                self.say_ended();
            }
            self.write(Fact::Closed);
        } else if matches!(outcome, Outcome::Ended) {
            self.say_ended();
        }
        let reset = self.rng.random_bool(0.5);
        session.link.break_off(reset);
        outcome
    }

    async fn talk(&mut self, session: &mut Session, opened: &mut bool) -> anyhow::Result<Outcome> {
        self.ask(session, Asked::Authenticate).await?;
        loop {
            let now = Instant::now();
            self.send_due(session, now).await?;
            let wake = self.wake(session, now);
            let listens = session.deaf_until.is_none_or(|until| until <= now);
            tokio::select! {
                packet = session.link.next(), if listens => match packet? {
                    Packet::Ack(id, answer) => {
                        let Some(asked) = session.asked.remove(&id) else { continue };
                        if !self.answered(session, asked, &answer, opened).await? {
                            return Ok(Outcome::Lost);
                        }
                    }
                    Packet::Event(name, payload) => self.take(&name, payload.get())?,
                    // Not to be: the lab ends no identity. As a client that is told to stay away would, it does; what
                    // it is owed it is owed still.
                    Packet::Disconnect => return Ok(Outcome::Expelled),
                },
                order = self.orders.recv() => match order {
                    None | Some(Order::End) => return Ok(Outcome::Ended),
                    Some(Order::Leave(time)) => return Ok(Outcome::Away(time)),
                    Some(Order::StopReading(time)) => session.deaf_until = Some(now + time),
                    Some(Order::Say(room)) => self.produce(room),
                },
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// When something is due next.
    fn wake(&self, session: &Session, now: Instant) -> Instant {
        let mut wake = now + Duration::from_secs(1);
        let mut sooner = |time: Instant| wake = wake.min(time);
        session.later.iter().for_each(|(time, _)| sooner(*time));
        session.next_message.into_iter().for_each(&mut sooner);
        session.under_way.into_iter().for_each(&mut sooner);
        session
            .deaf_until
            .filter(|until| *until > now)
            .into_iter()
            .for_each(&mut sooner);
        if session.under_way.is_none() && !self.unsent.is_empty() {
            sooner(session.not_before.max(now + Duration::from_millis(20)));
        }
        wake
    }

    /// Asks and sends what is due.
    async fn send_due(&mut self, session: &mut Session, now: Instant) -> anyhow::Result<()> {
        while let Some(index) = session.later.iter().position(|(time, _)| *time <= now) {
            let (_, asked) = session.later.swap_remove(index);
            self.ask(session, asked).await?;
        }
        if session.under_way.is_some_and(|until| until <= now) {
            session.under_way = None;
        }
        if let (Some(pace), false) = (self.part.pace, session.joined.is_empty()) {
            let due = session.next_message.is_some_and(|time| time <= now);
            if due && *self.loud.borrow() && self.unsent.len() < BACKLOG {
                let room = self.part.rooms[self.rng.random_range(0..self.part.rooms.len())].clone();
                self.produce(room);
            }
            if due || session.next_message.is_none() {
                session.next_message = Some(now + pace.mul_f64(self.rng.random_range(0.5..1.5)));
            }
        }
        if session.under_way.is_none()
            && session.not_before <= now
            && let Some(draft) = self.unsent.front()
            && session.joined.contains_key(&draft.room)
        {
            let (msg, room) = (draft.msg.clone(), draft.room.clone());
            session.under_way = Some(now + ACK_TIMEOUT);
            // Written before it goes: what happened may not be unknown.
            self.write(Fact::Sent {
                room,
                msg: msg.clone(),
            });
            self.ask(session, Asked::Send(msg)).await?;
        }
        Ok(())
    }

    async fn ask(&mut self, session: &mut Session, asked: Asked) -> anyhow::Result<()> {
        let (event, payload) = match &asked {
            Asked::Authenticate => ("authenticate", json!({"user_id": self.part.user})),
            Asked::Join(room, None) => ("join", json!({"room_id": room})),
            Asked::Join(room, Some(at)) => (
                "join",
                json!({"room_id": room, "since_seq": at.seq, "epoch": at.epoch}),
            ),
            Asked::Watch(target) => ("subscribe_status", json!({"target_user_id": target})),
            Asked::Send(msg) => {
                let Some(draft) = self.unsent.front() else {
                    return Ok(());
                };
                let content = format!("{:0width$}", self.history.micros(), width = self.part.size);
                (
                    "message",
                    json!({"room_id": draft.room, "content": content, "client_msg_id": msg}),
                )
            }
        };
        session.next_id += 1;
        session.link.emit(session.next_id, event, &payload).await?;
        session.asked.insert(session.next_id, asked);
        Ok(())
    }

    /// Takes an answer. False: this connection is of no use.
    async fn answered(
        &mut self,
        session: &mut Session,
        asked: Asked,
        answer: &Value,
        opened: &mut bool,
    ) -> anyhow::Result<bool> {
        if answer["ok"] != true {
            return Ok(self.refused(session, asked, answer));
        }
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| answer[name].as_u64().unwrap_or_default();
        match asked {
            Asked::Authenticate => {
                *opened = true;
                self.write(Fact::Opened {
                    user: self.part.user.clone(),
                });
                self.standing.asking.store(
                    self.part.rooms.len() + self.part.watches.len(),
                    Ordering::SeqCst,
                );
                self.standing.connected.store(true, Ordering::SeqCst);
                for room in self.part.rooms.clone() {
                    let since = self.standing.at.lock().get(&room).cloned();
                    self.ask(session, Asked::Join(room, since)).await?;
                }
                for target in self.part.watches.clone() {
                    self.ask(session, Asked::Watch(target)).await?;
                }
            }
            Asked::Join(room, since) => {
                let (epoch, seq, replayed) = (text("epoch"), number("seq"), number("replayed"));
                let (recovered, gap) = (answer["recovered"] == true, answer["gap"] == true);
                let at = match &since {
                    Some(at) if recovered => at.seq,
                    _ => seq.saturating_sub(replayed),
                };
                self.standing.at.lock().insert(
                    room.clone(),
                    Position {
                        epoch: epoch.clone(),
                        seq: at,
                    },
                );
                session.joined.insert(room.clone(), true);
                self.write(Fact::Joined {
                    room,
                    since,
                    epoch,
                    seq,
                    recovered,
                    gap,
                    replayed,
                });
                self.standing.asking.fetch_sub(1, Ordering::SeqCst);
            }
            Asked::Watch(target) => {
                self.write(Fact::Watching {
                    target,
                    online: answer["is_online"] == true,
                    version: number("version"),
                });
                self.standing.asking.fetch_sub(1, Ordering::SeqCst);
            }
            Asked::Send(msg) => {
                let (id, epoch, seq, duplicate) = (
                    text("id"),
                    text("epoch"),
                    number("seq"),
                    answer["duplicate"] == true,
                );
                self.write(Fact::Acked {
                    room: text("room_id"),
                    msg: msg.clone(),
                    id,
                    epoch,
                    seq,
                    duplicate,
                });
                self.sent(session, &msg);
            }
        }
        Ok(true)
    }

    fn sent(&mut self, session: &mut Session, msg: &str) {
        // An answer that comes after its patience may not be the first one's any more.
        if self.unsent.front().is_some_and(|draft| draft.msg == msg) {
            self.unsent.pop_front();
            session.under_way = None;
        }
        self.standing
            .unanswered
            .store(self.unsent.len(), Ordering::SeqCst);
    }

    fn refused(&mut self, session: &mut Session, asked: Asked, answer: &Value) -> bool {
        let code = answer["code"].as_str().unwrap_or("none").to_owned();
        let wait = answer["retry_after_ms"].as_u64().map(Duration::from_millis);
        match asked {
            Asked::Authenticate => return false,
            Asked::Send(msg) => {
                let room = self
                    .unsent
                    .front()
                    .map(|draft| draft.room.clone())
                    .unwrap_or_default();
                self.write(Fact::Refused {
                    room,
                    msg: msg.clone(),
                    code: code.clone(),
                });
                match wait {
                    Some(time) => {
                        session.under_way = None;
                        session.not_before = Instant::now() + time;
                    }
                    None if code == "not_in_room" => session.under_way = None,
                    None => self.sent(session, &msg),
                }
            }
            other => session.later.push((
                Instant::now() + wait.unwrap_or(Duration::from_secs(1)),
                other,
            )),
        }
        true
    }

    fn take(&mut self, name: &str, payload: &str) -> anyhow::Result<()> {
        match name {
            "message" => {
                let came: Came = serde_json::from_str(payload)?;
                if self.part.measures
                    && let Ok(sent) = came.content.parse::<u64>()
                {
                    self.latencies.add(
                        self.history.now(),
                        self.history.micros().saturating_sub(sent),
                    );
                }
                let Came {
                    room_id: room,
                    epoch,
                    seq,
                    id,
                    client_msg_id: msg,
                    user_id: user,
                    ..
                } = came;
                self.stand(&room, &epoch, seq);
                self.write(Fact::Got {
                    room,
                    epoch,
                    seq,
                    id,
                    msg,
                    user,
                });
            }
            "room_reset" => {
                let Place {
                    room_id: room,
                    epoch,
                    seq,
                    lost_from,
                } = serde_json::from_str(payload)?;
                self.stand(&room, &epoch, seq);
                self.write(Fact::Reset {
                    room,
                    epoch,
                    seq,
                    lost_from,
                });
            }
            "room_users" => {
                let Users {
                    room_id: room,
                    users,
                    total,
                } = serde_json::from_str(payload)?;
                self.write(Fact::Roster { room, users, total });
            }
            "user_joined" | "user_left" => {
                let InRoom {
                    room_id: room,
                    user_id: user,
                } = serde_json::from_str(payload)?;
                let fact = if name == "user_left" {
                    Fact::Went { room, user }
                } else {
                    Fact::Entered { room, user }
                };
                self.write(fact);
            }
            "user_online" | "user_offline" => {
                let Status {
                    user_id: target,
                    is_online: online,
                    version,
                    initial,
                } = serde_json::from_str(payload)?;
                self.write(Fact::Status {
                    target,
                    online,
                    version,
                    initial,
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn stand(&self, room: &str, epoch: &str, seq: u64) {
        let mut at = self.standing.at.lock();
        if let Some(at) = at.get_mut(room) {
            at.seq = seq;
            if at.epoch != epoch {
                epoch.clone_into(&mut at.epoch);
            }
        }
    }
}

#[derive(Deserialize)]
struct Came {
    id: String,
    room_id: String,
    seq: u64,
    epoch: String,
    user_id: String,
    content: String,
    client_msg_id: Option<String>,
}

#[derive(Deserialize)]
struct Place {
    room_id: String,
    epoch: String,
    seq: u64,
    lost_from: Option<u64>,
}

#[derive(Deserialize)]
struct Users {
    room_id: String,
    users: Vec<String>,
    total: u64,
}

#[derive(Deserialize)]
struct InRoom {
    room_id: String,
    user_id: String,
}

#[derive(Deserialize)]
struct Status {
    user_id: String,
    is_online: bool,
    version: u64,
    #[serde(default)]
    initial: bool,
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;

    use super::*;

    /// A server that lets a client in, and then says this.
    async fn server(says: &'static str) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            for text in [r#"0{"pingInterval":25000,"pingTimeout":20000}"#, "40{}"] {
                socket.send(Message::text(text)).await.unwrap();
            }
            for text in [r#"431[{"ok":true}]"#, says] {
                // Its CONNECT or `authenticate`.
                socket.next().await;
                socket.send(Message::text(text)).await.unwrap();
            }
            socket.next().await;
        });
        address
    }

    #[tokio::test]
    async fn who_is_told_to_stay_away_has_not_ended_by_its_own_will() {
        let file = std::env::temp_dir().join(format!("hubbub-expelled-{}", std::process::id()));
        let (history, written) = History::create(&file).unwrap();
        let part = Part {
            name: "ann".into(),
            user: "ann".into(),
            doors: vec![server("41").await],
            ..Part::default()
        };
        let (_loud, quiet) = watch::channel(false);
        let mut member = Member::start(part, 1, history, quiet, Latencies::default());
        (&mut member.task).await.unwrap();
        assert!(!member.standing.has_ended());
        written.end().await.unwrap();
        let facts: Vec<_> = crate::history::read(&file)
            .unwrap()
            .into_iter()
            .map(|record| record.fact)
            .collect();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(facts, [Fact::Opened { user: "ann".into() }, Fact::Closed]);
    }
}
