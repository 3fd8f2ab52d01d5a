//! The task of one client: its connections one after another, and the times at which it sends.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::requests::Request;
use super::{ClientConfig, Command};
use crate::clients::connection::{CloseMode, Connection, Packet};
use crate::clients::{ClientState, Latencies};
use crate::history::{Fact, Recorder, digest};

const ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// A client produces no further messages while this many are unacknowledged.
const MAX_UNSENT: usize = 30;
/// The reconnect delay after the first failure. It doubles with each further failure, up to the
/// maximum.
const MIN_RECONNECT_DELAY_MS: u64 = 1000;
const MAX_RECONNECT_DELAY_MS: u64 = 5000;
/// The task checks at least this often for something to send.
const MAX_SLEEP: Duration = Duration::from_secs(1);
const MIN_SLEEP: Duration = Duration::from_millis(20);

pub(super) struct ClientTask {
    pub config: ClientConfig,
    /// The index (modulo their number) of the address to which the client connects next.
    address_index: usize,
    /// Failures since the last connection that was authenticated.
    failures: u32,
    rng: ChaCha8Rng,
    pub recorder: Recorder,
    sending: watch::Receiver<bool>,
    pub latencies: Latencies,
    pub state: Arc<ClientState>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Messages without an acknowledgement, in order. The first one may be in flight.
    pub unsent: VecDeque<UnsentMessage>,
    /// The number of messages produced.
    produced: u64,
}

pub(super) struct UnsentMessage {
    pub msg: String,
    pub room: String,
}

/// The reason why a connection ended.
enum Outcome {
    Lost,
    /// The lab commanded the client to disconnect for this time.
    Disconnected(Duration),
    /// The lab commanded the client to stop for good.
    Ended,
    /// The server sent a DISCONNECT, after which clients don't reconnect by themselves.
    DisconnectedByServer,
}

/// The state of one connection.
pub(super) struct Session {
    pub connection: Connection,
    pub authenticated: bool,
    pub last_request_id: u64,
    pub pending: HashMap<u64, Request>,
    pub joined: HashSet<String>,
    /// Set while the first unsent message is in flight: the time at which it is sent again.
    pub resend_at: Option<Instant>,
    /// The time before which no message is sent.
    pub not_before: Instant,
    /// Requests that were refused, with the times at which they are repeated.
    pub deferred: Vec<(Instant, Request)>,
    /// The time at which the client produces its next message.
    next_message_at: Option<Instant>,
    not_reading_until: Option<Instant>,
}

impl Session {
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            authenticated: false,
            last_request_id: 0,
            pending: HashMap::new(),
            joined: HashSet::new(),
            resend_at: None,
            not_before: Instant::now(),
            deferred: Vec::new(),
            next_message_at: None,
            not_reading_until: None,
        }
    }
}

impl ClientTask {
    pub fn new(
        config: ClientConfig,
        seed: u64,
        recorder: Recorder,
        sending: watch::Receiver<bool>,
        latencies: Latencies,
        state: Arc<ClientState>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Self {
            address_index: config.home_node,
            config,
            failures: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            recorder,
            sending,
            latencies,
            state,
            commands,
            unsent: VecDeque::new(),
            produced: 0,
        }
    }

    pub async fn run(mut self) {
        loop {
            let address = self.config.addresses[self.address_index % self.config.addresses.len()];
            let outcome = match Connection::open(address, self.config.receive_window).await {
                Ok(connection) => self.run_session(connection).await,
                Err(_) => Outcome::Lost,
            };
            let delay = match outcome {
                // A client that the server disconnects is not recorded as ended: the lab never
                // causes this, so the messages that the client misses count as missing.
                Outcome::Ended | Outcome::DisconnectedByServer => return,
                Outcome::Disconnected(time) => {
                    self.address_index = self.rng.random_range(0..self.config.addresses.len());
                    time
                }
                Outcome::Lost => {
                    self.address_index += 1;
                    self.next_reconnect_delay()
                }
            };
            if self.wait_or_end(delay).await {
                return;
            }
        }
    }

    /// The delays of the official client: one second, doubled up to five seconds, plus or minus 50
    /// %.
    fn next_reconnect_delay(&mut self) -> Duration {
        let delay = MIN_RECONNECT_DELAY_MS << self.failures.min(3);
        let delay = delay.min(MAX_RECONNECT_DELAY_MS);
        self.failures += 1;
        Duration::from_millis(self.rng.random_range(delay / 2..delay * 3 / 2))
    }

    /// Waits while disconnected. Returns whether the client was commanded to end meanwhile.
    async fn wait_or_end(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return false,
                command = self.commands.recv() => match command {
                    None => return true,
                    Some(Command::End) => {
                        self.record_end();
                        return true;
                    }
                    Some(Command::Send(room)) => self.produce_message(room),
                    Some(Command::Disconnect(_) | Command::StopReading(_)) => {}
                }
            }
        }
    }

    pub fn record(&self, fact: Fact) {
        self.recorder.record(&self.config.name, fact);
    }

    fn record_end(&self) {
        self.record(Fact::Ended);
        self.state.ended.store(true, Ordering::SeqCst);
        self.state.unacknowledged.store(0, Ordering::SeqCst);
    }

    fn produce_message(&mut self, room: String) {
        self.produced += 1;
        let msg = format!("{}-{}", self.config.name, self.produced);
        self.unsent.push_back(UnsentMessage { msg, room });
        self.update_unacknowledged();
    }

    pub fn update_unacknowledged(&self) {
        self.state
            .unacknowledged
            .store(self.unsent.len(), Ordering::SeqCst);
    }

    async fn run_session(&mut self, connection: Connection) -> Outcome {
        let mut session = Session::new(connection);
        let outcome = match self.serve_session(&mut session).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Lost,
        };
        if matches!(outcome, Outcome::Ended) {
            self.record_end();
        }
        if session.authenticated {
            self.failures = 0;
            self.record(Fact::Disconnected);
        }
        let close_mode = if self.rng.random_bool(0.5) {
            CloseMode::Reset
        } else {
            CloseMode::Close
        };
        session.connection.break_off(close_mode);
        self.state.connected.store(false, Ordering::SeqCst);
        outcome
    }

    async fn serve_session(&mut self, session: &mut Session) -> anyhow::Result<Outcome> {
        self.request(session, Request::Authenticate).await?;
        loop {
            let now = Instant::now();
            self.send_due(session, now).await?;
            let wakeup = self.next_wakeup(session, now);
            let is_reading = session.not_reading_until.is_none_or(|until| until <= now);
            tokio::select! {
                packet = session.connection.next(), if is_reading => match packet? {
                    Packet::Ack(id, answer) => {
                        if let Some(request) = session.pending.remove(&id) {
                            self.handle_answer(session, request, &answer).await?;
                        }
                    }
                    Packet::Event(name, payload) => self.handle_event(&name, payload.get())?,
                    Packet::Disconnect => return Ok(Outcome::DisconnectedByServer),
                },
                command = self.commands.recv() => match command {
                    None | Some(Command::End) => return Ok(Outcome::Ended),
                    Some(Command::Disconnect(time)) => return Ok(Outcome::Disconnected(time)),
                    Some(Command::StopReading(time)) => {
                        session.not_reading_until = Some(now + time);
                    }
                    Some(Command::Send(room)) => self.produce_message(room),
                },
                () = tokio::time::sleep_until(wakeup) => {}
            }
        }
    }

    /// The next time at which something is due.
    fn next_wakeup(&self, session: &Session, now: Instant) -> Instant {
        let mut wakeup = now + MAX_SLEEP;
        for (time, _) in &session.deferred {
            wakeup = wakeup.min(*time);
        }
        for time in [session.next_message_at, session.resend_at]
            .into_iter()
            .flatten()
        {
            wakeup = wakeup.min(time);
        }
        if let Some(until) = session.not_reading_until
            && until > now
        {
            wakeup = wakeup.min(until);
        }
        if session.resend_at.is_none() && !self.unsent.is_empty() {
            wakeup = wakeup.min(session.not_before.max(now + MIN_SLEEP));
        }
        wakeup
    }

    /// Sends the requests and messages that are due.
    async fn send_due(&mut self, session: &mut Session, now: Instant) -> anyhow::Result<()> {
        while let Some(index) = session.deferred.iter().position(|(time, _)| *time <= now) {
            let (_, request) = session.deferred.swap_remove(index);
            self.request(session, request).await?;
        }
        if session.resend_at.is_some_and(|time| time <= now) {
            session.resend_at = None;
        }
        self.produce_due(session, now);
        self.send_first_unsent(session, now).await
    }

    fn produce_due(&mut self, session: &mut Session, now: Instant) {
        let Some(interval) = self.config.send_interval else {
            return;
        };
        if session.joined.is_empty() {
            return;
        }
        let is_due = session.next_message_at.is_some_and(|time| time <= now);
        if is_due && *self.sending.borrow() && self.unsent.len() < MAX_UNSENT {
            let index = self.rng.random_range(0..self.config.rooms.len());
            self.produce_message(self.config.rooms[index].clone());
        }
        if is_due || session.next_message_at.is_none() {
            let factor = self.rng.random_range(0.5..1.5);
            session.next_message_at = Some(now + interval.mul_f64(factor));
        }
    }

    async fn send_first_unsent(
        &mut self,
        session: &mut Session,
        now: Instant,
    ) -> anyhow::Result<()> {
        if session.resend_at.is_some() || session.not_before > now {
            return Ok(());
        }
        let Some(UnsentMessage { msg, room }) = self.unsent.front() else {
            return Ok(());
        };
        if !session.joined.contains(room) {
            return Ok(());
        }
        let msg = msg.clone();
        // The time: receivers measure the latency by it.
        let sent_at = self.recorder.elapsed_micros();
        let content = format!("{sent_at:0width$}", width = self.config.content_bytes);
        session.resend_at = Some(now + ACK_TIMEOUT);
        // Recorded before the message is sent: the checker must know of every message that the
        // server may have received.
        self.record(Fact::Sent {
            room: room.clone(),
            msg: msg.clone(),
            content: Some(digest(&content)),
        });
        self.request(session, Request::Send(msg, content)).await
    }
}
