//! The store in a database: SQLite, PostgreSQL, and MySQL or MariaDB.
//!
//! [`db`] runs statements, which [`dialect`] makes of templates that are written once; the folders
//! beside it implement the traits of [`store`](super).

mod accounts;
mod archive;
mod chats;
mod complete;
mod conn;
mod copied_tables;
mod db;
mod dialect;
mod directory;
mod dsn;
mod fault;
pub mod file_lock;
#[cfg(test)]
mod fuzz;
mod idempotency;
mod jobs;
mod limited_delete;
mod messages;
mod meta;
pub mod migrate;
mod migrations;
mod outbox;
mod pool;
mod prepare;
mod scrub;
mod session;
mod store;
#[cfg(test)]
mod testing;
mod unread;
mod url;
mod value;

pub use archive::MESSAGE_TABLES;
pub use complete::complete_file;
pub use db::Settings;
pub use pool::PoolStats;
pub use prepare::{PreparedDatabase, prepare};
pub use store::SqlStore;
pub use url::{DatabaseUrl, SqliteLocation, SqliteUrl, Synchronous, UrlError};
pub(super) use value::Arg as Value;
