//! The routes, one file for each resource, and the table of all of them.

pub(super) mod auth;
pub(super) mod broadcasts;
pub(super) mod chat_members;
pub(super) mod chat_messages;
pub(super) mod chats;
pub(super) mod directory;
pub(super) mod health;
pub(super) mod me;
pub(super) mod messages;
pub(super) mod metrics;
pub(super) mod pins;
pub(super) mod positions;
pub(super) mod reactions;
pub(super) mod recovery;
pub(super) mod room_messages;
pub(super) mod rooms;
pub(super) mod sessions;
pub(super) mod socketio;
pub(super) mod tokens;
pub(super) mod users;
pub(super) mod websocket;

use std::sync::Arc;

use axum::handler::Handler;
use axum::routing::{self, MethodRouter};
#[cfg(test)]
use http::Method;

use super::HttpState;

/// The right that a route needs. In open mode every caller has the rights of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// None.
    Public,
    /// An identity: a token, or in open mode a user id.
    User,
    /// A service, in the rooms that its token is valid for.
    Service,
    /// A service with a token that is not limited to rooms.
    UnlimitedService,
    /// A service, or a user in the room.
    RoomReader,
    /// A service, or a token with a role that may broadcast.
    Broadcaster,
    /// None; but each request counts as an event of its address.
    Anonymous,
    /// The access token of an account that has logged in.
    Account,
    /// The access token of an account, or the token of a bot with the scope `read`.
    AccountReader,
    /// The access token of an admin, or the token of an admin's bot with the scope `admin`.
    Admin,
    /// The access token of an account, or the token of a bot with the scope `chats`.
    ChatUser,
    /// The token of an account that is a member of the chat. For others there is no such chat.
    ChatMember,
    /// The token of an account that is in the room or, for the room of a chat, a member of it.
    AccountInRoom,
    /// As [`AccountInRoom`](Self::AccountInRoom), or the token of an admin.
    MessageDeleter,
}

impl Right {
    /// Whether a request counts as an event of its address. Health checks do not count, and sockets
    /// count their handshakes and events themselves.
    pub fn is_charged_to_address(self) -> bool {
        !matches!(self, Self::Public | Self::User)
    }

    /// Whether only the token of an account of this server gives it.
    #[cfg(test)]
    pub fn needs_account(self) -> bool {
        match self {
            Self::Account | Self::AccountReader | Self::Admin => true,
            Self::ChatUser | Self::ChatMember | Self::AccountInRoom => true,
            Self::MessageDeleter => true,
            Self::Public | Self::Anonymous | Self::User | Self::Service => false,
            Self::UnlimitedService | Self::RoomReader | Self::Broadcaster => false,
        }
    }
}

pub(super) struct Route {
    /// For the test that checks the right of every route.
    #[cfg(test)]
    pub method: Method,
    pub path: &'static str,
    pub right: Right,
    pub handler: MethodRouter<Arc<HttpState>>,
}

/// Every route except Socket.IO's: Socket.IO authenticates by its packets. The handler enforces the
/// right by its extractors, or in its body (`/ws`, which must take its connection slot before it
/// authenticates); a test compares the two.
pub(super) fn all() -> Vec<Route> {
    vec![
        post("/messages", Right::Service, messages::post),
        post("/api/broadcast", Right::Broadcaster, broadcasts::post),
        get(
            "/rooms/{room_id}/messages",
            Right::RoomReader,
            rooms::messages,
        ),
        get("/rooms/{room_id}/users", Right::RoomReader, rooms::users),
        get(
            "/users/{user_id}/status",
            Right::UnlimitedService,
            users::status,
        ),
        post(
            "/users/{user_id}/disconnect",
            Right::UnlimitedService,
            users::disconnect,
        ),
        post("/api/v1/auth/signup", Right::Anonymous, auth::sign_up),
        post("/api/v1/auth/login", Right::Anonymous, auth::log_in),
        post("/api/v1/auth/refresh", Right::Anonymous, auth::refresh),
        post(
            "/api/v1/auth/password/forgot",
            Right::Anonymous,
            recovery::forgot_password,
        ),
        post(
            "/api/v1/auth/password/reset",
            Right::Anonymous,
            recovery::reset_password,
        ),
        post(
            "/api/v1/auth/email/verify",
            Right::Anonymous,
            recovery::verify_email,
        ),
        post("/api/users", Right::Anonymous, auth::sign_up),
        post("/api/users/signup", Right::Anonymous, auth::sign_up),
        post("/api/users/login", Right::Anonymous, auth::log_in),
        post("/login", Right::Anonymous, auth::log_in_with_token),
        post("/api/v1/auth/logout", Right::Account, sessions::log_out),
        post("/api/users/logout", Right::Account, sessions::log_out),
        post(
            "/api/v1/auth/logout_all",
            Right::Account,
            sessions::log_out_everywhere,
        ),
        get("/api/v1/auth/sessions", Right::Account, sessions::list),
        delete("/api/v1/auth/sessions/{id}", Right::Account, sessions::end),
        post("/api/v1/auth/password", Right::Account, me::change_password),
        post("/api/v1/tokens", Right::Account, tokens::create),
        get("/api/v1/tokens", Right::Account, tokens::list),
        delete("/api/v1/tokens/{id}", Right::Account, tokens::delete),
        get("/api/v1/me", Right::AccountReader, me::get),
        patch("/api/v1/me", Right::Account, me::patch),
        delete("/api/v1/me", Right::Account, me::delete),
        get("/api/v1/users", Right::AccountReader, directory::list),
        get("/api/users", Right::AccountReader, directory::list),
        get("/api/v1/users/{id}", Right::AccountReader, directory::get),
        patch("/api/v1/users/{id}", Right::Admin, directory::patch),
        post(
            "/api/v1/users/{id}/logout_all",
            Right::Admin,
            directory::log_out,
        ),
        post("/api/v1/invites", Right::Admin, directory::invite),
        get("/api/v1/audit", Right::Admin, directory::audit),
        post("/api/v1/chats", Right::ChatUser, chats::open),
        get("/api/v1/chats", Right::ChatUser, chats::list),
        get("/api/v1/chats/{chat_id}", Right::ChatMember, chats::get),
        patch("/api/v1/chats/{chat_id}", Right::ChatMember, chats::rename),
        delete("/api/v1/chats/{chat_id}", Right::ChatMember, chats::delete),
        get(
            "/api/v1/chats/{chat_id}/members",
            Right::ChatMember,
            chat_members::list,
        ),
        post(
            "/api/v1/chats/{chat_id}/members",
            Right::ChatMember,
            chat_members::add,
        ),
        patch(
            "/api/v1/chats/{chat_id}/members/{user_id}",
            Right::ChatMember,
            chat_members::set_role,
        ),
        delete(
            "/api/v1/chats/{chat_id}/members/{user_id}",
            Right::ChatMember,
            chat_members::remove,
        ),
        get(
            "/api/v1/rooms/{room_id}/messages",
            Right::AccountInRoom,
            chat_messages::list,
        ),
        post(
            "/api/v1/rooms/{room_id}/messages",
            Right::AccountInRoom,
            chat_messages::post,
        ),
        get(
            "/api/v1/rooms/{room_id}/messages/{id}",
            Right::AccountInRoom,
            room_messages::get,
        ),
        patch(
            "/api/v1/rooms/{room_id}/messages/{id}",
            Right::AccountInRoom,
            room_messages::patch,
        ),
        delete(
            "/api/v1/rooms/{room_id}/messages/{id}",
            Right::MessageDeleter,
            room_messages::delete,
        ),
        get(
            "/api/v1/rooms/{room_id}/messages/{id}/versions",
            Right::AccountInRoom,
            room_messages::versions,
        ),
        get(
            "/api/v1/rooms/{room_id}/messages/{id}/thread",
            Right::AccountInRoom,
            room_messages::thread,
        ),
        get(
            "/api/v1/rooms/{room_id}/messages/{id}/readers",
            Right::AccountInRoom,
            room_messages::readers,
        ),
        get(
            "/api/v1/rooms/{room_id}/messages/{id}/reactions",
            Right::AccountInRoom,
            reactions::list,
        ),
        put(
            "/api/v1/rooms/{room_id}/messages/{id}/reactions/{emoji}/me",
            Right::AccountInRoom,
            reactions::put,
        ),
        delete(
            "/api/v1/rooms/{room_id}/messages/{id}/reactions/{emoji}/me",
            Right::AccountInRoom,
            reactions::delete,
        ),
        get(
            "/api/v1/rooms/{room_id}/pins",
            Right::AccountInRoom,
            pins::list,
        ),
        put(
            "/api/v1/rooms/{room_id}/pins/{id}",
            Right::AccountInRoom,
            pins::put,
        ),
        delete(
            "/api/v1/rooms/{room_id}/pins/{id}",
            Right::AccountInRoom,
            pins::delete,
        ),
        put(
            "/api/v1/rooms/{room_id}/read",
            Right::AccountInRoom,
            positions::read,
        ),
        post(
            "/api/v1/rooms/{room_id}/unread",
            Right::AccountInRoom,
            positions::mark_unread,
        ),
        get("/api/v1/me/unread", Right::AccountReader, positions::unread),
        get(
            "/api/v1/me/threads",
            Right::AccountReader,
            positions::threads,
        ),
        get("/api/chats", Right::ChatUser, chats::list),
        get("/api/chats/user", Right::ChatUser, chats::list),
        post("/api/chats", Right::ChatUser, chat_messages::open_or_send),
        post("/api/chats/message", Right::ChatUser, chat_messages::send),
        get(
            "/api/chats/messages/{chat_id}",
            Right::ChatMember,
            chat_messages::list_of_chat,
        ),
        get("/metrics", Right::UnlimitedService, metrics::get),
        get("/ws", Right::User, websocket::open),
        get("/health", Right::Public, health::ready),
        get("/readyz", Right::Public, health::ready),
        get("/livez", Right::Public, health::live),
    ]
}

fn get<H, T>(path: &'static str, right: Right, handler: H) -> Route
where
    H: Handler<T, Arc<HttpState>>,
    T: 'static,
{
    Route {
        #[cfg(test)]
        method: Method::GET,
        path,
        right,
        handler: routing::get(handler),
    }
}

fn post<H, T>(path: &'static str, right: Right, handler: H) -> Route
where
    H: Handler<T, Arc<HttpState>>,
    T: 'static,
{
    Route {
        #[cfg(test)]
        method: Method::POST,
        path,
        right,
        handler: routing::post(handler),
    }
}

fn patch<H, T>(path: &'static str, right: Right, handler: H) -> Route
where
    H: Handler<T, Arc<HttpState>>,
    T: 'static,
{
    Route {
        #[cfg(test)]
        method: Method::PATCH,
        path,
        right,
        handler: routing::patch(handler),
    }
}

fn put<H, T>(path: &'static str, right: Right, handler: H) -> Route
where
    H: Handler<T, Arc<HttpState>>,
    T: 'static,
{
    Route {
        #[cfg(test)]
        method: Method::PUT,
        path,
        right,
        handler: routing::put(handler),
    }
}

fn delete<H, T>(path: &'static str, right: Right, handler: H) -> Route
where
    H: Handler<T, Arc<HttpState>>,
    T: 'static,
{
    Route {
        #[cfg(test)]
        method: Method::DELETE,
        path,
        right,
        handler: routing::delete(handler),
    }
}
