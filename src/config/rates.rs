//! The keys of rates: what they are where nobody set them, and what the other parts get of them.

use super::{Config, Settings};
use crate::domain::{Limits, Rate, Rates};

/// Sets what isn't set. What a user or an address may do follows from what a socket may: so whoever raises that needn't
/// raise the rest. Addresses have no limits while nobody has said whose address is whose.
pub(super) fn fill(settings: &mut Settings) {
    let events = u64::from(settings.rate_events_per_sec);
    let bytes = events.saturating_mul(settings.max_content_bytes as u64);
    let of_address = |rate: u64| {
        if settings.trusted_proxies.is_some() {
            rate
        } else {
            0
        }
    };
    // A user: as many sockets at once as one may have, in the time that a burst of theirs takes.
    let connects = (settings.max_sockets_per_user as u64).div_ceil(4);
    let defaults = [
        (
            &mut settings.rate_joins_per_sec,
            events.saturating_mul(2).div_ceil(5),
        ),
        (&mut settings.rate_bytes_per_sec, bytes),
        (
            &mut settings.rate_user_events_per_sec,
            events.saturating_mul(8),
        ),
        (
            &mut settings.rate_user_joins_per_sec,
            events.saturating_mul(2),
        ),
        (
            &mut settings.rate_user_bytes_per_sec,
            bytes.saturating_mul(8),
        ),
        (&mut settings.rate_user_connects_per_sec, connects),
        (
            &mut settings.rate_ip_events_per_sec,
            of_address(events.saturating_mul(40)),
        ),
        (
            &mut settings.rate_ip_joins_per_sec,
            of_address(events.saturating_mul(10)),
        ),
        (
            &mut settings.rate_ip_bytes_per_sec,
            of_address(bytes.saturating_mul(40)),
        ),
        (&mut settings.rate_ip_handshakes_per_sec, of_address(250)),
        (&mut settings.rate_posts_per_sec, events.saturating_mul(100)),
        (&mut settings.rate_broadcasts_per_sec, events),
    ];
    for (key, default) in defaults {
        key.get_or_insert(default);
    }
}

fn rate(per_sec: Option<u64>) -> Rate {
    Rate::with_burst_of(per_sec.unwrap_or_default(), Limits::BURST_SECS)
}

impl Config {
    /// What one socket may spend.
    #[must_use]
    pub fn socket_rates(&self) -> Rates {
        let settings = &self.settings;
        Rates {
            events: Rate {
                per_sec: settings.rate_events_per_sec.into(),
                burst: settings.rate_events_burst.into(),
            },
            joins: rate(settings.rate_joins_per_sec),
            bytes: rate(settings.rate_bytes_per_sec),
            connects: Rate::default(),
        }
    }

    /// What one user may spend, in the cluster.
    #[must_use]
    pub fn user_rates(&self) -> Rates {
        let settings = &self.settings;
        Rates {
            events: rate(settings.rate_user_events_per_sec),
            joins: rate(settings.rate_user_joins_per_sec),
            bytes: rate(settings.rate_user_bytes_per_sec),
            connects: rate(settings.rate_user_connects_per_sec),
        }
    }

    /// What one address may spend on this node.
    #[must_use]
    pub fn address_rates(&self) -> Rates {
        let settings = &self.settings;
        Rates {
            events: rate(settings.rate_ip_events_per_sec),
            joins: rate(settings.rate_ip_joins_per_sec),
            bytes: rate(settings.rate_ip_bytes_per_sec),
            connects: rate(settings.rate_ip_handshakes_per_sec),
        }
    }

    /// What one caller may post on this node.
    #[must_use]
    pub fn posts(&self) -> Rate {
        rate(self.settings.rate_posts_per_sec)
    }

    /// What one caller may broadcast on this node.
    #[must_use]
    pub fn broadcasts(&self) -> Rate {
        rate(self.settings.rate_broadcasts_per_sec)
    }
}
