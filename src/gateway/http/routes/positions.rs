//! Read positions: `/api/v1/rooms/{room_id}/read` and `/unread`, `/api/v1/me/unread` and `/threads`.

use axum::extract::State;

use super::super::SharedState;
use super::super::accounts::AccountReader;
use super::super::extract::{Body, QueryParameters, check_range};
use super::super::messages::{InRoom, MessagesOfNode};
use super::super::reply::Reply;
use crate::domain::policy::Reading;
use crate::domain::{Refusal, Timestamp, UserId};
use crate::features::messages::ThreadCursor;
use crate::gateway::wire::{
    MAX_SEQ, Page, PageQuery, ReadAck, ReadRequest, RoomUnreadJson, UnreadRequest, UserThreadJson,
    encode_cursor, message_id,
};

/// The name of the list of threads in cursors.
const THREADS: &str = "threads";

/// `PUT …/read`: the caller has read the room, or a thread of it.
pub(in crate::gateway::http) async fn read(
    State(state): SharedState,
    reader: InRoom<Reading>,
    Body(request): Body<ReadRequest>,
) -> Result<Reply, Refusal> {
    check_range("seq", Some(request.seq), 0, MAX_SEQ)?;
    let thread = request.thread_id.as_deref();
    let thread = thread.map(|id| message_id("thread_id", id)).transpose()?;
    reader.charge(&state, 0)?;
    let (messages, by, permit) = (&reader.messages, reader.reading_user(), &reader.permit);
    let position = match thread {
        Some(root) => messages.read_thread(permit, &by, root, request.seq).await?,
        None => messages.read(permit, &by, request.seq).await?,
    };
    Ok(Reply::ok(&ReadAck::of(permit.room(), thread, &position)))
}

/// `POST …/unread`: a message is the first one that the caller has not read.
pub(in crate::gateway::http) async fn mark_unread(
    State(state): SharedState,
    reader: InRoom<Reading>,
    Body(request): Body<UnreadRequest>,
) -> Result<Reply, Refusal> {
    check_range("seq", Some(request.seq), 1, MAX_SEQ)?;
    reader.charge(&state, 0)?;
    let (by, permit) = (reader.reading_user(), &reader.permit);
    let position = reader
        .messages
        .mark_unread(permit, &by, request.seq)
        .await?;
    Ok(Reply::ok(&ReadAck::of(permit.room(), None, &position)))
}

/// `GET /api/v1/me/unread`: all rooms of the caller.
pub(in crate::gateway::http) async fn unread(
    AccountReader(caller): AccountReader,
    MessagesOfNode(messages): MessagesOfNode,
) -> Result<Reply, Refusal> {
    let user = UserId::trusted(&caller.user.to_string());
    let rooms = messages.unread(&user).await?;
    let items: Vec<RoomUnreadJson<'_>> = rooms.iter().map(RoomUnreadJson::from).collect();
    Ok(Reply::ok(&Page::complete(items)))
}

/// `GET /api/v1/me/threads`: threads that the caller takes part in, the one with the newest reply first.
pub(in crate::gateway::http) async fn threads(
    AccountReader(caller): AccountReader,
    MessagesOfNode(messages): MessagesOfNode,
    QueryParameters(query): QueryParameters<PageQuery>,
) -> Result<Reply, Refusal> {
    let user = UserId::trusted(&caller.user.to_string());
    let before: Option<(u64, u64, u64)> = query.position(THREADS)?;
    let before = before.map(|(at, room_no, root_seq)| ThreadCursor {
        last_at: Timestamp(at),
        room_no,
        root_seq,
    });
    let (threads, has_more) = messages.threads(&user, before, query.limit()?).await?;
    let last = threads.last().filter(|_| has_more);
    let next = last.map(|last| {
        let last = last.cursor();
        encode_cursor(THREADS, &(last.last_at.0, last.room_no, last.root_seq))
    });
    let items: Vec<UserThreadJson<'_>> = threads.iter().map(UserThreadJson::from).collect();
    Ok(Reply::ok(&Page::new(items, next)))
}
