//! hubbub: a horizontally scalable chat cluster that any Socket.IO client can talk to.
//!
//! In reading order: [`domain`] (what things are), [`backplane`] (what nodes share), [`delivery`] (from the bus to the
//! members here), [`features`] (the use cases), [`gateway`] (the doors), [`auth`], [`server`] (the listener), [`config`],
//! [`telemetry`], and [`app`], which puts them together. ARCHITECTURE.md has the map.

pub mod domain;

pub mod backplane;

pub mod delivery;

pub mod features;

pub mod gateway;

pub mod auth;

pub mod server;

pub mod config;

pub mod telemetry;

pub mod app;

pub mod cli;
