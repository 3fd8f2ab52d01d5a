//! Clients of rooms whose messages change.

mod fold;
