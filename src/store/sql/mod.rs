//! The store in a database: SQLite, PostgreSQL, and MySQL or MariaDB.
//!
//! [`db`] runs statements, which [`dialect`] makes of templates that are written once; the folders
//! beside it implement the traits of [`store`](super).

mod archive;
mod conn;
mod db;
mod dialect;
mod fault;
mod pool;
mod store;
mod url;
mod value;

pub use archive::MESSAGE_TABLES;
pub use db::Settings;
pub use pool::PoolStats;
pub use store::SqlStore;
pub use url::{DatabaseUrl, SqliteLocation, SqliteUrl, Synchronous, UrlError};
