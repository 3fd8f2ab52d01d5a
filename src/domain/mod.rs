//! What a user, room, message, presence and refusal *are*: values, limits and pure rules.
//!
//! No I/O, no async, no wire shapes: everything here can be tested without a runtime.

mod continuity;
mod draft;
mod id;
mod limits;
pub mod policy;
mod presence;
mod rate;
mod refusal;
mod time;

pub use continuity::{Continuity, Head, LogSpan};
pub use draft::{Draft, DraftFields};
pub use id::{ClientMsgId, ConnId, Epoch, RoomId, UserId, Username};
pub use limits::Limits;
pub use presence::{ChangeKind, RoomChange, Status};
pub use rate::{Allowance, Allowances, Cost, Debts, Exceeded, Rate, Rates};
pub use refusal::{Code, Refusal};
pub use time::Timestamp;
