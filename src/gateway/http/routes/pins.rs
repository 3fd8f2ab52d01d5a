//! `/api/v1/rooms/{room_id}/pins`: pinned messages.

use axum::extract::State;
use uuid::Uuid;

use super::super::messages::{InRoom, MessageInPath};
use super::super::reply::Reply;
use super::super::{HttpState, SharedState};
use crate::domain::Refusal;
use crate::domain::policy::{Reading, Sending};
use crate::gateway::wire::{ChangeAck, PinList};

/// `GET …/pins`: the pins of the room, the newest first.
pub(in crate::gateway::http) async fn list(reader: InRoom<Reading>) -> Result<Reply, Refusal> {
    let (pins, as_of) = reader.messages.pins(&reader.permit).await?;
    Ok(Reply::ok(&PinList::of(&pins, &as_of)))
}

/// `PUT …/pins/{id}`: pins a message.
pub(in crate::gateway::http) async fn put(
    State(state): SharedState,
    sender: InRoom<Sending>,
    MessageInPath(id): MessageInPath,
) -> Result<Reply, Refusal> {
    pin(&state, &sender, id, true).await
}

/// `DELETE …/pins/{id}`: removes its pin.
pub(in crate::gateway::http) async fn delete(
    State(state): SharedState,
    sender: InRoom<Sending>,
    MessageInPath(id): MessageInPath,
) -> Result<Reply, Refusal> {
    pin(&state, &sender, id, false).await
}

async fn pin(
    state: &HttpState,
    sender: &InRoom<Sending>,
    id: Uuid,
    on: bool,
) -> Result<Reply, Refusal> {
    sender.charge(state, 0)?;
    let messages = &sender.messages;
    let attempt = messages.pin(sender.changing_user(), id, on).await?;
    let announced = messages.complete(attempt).await?;
    Ok(Reply::ok(&ChangeAck::of(&sender.account.room, announced)))
}
