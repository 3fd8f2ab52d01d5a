//! The store in a database: SQLite, PostgreSQL, and MySQL or MariaDB.

mod dsn;
#[cfg(test)]
mod fuzz;
mod url;

pub use url::{DatabaseUrl, SqliteLocation, SqliteUrl, Synchronous, UrlError};
