//! Everything that clients see on the wire: the names of events and fields, and the JSON shapes of
//! requests, acknowledgements, events and REST bodies.
//!
//! These shapes never travel inward: the use cases know no JSON. The request of an event is
//! declared beside its handler, in `gateway/connections/events/`; it reads its fields by
//! [`Fields`], and no code outside of this folder knows how they are encoded.

mod accounts;
mod acks;
mod administration;
mod api;
mod broadcast;
mod chats;
mod connect_error;
#[allow(dead_code, reason = "lists with pages are still to come")]
mod cursor;
mod fields;
mod frame;
#[cfg(test)]
mod fuzz;
mod incoming;
mod messages;
mod packet;
mod page;
mod recovery;
mod request_fields;
mod server_event;
mod text;
mod tokens;

pub(crate) use accounts::{
    AccountJson, EndedJson, LoginRequest, LoginTokens, PasswordRequest, ProfileRequest,
    RefreshRequest, SessionJson, SessionTokens, SignUpRequest,
};
pub(crate) use acks::{
    Authenticated, Exception, HistoryAck, JoinAck, MessageAck, Resumed, RoomAck, StatusJson,
    SyncAck, TargetAck, refusal_ack, to_json,
};
pub(crate) use administration::{AuditJson, InviteBody, InviteJson, UserRequest};
pub(crate) use api::{BroadcastAck, DisconnectAck, OccupantsPage, PostRequest, RestError};
pub(crate) use broadcast::{BroadcastRequest, encode_broadcast};
pub(crate) use chats::{
    AddMembersRequest, ChatJson, ChatMessageRequest, ChatTarget, List, MemberJson, MessageList,
    MessageRequest, OpenChatRequest, OpenOrSendRequest, RenameRequest, SetRoleRequest,
    message_cursor, message_json,
};
pub(crate) use connect_error::{INVALID_NAMESPACE, connect_error, connect_error_text};
#[allow(unused_imports, reason = "lists with pages are still to come")]
pub(crate) use cursor::{MAX_LIMIT, PageQuery, encode_cursor};
pub use fields::Fields;
pub(crate) use frame::{encode_ack, is_ping, json_text, parse_frame, pong};
pub use incoming::{MalformedEvent, RawEvent};
pub(crate) use messages::{
    ChangeAck, EditRequest, Null, PinList, ReactionList, ReadAck, ReadRequest, ReaderJson,
    RoomUnreadJson, ThreadList, UnreadRequest, UserThreadJson, VersionList, current_json,
    edit_fields, if_match,
};
pub use packet::parse_packet;
pub(crate) use page::Page;
pub(crate) use recovery::{
    DeleteAccountRequest, Done, ForgotPasswordRequest, PasswordReset, ResetPasswordRequest,
    VerifyEmailRequest,
};
pub(crate) use request_fields::{
    MAX_SEQ, history_limit, history_window, message_fields, message_id, replay_from, rooms_to_sync,
};
pub use server_event::{Envelope, ServerEvent, encode_event, going_away};
pub(crate) use tokens::{ClosedJson, TokenJson, TokenRequest};
