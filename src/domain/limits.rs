//! How large, how many and how often: the limits that the rules check, with the contract's defaults.

use std::time::Duration;

use super::{Rate, Rates};

/// The limits that the configuration can change. Lengths are bytes of UTF-8.
#[derive(Debug, Clone)]
pub struct Limits {
    /// One event's payload.
    pub event_bytes: usize,
    /// `content` of a message.
    pub content_bytes: usize,
    /// `payload` of a message, as JSON.
    pub payload_bytes: usize,
    /// Rooms one socket may be in.
    pub rooms_per_socket: usize,
    /// Users one socket may watch.
    pub status_subscriptions: usize,
    /// What one socket may spend; its connects aren't counted.
    pub socket: Rates,
    /// What one user may spend, in the cluster.
    pub user: Rates,
    /// A socket that was refused for a rate so many times more than its events' rate is closed; 0: never.
    pub refusals: u64,
    /// Rooms with more members than this tell of their size only.
    pub room_events: u64,
    /// How long a socket may stay without an identity.
    pub auth_timeout: Duration,
}

impl Limits {
    /// How much comes at once, where that has no key of its own: what the rate lets through in so many seconds.
    pub const BURST_SECS: u64 = 20;
    /// The longest `title`.
    pub const TITLE_BYTES: usize = 256;
    /// The longest `type`.
    pub const TYPE_BYTES: usize = 64;
    /// The deepest nesting of `payload`; the payload itself is level 1.
    pub const PAYLOAD_DEPTH: usize = 32;
    /// The most `attachment_urls`.
    pub const ATTACHMENTS: usize = 10;
    /// The longest of `attachment_urls`.
    pub const ATTACHMENT_BYTES: usize = 2048;
    /// The most ids in one `room_users`.
    pub const ROSTER: usize = 1000;
    /// The most messages that `history` or `join {limit}` gives.
    pub const HISTORY: u64 = 200;
    /// The most bytes of messages in one answer of `history`.
    pub const HISTORY_BYTES: usize = 512 * 1024;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes: 65_536,
            content_bytes: 16_384,
            payload_bytes: 16_384,
            rooms_per_socket: 100,
            status_subscriptions: 200,
            socket: Rates {
                events: Rate {
                    per_sec: 50,
                    burst: 400,
                },
                joins: Rate::with_burst_of(20, Self::BURST_SECS),
                bytes: Rate::with_burst_of(50 * 16_384, Self::BURST_SECS),
                connects: Rate::default(),
            },
            user: Rates {
                events: Rate::with_burst_of(400, Self::BURST_SECS),
                joins: Rate::with_burst_of(100, Self::BURST_SECS),
                bytes: Rate::with_burst_of(400 * 16_384, Self::BURST_SECS),
                connects: Rate::with_burst_of(5, Self::BURST_SECS),
            },
            refusals: 1000,
            room_events: 500,
            auth_timeout: Duration::from_secs(10),
        }
    }
}
