//! The promise of the rate limits that hold across nodes.

use async_trait::async_trait;

use crate::domain::{Charges, UserId};

/// The sum of what each user's events cost on all nodes.
///
/// A charge is a duration: the time in which the user's rate earns the cost back, as in GCRA. Nodes
/// report charges from time to time, never before an event is processed, so the limit holds across
/// nodes with a delay.
#[async_trait]
pub trait RateLimiter: Send + Sync {
    /// Adds charges to the users' sums and returns the sums of all nodes that are still
    /// outstanding. Sums decrease with time, by the backplane's clock. Each user's part is atomic.
    ///
    /// Never fails for the caller: a user whose part of the backplane is unavailable is left out of
    /// the result. Those charges may have been added, so the caller must drop them and not repeat
    /// the call: an error is in the user's favour.
    async fn charge(&self, charges: Vec<(UserId, Charges)>) -> Vec<(UserId, Charges)>;
}
