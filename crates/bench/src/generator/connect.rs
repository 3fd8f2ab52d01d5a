//! Opens connections, retries those that fail, and closes all of them for a reconnect storm.

use std::io;
use std::time::{Duration, Instant};

use anyhow::bail;
use mio::{Interest, Token};

use super::{LoadGenerator, Phase};
use crate::client::{Client, ClientState};
use crate::target::source_address;

/// Delay before a client is dialled again, if its attempt failed or its connection was lost while
/// other clients still connect.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The run fails if the number of rooms that clients have joined does not exceed its previous
/// maximum for this long.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The same if a limit of the nodes has refused connections: the next ones are refused, too.
const LIMIT_STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time of a poll while clients connect.
const CONNECT_POLL_TIMEOUT: Duration = Duration::from_millis(20);
/// The same if the rate of new connections is limited: the next one may be due soon.
const PACED_CONNECT_POLL_TIMEOUT: Duration = Duration::from_millis(1);

/// Detects that connecting makes no progress.
pub(super) struct StallDetector {
    /// The maximum number of rooms that clients had joined, all clients together.
    pub(super) max_joined_rooms: usize,
    /// When it was reached.
    pub(super) reached_at: Instant,
}

impl StallDetector {
    /// Whether there was no progress for that time. A client that joins again after its connection
    /// was lost is no progress.
    pub(super) fn is_stalled(
        &mut self,
        joined_rooms: usize,
        timeout: Duration,
        now: Instant,
    ) -> bool {
        if joined_rooms > self.max_joined_rooms {
            self.max_joined_rooms = joined_rooms;
            self.reached_at = now;
        }
        now > self.reached_at + timeout
    }
}

impl LoadGenerator {
    /// Connects all clients that are not connected: `concurrency` handshakes at a time, and at most
    /// `per_sec` new connections per second (0: no limit; retries do not count). Calls
    /// `on_progress` with the number of clients that have joined. Returns the time until the last
    /// client had joined.
    ///
    /// # Errors
    /// If clients join no further rooms for 30 s, or for 5 s after a limit of the nodes refused
    /// some. Clients that join again after their connections
    /// were lost do not count.
    pub(crate) fn connect_all(
        &mut self,
        concurrency: usize,
        per_sec: u64,
        mut on_progress: impl FnMut(usize),
    ) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut to_dial = self.disconnected_clients().into_iter();
        let mut dialled = 0;
        let mut stall = StallDetector {
            max_joined_rooms: self.joined_rooms,
            reached_at: began,
        };
        let poll_timeout = if per_sec == 0 {
            CONNECT_POLL_TIMEOUT
        } else {
            PACED_CONNECT_POLL_TIMEOUT
        };
        while self.joined < self.clients.len() {
            let allowed = allowed_dials(per_sec, began.elapsed());
            while self.handshakes < concurrency {
                if let Some(client) = self.take_due_retry() {
                    self.dial(client);
                } else if dialled < allowed
                    && let Some(client) = to_dial.next()
                {
                    dialled += 1;
                    self.dial(client);
                } else {
                    break;
                }
            }
            self.poll_once(Some(poll_timeout))?;
            let timeout = if self.connect_limits.is_empty() {
                STALL_TIMEOUT
            } else {
                LIMIT_STALL_TIMEOUT
            };
            if stall.is_stalled(self.joined_rooms, timeout, Instant::now()) {
                let joins = format!(
                    "no further join for {} s after {} of {}",
                    timeout.as_secs(),
                    stall.max_joined_rooms,
                    self.clients.len() * self.assignment.rooms_each(),
                );
                if self.connect_limits.is_empty() {
                    bail!("{joins}; last failure: {}", self.last_failure);
                }
                bail!(
                    "{joins}, because the nodes refuse clients:{}",
                    self.connect_limits
                );
            }
            on_progress(self.joined);
        }
        self.phase = Phase::Connected;
        Ok(began.elapsed())
    }

    /// Closes all connections at once. Clients that connect again resume where they stopped.
    pub(crate) fn disconnect_all(&mut self) {
        self.clients.iter_mut().for_each(Client::disconnect);
        self.joined = 0;
        self.joined_rooms = 0;
        self.phase = Phase::Reconnecting;
        self.join_time.reset();
    }

    fn disconnected_clients(&self) -> Vec<usize> {
        (0..self.clients.len())
            .filter(|client| self.clients[*client].state == ClientState::Disconnected)
            .collect()
    }

    /// Removes the first client whose retry is due.
    fn take_due_retry(&mut self) -> Option<usize> {
        let (due, client) = *self.retries.front()?;
        if due > Instant::now() {
            return None;
        }
        self.retries.pop_front();
        Some(client)
    }

    /// Begins to connect a client. If that fails at once, the client is retried like any other.
    pub(super) fn dial(&mut self, client: usize) {
        self.handshakes += 1;
        self.clients[client].begin_attempt();
        if let Err(error) = self.try_dial(client) {
            self.connection_lost(client, &error.to_string());
        }
    }

    fn try_dial(&mut self, index: usize) -> io::Result<()> {
        let client = &mut self.clients[index];
        let targets = &self.settings.targets;
        let target = &targets[client.target];
        let source = source_address(target, &self.settings.sources, index / targets.len());
        let stream = client.attach(target.dial(source)?);
        self.poll.registry().register(
            stream,
            Token(index),
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    /// Handles the end of a connection, or a failed attempt to connect. While clients connect, the
    /// client is retried. When all were connected, the loss is a finding instead.
    pub(super) fn connection_lost(&mut self, index: usize, reason: &str) {
        let client = &mut self.clients[index];
        let had_joined = client.state == ClientState::Joined;
        self.joined_rooms -= client.joined_rooms();
        client.disconnect();
        if had_joined {
            self.joined -= 1;
            if self.phase == Phase::Connected {
                self.findings.closed += 1;
                return;
            }
        } else {
            self.handshakes -= 1;
        }
        self.failed_attempts += 1;
        reason.clone_into(&mut self.last_failure);
        self.retries
            .push_back((Instant::now() + RETRY_DELAY, index));
    }
}

/// Number of clients that may have been dialled after this time.
fn allowed_dials(per_sec: u64, elapsed: Duration) -> u64 {
    if per_sec == 0 {
        return u64::MAX;
    }
    per_sec * elapsed.as_millis() as u64 / 1000 + 1
}
