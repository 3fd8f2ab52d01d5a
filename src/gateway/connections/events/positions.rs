//! `read`: the user has read a room or a thread.

use uuid::Uuid;

use super::{ClientRequest, Earlier, RequestContext};
use crate::domain::{Refusal, RoomId};
use crate::features::messages::ReadingUser;
use crate::gateway::wire::{Fields, MAX_SEQ, ReadAck, message_id};

/// `read`: raises the user's position in a room, or in a thread of it.
#[derive(Debug)]
pub struct Read {
    room: RoomId,
    seq: u64,
    thread: Option<Uuid>,
}

impl ClientRequest for Read {
    const EVENT: &'static str = "read";
    const WAITS_FOR: Earlier = Earlier::Nothing;

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        let missing = || Refusal::bad_request("seq is missing").field("seq");
        Ok(Self {
            room: fields.required("room_id", RoomId::parse)?,
            seq: fields.number("seq", 0, MAX_SEQ)?.ok_or_else(missing)?,
            thread: fields.id("thread_id", message_id)?,
        })
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        let messages = context.messages()?;
        let Self { room, seq, thread } = self;
        let member = context.member_of(&room).await?;
        let permit = context.state.rights(&room, member)?.may_read()?;
        let user = context.state.authenticated()?;
        let by = ReadingUser {
            user: user.user.clone(),
            has_account: user.has_account,
        };
        let position = match thread {
            Some(root) => messages.read_thread(&permit, &by, root, seq).await?,
            None => messages.read(&permit, &by, seq).await?,
        };
        context
            .reply
            .acknowledge(&ReadAck::of(&room, thread, &position));
        Ok(())
    }
}
