//! `join`, `leave`: enters and leaves rooms.

use tracing::Instrument;

use super::{ClientRequest, Earlier, RequestContext};
use crate::delivery::{JoinOutcome, ReplayFrom};
use crate::domain::{Cost, Refusal, RoomId};
use crate::gateway::wire::{Fields, JoinAck, RoomAck, replay_from};

/// `join`: enters a room and replays its messages from a position on.
#[derive(Debug)]
pub struct Join {
    room: RoomId,
    pub(super) from: ReplayFrom,
}

impl ClientRequest for Join {
    const EVENT: &'static str = "join";

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            room: fields.required("room_id", RoomId::parse)?,
            from: replay_from(fields)?,
        })
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        let Self { room, from } = self;
        context.connection.charge(Cost::JOIN)?;
        let member = context.member_of(&room).await?;
        let permit = context.state.may_join(&room, member)?;
        let span = tracing::debug_span!("join", %room);
        let reply = context.reply.clone();
        // The room's worker calls it before the replay, so that the acknowledgement precedes the
        // replay.
        let acknowledge = Box::new(move |outcome: &JoinOutcome| {
            reply.acknowledge(&JoinAck::of(&room, outcome));
        });
        context
            .messaging()
            .join(context.state, permit, from, acknowledge)
            .instrument(span)
            .await
    }
}

/// `leave`: leaves a room.
#[derive(Debug)]
pub struct Leave {
    room: RoomId,
}

impl ClientRequest for Leave {
    const EVENT: &'static str = "leave";
    const WAITS_FOR: Earlier = Earlier::Nothing;

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            room: fields.required("room_id", RoomId::parse)?,
        })
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        context.messaging().leave(context.state, &self.room).await?;
        context.reply.acknowledge(&RoomAck::of(&self.room));
        Ok(())
    }
}
