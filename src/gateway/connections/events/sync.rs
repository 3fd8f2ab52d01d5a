//! `sync`: resumes the personal feed and enters many rooms at once.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};

use super::{ClientRequest, RequestContext};
use crate::delivery::ReplayFrom;
use crate::domain::{Cost, Refusal, RoomId};
use crate::features::messaging::{SyncOutcome, SyncRequest};
use crate::gateway::wire::{Fields, SyncAck, replay_from, rooms_to_sync};

/// Rooms that cost as much of the rate of joins as one `join`: a client that comes back enters all its
/// rooms at once.
const ROOMS_PER_JOIN: usize = 10;
/// So many rights of the rooms of one request are read at the same time.
const CONCURRENT_READS: usize = 16;

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
        for _ in 0..self.rooms.len().div_ceil(ROOMS_PER_JOIN) {
            context.connection.charge(Cost::JOIN)?;
        }
        let shared = &context;
        let permit = |(room, from): (RoomId, ReplayFrom)| async move {
            let member = shared.member_of(&room).await;
            let permit = member.and_then(|member| shared.state.may_join(&room, member));
            (room, from, permit)
        };
        let rooms = stream::iter(self.rooms.into_iter().map(permit))
            .buffered(CONCURRENT_READS)
            .collect()
            .await;
        let request = SyncRequest {
            feed: self.feed,
            rooms,
        };
        let reply = context.reply;
        let acknowledge = |outcome: &SyncOutcome| reply.acknowledge(&SyncAck::of(outcome));
        let messaging = context.messaging();
        messaging.sync(context.state, request, acknowledge).await
    }
}
