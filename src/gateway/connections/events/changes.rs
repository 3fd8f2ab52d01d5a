//! `edit_message`, `delete_message`, `react`, `pin_message`, `unpin_message`: change messages.

use uuid::Uuid;

use super::{ClientRequest, RequestContext};
use crate::domain::{Emoji, Refusal, RoomId};
use crate::features::messages::EditFields;
use crate::gateway::wire::{ChangeAck, Fields, Null, edit_fields, message_id};

/// The room and the id of the message.
#[derive(Debug)]
struct Target {
    room: RoomId,
    id: Uuid,
}

impl Target {
    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            room: fields.required("room_id", RoomId::parse)?,
            id: fields.required("id", message_id)?,
        })
    }
}

/// `edit_message`: edits a message of the user.
#[derive(Debug)]
pub struct EditMessage {
    target: Target,
    fields: EditFields,
    version: Option<u64>,
}

impl ClientRequest for EditMessage {
    const EVENT: &'static str = "edit_message";

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        let target = Target::decode(fields)?;
        let (fields, version) = edit_fields(fields, Null::Absent)?;
        Ok(Self {
            target,
            fields,
            version,
        })
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        let messages = context.messages()?;
        let Target { room, id } = self.target;
        let member = context.member_of(&room).await?;
        let permit = context.state.may_send(&room, member)?;
        let user = &context.state.authenticated()?.user;
        let made = messages
            .edit(permit, user, id, self.fields, self.version)
            .await?;
        context.reply.acknowledge(&ChangeAck::of_edit(&room, made));
        Ok(())
    }
}

/// `delete_message`: deletes a message of the user or, as a moderator, of another one.
#[derive(Debug)]
pub struct DeleteMessage(Target);

impl ClientRequest for DeleteMessage {
    const EVENT: &'static str = "delete_message";

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Target::decode(fields).map(Self)
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        let messages = context.messages()?;
        let Target { room, id } = self.0;
        let member = context.member_of(&room).await?;
        let permit = context.state.may_delete(&room, member)?;
        let user = &context.state.authenticated()?.user;
        let made = messages.delete(permit, user, id).await?;
        context.reply.acknowledge(&ChangeAck::of(&room, made));
        Ok(())
    }
}

/// `react`: sets or removes a reaction of the user.
#[derive(Debug)]
pub struct React {
    target: Target,
    emoji: Emoji,
    on: bool,
}

impl ClientRequest for React {
    const EVENT: &'static str = "react";

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            target: Target::decode(fields)?,
            emoji: fields.required("emoji", Emoji::parse)?,
            on: fields.flag("on")?.unwrap_or(true),
        })
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        let messages = context.messages()?;
        let Target { room, id } = self.target;
        let member = context.member_of(&room).await?;
        let permit = context.state.may_send(&room, member)?;
        let user = &context.state.authenticated()?.user;
        messages
            .react(permit, user, id, self.emoji, self.on)
            .await?;
        context
            .reply
            .acknowledge(&ChangeAck::of_reaction(&room, id));
        Ok(())
    }
}

/// `pin_message`: pins a message to its room.
#[derive(Debug)]
pub struct PinMessage(Target);

impl ClientRequest for PinMessage {
    const EVENT: &'static str = "pin_message";

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Target::decode(fields).map(Self)
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        pin(self.0, context, true).await
    }
}

/// `unpin_message`: removes the pin of a message.
#[derive(Debug)]
pub struct UnpinMessage(Target);

impl ClientRequest for UnpinMessage {
    const EVENT: &'static str = "unpin_message";

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Target::decode(fields).map(Self)
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        pin(self.0, context, false).await
    }
}

async fn pin(target: Target, context: RequestContext<'_>, on: bool) -> Result<(), Refusal> {
    let messages = context.messages()?;
    let Target { room, id } = target;
    let member = context.member_of(&room).await?;
    let permit = context.state.may_send(&room, member)?;
    let user = &context.state.authenticated()?.user;
    let made = messages.pin(permit, user, id, on).await?;
    context.reply.acknowledge(&ChangeAck::of(&room, made));
    Ok(())
}
