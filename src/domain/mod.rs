//! Users, rooms, messages, presence and refusals as values, with their limits and pure rules.
//!
//! No I/O, no async and no wire shapes, so that everything here can be tested without a runtime.

mod account;
mod announcement;
mod audit;
mod bot_token;
mod chat;
mod continuity;
mod id;
mod idempotency;
mod limits;
mod message_change;
mod message_form;
mod new_message;
pub mod policy;
mod presence;
mod rate;
mod refusal;
mod room;
mod text_file;
mod time;

pub use account::{
    Account, AccountName, AvatarUrl, DELETED_DISPLAY_NAME, DELETED_USERNAME, DisplayName,
    EmailAddress, Role, search_key,
};
pub use announcement::{Announcement, Change, MemberChange, SessionEnd};
pub use audit::{Actor, AdminAction};
pub use bot_token::{BotToken, TokenScope, TokenScopes};
pub use chat::{
    Chat, ChatHistory, ChatKind, ChatMember, ChatName, ChatRole, MAX_CHAT_MEMBERS, Membership,
};
pub use continuity::{Continuity, Head, LogSpan};
pub use id::{ClientMsgId, ConnId, Epoch, RoomId, UserId, Username};
pub use idempotency::IdempotencyKey;
pub use limits::Limits;
pub use message_change::{Emoji, MessageChangeKind, Reaction};
pub use message_form::{Amendment, FormContent, MessageForm, Tombstone};
pub use new_message::{MessageBody, MessageFields, NewMessage};
pub use presence::{ChangeKind, OnlineStatus, RoomChange};
pub use rate::{Charges, Cost, Exceeded, Limiter, Limiters, Rate, Rates};
pub use refusal::{Code, Refusal, TokenFault};
pub use room::RoomKind;
pub use text_file::without_bom;
pub use time::Timestamp;
