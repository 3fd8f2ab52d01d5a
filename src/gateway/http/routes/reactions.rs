//! `/api/v1/rooms/{room_id}/messages/{id}/reactions`.

use axum::extract::State;

use super::super::messages::{EmojiInPath, MessageInPath, ReaderInRoom, SenderInRoom, charge};
use super::super::reply::Reply;
use super::super::{HttpState, SharedState};
use crate::domain::{Emoji, Refusal};
use crate::gateway::wire::{ChangeAck, ReactionList};

/// `GET …/reactions`: the reactions as they are now.
pub(in crate::gateway::http) async fn list(
    reader: ReaderInRoom,
    MessageInPath(id): MessageInPath,
) -> Result<Reply, Refusal> {
    let reactions = reader.messages.reactions(&reader.permit, id).await?;
    Ok(Reply::ok(&ReactionList::of(&reactions)))
}

/// `PUT …/reactions/{emoji}/me`: sets a reaction of the caller.
pub(in crate::gateway::http) async fn put(
    State(state): SharedState,
    sender: SenderInRoom,
    MessageInPath(id): MessageInPath,
    EmojiInPath(emoji): EmojiInPath,
) -> Result<Reply, Refusal> {
    react(&state, sender, id, emoji, true).await
}

/// `DELETE …/reactions/{emoji}/me`: removes it.
pub(in crate::gateway::http) async fn delete(
    State(state): SharedState,
    sender: SenderInRoom,
    MessageInPath(id): MessageInPath,
    EmojiInPath(emoji): EmojiInPath,
) -> Result<Reply, Refusal> {
    react(&state, sender, id, emoji, false).await
}

async fn react(
    state: &HttpState,
    sender: SenderInRoom,
    id: uuid::Uuid,
    emoji: Emoji,
    on: bool,
) -> Result<Reply, Refusal> {
    let SenderInRoom {
        messages,
        account,
        permit,
    } = sender;
    charge(state, &account.identity, 0)?;
    let user = &account.identity.user;
    messages.react(permit, user, id, emoji, on).await?;
    Ok(Reply::ok(&ChangeAck::of_reaction(&account.room, id)))
}
