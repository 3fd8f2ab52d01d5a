//! `/api/v1/rooms/{room_id}/messages`: messages by the token of an account, and the older routes of
//! chats that send.

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;

use super::super::chats::{AccountInChat, AccountInRoom, CallingAccount, ChatsOfNode, parse_chat};
use super::super::extract::{FromJson, QueryParameters, check_range};
use super::super::idempotent::IdempotentBody;
use super::super::reply::Reply;
use super::super::{HttpState, SharedState};
use super::chats::open_chat;
use crate::domain::{ClientMsgId, Cost, Limits, MessageFields, Refusal, RoomId};
use crate::features::chats::Chats;
use crate::features::idempotency::{Answered, WorkId, perform_elsewhere};
use crate::features::messaging::HistoryWindow;
use crate::gateway::wire::{
    ChatMessageRequest, ChatTarget, MAX_LIMIT, MAX_SEQ, MessageAck, MessageList, MessageRequest,
    OpenOrSendRequest, history_limit, history_window, message_cursor, message_json,
};

/// The parameters of a page of messages.
#[derive(Deserialize)]
pub(in crate::gateway::http) struct MessagesQuery {
    before_seq: Option<u64>,
    after_seq: Option<u64>,
    around_seq: Option<u64>,
    cursor: Option<String>,
    limit: Option<u64>,
}

impl MessagesQuery {
    fn window(&self) -> Result<HistoryWindow, Refusal> {
        let before = check_range("before_seq", self.before_seq, 0, MAX_SEQ)?;
        let after = check_range("after_seq", self.after_seq, 0, MAX_SEQ)?;
        let around = check_range("around_seq", self.around_seq, 0, MAX_SEQ)?;
        let window = history_window(before, after, around)?;
        match (&self.cursor, window) {
            (None, window) => Ok(window),
            (Some(cursor), HistoryWindow::Newest) => message_cursor(cursor),
            (Some(_), _) => Err(Refusal::bad_request(
                "cursor excludes before_seq, after_seq and around_seq",
            )),
        }
    }
}

/// `GET /api/v1/rooms/{room_id}/messages`: a page of messages; without a bound the newest ones.
pub(in crate::gateway::http) async fn list(
    State(state): SharedState,
    account: AccountInRoom,
    QueryParameters(query): QueryParameters<MessagesQuery>,
) -> Result<Reply, Refusal> {
    page(&state, &account, &query).await
}

/// `GET /api/chats/messages/{chat_id}`: the same for the room of a chat.
pub(in crate::gateway::http) async fn list_of_chat(
    State(state): SharedState,
    AccountInChat(account): AccountInChat,
    QueryParameters(query): QueryParameters<MessagesQuery>,
) -> Result<Reply, Refusal> {
    page(&state, &account, &query).await
}

async fn page(
    state: &HttpState,
    account: &AccountInRoom,
    query: &MessagesQuery,
) -> Result<Reply, Refusal> {
    let permit = account.rights().may_read()?;
    let window = query.window()?;
    let limit = history_limit(check_range("limit", query.limit, 1, MAX_LIMIT)?);
    let page = state
        .messaging
        .history(&permit, window, limit, Limits::HISTORY_BYTES)
        .await?;
    Ok(Reply::ok(&MessageList::of(&page)))
}

impl FromJson for MessageRequest {
    fn from_json(body: &str, key: Option<&str>, limits: &Limits) -> Result<Self, Refusal> {
        Self::decode(body, key, limits)
    }
}

impl FromJson for ChatMessageRequest {
    fn from_json(body: &str, key: Option<&str>, limits: &Limits) -> Result<Self, Refusal> {
        Self::decode(body, key, limits)
    }
}

impl FromJson for OpenOrSendRequest {
    fn from_json(body: &str, key: Option<&str>, limits: &Limits) -> Result<Self, Refusal> {
        Self::decode(body, key, limits)
    }
}

/// `POST /api/v1/rooms/{room_id}/messages`: sends a message, and returns it. A repeat returns the message
/// of the first request.
pub(in crate::gateway::http) async fn post(
    State(state): SharedState,
    request: IdempotentBody<AccountInRoom, MessageRequest>,
) -> Result<Reply, Refusal> {
    let IdempotentBody { caller, body, key } = request;
    let work = |id| send_to(&state, &caller, body.0, id);
    perform_elsewhere(key, work).await.map(Reply::from)
}

/// `POST /api/chats/message`: sends to a chat, or to the direct chat with a user, which is opened when
/// needed. Returns the message.
pub(in crate::gateway::http) async fn send(
    State(state): SharedState,
    ChatsOfNode(chats): ChatsOfNode,
    request: IdempotentBody<CallingAccount, ChatMessageRequest>,
) -> Result<Reply, Refusal> {
    let IdempotentBody { caller, body, key } = request;
    let work = |id| send_to_chat(&state, &chats, caller, body, id);
    perform_elsewhere(key, work).await.map(Reply::from)
}

/// `POST /api/chats`: as `POST /api/chats/message` with a `content`, else as `POST /api/v1/chats`.
pub(in crate::gateway::http) async fn open_or_send(
    State(state): SharedState,
    ChatsOfNode(chats): ChatsOfNode,
    request: IdempotentBody<CallingAccount, OpenOrSendRequest>,
) -> Result<Reply, Refusal> {
    let IdempotentBody { caller, body, key } = request;
    let work = async |id: WorkId| match body {
        OpenOrSendRequest::Send(request) => send_to_chat(&state, &chats, caller, request, id).await,
        OpenOrSendRequest::Open(request) => open_chat(&chats, id.get(), caller.id, request).await,
    };
    perform_elsewhere(key, work).await.map(Reply::from)
}

async fn send_to_chat(
    state: &HttpState,
    chats: &Chats,
    caller: CallingAccount,
    request: ChatMessageRequest,
    id: WorkId,
) -> Result<Answered, Refusal> {
    let chat = match request.to {
        ChatTarget::User(user) => {
            chats
                .open_direct(id.get(), caller.id, &user)
                .await?
                .0
                .chat
                .id
        }
        ChatTarget::Chat(chat) => parse_chat(&chat)?,
    };
    let room = RoomId::chat(chat);
    let account = AccountInRoom::of(caller.identity, state, room).await?;
    send_to(state, &account, request.message, id).await
}

/// Sends a message; under the id of the request's key, unless it has a `client_msg_id` of its own.
async fn send_to(
    state: &HttpState,
    account: &AccountInRoom,
    mut message: MessageFields,
    id: WorkId,
) -> Result<Answered, Refusal> {
    if let WorkId::OfKey(id) = id {
        let id = || ClientMsgId::trusted(&id.to_string());
        message.client_msg_id.get_or_insert_with(id);
    }
    let rights = account.rights();
    let (reading, sending) = (rights.may_read()?, rights.may_send()?);
    let identity = &account.identity;
    let messaging = &state.messaging;
    let charged = messaging
        .user_rates()
        .spend(&identity.user, Cost::event(message.content.len()));
    charged.map_err(|exceeded| Refusal::rate_limited(exceeded, " of this user"))?;
    let (user, username) = (identity.user.clone(), identity.username.clone());
    let sent = messaging.send_as(user, username, sending, message).await?;
    let (appended, commit) = sent;
    commit.wait().await?;
    // Read back: the message of a repeat is that of the first request.
    let window = HistoryWindow::After(appended.seq.saturating_sub(1));
    let page = messaging
        .read(&reading, window, 1, Limits::HISTORY_BYTES)
        .await?;
    let stored = page.entries.first();
    let stored = stored.filter(|entry| entry.seq == appended.seq);
    let ack = MessageAck::of(&account.room, &appended);
    let ack = Reply::with_status(StatusCode::CREATED, &ack).into_answer();
    let answer = match stored {
        Some(entry) => {
            let reply = Reply::with_status(StatusCode::CREATED, &message_json(entry));
            // Once the message is deleted, its content is not replayed.
            reply.into_answer().deletable(appended.id.to_string(), ack)
        }
        // It is no longer kept.
        None => ack,
    };
    if appended.duplicate {
        Ok(Answered::Before(answer))
    } else {
        Ok(Answered::Now(answer))
    }
}
