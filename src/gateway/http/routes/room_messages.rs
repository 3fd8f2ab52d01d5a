//! `/api/v1/rooms/{room_id}/messages/{id}`: one message.

use axum::extract::State;
use http::HeaderMap;
use http::header::IF_MATCH;

use super::super::SharedState;
use super::super::extract::{FromJson, JsonBody, QueryParameters};
use super::super::messages::{InRoom, MessageInPath};
use super::super::reply::Reply;
use crate::domain::policy::{Deleting, Reading, Sending};
use crate::domain::{Limits, Refusal, UserId};
use crate::gateway::wire::{
    ChangeAck, EditRequest, Page, PageQuery, ReaderJson, ThreadList, VersionList, current_json,
    encode_cursor, if_match,
};

/// The names of lists in cursors.
const VERSIONS: &str = "versions";
const THREAD: &str = "thread";
const READERS: &str = "readers";

impl FromJson for EditRequest {
    fn from_json(body: &str, _: Option<&str>, limits: &Limits) -> Result<Self, Refusal> {
        Self::decode(body, limits)
    }
}

/// `GET …/messages/{id}`: the message in its newest form.
pub(in crate::gateway::http) async fn get(
    reader: InRoom<Reading>,
    MessageInPath(id): MessageInPath,
) -> Result<Reply, Refusal> {
    let message = reader.messages.message(&reader.permit, id).await?;
    Ok(Reply::ok(&current_json(&message)))
}

/// `PATCH …/messages/{id}`: edits a message of the caller, and returns it.
pub(in crate::gateway::http) async fn patch(
    State(state): SharedState,
    sender: InRoom<Sending>,
    MessageInPath(id): MessageInPath,
    headers: HeaderMap,
    JsonBody(request): JsonBody<EditRequest>,
) -> Result<Reply, Refusal> {
    let version = expected_version(&headers, request.version)?;
    let reading = sender.account.rights().may_read()?;
    let content = request.fields.content.as_ref();
    sender.charge(&state, content.map_or(0, String::len))?;
    let (messages, by) = (&sender.messages, sender.changing_user());
    let attempt = messages.edit(by, id, request.fields, version).await?;
    messages.complete(attempt).await?;
    let message = messages.message(&reading, id).await?;
    Ok(Reply::ok(&current_json(&message)))
}

/// The version in `If-Match` or in the body.
fn expected_version(headers: &HeaderMap, body: Option<u64>) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(body);
    };
    let header = if_match(value.to_str().unwrap_or_default())?;
    match (header, body) {
        (Some(header), Some(body)) if header != body => {
            let text = "If-Match and version differ";
            Err(Refusal::bad_request(text).field("If-Match"))
        }
        (header, body) => Ok(header.or(body)),
    }
}

/// `DELETE …/messages/{id}`: deletes a message.
pub(in crate::gateway::http) async fn delete(
    State(state): SharedState,
    deleter: InRoom<Deleting>,
    MessageInPath(id): MessageInPath,
) -> Result<Reply, Refusal> {
    deleter.charge(&state, 0)?;
    let (messages, by) = (&deleter.messages, deleter.changing_user());
    let attempt = messages.delete(by, id).await?;
    let announced = messages.complete(attempt).await?;
    Ok(Reply::ok(&ChangeAck::of(&deleter.account.room, announced)))
}

/// `GET …/messages/{id}/versions`: the forms that the message has had, oldest first.
pub(in crate::gateway::http) async fn versions(
    reader: InRoom<Reading>,
    MessageInPath(id): MessageInPath,
    QueryParameters(query): QueryParameters<PageQuery>,
) -> Result<Reply, Refusal> {
    let (limit, after) = (query.limit()?, query.position::<u64>(VERSIONS)?);
    let (page, as_of) = reader
        .messages
        .versions(&reader.permit, id, after, limit)
        .await?;
    let next = page.next.map(|next| encode_cursor(VERSIONS, &next));
    Ok(Reply::ok(&VersionList::of(&page, next, &as_of)))
}

/// `GET …/messages/{id}/thread`: the message, and the replies in its thread.
pub(in crate::gateway::http) async fn thread(
    reader: InRoom<Reading>,
    MessageInPath(id): MessageInPath,
    QueryParameters(query): QueryParameters<PageQuery>,
) -> Result<Reply, Refusal> {
    let (limit, after) = (query.limit()?, query.position::<u64>(THREAD)?);
    let page = reader
        .messages
        .thread(&reader.permit, id, after.unwrap_or(0), limit)
        .await?;
    let cursor = |seq: u64| encode_cursor(THREAD, &seq);
    Ok(Reply::ok(&ThreadList::of(&page, cursor)))
}

/// `GET …/messages/{id}/readers`: the users that have read the message, in the order of their ids.
pub(in crate::gateway::http) async fn readers(
    reader: InRoom<Reading>,
    MessageInPath(id): MessageInPath,
    QueryParameters(query): QueryParameters<PageQuery>,
) -> Result<Reply, Refusal> {
    let (limit, after) = (query.limit()?, query.position::<String>(READERS)?);
    let after = after.map(|after| UserId::trusted(&after));
    let page = reader
        .messages
        .readers(&reader.permit, id, after.as_ref(), limit)
        .await?;
    let last = page.readers.last().filter(|_| page.has_more);
    let next = last.map(|last| encode_cursor(READERS, &last.user.as_str()));
    let items: Vec<ReaderJson<'_>> = page.readers.iter().map(ReaderJson::from).collect();
    Ok(Reply::ok(&Page::new(items, next)))
}
