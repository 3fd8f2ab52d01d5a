//! The load generator: all of its connections, in one thread.
//!
//! | module | contents |
//! | --- | --- |
//! | this one | the state, the clock, and sending |
//! | `connect` | opens connections, retries and closes them |
//! | `event_loop` | polls, reads and writes |
//! | `protocol` | the packets of a connection, from the handshake to messages |

mod connect;
mod event_loop;
mod protocol;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use hdrhistogram::Histogram;
use memchr::memmem::Finder;
use mio::{Events, Poll};

use crate::SignToken;
use crate::acks::{AckOutcome, AckTracker, SentMessage};
use crate::client::{Client, ClientState, Membership};
use crate::findings::Findings;
use crate::limits::MetLimits;
use crate::room::Room;
use crate::room_assignment::RoomAssignment;
use crate::target::Target;

/// Larger than any frame that a server sends to a client that does not request history.
const READ_BUFFER_BYTES: usize = 512 * 1024;

/// Maximum of readiness events per poll.
const EVENTS_PER_POLL: usize = 1024;

/// Maximum of the histograms, 60 s in microseconds; a longer time is recorded as this one.
const MAX_RECORDED_US: u64 = 60_000_000;

/// How connections are made.
#[derive(Debug, Clone)]
pub(crate) struct ConnectSettings {
    pub(crate) targets: Vec<Target>,
    /// Local addresses to connect from; if empty, they are chosen automatically.
    pub(crate) sources: Vec<IpAddr>,
    /// With a secret each client connects with a token. Without one it sends `authenticate`.
    pub(crate) token_secret: Option<String>,
    pub(crate) sign_token: SignToken,
    /// User ids and room names consist of this prefix and a number.
    pub(crate) name_prefix: String,
}

/// The deliveries so far: messages that clients have received, without repeats.
#[derive(Debug)]
pub(crate) struct Deliveries {
    pub(crate) count: u64,
    /// The time from the moment at which a message was due to be sent until a member had it, in
    /// microseconds.
    pub(crate) latency: Histogram<u64>,
}

/// The phases of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Clients connect for the first time, or again after their connections were lost.
    Connecting,
    /// All clients have joined: a connection that is lost is a finding, and is not retried.
    Connected,
    /// All connections were cut. Clients connect again, and their joins resume where the lost
    /// connection stopped.
    Reconnecting,
}

/// The connections and their rooms.
pub(crate) struct LoadGenerator {
    settings: ConnectSettings,
    phase: Phase,
    pub(crate) clients: Vec<Client>,
    pub(crate) rooms: Vec<Room>,
    pub(crate) assignment: RoomAssignment,
    /// Violations of the server's guarantees so far.
    pub(crate) findings: Findings,
    /// The limits of the nodes that were met while clients connected.
    pub(crate) connect_limits: MetLimits,
    /// The limits of the nodes that refused a message or closed a connection of a client that had
    /// joined. The measurement is void then.
    pub(crate) load_limits: MetLimits,

    poll: Poll,
    /// Reused by each poll.
    events: Events,
    /// Whether the last poll returned events: more are likely to be on their way.
    had_events: bool,
    /// Reused by each read.
    read_buffer: Vec<u8>,
    /// Reused for each frame that is not a room's message.
    frame: Vec<u8>,

    /// Start of the generator's clock.
    clock_start: Instant,
    /// Only messages that were due at or after this time, in microseconds of the generator's clock,
    /// count in the latency.
    pub(crate) latency_from: u64,
    pub(crate) deliveries: Deliveries,
    /// The acknowledgements of messages; `None` if none are requested.
    pub(crate) acks: Option<AckTracker>,
    /// Finds the number of a message's room in its packet.
    room_number: Finder<'static>,
    /// Rooms with deliveries since the last [`take_active_rooms`](Self::take_active_rooms).
    active_rooms: Vec<usize>,

    /// Number of clients that have joined all of their rooms.
    joined: usize,
    /// Number of rooms that clients have joined, all clients together, also those that have not
    /// joined all of their rooms yet.
    joined_rooms: usize,
    /// Number of clients that are connecting and have not joined all of their rooms.
    handshakes: usize,
    /// Clients to dial again, and when, earliest first.
    retries: VecDeque<(Instant, usize)>,
    /// Attempts that failed and were retried.
    pub(crate) failed_attempts: u64,
    last_failure: String,
    /// The time from a client's first dial to the ack of its last join, in microseconds.
    pub(crate) join_time: Histogram<u64>,
}

impl LoadGenerator {
    /// A generator that has not opened any connection.
    ///
    /// # Errors
    /// If the system refuses to create a poll.
    pub(crate) fn new(
        settings: ConnectSettings,
        rooms: Vec<Room>,
        assignment: RoomAssignment,
    ) -> anyhow::Result<Self> {
        let new_client = |client| {
            let mut memberships = assignment
                .rooms_of(client)
                .map(|(room, member)| Membership::new(room, member));
            let first = memberships
                .next()
                .expect("each client is in at least one room");
            let target = assignment.node_of(client, settings.targets.len());
            Client::new(first, memberships.collect(), target)
        };
        let clients = (0..assignment.clients()).map(new_client).collect();
        let before_room_number = format!("\"room_id\":\"{}", settings.name_prefix);
        Ok(Self {
            clients,
            room_number: Finder::new(&before_room_number).into_owned(),
            settings,
            phase: Phase::Connecting,
            rooms,
            assignment,
            findings: Findings::default(),
            connect_limits: MetLimits::default(),
            load_limits: MetLimits::default(),
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_PER_POLL),
            had_events: false,
            read_buffer: vec![0; READ_BUFFER_BYTES],
            frame: Vec::new(),
            clock_start: Instant::now(),
            latency_from: u64::MAX,
            deliveries: Deliveries {
                count: 0,
                latency: Histogram::new_with_max(MAX_RECORDED_US, 3)?,
            },
            acks: None,
            active_rooms: Vec::new(),
            joined: 0,
            joined_rooms: 0,
            handshakes: 0,
            retries: VecDeque::new(),
            failed_attempts: 0,
            last_failure: String::new(),
            join_time: Histogram::new_with_max(MAX_RECORDED_US, 3)?,
        })
    }

    /// Expects an acknowledgement of each message. The rooms must request them.
    ///
    /// # Errors
    /// If the histogram of their latency cannot be created.
    pub(crate) fn expect_acks(&mut self, allows_refusals: bool) -> anyhow::Result<()> {
        let tracker = AckTracker::new(self.clients.len(), allows_refusals, MAX_RECORDED_US)?;
        self.acks = Some(tracker);
        Ok(())
    }

    /// The time in microseconds of the generator's clock.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.clock_start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A moment in microseconds of the generator's clock.
    pub(crate) fn us_of(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.clock_start).as_micros())
            .unwrap_or(u64::MAX)
    }

    /// Sends a message of the room's sender whose turn it is. It counts as sent at `due_us`.
    pub(crate) fn send_message(&mut self, room: usize, due_us: u64) {
        let member = self.rooms[room].next_sender();
        self.send_message_of(room, member, due_us);
    }

    /// Sends the next message of one sender, given by its member index. It counts as sent at
    /// `due_us`.
    pub(crate) fn send_message_of(&mut self, room: usize, member: usize, due_us: u64) {
        let client = self.rooms[room].client_of(member);
        let ack_id = match &mut self.acks {
            Some(acks) => acks.begin(
                client,
                SentMessage {
                    room,
                    member,
                    due_us,
                },
            ),
            None => 0,
        };
        let frame = self.rooms[room].message_of(member, due_us, ack_id);
        if let Err(error) = self.clients[client].write(frame)
            && self.clients[client].state == ClientState::Joined
        {
            self.connection_lost(client, &error.to_string());
        }
    }

    /// Moves the rooms with deliveries since the last call into `rooms`, and clears it before. Some
    /// rooms may be in it more than once.
    pub(crate) fn take_active_rooms(&mut self, rooms: &mut Vec<usize>) {
        rooms.clear();
        rooms.append(&mut self.active_rooms);
    }

    /// Moves the answers to messages since the last call into `answers`, and clears it before.
    pub(crate) fn take_answers(&mut self, answers: &mut Vec<AckOutcome>) {
        if let Some(acks) = &mut self.acks {
            acks.take_answers(answers);
        }
    }

    /// Forgets the active rooms and the answers: the schedule does not use them.
    pub(crate) fn discard_activity(&mut self) {
        self.active_rooms.clear();
        if let Some(acks) = &mut self.acks {
            acks.discard_answers();
        }
    }

    /// Number of messages sent in all rooms.
    pub(crate) fn messages_sent(&self) -> u64 {
        self.rooms.iter().map(Room::sent).sum()
    }

    /// Number of messages that the servers acknowledged or refused; 0 without acknowledgements.
    pub(crate) fn messages_answered(&self) -> u64 {
        match &self.acks {
            Some(acks) => acks.accepted + acks.refused,
            None => 0,
        }
    }

    /// Number of messages that wait for an acknowledgement.
    pub(crate) fn messages_unanswered(&self) -> u64 {
        self.acks.as_ref().map_or(0, AckTracker::unanswered)
    }

    /// Whether every member of every room has received every message, and every message that needs
    /// an answer has one.
    pub(crate) fn is_drained(&self) -> bool {
        self.messages_unanswered() == 0 && self.rooms.iter().all(Room::is_drained)
    }

    /// The reason of the last failure: an error of a connection, or a refusal by the server. Empty
    /// if there was none.
    pub(crate) fn last_failure(&self) -> &str {
        &self.last_failure
    }
}
