//! `message`, `history`, `typing`: sends to a room, and reads a room's messages.

use tracing::Instrument;

use super::{ClientRequest, Earlier, RequestContext};
use crate::domain::{Limits, MessageFields, Refusal, RoomId};
use crate::features::messaging::HistoryWindow;
use crate::gateway::wire::{
    Fields, HistoryAck, MAX_SEQ, MessageAck, RoomAck, history_limit, history_window, message_fields,
};

/// `message`: sends a message to a room.
#[derive(Debug)]
pub struct SendMessage {
    pub(in crate::gateway) room: RoomId,
    pub(in crate::gateway) fields: MessageFields,
}

impl ClientRequest for SendMessage {
    const EVENT: &'static str = "message";
    const WAITS_FOR: Earlier = Earlier::Nothing;

    // Inlined, the request is built where it stays: it is 200 bytes long, and copying it is a
    // noticeable part of decoding.
    #[inline(always)]
    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            room: fields.required("room_id", RoomId::parse)?,
            fields: message_fields(fields)?,
        })
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        let span = tracing::debug_span!("message", room = %self.room);
        let member = context.member_of(&self.room).await?;
        let permit = context.state.rights(&self.room, member)?.may_send()?;
        let (appended, commit) = context
            .messaging()
            .send(context.state, permit, self.fields)
            .instrument(span)
            .await?;
        if commit.is_done() {
            drop(commit);
            context
                .reply
                .acknowledge(&MessageAck::of(&self.room, &appended));
        } else {
            let (reply, room) = (context.reply.later(), self.room.clone());
            commit.on_done(Box::new(move |outcome| match outcome {
                Ok(()) => reply.acknowledge(&MessageAck::of(&room, &appended)),
                Err(error) => reply.refuse(&Refusal::from(error)),
            }));
        }
        context
            .connection
            .flush_sent(&self.room, context.event_bytes)
            .await;
        Ok(())
    }
}

/// `history`: reads messages of a room.
#[derive(Debug)]
pub struct History {
    room: RoomId,
    window: HistoryWindow,
    pub(in crate::gateway) limit: usize,
}

impl ClientRequest for History {
    const EVENT: &'static str = "history";

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            room: fields.required("room_id", RoomId::parse)?,
            window: history_window(
                fields.number("before_seq", 0, MAX_SEQ)?,
                fields.number("after_seq", 0, MAX_SEQ)?,
                fields.number("around_seq", 0, MAX_SEQ)?,
            )?,
            limit: history_limit(fields.number("limit", 1, Limits::HISTORY)?),
        })
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        // This is the largest of all replies, up to half of the outbox. It waits until less than a
        // quarter is unwritten, so that half of the outbox is free for it.
        let half = context.connection.connections.outbox_bytes / 2;
        context.connection.wait_until_below(half / 2).await;
        let member = context.member_of(&self.room).await?;
        let permit = context.state.rights(&self.room, member)?.may_read()?;
        let max_bytes = Limits::HISTORY_BYTES.min(half);
        let page = context
            .messaging()
            .history(&permit, self.window, self.limit, max_bytes)
            .await?;
        context
            .reply
            .acknowledge(&HistoryAck::of(&self.room, &page, Some(true)));
        Ok(())
    }
}

/// `typing`: notifies a room's occupants that the user types, or has stopped.
#[derive(Debug)]
pub struct Typing {
    room: RoomId,
    pub(super) is_typing: bool,
}

impl ClientRequest for Typing {
    const EVENT: &'static str = "typing";
    const WAITS_FOR: Earlier = Earlier::Nothing;

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            room: fields.required("room_id", RoomId::parse)?,
            is_typing: fields.flag("is_typing")?.unwrap_or(true),
        })
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        let member = context.member_of(&self.room).await?;
        let permit = context.state.rights(&self.room, member)?.may_send()?;
        context
            .messaging()
            .typing(context.state, permit, self.is_typing)
            .await?;
        context.reply.acknowledge(&RoomAck::of(&self.room));
        Ok(())
    }
}
