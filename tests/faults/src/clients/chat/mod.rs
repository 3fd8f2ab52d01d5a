//! Users with accounts: members that use the rooms of their chats, and drivers that change the
//! memberships.

mod account;
mod driver;
mod editor;
mod member;

pub use account::{Account, Answer};
pub use driver::{Driver, DriverConfig};
pub use editor::Editor;
pub use member::{Member, MemberConfig};
