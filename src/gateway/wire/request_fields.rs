//! Groups of fields that several requests have, over sockets or REST.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::fields::Fields;
use crate::delivery::ReplayFrom;
use crate::domain::{ClientMsgId, Code, Epoch, Limits, MessageFields, Refusal, RoomId};
use crate::features::messaging::HistoryWindow;

/// 2^53 - 1: JavaScript does not represent every larger whole number. No room reaches it.
pub(crate) const MAX_SEQ: u64 = (1 << 53) - 1;
/// The number of messages that `history` returns if the request does not say.
const DEFAULT_HISTORY: u64 = 50;

/// The start of a replay: `since_seq`, `epoch` and `replay_limit`, or `limit`, or none of them.
/// Without `since_seq`, `epoch` and `replay_limit` have no effect.
///
/// # Errors
/// `bad_request`.
pub(crate) fn replay_from(fields: &Fields<'_>) -> Result<ReplayFrom, Refusal> {
    let epoch = fields.id("epoch", Epoch::parse)?;
    let limit = fields.number("limit", 0, Limits::HISTORY)?;
    let replay_limit = fields.number("replay_limit", 1, Limits::REPLAY)?;
    match (fields.number("since_seq", 0, MAX_SEQ)?, limit) {
        (Some(_), Some(_)) => Err(Refusal::bad_request(
            "since_seq and limit exclude each other",
        )),
        (Some(seq), None) => Ok(ReplayFrom::Since {
            seq,
            epoch,
            limit: replay_limit,
        }),
        (None, Some(_)) if replay_limit.is_some() => Err(Refusal::bad_request(
            "replay_limit and limit exclude each other",
        )),
        (None, Some(limit)) => Ok(ReplayFrom::Last(limit)),
        (None, None) => Ok(ReplayFrom::Live),
    }
}

/// The rooms of `sync`: an object with the position of each. Of several positions of a room the last
/// one counts.
///
/// # Errors
/// `bad_request`.
pub(crate) fn rooms_to_sync(fields: &Fields<'_>) -> Result<BTreeMap<RoomId, ReplayFrom>, Refusal> {
    let mut rooms = BTreeMap::new();
    for (name, position) in fields.objects("rooms")? {
        let room = RoomId::parse("a room of rooms", &name)?;
        rooms.insert(room, replay_from(&position)?);
    }
    Ok(rooms)
}

/// A message's fields. The domain checks their lengths.
///
/// # Errors
/// `bad_request`, `too_large`.
pub(crate) fn message_fields(fields: &Fields<'_>) -> Result<MessageFields, Refusal> {
    Ok(MessageFields {
        content: fields.text("content")?.unwrap_or_default(),
        kind: fields.text("type")?,
        title: fields.text("title")?,
        payload: fields.json("payload")?,
        attachment_urls: fields.texts("attachment_urls")?,
        client_msg_id: fields.id("client_msg_id", ClientMsgId::parse)?,
        thread: fields.id("thread_id", message_id)?,
    })
}

/// The id of a message. No message has an id of another form.
///
/// # Errors
/// `not_found`.
pub(crate) fn message_id(field: &'static str, text: &str) -> Result<Uuid, Refusal> {
    Uuid::try_parse(text)
        .map_err(|_| Refusal::new(Code::NotFound, "there is no such message").field(field))
}

/// The window that `before_seq`, `after_seq`, `around_seq` or none of them selects.
///
/// # Errors
/// `bad_request` if more than one is given.
pub(crate) fn history_window(
    before: Option<u64>,
    after: Option<u64>,
    around: Option<u64>,
) -> Result<HistoryWindow, Refusal> {
    match (before, after, around) {
        (Some(seq), None, None) => Ok(HistoryWindow::Before(seq)),
        (None, Some(seq), None) => Ok(HistoryWindow::After(seq)),
        (None, None, Some(seq)) => Ok(HistoryWindow::Around(seq)),
        (None, None, None) => Ok(HistoryWindow::Newest),
        _ => Err(Refusal::bad_request(
            "before_seq, after_seq and around_seq exclude each other",
        )),
    }
}

/// The number of messages that `limit` selects.
pub(crate) fn history_limit(limit: Option<u64>) -> usize {
    usize::try_from(limit.unwrap_or(DEFAULT_HISTORY)).unwrap_or(usize::MAX)
}

/// The idempotency key of a send: the field `client_msg_id` or the header `Idempotency-Key`.
///
/// # Errors
/// `bad_request` if both are given and differ, or if the header's value is not valid.
pub(super) fn idempotency_key(
    client_msg_id: Option<ClientMsgId>,
    header: Option<&str>,
) -> Result<Option<ClientMsgId>, Refusal> {
    let Some(header) = header else {
        return Ok(client_msg_id);
    };
    let key = ClientMsgId::parse("Idempotency-Key", header)?;
    if client_msg_id.is_some_and(|id| id != key) {
        return Err(Refusal::bad_request(
            "Idempotency-Key and client_msg_id differ",
        ));
    }
    Ok(Some(key))
}
