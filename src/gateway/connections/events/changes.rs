//! `edit_message`, `delete_message`, `react`, `pin_message`, `unpin_message`: change messages.

use uuid::Uuid;

use super::{ClientRequest, Earlier, RequestContext};
use crate::domain::{Emoji, Refusal, RoomId};
use crate::features::messages::{
    AnnouncedChange, Attempt, ChangeRefused, ChangingUser, EditFields,
};
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

impl RequestContext<'_> {
    async fn changing_user(&self, room: &RoomId) -> Result<ChangingUser, Refusal> {
        let member = self.member_of(room).await?;
        let rights = self.state.rights(room, member)?;
        let user = &self.state.authenticated()?.user;
        Ok(ChangingUser::new(user, &rights))
    }

    /// Acknowledges a change once it is announced. Until then the connection handles other events.
    fn acknowledge_change(
        self,
        attempt: Attempt,
        room: RoomId,
        ack: MakeAck,
    ) -> Result<(), Refusal> {
        if let Some(announced) = attempt.announced() {
            self.reply.acknowledge(&ack(&room, announced));
            return Ok(());
        }
        let messages = self.messages()?.clone();
        let reply = self.reply.later();
        let repeated = if attempt.is_made() {
            None
        } else {
            Some(self.connection.repeat_change())
        };
        tokio::spawn(async move {
            let announced = async {
                let made = messages.make(attempt).await?;
                drop(repeated);
                Ok::<_, ChangeRefused>(messages.announced(made).await?)
            };
            match announced.await {
                Ok(announced) => reply.acknowledge(&ack(&room, announced)),
                Err(refused) => reply.refuse(&refused.into()),
            }
        });
        Ok(())
    }
}

/// Makes the acknowledgement of a change.
type MakeAck = for<'a> fn(&'a RoomId, AnnouncedChange) -> ChangeAck<'a>;

/// `edit_message`: edits a message of the user.
#[derive(Debug)]
pub struct EditMessage {
    target: Target,
    fields: EditFields,
    version: Option<u64>,
}

impl ClientRequest for EditMessage {
    const EVENT: &'static str = "edit_message";
    const WAITS_FOR: Earlier = Earlier::Changes;

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
        let by = context.changing_user(&room).await?;
        let attempt = messages.edit(by, id, self.fields, self.version).await?;
        context.acknowledge_change(attempt, room, |room, made| ChangeAck::of_edit(room, made))
    }
}

/// `delete_message`: deletes a message of the user or, as a moderator, of another one.
#[derive(Debug)]
pub struct DeleteMessage(Target);

impl ClientRequest for DeleteMessage {
    const EVENT: &'static str = "delete_message";
    const WAITS_FOR: Earlier = Earlier::Changes;

    fn decode(fields: &Fields<'_>) -> Result<Self, Refusal> {
        Target::decode(fields).map(Self)
    }

    async fn handle(self, context: RequestContext<'_>) -> Result<(), Refusal> {
        let messages = context.messages()?;
        let Target { room, id } = self.0;
        let by = context.changing_user(&room).await?;
        let attempt = messages.delete(by, id).await?;
        context.acknowledge_change(attempt, room, |room, made| ChangeAck::of(room, made))
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
    const WAITS_FOR: Earlier = Earlier::Changes;

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
        let by = context.changing_user(&room).await?;
        let attempt = messages.react(by, id, self.emoji, self.on).await?;
        context.acknowledge_change(attempt, room, |room, made| {
            ChangeAck::of_reaction(room, made)
        })
    }
}

/// `pin_message`: pins a message to its room.
#[derive(Debug)]
pub struct PinMessage(Target);

impl ClientRequest for PinMessage {
    const EVENT: &'static str = "pin_message";
    const WAITS_FOR: Earlier = Earlier::Changes;

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
    const WAITS_FOR: Earlier = Earlier::Changes;

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
    let by = context.changing_user(&room).await?;
    let attempt = messages.pin(by, id, on).await?;
    context.acknowledge_change(attempt, room, |room, made| ChangeAck::of(room, made))
}
