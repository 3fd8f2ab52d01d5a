//! Everything that clients see: names of events and fields, requests, answers and events, in one place.
//!
//! These shapes never travel inward; the use cases know none of them.

mod answer;
mod broadcast;
mod event;
mod fields;
mod frame;
#[cfg(test)]
mod fuzz;
mod request;
mod text;

pub use answer::{
    Authenticated, BroadcastAck, DisconnectAck, Exception, HistoryAck, JoinAck, LeaveAck,
    MemberJson, MessageAck, OccupantsPage, RestError, Resumed, StatusJson, TargetAck, refusal_ack,
};
pub use broadcast::{BroadcastRequest, encode_broadcast};
pub use event::{Envelope, EventName, encode_event, going_away};
pub use fields::Fields;
pub use frame::{decode_frame, encode_ack, is_ping, pong};
pub use request::{
    AuthenticateRequest, ClientEvent, Decoded, HistoryRequest, MAX_SEQ, PostRequest, decode,
    history_limit, history_window,
};
