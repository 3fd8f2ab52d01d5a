//! Everything that a device receives: answers to joins, pages of histories, and events.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::fold::{Event, Room};
use super::reader::{Reader, Session};
use super::{OwnVersion, wire};
use crate::history::changes::ChangeFact;

/// A refused request is repeated after this time.
const RETRY_DELAY: Duration = Duration::from_millis(300);

impl Reader {
    pub fn joined(&self, session: &mut Session, room: &str, is_resume: bool, answer: &Value) {
        let is_ok = answer["ok"] == true;
        let delay = if is_ok { Duration::ZERO } else { RETRY_DELAY };
        let due = Instant::now() + delay;
        session.due.insert(room.to_owned(), Some(due));
        if !is_ok {
            return;
        }
        let number = |field: &str| answer[field].as_u64().unwrap_or_default();
        let recovered = answer["recovered"] == true;
        let mut shared = self.shared.lock();
        let Some(state) = shared.rooms.get_mut(room) else {
            return;
        };
        let position = if recovered {
            state.seq.unwrap_or_default()
        } else {
            state.fold = Room::default();
            state.fetched = Some(0);
            number("seq").saturating_sub(number("replayed"))
        };
        state.is_joined = true;
        state.epoch = answer["epoch"].as_str().map(str::to_owned);
        state.seq = Some(position);
        drop(shared);
        self.record(ChangeFact::Joined {
            room: room.to_owned(),
            position,
            is_resume,
            recovered,
            gap: answer["gap"] == true,
        });
    }

    /// Folds a page of a room's history.
    pub fn fetched(
        &self,
        session: &mut Session,
        room: &str,
        began: u64,
        answer: &Value,
    ) -> anyhow::Result<()> {
        let is_ok = answer["ok"] == true;
        let delay = if is_ok { Duration::ZERO } else { RETRY_DELAY };
        let due = Instant::now() + delay;
        session.due.insert(room.to_owned(), Some(due));
        if !is_ok {
            return Ok(());
        }
        let mut after = answer["next_seq"].as_u64();
        let mut shown = Vec::new();
        let mut shared = self.shared.lock();
        let Some(state) = shared.rooms.get_mut(room) else {
            return Ok(());
        };
        for message in answer["messages"].as_array().into_iter().flatten() {
            for event in wire::listed(message)? {
                after = after.max(Some(event.target()));
                if matches!(event, Event::Shown(_)) {
                    shown.push(event.target());
                }
                state.fold.apply(event);
            }
        }
        state.fetched = match answer["has_more"] == true {
            true => after.or(state.fetched),
            false => None,
        };
        drop(shared);
        for target in shown {
            let room = room.to_owned();
            self.record(ChangeFact::Shown {
                room,
                target,
                began,
            });
        }
        Ok(())
    }

    pub fn handle_event(
        &self,
        session: &Session,
        name: &str,
        payload: &Value,
    ) -> anyhow::Result<()> {
        let room = payload["room_id"].as_str().unwrap_or_default().to_owned();
        if name == "room_reset" {
            self.record(ChangeFact::Reset { room });
            return Ok(());
        }
        let (Some(seq), Some(epoch)) = (payload["seq"].as_u64(), payload["epoch"].as_str()) else {
            return Ok(());
        };
        let event = wire::event(name, payload)?;
        let mut shared = self.shared.lock();
        let Some(state) = shared.rooms.get_mut(&room) else {
            return Ok(());
        };
        if !state.is_joined {
            return Ok(());
        }
        state.seq = Some(seq);
        state.epoch = Some(epoch.to_owned());
        if let Some(event) = event.clone() {
            state.fold.apply(event);
        }
        drop(shared);
        self.record_event(session, (&room, seq, name), event.as_ref(), payload);
        if let Some(Event::Shown(shown)) = event
            && shown.user == self.config.account.id
        {
            self.own_versions.send_replace(Some(OwnVersion {
                room,
                seq: shown.seq,
                version: shown.version,
            }));
        }
        Ok(())
    }

    fn record_event(
        &self,
        session: &Session,
        (room, seq, name): (&str, u64, &str),
        event: Option<&Event>,
        payload: &Value,
    ) {
        let room = || room.to_owned();
        let target = event.map_or(0, Event::target);
        let version = match event {
            Some(Event::Shown(shown)) if name == "message_edited" => Some(shown.version),
            _ => None,
        };
        self.record(ChangeFact::Received {
            room: room(),
            seq,
            name: name.to_owned(),
            target,
            version,
        });
        match event {
            Some(Event::Shown(_)) => self.record(ChangeFact::Shown {
                room: room(),
                target,
                began: session.began,
            }),
            Some(Event::Reactions { .. }) => self.record(ChangeFact::ReactionsReceived {
                room: room(),
                target,
                seq,
                timestamp: payload["timestamp"]
                    .as_str()
                    .and_then(wire::timestamp_millis)
                    .unwrap_or_default(),
            }),
            _ => {}
        }
    }
}
