//! `/api/v1/rooms/{room_id}/pins`: pinned messages.

use axum::extract::State;

use super::super::messages::{MessageInPath, ReaderInRoom, SenderInRoom, charge};
use super::super::reply::Reply;
use super::super::{HttpState, SharedState};
use crate::domain::Refusal;
use crate::gateway::wire::{ChangeAck, PinList};

/// `GET …/pins`: the pins of the room, the newest first.
pub(in crate::gateway::http) async fn list(reader: ReaderInRoom) -> Result<Reply, Refusal> {
    let (pins, as_of) = reader.messages.pins(&reader.permit).await?;
    Ok(Reply::ok(&PinList::of(&pins, &as_of)))
}

/// `PUT …/pins/{id}`: pins a message.
pub(in crate::gateway::http) async fn put(
    State(state): SharedState,
    sender: SenderInRoom,
    MessageInPath(id): MessageInPath,
) -> Result<Reply, Refusal> {
    pin(&state, sender, id, true).await
}

/// `DELETE …/pins/{id}`: removes its pin.
pub(in crate::gateway::http) async fn delete(
    State(state): SharedState,
    sender: SenderInRoom,
    MessageInPath(id): MessageInPath,
) -> Result<Reply, Refusal> {
    pin(&state, sender, id, false).await
}

async fn pin(
    state: &HttpState,
    sender: SenderInRoom,
    id: uuid::Uuid,
    on: bool,
) -> Result<Reply, Refusal> {
    let SenderInRoom {
        messages,
        account,
        permit,
    } = sender;
    charge(state, &account.identity, 0)?;
    let made = messages.pin(permit, &account.identity.user, id, on).await?;
    Ok(Reply::ok(&ChangeAck::of(&account.room, made)))
}
