//! Everything that clients see: names of events and fields, requests, answers and events, in one place.
//!
//! These shapes never travel inward; the use cases know none of them.

mod answer;
mod event;
mod fields;
#[cfg(test)]
mod fuzz;
mod request;
mod text;

pub use answer::{
    Authenticated, DisconnectAck, Exception, HistoryAck, JoinAck, LeaveAck, MemberJson, MembersPage, MessageAck,
    RestError, StatusJson, TargetAck, refusal_ack,
};
pub use event::{EventName, encode_event, encode_named, going_away};
pub use fields::Fields;
pub use request::{
    AuthenticateRequest, ClientEvent, Decoded, HistoryRequest, MAX_SEQ, PostRequest, decode, history_limit,
    history_window,
};
