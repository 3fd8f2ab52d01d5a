//! The events that a client receives.

use serde::Deserialize;

use super::task::ClientTask;
use crate::history::{Fact, digest};

#[derive(Deserialize)]
struct MessageEvent {
    id: String,
    room_id: String,
    seq: u64,
    epoch: String,
    user_id: String,
    content: String,
    client_msg_id: Option<String>,
}

#[derive(Deserialize)]
struct RoomResetEvent {
    room_id: String,
    epoch: String,
    seq: u64,
    lost_from: Option<u64>,
}

#[derive(Deserialize)]
struct RoomUsersEvent {
    room_id: String,
    users: Vec<String>,
    total: u64,
}

#[derive(Deserialize)]
struct MembershipEvent {
    room_id: String,
    user_id: String,
}

#[derive(Deserialize)]
struct StatusEvent {
    user_id: String,
    is_online: bool,
    version: u64,
    #[serde(default)]
    initial: bool,
}

impl ClientTask {
    pub fn handle_event(&mut self, name: &str, payload: &str) -> anyhow::Result<()> {
        match name {
            "message" => self.handle_message(serde_json::from_str(payload)?),
            "room_reset" => {
                let event: RoomResetEvent = serde_json::from_str(payload)?;
                self.set_position(&event.room_id, &event.epoch, event.seq);
                self.record(Fact::Reset {
                    room: event.room_id,
                    epoch: event.epoch,
                    seq: event.seq,
                    lost_from: event.lost_from,
                });
            }
            "room_users" => {
                let event: RoomUsersEvent = serde_json::from_str(payload)?;
                self.record(Fact::RoomUsers {
                    room: event.room_id,
                    users: event.users,
                    total: event.total,
                });
            }
            "user_joined" => {
                let event: MembershipEvent = serde_json::from_str(payload)?;
                self.record(Fact::UserJoined {
                    room: event.room_id,
                    user: event.user_id,
                });
            }
            "user_left" => {
                let event: MembershipEvent = serde_json::from_str(payload)?;
                self.record(Fact::UserLeft {
                    room: event.room_id,
                    user: event.user_id,
                });
            }
            "user_online" | "user_offline" => {
                let event: StatusEvent = serde_json::from_str(payload)?;
                self.record(Fact::Status {
                    target: event.user_id,
                    online: event.is_online,
                    version: event.version,
                    initial: event.initial,
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn handle_message(&mut self, event: MessageEvent) {
        // The lab's clients send the time (in microseconds since the run began) as the content.
        if self.config.measures_latency
            && let Ok(sent_at) = event.content.parse::<u64>()
        {
            let latency = self.recorder.elapsed_micros().saturating_sub(sent_at);
            self.latencies.add(self.recorder.elapsed_millis(), latency);
        }
        self.set_position(&event.room_id, &event.epoch, event.seq);
        self.record(Fact::Received {
            room: event.room_id,
            epoch: event.epoch,
            seq: event.seq,
            id: event.id,
            msg: event.client_msg_id,
            user: event.user_id,
            content: Some(digest(&event.content)),
        });
    }

    fn set_position(&self, room: &str, epoch: &str, seq: u64) {
        let mut positions = self.state.positions.lock();
        if let Some(position) = positions.get_mut(room) {
            position.seq = seq;
            if position.epoch != epoch {
                epoch.clone_into(&mut position.epoch);
            }
        }
    }
}
