//! The metrics of admission.

use super::admission::Admission;
use crate::telemetry::sample::Sample;

impl Admission {
    /// The metrics of admission as they stand now.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        vec![
            Sample::counter(
                "sessions_refused",
                "Handshakes refused by a connection limit, a rate limit or a drain",
                self.refused(),
            ),
            Sample::counter(
                "sessions_evicted",
                "Sessions without authentication that were closed because a new one needed their \
                 slot (MAX_UNAUTHENTICATED)",
                self.evicted(),
            ),
        ]
    }
}
