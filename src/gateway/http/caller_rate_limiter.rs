//! Rates of the callers of REST.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use http::HeaderMap;
use parking_lot::Mutex;

use crate::domain::{Cost, Limiters, Rate, Rates, Refusal};
use crate::gateway::access::bearer;
use crate::server::ClientAddress;

/// Callers that have a limiter of their own at the same time. Further callers share one.
const CALLERS: usize = 1 << 16;

/// Limits the rate of one kind of request for each caller: for each API key or token, or else for
/// each address.
pub struct CallerRateLimiter {
    limiters: Mutex<Limiters<u64>>,
    hasher: RandomState,
}

impl CallerRateLimiter {
    /// With this rate for every caller.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let rates = Rates {
            events: rate,
            ..Rates::default()
        };
        Self {
            limiters: Mutex::new(Limiters::new(rates, CALLERS)),
            hasher: RandomState::new(),
        }
    }

    /// Charges one request to its caller. Callers are identified by a hash of their key or token,
    /// with a hash key of this process, so that no secret is stored.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn charge(
        &self,
        headers: &HeaderMap,
        client: Option<ClientAddress>,
    ) -> Result<(), Refusal> {
        let address: Option<IpAddr> = client.map(ClientAddress::network);
        let caller = match bearer(headers) {
            Some(token) => self.hasher.hash_one(token),
            None => self.hasher.hash_one(address),
        };
        self.limiters
            .lock()
            .spend(&caller, Cost::event(0), Instant::now())
            .map_err(|exceeded| Refusal::rate_limited(exceeded, " of this caller"))
    }
}
