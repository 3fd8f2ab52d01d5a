//! The limits on sizes, numbers and rates that the rules check, with the contract's defaults.

use std::time::Duration;

use super::{Rate, Rates};

/// The limits that the configuration can change. Sizes are bytes of UTF-8.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest payload of one event.
    pub event_bytes: usize,
    /// The largest `content` of a message.
    pub content_bytes: usize,
    /// The largest `payload` of a message, as JSON text.
    pub payload_bytes: usize,
    /// Rooms that one connection may be in.
    pub rooms_per_socket: usize,
    /// Users whose status one connection may watch.
    pub status_subscriptions: usize,
    /// Rates of one connection; `connects` is not used.
    pub socket: Rates,
    /// Rates of one user, in the whole cluster.
    pub user: Rates,
    /// A connection is closed when more than this many refusals for a rate are outstanding; they
    /// are worked off at the rate of its events. 0: never.
    pub refusals: u64,
    /// Rooms with more occupants than this announce only their number of occupants.
    pub room_events: u64,
    /// Rooms with more occupants or members than this send no read receipts.
    pub receipts: u64,
    /// How long a connection may stay without an identity.
    pub auth_timeout: Duration,
}

impl Limits {
    /// Burst of a rate that has no setting for it: as much as the rate allows in this many seconds.
    pub const BURST_SECS: u64 = 20;
    /// The longest `title`, in bytes.
    pub const TITLE_BYTES: usize = 256;
    /// The longest `type`, in bytes.
    pub const TYPE_BYTES: usize = 64;
    /// The deepest nesting of `payload`; the payload itself is level 1.
    pub const PAYLOAD_DEPTH: usize = 32;
    /// The largest number of `attachment_urls`.
    pub const ATTACHMENTS: usize = 10;
    /// The longest entry of `attachment_urls`, in bytes.
    pub const ATTACHMENT_BYTES: usize = 2048;
    /// The largest number of ids in one `room_users`.
    pub const ROSTER: usize = 1000;
    /// The largest `limit` of `history` and `join`, in messages.
    pub const HISTORY: u64 = 200;
    /// The largest `replay_limit` of `join`, in messages.
    pub const REPLAY: u64 = 10_000;
    /// The most bytes of messages in one `history` acknowledgement.
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
            receipts: 100,
            auth_timeout: Duration::from_secs(600),
        }
    }
}
