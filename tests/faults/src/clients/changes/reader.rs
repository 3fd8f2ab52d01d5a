//! The connection of a device: it receives the events of its rooms and folds them, through reconnects to
//! other nodes, with `join` or `sync` from its positions. Where it missed too much, it reads the history.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::{DeviceConfig, OwnVersion, Request, Shared};
use crate::clients::connection::{Connection, Packet};
use crate::history::changes::ChangeFact;
use crate::history::{Fact, Recorder};

const TICK: Duration = Duration::from_millis(100);
const PAGE: u64 = 200;
/// After this time the device breaks its connection.
const SESSION_MILLIS: std::ops::Range<u64> = 1000..6000;
const RECONNECT_MILLIS: std::ops::Range<u64> = 100..700;

pub(super) struct Reader {
    pub config: Arc<DeviceConfig>,
    rng: ChaCha8Rng,
    recorder: Recorder,
    pub shared: Arc<Mutex<Shared>>,
    requests: mpsc::Receiver<Request>,
    pub own_versions: watch::Sender<Option<OwnVersion>>,
    changing: watch::Receiver<bool>,
}

enum Pending {
    Authenticate,
    /// The room, and whether it asked to resume.
    Join(String, bool),
    Sync(Vec<(String, bool)>),
    /// A page of the room's history, and when it was asked for.
    History(String, u64),
    Change(oneshot::Sender<Value>),
}

pub(super) struct Session {
    connection: Connection,
    /// The time at which the connection was opened.
    pub began: u64,
    last_request: u64,
    pending: HashMap<u64, Pending>,
    authenticated: bool,
    /// By room: when the next request for it may be made. `None` while one is pending.
    pub due: HashMap<String, Option<Instant>>,
}

impl Reader {
    pub fn new(
        (config, seed): (Arc<DeviceConfig>, u64),
        recorder: Recorder,
        shared: Arc<Mutex<Shared>>,
        (requests, own_versions): (mpsc::Receiver<Request>, watch::Sender<Option<OwnVersion>>),
        changing: watch::Receiver<bool>,
    ) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            config,
            recorder,
            shared,
            requests,
            own_versions,
            changing,
        }
    }

    pub async fn run(mut self) {
        let mut address = self.config.home_node;
        loop {
            let target = self.config.addresses[address % self.config.addresses.len()];
            let token = &self.config.account.token;
            let mut away = Duration::from_millis(self.rng.random_range(RECONNECT_MILLIS));
            if let Ok(connection) = Connection::open_with_token(target, token).await
                && self.serve(connection).await.is_ok()
                && self.rng.random_bool(0.3)
            {
                away = self
                    .config
                    .longest_absence
                    .mul_f64(self.rng.random_range(0.0..1.0));
            }
            for room in self.shared.lock().rooms.values_mut() {
                room.is_joined = false;
                if room.fetched.is_some() {
                    // It begins anew: the pages that were read don't show later changes.
                    room.fetched = Some(0);
                }
            }
            address += 1;
            sleep(away).await;
        }
    }

    pub(super) fn record(&self, fact: ChangeFact) {
        self.recorder.record(&self.config.name, Fact::Change(fact));
    }

    /// Serves a connection until the device breaks it.
    ///
    /// # Errors
    /// The connection is lost.
    async fn serve(&mut self, connection: Connection) -> anyhow::Result<()> {
        let mut session = Session {
            connection,
            began: self.recorder.elapsed_millis(),
            last_request: 0,
            pending: HashMap::new(),
            authenticated: false,
            due: HashMap::new(),
        };
        let millis = self.rng.random_range(SESSION_MILLIS);
        let end = Instant::now() + Duration::from_millis(millis);
        let request = Pending::Authenticate;
        session.request("authenticate", &json!({}), request).await?;
        let mut tick = Instant::now() + TICK;
        loop {
            tokio::select! {
                packet = session.connection.next() => match packet? {
                    Packet::Ack(id, answer) => {
                        if let Some(pending) = session.pending.remove(&id) {
                            self.handle_answer(&mut session, pending, answer).await?;
                        }
                    }
                    Packet::Event(name, payload) => {
                        let event = serde_json::from_str(payload.get())?;
                        self.handle_event(&session, &name, &event)?;
                    }
                    Packet::Disconnect => bail!("disconnected"),
                },
                Some(request) = self.requests.recv(), if session.authenticated => {
                    // An attempt that was given up must not be made later.
                    if !request.answer.is_closed() {
                        let pending = Pending::Change(request.answer);
                        session.request(request.event, &request.payload, pending).await?;
                    }
                }
                () = sleep_until(tick) => {
                    tick = Instant::now() + TICK;
                    if session.authenticated {
                        self.request_due(&mut session).await?;
                    }
                    // At the end it stays.
                    if *self.changing.borrow() && Instant::now() > end {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Joins rooms, and reads histories.
    async fn request_due(&mut self, session: &mut Session) -> anyhow::Result<()> {
        let now = Instant::now();
        for room in self.config.rooms.clone() {
            if session
                .due
                .get(&room)
                .is_some_and(|due| due.is_none_or(|due| due > now))
            {
                continue;
            }
            let (is_joined, fetched) = {
                let shared = self.shared.lock();
                let state = &shared.rooms[&room];
                (state.is_joined, state.fetched)
            };
            match fetched {
                _ if !is_joined => {
                    let (mut payload, is_resume) = self.position(&room);
                    payload["room_id"] = room.as_str().into();
                    let pending = Pending::Join(room.clone(), is_resume);
                    session.request("join", &payload, pending).await?;
                }
                Some(after) => {
                    let payload = json!({"room_id": room, "after_seq": after, "limit": PAGE});
                    let pending = Pending::History(room.clone(), self.recorder.elapsed_millis());
                    session.request("history", &payload, pending).await?;
                }
                None => continue,
            }
            session.due.insert(room, None);
        }
        Ok(())
    }

    /// The fields of a join from the present position, and whether it is a resume.
    fn position(&self, room: &str) -> (Value, bool) {
        let shared = self.shared.lock();
        let state = &shared.rooms[room];
        let mut fields = json!({"since_seq": state.seq.unwrap_or_default()});
        if let Some(epoch) = &state.epoch {
            fields["epoch"] = epoch.as_str().into();
        }
        if let Some(limit) = self.config.replay_limit {
            fields["replay_limit"] = limit.into();
        }
        (fields, state.seq.is_some())
    }

    async fn handle_answer(
        &mut self,
        session: &mut Session,
        pending: Pending,
        answer: Value,
    ) -> anyhow::Result<()> {
        match pending {
            Pending::Authenticate => {
                ensure!(answer["ok"] == true, "authenticate was refused: {answer}");
                session.authenticated = true;
                if self.rng.random_bool(0.5) {
                    self.sync(session).await?;
                }
            }
            Pending::Join(room, is_resume) => self.joined(session, &room, is_resume, &answer),
            Pending::Sync(rooms) => {
                for (room, is_resume) in rooms {
                    self.joined(session, &room, is_resume, &answer["rooms"][&room]);
                }
            }
            Pending::History(room, began) => self.fetched(session, &room, began, &answer)?,
            Pending::Change(sender) => drop(sender.send(answer)),
        }
        Ok(())
    }

    async fn sync(&self, session: &mut Session) -> anyhow::Result<()> {
        let mut rooms = Vec::new();
        let mut fields = json!({});
        for room in &self.config.rooms {
            let (position, is_resume) = self.position(room);
            fields[room] = position;
            rooms.push((room.clone(), is_resume));
            session.due.insert(room.clone(), None);
        }
        let payload = json!({"rooms": fields});
        session
            .request("sync", &payload, Pending::Sync(rooms))
            .await
    }
}

impl Session {
    async fn request(
        &mut self,
        event: &str,
        payload: &Value,
        pending: Pending,
    ) -> anyhow::Result<()> {
        self.last_request += 1;
        let id = self.last_request;
        self.pending.insert(id, pending);
        self.connection.emit(id, event, payload).await
    }
}
