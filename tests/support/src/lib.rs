//! Servers, nodes and clients that the integration tests start: a real redis-server, PostgreSQL and MariaDB,
//! whole hubbub nodes in this process, a small Socket.IO client, and certificates. Each is ended when its value
//! is dropped or stopped, and servers also when the tests are interrupted.

pub mod certificates;
pub mod client;
pub mod database;
mod guard;
pub mod log;
pub mod node;
pub mod server;
pub mod smtp;
pub mod user;
