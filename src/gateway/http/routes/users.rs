//! `/users/{user_id}`: a user's status, and ending a user's connections.

use axum::extract::State;

use super::super::SharedState;
use super::super::extract::{UnlimitedService, UserInPath};
use super::super::reply::Reply;
use crate::domain::Refusal;
use crate::gateway::wire::{DisconnectAck, StatusJson};

/// `GET /users/{user_id}/status`.
pub(in crate::gateway::http) async fn status(
    State(state): SharedState,
    UserInPath(user): UserInPath,
    _: UnlimitedService,
) -> Result<Reply, Refusal> {
    let status = state.messaging.status(&user).await?;
    Ok(Reply::ok(&StatusJson::of(&status)))
}

/// `POST /users/{user_id}/disconnect`: ends the user's connections on all nodes.
pub(in crate::gateway::http) async fn disconnect(
    State(state): SharedState,
    UserInPath(user): UserInPath,
    _: UnlimitedService,
) -> Result<Reply, Refusal> {
    let disconnected = state.messaging.disconnect(&user).await?;
    Ok(Reply::ok(&DisconnectAck::of(&user, &disconnected)))
}
