//! All connections of the generator in one thread: they come, join their rooms, and hear what is said.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use memchr::memmem::{self, Finder};
use mio::{Events, Interest, Poll, Token};
use serde_json::Value;

use super::client::{Client, Seat, Stage};
use super::frame;
use super::room::{self, Findings, Room};
use super::spread::Spread;
use super::target::{self, Target};

/// Who was turned away, or lost before it had joined, comes again after this time.
const AGAIN: Duration = Duration::from_secs(1);
/// So long there may be no more who have joined than ever before, until the run is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long the generator sleeps after a turn that brought something, before it looks again. A server on this machine would
/// wake it for each frame, by an interrupt from core to core that the *server* pays for, and that is dear in a virtual
/// machine; a server whose clients are elsewhere never does. What comes meanwhile is taken together, as much later.
const NAP: Duration = Duration::from_micros(200);
/// Larger than any frame of a server that is asked for no history.
const BUFFER_BYTES: usize = 512 * 1024;

/// The longest time that is told apart from longer ones, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// How connections are made.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    pub(super) targets: Vec<Target>,
    pub(super) sources: Vec<IpAddr>,
    pub(super) token_secret: Option<String>,
    /// Makes a token for a user with the secret.
    pub(super) sign: fn(&str, &str) -> anyhow::Result<String>,
    /// Users' ids and rooms' names begin with it; a number is what follows.
    pub(super) prefix: String,
}

/// What was heard since the last look.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) deliveries: u64,
    /// From when a message was to be sent to when a member had it, in microseconds.
    pub(super) latency: Histogram<u64>,
}

/// The most rooms that clients were in, of all together, and since when.
struct Progress {
    most: usize,
    at: Instant,
}

impl Progress {
    /// Whether patience is over. Who comes again after being lost is no progress.
    fn is_over(&mut self, entered: usize, now: Instant) -> bool {
        if entered > self.most {
            (self.most, self.at) = (entered, now);
        }
        now > self.at + PATIENCE
    }
}

/// The connections and their rooms.
pub(super) struct Crowd {
    manner: Manner,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    frame: Vec<u8>,
    pub(super) clients: Vec<Client>,
    pub(super) rooms: Vec<Room>,
    pub(super) spread: Spread,
    /// What stands before a room's number in a packet.
    room_number: Finder<'static>,
    /// Rooms in which something was heard since [`Crowd::stirred`] was asked.
    stirred: Vec<usize>,
    pub(super) found: Findings,
    pub(super) heard: Heard,
    /// Only messages from this time on count in the latency, in microseconds of [`Crowd::now_us`].
    pub(super) latency_from: u64,
    origin: Instant,
    joined: usize,
    /// Rooms that those who are there are in, of all together; also of those who still miss some.
    entered: usize,
    under_way: usize,
    /// Attempts that failed, and were made again.
    pub(super) attempts_failed: u64,
    last_failure: String,
    retries: VecDeque<(Instant, usize)>,
    /// From dialling first to the answer of the join, in microseconds.
    pub(super) join_time: Histogram<u64>,
    /// Whoever joins goes on where it was.
    resumes: bool,
    /// Nobody is meant to be lost from now on.
    is_assembled: bool,
    /// The last turn brought something: more is likely on its way.
    is_stirred: bool,
}

impl Crowd {
    /// A crowd of which nobody has come yet.
    ///
    /// # Errors
    /// When the system gives no poll.
    pub(super) fn new(manner: Manner, rooms: Vec<Room>, spread: Spread) -> anyhow::Result<Self> {
        let client = |client| {
            let mut seats = spread
                .seats(client)
                .map(|(room, place)| Seat::new(room, place));
            let first = seats.next().expect("a client is in one room at least");
            Client::new(
                first,
                seats.collect(),
                spread.target(client, manner.targets.len()),
            )
        };
        Ok(Self {
            clients: (0..spread.clients()).map(client).collect(),
            room_number: Finder::new(&format!("\"room_id\":\"{}", manner.prefix)).into_owned(),
            spread,
            manner,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; BUFFER_BYTES],
            frame: Vec::new(),
            rooms,
            stirred: Vec::new(),
            found: Findings::default(),
            heard: Heard {
                deliveries: 0,
                latency: Histogram::new_with_max(LONGEST_US, 3)?,
            },
            latency_from: u64::MAX,
            origin: Instant::now(),
            joined: 0,
            entered: 0,
            under_way: 0,
            attempts_failed: 0,
            last_failure: String::new(),
            retries: VecDeque::new(),
            join_time: Histogram::new_with_max(LONGEST_US, 3)?,
            resumes: false,
            is_assembled: false,
            is_stirred: false,
        })
    }

    /// Microseconds of the generator's clock.
    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The time on that clock.
    pub(super) fn us_of(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_micros()).unwrap_or(u64::MAX)
    }

    /// Lets everyone come who isn't there: `at_once` under way at a time, at most `per_sec` a second (0: as fast as they
    /// are taken). Returns how long it took until the last had joined.
    ///
    /// # Errors
    /// When for 30 s they were in no more rooms than before, also where some still come and others are lost.
    pub(super) fn assemble(
        &mut self,
        at_once: usize,
        per_sec: u64,
        mut progress: impl FnMut(usize),
    ) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let is_away = |index: &usize| self.clients[*index].stage == Stage::Away;
        let coming: Vec<usize> = (0..self.clients.len()).filter(is_away).collect();
        let mut next = 0;
        let mut made = Progress {
            most: self.entered,
            at: began,
        };
        self.is_assembled = false;
        while self.joined < self.clients.len() {
            let allowed = if per_sec == 0 {
                u64::MAX
            } else {
                per_sec * began.elapsed().as_millis() as u64 / 1000 + 1
            };
            while self.under_way < at_once {
                let index = match self.retries.front() {
                    Some((at, _)) if *at <= Instant::now() => {
                        self.retries.pop_front().map(|(_, index)| index)
                    }
                    _ if next < coming.len() && (next as u64) < allowed => {
                        next += 1;
                        Some(coming[next - 1])
                    }
                    _ => None,
                };
                let Some(index) = index else { break };
                self.dial(index);
            }
            self.turn(Some(Duration::from_millis(if per_sec == 0 {
                20
            } else {
                1
            })))?;
            if made.is_over(self.entered, Instant::now()) {
                let (most, all) = (made.most, self.clients.len() * self.spread.each());
                bail!(
                    "{most} of {all} joins are made, and no more for 30 s: {}",
                    self.last_failure
                );
            }
            progress(self.joined);
        }
        self.is_assembled = true;
        Ok(began.elapsed())
    }

    /// Cuts every connection off at once. Who comes back goes on where it was.
    pub(super) fn scatter(&mut self) {
        self.clients.iter_mut().for_each(Client::hang_up);
        (self.joined, self.entered) = (0, 0);
        self.resumes = true;
        self.join_time.reset();
    }

    fn dial(&mut self, index: usize) {
        let target = &self.manner.targets[self.clients[index].target];
        let source = target::source_of(
            target,
            &self.manner.sources,
            index / self.manner.targets.len(),
        );
        self.under_way += 1;
        self.clients[index].begin();
        let dialled = target.dial(source).and_then(|stream| {
            self.clients[index].dialled(stream);
            let client = self.clients[index]
                .stream()
                .ok_or(io::ErrorKind::NotConnected)?;
            self.poll.registry().register(
                client,
                Token(index),
                Interest::READABLE | Interest::WRITABLE,
            )
        });
        if let Err(error) = dialled {
            self.lost(index, &error.to_string());
        }
    }

    /// A connection ended, or was refused.
    fn lost(&mut self, index: usize, why: &str) {
        let client = &mut self.clients[index];
        let is_occupant = client.stage == Stage::Joined;
        self.entered -= client.entered();
        client.hang_up();
        if is_occupant {
            self.joined -= 1;
            if self.is_assembled {
                self.found.closed += 1;
                return;
            }
        } else {
            self.under_way -= 1;
        }
        self.attempts_failed += 1;
        why.clone_into(&mut self.last_failure);
        self.retries.push_back((Instant::now() + AGAIN, index));
    }

    /// Waits until something comes, at most `patience`, and takes it. With everyone there, it first sleeps [`NAP`] when the
    /// turn before brought something.
    ///
    /// # Errors
    /// When the system's poll fails.
    pub(super) fn turn(&mut self, patience: Option<Duration>) -> anyhow::Result<()> {
        if self.is_stirred && self.is_assembled {
            std::thread::sleep(NAP);
        }
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, patience) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(error).context("poll");
            }
            _ => {}
        }
        self.is_stirred = !events.is_empty();
        for event in &events {
            let index = event.token().0;
            let done = if event.is_writable() {
                self.writable(index)
            } else {
                Ok(())
            };
            let done = done.and_then(|()| {
                if event.is_readable() {
                    self.readable(index, event.is_read_closed())
                } else {
                    Ok(())
                }
            });
            if let Err(why) = done {
                self.lost(index, &why);
            }
        }
        self.events = events;
        Ok(())
    }

    fn writable(&mut self, index: usize) -> Result<(), String> {
        let client = &mut self.clients[index];
        if client.stage == Stage::Dialing {
            if let Some(Some(error)) = client.stream().and_then(|stream| stream.take_error().ok()) {
                return Err(error.to_string());
            }
            client.stage = Stage::Upgrading;
            return client
                .write(&self.manner.targets[client.target].request)
                .map_err(|error| error.to_string());
        }
        client.flush().map_err(|error| error.to_string())
    }

    /// Takes what has come. With `is_closed` the end stands behind it, of which nothing more will be told.
    fn readable(&mut self, index: usize, is_closed: bool) -> Result<(), String> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(());
        loop {
            let filled = match self.clients[index].read(&mut buffer) {
                Ok(Some(filled)) => filled,
                Ok(None) => break,
                Err(error) => {
                    result = Err(error.to_string());
                    break;
                }
            };
            match self.take(index, &buffer[..filled]) {
                Ok(taken) if taken == 0 && filled == buffer.len() => {
                    result = Err("an endless frame".into())
                }
                Ok(taken) => self.clients[index].keep(&buffer[taken..filled]),
                Err(why) => result = Err(why),
            }
            // A read that fills less than it could has taken all there was, but for the end: that is a read of its own.
            if result.is_err() || (filled < buffer.len() && !is_closed) {
                break;
            }
        }
        self.buffer = buffer;
        result
    }

    /// Takes whole frames; returns how many bytes they were.
    fn take(&mut self, index: usize, bytes: &[u8]) -> Result<usize, String> {
        let now = self.now_us();
        let mut taken = 0;
        if self.clients[index].stage == Stage::Upgrading {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
                return Ok(0);
            };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                return Err(String::from_utf8_lossy(bytes)
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned());
            }
            self.clients[index].stage = Stage::Opening;
            taken = end + 4;
        }
        while let Some(frame) = frame::take(&bytes[taken..])? {
            taken += frame.len;
            match frame.opcode {
                frame::TEXT => self.packet(index, frame.payload, now)?,
                frame::PING => self.answer(index, frame::PONG, frame.payload)?,
                frame::CLOSE => return Err("the server closed the connection".into()),
                _ => {}
            }
        }
        Ok(taken)
    }

    fn answer(&mut self, index: usize, opcode: u8, payload: &[u8]) -> Result<(), String> {
        self.frame.clear();
        frame::encode(opcode, payload, &mut self.frame);
        self.clients[index]
            .write(&self.frame)
            .map_err(|error| error.to_string())
    }

    /// One Engine.IO packet.
    fn packet(&mut self, index: usize, packet: &[u8], now: u64) -> Result<(), String> {
        if packet.starts_with(b"42[\"message\",") {
            let client = &mut self.clients[index];
            let which = if self.spread.each() == 1 {
                Some(0)
            } else {
                room::number_behind(&self.room_number, packet)
                    .and_then(|room| self.spread.which(client.first_room(), room))
            };
            let Some(seat) = which.and_then(|which| client.seat(which)) else {
                self.found.unreadable += 1;
                return Ok(());
            };
            let room = &mut self.rooms[seat.room];
            if let Some(sent_us) =
                room.heard(seat.place, &mut seat.last_seq, packet, &mut self.found)
            {
                self.heard.deliveries += 1;
                if sent_us >= self.latency_from {
                    self.heard
                        .latency
                        .saturating_record(now.saturating_sub(sent_us));
                }
                if self.stirred.last() != Some(&seat.room) {
                    self.stirred.push(seat.room);
                }
            }
            return Ok(());
        }
        let text = || String::from_utf8_lossy(packet).into_owned();
        match packet {
            b"2" => self.answer(index, frame::TEXT, b"3"),
            [b'0', ..] => {
                self.clients[index].stage = Stage::Connecting;
                let connect = self.connect(index).map_err(|error| error.to_string())?;
                self.answer(index, frame::TEXT, connect.as_bytes())
            }
            [b'4', b'0', ..] => self.connected(index),
            [b'4', b'1' | b'4', ..] => Err(text()),
            [b'4', b'3', ack @ ..] => self.acknowledged(index, ack),
            [b'4', b'2', event @ ..] if event.starts_with(b"[\"exception\"") => {
                // Before that it is the deadline for saying who one is: a connection that failed, not a message.
                if self.clients[index].stage == Stage::Joined {
                    self.found.refused += 1;
                }
                self.last_failure = text();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The CONNECT packet, with a token when there is a secret to sign one.
    fn connect(&self, index: usize) -> anyhow::Result<String> {
        let Some(secret) = &self.manner.token_secret else {
            return Ok("40".to_owned());
        };
        let user = format!("{}{index}", self.manner.prefix);
        let token = (self.manner.sign)(&user, secret)?;
        Ok(format!("40{{\"token\":\"{token}\"}}"))
    }

    fn connected(&mut self, index: usize) -> Result<(), String> {
        if self.manner.token_secret.is_some() {
            return self.join(index);
        }
        self.clients[index].stage = Stage::Authenticating;
        let user = format!("{}{index}", self.manner.prefix);
        let packet =
            format!("420[\"authenticate\",{{\"user_id\":\"{user}\",\"username\":\"{user}\"}}]");
        self.answer(index, frame::TEXT, packet.as_bytes())
    }

    /// Asks to be let into all of its rooms at once, as a client does that comes back. The ids of the acks count the rooms
    /// from 1.
    fn join(&mut self, index: usize) -> Result<(), String> {
        let client = &mut self.clients[index];
        client.stage = Stage::Joining;
        self.frame.clear();
        for (id, seat) in (1..).zip(client.seats()) {
            let room = &self.rooms[seat.room];
            let since = match (&seat.epoch, self.resumes && room.is_numbered()) {
                (Some(epoch), true) => {
                    format!(",\"since_seq\":{},\"epoch\":\"{epoch}\"", seat.last_seq)
                }
                _ => String::new(),
            };
            let packet = format!("42{id}[\"join\",{{\"room_id\":\"{}\"{since}}}]", room.name);
            frame::encode(frame::TEXT, packet.as_bytes(), &mut self.frame);
        }
        client.write(&self.frame).map_err(|error| error.to_string())
    }

    /// An acknowledgement: its id, then an array with one object.
    fn acknowledged(&mut self, index: usize, ack: &[u8]) -> Result<(), String> {
        let text = || String::from_utf8_lossy(ack).into_owned();
        let at = ack.iter().position(|byte| *byte == b'[').ok_or_else(text)?;
        let answer: Value = serde_json::from_slice(&ack[at..]).map_err(|_| text())?;
        let answer = &answer[0];
        if answer["ok"] != Value::Bool(true) {
            return Err(text());
        }
        match self.clients[index].stage {
            Stage::Authenticating => self.join(index),
            Stage::Joining => {
                let client = &mut self.clients[index];
                let which = room::digits_of(&ack[..at])
                    .and_then(|id| usize::try_from(id.checked_sub(1)?).ok());
                let seat = which
                    .and_then(|which| client.seat(which))
                    .filter(|seat| !seat.taken)
                    .ok_or_else(text)?;
                seat.taken = true;
                let room = &mut self.rooms[seat.room];
                let seq = answer["seq"].as_u64();
                if self.resumes {
                    if room.is_numbered()
                        && (answer["recovered"] != true || seq != Some(seat.last_seq))
                    {
                        self.found.gaps += 1;
                    }
                } else {
                    room.joined(seq);
                    seat.last_seq = seq.unwrap_or_default();
                }
                seat.epoch = answer["epoch"].as_str().map(Into::into);
                self.entered += 1;
                if let Some(took) = client.enter() {
                    self.join_time
                        .saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                    self.joined += 1;
                    self.under_way -= 1;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Lets the next member of a room speak; the message counts as sent at `sent_us`.
    pub(super) fn speak(&mut self, room: usize, sent_us: u64) {
        let (sender, frame) = self.rooms[room].next(sent_us);
        if let Err(error) = self.clients[sender].write(frame)
            && self.clients[sender].stage == Stage::Joined
        {
            self.lost(sender, &error.to_string());
        }
    }

    /// Puts the rooms in which something was heard since the last time into `rooms`, some more than once.
    pub(super) fn stirred(&mut self, rooms: &mut Vec<usize>) {
        rooms.clear();
        rooms.append(&mut self.stirred);
    }

    /// Whether everyone has heard everything.
    pub(super) fn is_quiet(&self) -> bool {
        self.rooms.iter().all(Room::is_quiet)
    }

    /// What the last one that failed was told.
    pub(super) fn last_failure(&self) -> &str {
        &self.last_failure
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};

    use super::*;

    /// A crowd of one, in so many rooms, of which nobody has come, and where it comes to.
    fn crowd_of_one(rooms: usize) -> (Crowd, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let manner = Manner {
            targets: vec![target],
            sources: Vec::new(),
            token_secret: None,
            sign: |_, _| anyhow::bail!("no test signs a token"),
            prefix: "u".into(),
        };
        let spread = Spread::new(1, rooms, rooms).unwrap();
        let rooms = (0..rooms)
            .map(|room| Room::new(format!("u{room}"), spread.members(room), 1, 100))
            .collect();
        (Crowd::new(manner, rooms, spread).unwrap(), listener)
    }

    /// Lets it send its request; the server's end of the connection, which has read it.
    fn dial(crowd: &mut Crowd, listener: &TcpListener) -> std::net::TcpStream {
        crowd.dial(0);
        while crowd.clients[0].stage == Stage::Dialing {
            crowd.turn(None).unwrap();
        }
        let (mut server, _) = listener.accept().unwrap();
        read_to(&mut server, "\r\n\r\n");
        server
    }

    /// What comes, up to this end.
    fn read_to(server: &mut std::net::TcpStream, end: &str) -> String {
        let mut all = Vec::new();
        while !all.ends_with(end.as_bytes()) {
            let mut bytes = [0; 1024];
            let read = server.read(&mut bytes).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&bytes[..read]);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    fn upgrading() -> (Crowd, std::net::TcpStream) {
        let (mut crowd, listener) = crowd_of_one(1);
        let server = dial(&mut crowd, &listener);
        (crowd, server)
    }

    /// All that a server says until a client is in its rooms, with these acks of its joins.
    fn welcome_with(acks: &[&str]) -> Vec<u8> {
        let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
        for text in ["0{}", "40{}", "430[{\"ok\":true}]"].iter().chain(acks) {
            bytes.extend_from_slice(&[0x81, u8::try_from(text.len()).unwrap()]);
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    fn welcome() -> Vec<u8> {
        welcome_with(&["431[{\"ok\":true,\"seq\":0,\"epoch\":\"e\"}]"])
    }

    #[test]
    fn an_end_right_behind_the_last_bytes_is_noticed() {
        let (mut crowd, mut server) = upgrading();
        server.write_all(&welcome()).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        crowd.turn(None).unwrap();
        assert_eq!(crowd.join_time.len(), 1, "it had joined");
        assert_eq!(
            (crowd.joined, crowd.retries.len()),
            (0, 1),
            "{}",
            crowd.last_failure
        );
    }

    #[test]
    fn who_is_lost_and_comes_again_is_no_progress() {
        let began = Instant::now();
        let mut made = Progress { most: 0, at: began };
        assert!(!made.is_over(5, began + PATIENCE), "five are there");
        for (joined, seconds) in [(4, 1), (5, 20), (3, 25), (5, 30)] {
            assert!(!made.is_over(joined, began + PATIENCE + Duration::from_secs(seconds)));
        }
        assert!(made.is_over(5, began + 2 * PATIENCE + Duration::from_secs(1)));
        assert!(
            !made.is_over(6, began + 2 * PATIENCE + Duration::from_secs(1)),
            "a sixth"
        );
    }

    #[test]
    fn who_is_there_stays() {
        let (mut crowd, mut server) = upgrading();
        server.write_all(&welcome()).unwrap();
        crowd.turn(None).unwrap();
        assert_eq!(
            (crowd.joined, crowd.retries.len()),
            (1, 0),
            "{}",
            crowd.last_failure
        );
    }

    /// The message that the only member of a room says next, as it hears it.
    fn said(crowd: &mut Crowd, room: usize, seq: u64) -> Vec<u8> {
        let (_, frame) = crowd.rooms[room].next(0);
        let at = memmem::find(frame, b"\"room_id\"").unwrap();
        [
            format!("42[\"message\",{{\"seq\":{seq},\"epoch\":\"e\",\"id\":\"i\",").as_bytes(),
            &frame[at..],
        ]
        .concat()
    }

    #[test]
    fn every_room_of_a_connection_is_checked_by_itself() {
        let (mut crowd, listener) = crowd_of_one(3);
        let mut server = dial(&mut crowd, &listener);
        let acks = [
            "433[{\"ok\":true,\"seq\":30}]",
            "431[{\"ok\":true,\"seq\":10}]",
            "432[{\"ok\":true,\"seq\":20}]",
        ];
        server.write_all(&welcome_with(&acks[..2])).unwrap();
        crowd.turn(None).unwrap();
        assert_eq!((crowd.joined, crowd.entered), (0, 2), "one room is missing");
        server
            .write_all(&welcome_with(&acks)[welcome_with(&acks[..2]).len()..])
            .unwrap();
        crowd.turn(None).unwrap();
        assert_eq!((crowd.joined, crowd.entered), (1, 3));
        for (room, seq) in [(2, 31), (0, 11), (2, 32), (1, 21), (0, 12)] {
            let packet = said(&mut crowd, room, seq);
            crowd.packet(0, &packet, 0).unwrap();
        }
        assert!(
            crowd.is_quiet() && crowd.found.is_clean(),
            "{:?}",
            crowd.found
        );
        assert_eq!(crowd.heard.deliveries, 5);
        let lost = said(&mut crowd, 1, 22);
        let packet = said(&mut crowd, 1, 23);
        crowd.packet(0, &packet, 0).unwrap();
        assert_eq!(
            crowd.found,
            Findings {
                holes: 1,
                ..Findings::default()
            }
        );
        crowd.packet(0, &lost, 0).unwrap();
        crowd.packet(0, &packet, 0).unwrap();
        assert_eq!(
            crowd.found,
            Findings {
                disorder: 1,
                repeats: 1,
                ..Findings::default()
            }
        );
    }

    #[test]
    fn a_message_of_a_room_that_it_is_not_in_is_none_to_a_client() {
        let (mut crowd, _listener) = crowd_of_one(2);
        for room_id in ["u2", "v1", "u", ""] {
            let packet = format!(
                "42[\"message\",{{\"seq\":1,\"room_id\":\"{room_id}\",\"content\":\"~hb\"}}]"
            );
            crowd.packet(0, packet.as_bytes(), 0).unwrap();
        }
        assert_eq!(
            crowd.found,
            Findings {
                unreadable: 4,
                ..Findings::default()
            }
        );
        assert_eq!(crowd.heard.deliveries, 0);
    }

    #[test]
    fn who_is_cut_off_goes_on_in_all_of_its_rooms() {
        let (mut crowd, listener) = crowd_of_one(2);
        let acks = [
            "431[{\"ok\":true,\"seq\":0,\"epoch\":\"a\"}]",
            "432[{\"ok\":true,\"seq\":7,\"epoch\":\"b\"}]",
        ];
        let mut server = dial(&mut crowd, &listener);
        server.write_all(&welcome_with(&acks)).unwrap();
        crowd.turn(None).unwrap();
        let asked = read_to(&mut server, "\"u1\"}]");
        assert!(
            asked.contains("421[\"join\",{\"room_id\":\"u0\"}]") && asked.contains("422[\"join\""),
            "{asked}"
        );
        let packet = said(&mut crowd, 1, 8);
        crowd.packet(0, &packet, 0).unwrap();
        crowd.scatter();
        assert_eq!((crowd.joined, crowd.entered), (0, 0));
        let mut server = dial(&mut crowd, &listener);
        let recovered = "431[{\"ok\":true,\"seq\":0,\"epoch\":\"a\",\"recovered\":true}]";
        // The other one was told of a message less.
        let gap = "432[{\"ok\":true,\"seq\":7,\"epoch\":\"b\",\"recovered\":true}]";
        server.write_all(&welcome_with(&[recovered, gap])).unwrap();
        crowd.turn(None).unwrap();
        let asked = read_to(&mut server, "\"epoch\":\"b\"}]");
        assert!(
            asked.contains("\"u0\",\"since_seq\":0,\"epoch\":\"a\"}]"),
            "{asked}"
        );
        assert!(
            asked.contains("\"u1\",\"since_seq\":8,\"epoch\":\"b\"}]"),
            "{asked}"
        );
        assert_eq!((crowd.joined, crowd.entered), (1, 2));
        assert_eq!(
            crowd.found,
            Findings {
                gaps: 1,
                ..Findings::default()
            }
        );
    }

    #[test]
    fn an_answer_that_comes_twice_is_not_another_rooms() {
        let (mut crowd, listener) = crowd_of_one(2);
        let mut server = dial(&mut crowd, &listener);
        let ack = "431[{\"ok\":true,\"seq\":0}]";
        server.write_all(&welcome_with(&[ack, ack])).unwrap();
        crowd.turn(None).unwrap();
        assert_eq!(
            (crowd.joined, crowd.attempts_failed),
            (0, 1),
            "{}",
            crowd.last_failure
        );
    }

    #[test]
    fn who_is_lost_before_its_last_room_is_in_none() {
        let (mut crowd, listener) = crowd_of_one(2);
        let mut server = dial(&mut crowd, &listener);
        server
            .write_all(&welcome_with(&[
                "431[{\"ok\":true,\"seq\":0}]",
                "432[{\"ok\":false}]",
            ]))
            .unwrap();
        crowd.turn(None).unwrap();
        assert_eq!((crowd.joined, crowd.entered, crowd.under_way), (0, 0, 0));
        assert_eq!(
            (crowd.attempts_failed, crowd.retries.len()),
            (1, 1),
            "{}",
            crowd.last_failure
        );
    }
}
