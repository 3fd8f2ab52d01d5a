//! The packets of a connection: Engine.IO's and Socket.IO's handshake, `authenticate`, `join`, and
//! the messages of rooms.

use memchr::memchr;
use serde_json::Value;

use super::{LoadGenerator, Phase};
use crate::acks::ID_DIGITS;
use crate::client::ClientState;
use crate::digits::{number_after, parse_digits};
use crate::frame;

/// The beginning of a packet with a message of a room.
const MESSAGE_EVENT: &[u8] = b"42[\"message\",";

/// The beginning of the array of an acknowledgement that accepts the event. Servers may write it
/// differently; then the JSON is parsed.
const ACCEPTED: &[u8] = b"[{\"ok\":true";

/// The beginning of an event that refuses an event of the client, without its packet type.
const EXCEPTION_EVENT: &[u8] = b"[\"exception\"";

impl LoadGenerator {
    /// Processes one Engine.IO packet that was read at `now_us`.
    ///
    /// # Errors
    /// This and the following functions return the reason to close the connection.
    pub(super) fn process_packet(
        &mut self,
        client: usize,
        packet: &[u8],
        now_us: u64,
    ) -> Result<(), String> {
        if packet.starts_with(MESSAGE_EVENT) {
            self.process_message(client, packet, now_us);
            return Ok(());
        }
        match packet {
            // Engine.IO's heartbeat.
            b"2" => self.send_frame(client, frame::TEXT, b"3"),
            // Engine.IO's `open`.
            [b'0', ..] => self.send_connect(client),
            // Socket.IO's CONNECT.
            [b'4', b'0', ..] => self.process_connected(client),
            // DISCONNECT, or CONNECT_ERROR.
            [b'4', b'1' | b'4', refusal @ ..] => {
                self.record_limit(refusal);
                Err(to_text(packet))
            }
            [b'4', b'3', ack @ ..] => self.process_ack(client, ack, now_us),
            [b'4', b'2', event @ ..] if event.starts_with(EXCEPTION_EVENT) => {
                // Before the client has joined, the exception is a failure to connect, not a refused
                // message.
                let has_joined = self.clients[client].state == ClientState::Joined;
                let is_limit = match serde_json::from_slice::<Value>(event) {
                    Ok(event) if has_joined => self.load_limits.record(&event[1]),
                    Ok(event) => self.connect_limits.record(&event[1]),
                    Err(_) => false,
                };
                if has_joined && !is_limit {
                    self.findings.refused += 1;
                }
                self.last_failure = to_text(packet);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Records a refusal, if a limit of the nodes caused it. `json` may be no JSON.
    pub(super) fn record_limit(&mut self, json: &[u8]) {
        if let Ok(refusal) = serde_json::from_slice::<Value>(json) {
            self.connect_limits.record(&refusal);
        }
    }

    /// Checks a message of a room, and records its latency.
    fn process_message(&mut self, client: usize, packet: &[u8], now_us: u64) {
        let client = &mut self.clients[client];
        let index = if self.assignment.rooms_each() == 1 {
            Some(0)
        } else {
            number_after(&self.room_number, packet)
                .and_then(|room| usize::try_from(room).ok())
                .and_then(|room| self.assignment.membership_index(client.first_room(), room))
        };
        let Some(membership) = index.and_then(|index| client.membership(index)) else {
            self.findings.unreadable += 1;
            return;
        };
        let Some(due_us) = self.rooms[membership.room].receive(
            membership.member,
            &mut membership.last_seq,
            packet,
            &mut self.findings,
        ) else {
            return;
        };
        self.deliveries.count += 1;
        if due_us >= self.latency_from {
            let latency = now_us.saturating_sub(due_us);
            self.deliveries.latency.saturating_record(latency);
        }
        // One read often brings several messages of one room.
        if self.active_rooms.last() != Some(&membership.room) {
            self.active_rooms.push(membership.room);
        }
    }

    /// Sends Socket.IO's CONNECT packet, with a token if there is a secret to sign one.
    fn send_connect(&mut self, client: usize) -> Result<(), String> {
        self.clients[client].state = ClientState::Connecting;
        let Some(secret) = &self.settings.token_secret else {
            return self.send_frame(client, frame::TEXT, b"40");
        };
        let user = self.user_of(client);
        let token = (self.settings.sign_token)(&user, secret).map_err(|error| error.to_string())?;
        let packet = format!("40{{\"token\":\"{token}\"}}");
        self.send_frame(client, frame::TEXT, packet.as_bytes())
    }

    /// The server has accepted the Socket.IO connection: the client authenticates, unless its token
    /// has done so.
    fn process_connected(&mut self, client: usize) -> Result<(), String> {
        if self.settings.token_secret.is_some() {
            return self.join_rooms(client);
        }
        self.clients[client].state = ClientState::Authenticating;
        let user = self.user_of(client);
        let packet =
            format!("420[\"authenticate\",{{\"user_id\":\"{user}\",\"username\":\"{user}\"}}]");
        self.send_frame(client, frame::TEXT, packet.as_bytes())
    }

    /// The user id of a client.
    fn user_of(&self, client: usize) -> String {
        format!("{}{client}", self.settings.name_prefix)
    }

    /// Joins all rooms of a client at once, as a client does that reconnects. The ack ids count its
    /// rooms from 1.
    fn join_rooms(&mut self, index: usize) -> Result<(), String> {
        let client = &mut self.clients[index];
        client.state = ClientState::Joining;
        self.frame.clear();
        for (id, membership) in (1..).zip(client.memberships()) {
            let room = &self.rooms[membership.room];
            let is_resuming = self.phase == Phase::Reconnecting && room.is_numbered();
            let since = match &membership.epoch {
                Some(epoch) if is_resuming => {
                    let last_seq = membership.last_seq;
                    format!(",\"since_seq\":{last_seq},\"epoch\":\"{epoch}\"")
                }
                _ => String::new(),
            };
            let packet = format!("42{id}[\"join\",{{\"room_id\":\"{}\"{since}}}]", room.name);
            frame::encode(frame::TEXT, packet.as_bytes(), &mut self.frame);
        }
        client.write(&self.frame).map_err(|error| error.to_string())
    }

    /// Processes an ack: its id, and an array with the server's reply.
    fn process_ack(&mut self, client: usize, ack: &[u8], now_us: u64) -> Result<(), String> {
        let Some(array_at) = memchr(b'[', ack) else {
            return Err(to_text(ack));
        };
        let (id, array) = ack.split_at(array_at);
        if id.len() == ID_DIGITS {
            self.process_message_ack(client, id, array, now_us);
            return Ok(());
        }
        let Ok(arguments) = serde_json::from_slice::<Value>(array) else {
            return Err(to_text(ack));
        };
        let reply = &arguments[0];
        if reply["ok"] != Value::Bool(true) {
            self.connect_limits.record(reply);
            return Err(to_text(ack));
        }
        match self.clients[client].state {
            ClientState::Authenticating => self.join_rooms(client),
            ClientState::Joining => match self.process_join_reply(client, id, reply) {
                Some(()) => Ok(()),
                None => Err(to_text(ack)),
            },
            _ => Ok(()),
        }
    }

    /// The server has acknowledged or refused a message.
    fn process_message_ack(&mut self, client: usize, id: &[u8], array: &[u8], now_us: u64) {
        let answered = match (&mut self.acks, parse_digits(id)) {
            (Some(acks), Some(id)) => acks.finish(client, id).map(|message| (acks, message)),
            _ => None,
        };
        let Some((acks, message)) = answered else {
            self.findings.unreadable += 1;
            return;
        };
        let refusal = refusal_in(array);
        acks.record(message, refusal.is_none());
        let Some(refusal) = refusal else {
            if message.due_us >= self.latency_from {
                let latency = now_us.saturating_sub(message.due_us);
                acks.latency.saturating_record(latency);
            }
            return;
        };
        self.rooms[message.room].message_refused();
        let is_limit = self.load_limits.record(&refusal);
        if !is_limit && !acks.allows_refusals {
            self.findings.refused += 1;
        }
        self.last_failure = to_text(array);
    }

    /// The server has accepted a join. Returns `None` if no such join is pending.
    fn process_join_reply(&mut self, index: usize, ack_id: &[u8], reply: &Value) -> Option<()> {
        let client = &mut self.clients[index];
        let membership_index = parse_digits(ack_id)?.checked_sub(1)?;
        let membership = client.membership(usize::try_from(membership_index).ok()?)?;
        if membership.is_joined {
            return None;
        }
        membership.is_joined = true;
        let room = &mut self.rooms[membership.room];
        let seq = reply["seq"].as_u64();
        if self.phase == Phase::Reconnecting {
            let has_resumed = reply["recovered"] == true && seq == Some(membership.last_seq);
            if room.is_numbered() && !has_resumed {
                self.findings.gaps += 1;
            }
        } else {
            room.member_joined(seq);
            membership.last_seq = seq.unwrap_or_default();
        }
        membership.epoch = reply["epoch"].as_str().map(Into::into);
        self.joined_rooms += 1;
        if let Some(time) = client.room_joined() {
            let time_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            self.join_time.saturating_record(time_us);
            self.joined += 1;
            self.handshakes -= 1;
        }
        Some(())
    }
}

/// The object of an acknowledgement that refuses its event; `None` if it accepts the event.
fn refusal_in(array: &[u8]) -> Option<Value> {
    if array.starts_with(ACCEPTED) {
        return None;
    }
    let arguments = serde_json::from_slice::<Value>(array).unwrap_or_default();
    let reply = &arguments[0];
    if reply["ok"] == Value::Bool(true) {
        return None;
    }
    Some(reply.clone())
}

fn to_text(packet: &[u8]) -> String {
    String::from_utf8_lossy(packet).into_owned()
}
