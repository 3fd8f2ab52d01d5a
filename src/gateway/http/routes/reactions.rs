//! `/api/v1/rooms/{room_id}/messages/{id}/reactions`.

use axum::extract::State;
use uuid::Uuid;

use super::super::messages::{EmojiInPath, InRoom, MessageInPath};
use super::super::reply::Reply;
use super::super::{HttpState, SharedState};
use crate::domain::policy::{Reading, Sending};
use crate::domain::{Emoji, Refusal};
use crate::gateway::wire::{ChangeAck, ReactionList};

/// `GET …/reactions`: the reactions as they are now.
pub(in crate::gateway::http) async fn list(
    reader: InRoom<Reading>,
    MessageInPath(id): MessageInPath,
) -> Result<Reply, Refusal> {
    let reactions = reader.messages.reactions(&reader.permit, id).await?;
    Ok(Reply::ok(&ReactionList::of(&reactions)))
}

/// `PUT …/reactions/{emoji}/me`: sets a reaction of the caller.
pub(in crate::gateway::http) async fn put(
    State(state): SharedState,
    sender: InRoom<Sending>,
    MessageInPath(id): MessageInPath,
    EmojiInPath(emoji): EmojiInPath,
) -> Result<Reply, Refusal> {
    react(&state, &sender, id, emoji, true).await
}

/// `DELETE …/reactions/{emoji}/me`: removes it.
pub(in crate::gateway::http) async fn delete(
    State(state): SharedState,
    sender: InRoom<Sending>,
    MessageInPath(id): MessageInPath,
    EmojiInPath(emoji): EmojiInPath,
) -> Result<Reply, Refusal> {
    react(&state, &sender, id, emoji, false).await
}

async fn react(
    state: &HttpState,
    sender: &InRoom<Sending>,
    id: Uuid,
    emoji: Emoji,
    on: bool,
) -> Result<Reply, Refusal> {
    sender.charge(state, 0)?;
    let messages = &sender.messages;
    let attempt = messages
        .react(sender.changing_user(), id, emoji, on)
        .await?;
    let made = messages.complete(attempt).await?;
    let ack = ChangeAck::of_reaction(&sender.account.room, made);
    Ok(Reply::ok(&ack))
}
