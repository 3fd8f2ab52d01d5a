//! Violations of the server's guarantees.

use std::fmt;

use serde::Serialize;

/// Counts of violations. All zeros: the server kept its guarantees.
///
/// The names of the fields are keys of the JSON report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Findings {
    /// Messages that a member did not receive, although a later one arrived or the run ended.
    pub(crate) holes: u64,
    /// Messages that a member received twice.
    pub(crate) repeats: u64,
    /// Messages that a member received after a later one.
    pub(crate) disorder: u64,
    /// Messages under one number that were not the same for all members, and messages of one
    /// sender whose numbers are not in the order in which they were sent.
    pub(crate) two_orders: u64,
    /// Messages without a stamp or a number, or of a room that the receiver is not in;
    /// acknowledgements that match no message.
    pub(crate) unreadable: u64,
    /// Messages that the server refused, without `--allow-refusals`.
    pub(crate) refused: u64,
    /// Messages that the server neither acknowledged nor refused, although an acknowledgement was
    /// requested.
    pub(crate) unacknowledged: u64,
    /// Connections that were closed while they should have been open.
    pub(crate) closed: u64,
    /// Joins after a reconnect storm that did not resume without a gap.
    pub(crate) gaps: u64,
}

impl Findings {
    /// Whether there are no violations.
    pub(crate) fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Findings {
    /// Lists the counts that are not zero.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("holes", self.holes),
            ("repeats", self.repeats),
            ("disorder", self.disorder),
            ("two_orders", self.two_orders),
            ("unreadable", self.unreadable),
            ("refused", self.refused),
            ("unacknowledged", self.unacknowledged),
            ("closed", self.closed),
            ("gaps", self.gaps),
        ];
        let mut separator = "";
        for (name, count) in counts {
            if count > 0 {
                write!(out, "{separator}{name}: {count}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_lists_only_counts_above_zero() {
        let findings = Findings {
            holes: 3,
            gaps: 1,
            ..Findings::default()
        };
        assert_eq!(findings.to_string(), "holes: 3, gaps: 1");
    }
}
