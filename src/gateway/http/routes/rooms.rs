//! `/rooms/{room_id}`: a room's messages and the users in it.

use axum::extract::State;
use serde::Deserialize;

use super::super::SharedState;
use super::super::extract::{QueryParameters, RoomReader, check_range};
use super::super::reply::Reply;
use crate::domain::{Limits, Refusal, UserId};
use crate::gateway::wire::{HistoryAck, MAX_SEQ, OccupantsPage, history_limit, history_window};

/// The largest `limit` of a page of users.
const MAX_USERS: u64 = 1000;
/// The `limit` of a page of users if the query has none.
const DEFAULT_USERS: u64 = 100;

#[derive(Deserialize)]
pub(in crate::gateway::http) struct MessagesQuery {
    before_seq: Option<u64>,
    after_seq: Option<u64>,
    around_seq: Option<u64>,
    limit: Option<u64>,
}

/// `GET /rooms/{room_id}/messages`: a page of the room's messages.
pub(in crate::gateway::http) async fn messages(
    State(state): SharedState,
    RoomReader(permit): RoomReader,
    QueryParameters(query): QueryParameters<MessagesQuery>,
) -> Result<Reply, Refusal> {
    let before = check_range("before_seq", query.before_seq, 0, MAX_SEQ)?;
    let after = check_range("after_seq", query.after_seq, 0, MAX_SEQ)?;
    let around = check_range("around_seq", query.around_seq, 0, MAX_SEQ)?;
    let window = history_window(before, after, around)?;
    let limit = history_limit(check_range("limit", query.limit, 1, Limits::HISTORY)?);
    let page = state
        .messaging
        .history(&permit, window, limit, Limits::HISTORY_BYTES)
        .await?;
    Ok(Reply::ok(&HistoryAck::of(permit.room(), &page, None)))
}

#[derive(Deserialize)]
pub(in crate::gateway::http) struct UsersQuery {
    limit: Option<u64>,
    cursor: Option<String>,
}

/// `GET /rooms/{room_id}/users`: a page of the users in the room, ordered by id.
pub(in crate::gateway::http) async fn users(
    State(state): SharedState,
    RoomReader(permit): RoomReader,
    QueryParameters(query): QueryParameters<UsersQuery>,
) -> Result<Reply, Refusal> {
    let limit = check_range("limit", query.limit, 1, MAX_USERS)?.unwrap_or(DEFAULT_USERS);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let after = match query.cursor {
        Some(cursor) => Some(UserId::parse("cursor", &cursor)?),
        None => None,
    };
    let page = state
        .messaging
        .members(&permit, after.as_ref(), limit)
        .await?;
    Ok(Reply::ok(&OccupantsPage::of(permit.room(), &page)))
}
