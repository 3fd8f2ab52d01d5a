//! `sync`: resumes the personal feed and enters many rooms at once.

use std::collections::BTreeMap;

use super::{ClientRequest, RequestContext};
use crate::delivery::ReplayFrom;
use crate::domain::{Cost, Refusal, RoomId};
use crate::features::messaging::{SyncOutcome, SyncRequest};
use crate::gateway::wire::{Fields, SyncAck, replay_from, rooms_to_sync};

/// Rooms that cost as much of the rate of joins as one `join`: a client that comes back enters all its
/// rooms at once.
const ROOMS_PER_JOIN: usize = 10;

/// `sync`: resumes the personal feed from a position, and enters rooms as `join` does.
#[derive(Debug)]
pub struct Sync {
    feed: ReplayFrom,
    rooms: BTreeMap<RoomId, ReplayFrom>,
}

impl ClientRequest for Sync {
    const EVENT: &'static str = "sync";

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            feed: replay_from(fields)?,
            rooms: rooms_to_sync(fields)?,
        })
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        let RequestContext {
            connection,
            state,
            reply,
            ..
        } = context;
        for _ in 0..self.rooms.len().div_ceil(ROOMS_PER_JOIN) {
            connection.charge(Cost::JOIN)?;
        }
        let rooms = self.rooms.into_iter().map(|(room, from)| {
            let permit = state.may_join(&room);
            (room, from, permit)
        });
        let request = SyncRequest {
            feed: self.feed,
            rooms: rooms.collect(),
        };
        let acknowledge = |outcome: &SyncOutcome| reply.acknowledge(&SyncAck::of(outcome));
        let messaging = &connection.connections.messaging;
        messaging.sync(state, request, acknowledge).await
    }
}
