//! The errors of calls to Redis, and the meaning of its error texts.

use crate::backplane::BackplaneError;

/// Why a call to Redis failed.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// The node's incarnation was reaped: take another one, register again, and repeat the call.
    Fenced,
    /// The room must be restored from the archive: do that, and repeat the call.
    Unrestored,
    /// An error for the caller.
    Backplane(BackplaneError),
}

impl Fault {
    /// A reply in an unexpected format.
    pub(super) fn broken(text: &str) -> Self {
        Self::Backplane(BackplaneError::Broken(text.to_owned()))
    }

    pub(super) fn unavailable(text: impl Into<String>) -> Self {
        Self::Backplane(BackplaneError::Unavailable(text.into()))
    }

    /// The meaning of an error text of Redis or of the client library.
    pub(super) fn from_text(text: &str) -> Self {
        if text.starts_with("FENCED") {
            return Self::Fenced;
        }
        if text.starts_with("UNRESTORED") {
            return Self::Unrestored;
        }
        let is_temporary = TEMPORARY.iter().any(|code| has_code(text, code));
        if text.starts_with("ERR") && !is_temporary {
            tracing::error!(error = text, "redis: a command was refused");
            return Self::broken(text);
        }
        Self::unavailable(text)
    }
}

impl From<Fault> for BackplaneError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Fenced => Self::Unavailable(
                "the node's lease had expired; the node is registering again".to_owned(),
            ),
            Fault::Unrestored => {
                Self::Unavailable("the room could not be restored from the archive".to_owned())
            }
            Fault::Backplane(error) => error,
        }
    }
}

/// Codes of errors that pass by themselves.
const TEMPORARY: [&str; 12] = [
    "READONLY",
    "MASTERDOWN",
    "LOADING",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
    "MISCONF",
    "OOM",
    "NOREPLICAS",
    "NOAUTH",
    "WRONGPASS",
    "UNBLOCKED",
];

/// Whether the text means that the server was demoted while the connection stayed open. Only a new
/// connection finds the new primary.
pub(super) fn is_demotion(text: &str) -> bool {
    has_code(text, "READONLY") || has_code(text, "MASTERDOWN")
}

/// Whether an error text has this code. In an error that a script raises, the server's text comes
/// behind a part that Lua adds.
fn has_code(text: &str, code: &str) -> bool {
    text.starts_with(code) || text.contains(&format!("-{code} "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_pass_by_themselves_are_unavailable() {
        for text in [
            "READONLY You can't write against a read only replica.",
            "ERR user_script:9: -LOADING Redis is loading the dataset in memory",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "Connection refused",
        ] {
            let fault = Fault::from_text(text);
            assert!(
                matches!(
                    &fault,
                    Fault::Backplane(BackplaneError::Unavailable(reason)) if reason == text
                ),
                "{fault:?}"
            );
        }
    }

    #[test]
    fn a_refused_command_is_broken_and_a_fenced_node_is_told_apart() {
        let refused = Fault::from_text("ERR wrong number of arguments for 'get' command");
        assert!(matches!(
            refused,
            Fault::Backplane(BackplaneError::Broken(_))
        ));
        let fenced = Fault::from_text("FENCED the incarnation was reaped");
        assert!(matches!(fenced, Fault::Fenced));
    }

    #[test]
    fn a_demotion_is_recognised_inside_a_scripts_error() {
        assert!(is_demotion(
            "READONLY You can't write against a read only replica."
        ));
        assert!(is_demotion("ERR user_script:1: -READONLY You can't write"));
        assert!(!is_demotion("OOM command not allowed"));
    }
}
