//! How often a caller of REST may ask, and how often an address, whoever it says it is.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use parking_lot::Mutex;

use super::HttpState;
use super::refusal::refuse;
use crate::domain::{Cost, Limiters, Rate, Rates, Refusal};
use crate::gateway::access::bearer;
use crate::server::Client;

/// CallerRateLimiter with an allowance of their own at once; the others share one.
const CALLERS: usize = 1 << 16;

/// What callers may post.
pub struct CallerRateLimiter {
    posts: Mutex<Limiters<u64>>,
    hasher: RandomState,
}

impl CallerRateLimiter {
    /// With that rate of `POST /messages`.
    #[must_use]
    pub fn new(posts: Rate) -> Self {
        let rates = Rates {
            events: posts,
            ..Rates::default()
        };
        Self {
            posts: Mutex::new(Limiters::new(rates, CALLERS)),
            hasher: RandomState::new(),
        }
    }

    /// Spends one post of the caller who bears that key or token, or else of the address. Bearers are known by a hash with a
    /// key of this process: no secret is kept.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn post(&self, headers: &HeaderMap, client: Option<Client>) -> Result<(), Refusal> {
        let address: Option<IpAddr> = client.map(Client::network);
        let caller = match bearer(headers) {
            Some(token) => self.hasher.hash_one(token),
            None => self.hasher.hash_one(address),
        };
        let spent = self
            .posts
            .lock()
            .spend(&caller, Cost::event(0), Instant::now());
        spent.map_err(|exceeded| Refusal::rate_limited(exceeded, " of this caller"))
    }
}

/// Counts a request as an event of its address. Probes are not counted, and Socket.IO counts its own.
pub(super) async fn count(
    State(doors): State<Arc<HttpState>>,
    request: Request,
    next: Next,
) -> Response {
    let client = request.extensions().get::<Client>().copied();
    match doors.admission.spend(client, Cost::event(0)) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refuse(&refusal),
    }
}
