//! hubbub: a horizontally scalable chat cluster for every Socket.IO client.
//!
//! In reading order: [`domain`] (values, limits and pure rules), [`backplane`] (the state that nodes
//! share), [`store`] (what must not be lost), [`archive`]
//! (log and database, read as one), [`outbox`] (publishes what
//! transactions decided), [`mail`], [`delivery`] (from the bus to the connections on this node),
//! [`features`] (the use cases), [`gateway`] (Socket.IO, plain WebSockets and REST), [`auth`] (tokens and keys), [`server`] (the
//! listener and admission), [`config`], [`telemetry`], and [`app`], which puts them together.
//! ARCHITECTURE.md has the map.

pub mod domain;

pub mod backplane;

pub mod store;

pub mod archive;

pub mod outbox;

pub mod mail;

pub mod delivery;

pub mod features;

pub mod gateway;

pub mod auth;

pub mod server;

pub mod config;

pub mod telemetry;

pub mod app;

pub mod cli;
