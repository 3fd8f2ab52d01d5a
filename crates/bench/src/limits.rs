//! The limits of the nodes that a run meets, with the setting that raises each of them.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// A limit of the nodes that has refused a part of the load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct MetLimit {
    /// How often the limit refused something.
    pub(crate) count: u64,
    /// The code of the refusals, and the text of the first one.
    pub(crate) refusal: String,
    /// The change that lets the load pass.
    pub(crate) remedy: String,
}

impl fmt::Display for MetLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            count,
            refusal,
            remedy,
        } = self;
        write!(out, "{count} refused ({refusal}): {remedy}")
    }
}

/// All limits met so far, each remedy once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MetLimits(Vec<MetLimit>);

impl MetLimits {
    /// Records a refusal, if it came from a limit. `json` is the body of an HTTP response, the object
    /// of an acknowledgement or of the event `exception`, or that of a refused CONNECT.
    ///
    /// Returns whether it came from a limit.
    pub(crate) fn record(&mut self, json: &Value) -> bool {
        let Some((code, text)) = code_and_text(json) else {
            return false;
        };
        let Some(remedy) = remedy(code, text) else {
            return false;
        };
        match self.0.iter_mut().find(|limit| limit.remedy == remedy) {
            Some(limit) => limit.count += 1,
            None => self.0.push(MetLimit {
                count: 1,
                refusal: format!("{code}: {text}"),
                remedy,
            }),
        }
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes and returns all of them.
    pub(crate) fn take(&mut self) -> Vec<MetLimit> {
        std::mem::take(&mut self.0)
    }
}

impl fmt::Display for MetLimits {
    /// One line each.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for limit in &self.0 {
            write!(out, "\n  {limit}")?;
        }
        Ok(())
    }
}

fn code_and_text(json: &Value) -> Option<(&str, &str)> {
    if let (Some(code), Some(text)) = (json["code"].as_str(), json["error"].as_str()) {
        return Some((code, text));
    }
    // A refused CONNECT.
    json["message"].as_str()?.split_once(": ")
}

/// The change that lets the load pass; `None` if the refusal did not come from a limit.
fn remedy(code: &str, text: &str) -> Option<String> {
    match code {
        "rate_limited" => Some(format!("raise {} (0: no limit)", rate_setting(text)?)),
        "unauthorized" | "token_expired" => {
            Some("give --token-secret the JWT_SECRET of the nodes".to_owned())
        }
        "unavailable" | "too_many_connections" | "too_many_rooms" | "overloaded" | "too_large" => {
            Some(format!("raise {}", size_setting(code, text)?))
        }
        _ => None,
    }
}

/// The setting of a rate, by its kind and by its holder: the connection, its user or its address.
fn rate_setting(text: &str) -> Option<&'static str> {
    let holder = if text.ends_with("of this user") {
        1
    } else if text.ends_with("of this address") {
        2
    } else {
        0
    };
    let settings = [
        (
            "events",
            [
                "RATE_EVENTS_PER_SEC",
                "RATE_USER_EVENTS_PER_SEC",
                "RATE_IP_EVENTS_PER_SEC",
            ],
        ),
        (
            "joins",
            [
                "RATE_JOINS_PER_SEC",
                "RATE_USER_JOINS_PER_SEC",
                "RATE_IP_JOINS_PER_SEC",
            ],
        ),
        (
            "bytes",
            [
                "RATE_BYTES_PER_SEC",
                "RATE_USER_BYTES_PER_SEC",
                "RATE_IP_BYTES_PER_SEC",
            ],
        ),
        (
            "connections",
            [
                "RATE_USER_CONNECTS_PER_SEC",
                "RATE_USER_CONNECTS_PER_SEC",
                "RATE_IP_HANDSHAKES_PER_SEC",
            ],
        ),
    ];
    let (_, settings) = settings.iter().find(|(kind, _)| text.contains(kind))?;
    Some(settings[holder])
}

/// The setting of a limit on a number or size.
fn size_setting(code: &str, text: &str) -> Option<&'static str> {
    let settings: &[(&str, &str)] = match code {
        "unavailable" => &[
            ("handshakes", "MAX_HANDSHAKES_PER_SEC"),
            ("unauthenticated", "MAX_UNAUTHENTICATED"),
            ("limit of connections", "MAX_CONNECTIONS"),
        ],
        "too_many_connections" => &[
            ("address", "MAX_CONNECTIONS_PER_IP"),
            ("user", "MAX_SOCKETS_PER_USER"),
        ],
        "too_many_rooms" => &[("rooms", "MAX_ROOMS_PER_SOCKET")],
        "overloaded" => &[("rooms", "MAX_ROOMS"), ("events wait", "RATE_EVENTS_BURST")],
        "too_large" => &[("content", "MAX_CONTENT_BYTES"), ("", "MAX_EVENT_BYTES")],
        _ => &[],
    };
    let (_, setting) = settings.iter().find(|(part, _)| text.contains(part))?;
    Some(setting)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn refusals_of_one_limit_are_counted_together_with_its_setting() {
        let mut limits = MetLimits::default();
        for text in [
            "too many events",
            "too many events",
            "too many events of this user",
        ] {
            assert!(limits.record(&json!({"code": "rate_limited", "error": text})));
        }
        assert_eq!(
            limits.to_string(),
            "\n  2 refused (rate_limited: too many events): raise RATE_EVENTS_PER_SEC (0: no \
             limit)\n  1 refused (rate_limited: too many events of this user): raise \
             RATE_USER_EVENTS_PER_SEC (0: no limit)"
        );
    }

    #[test]
    fn refusals_in_every_shape_are_recognised() {
        for (json, setting) in [
            (
                json!({"error": "too many handshakes at this node", "code": "unavailable"}),
                "MAX_HANDSHAKES_PER_SEC",
            ),
            (
                json!({"ok": false, "code": "too_large", "error": "content must be at most 5 bytes"}),
                "MAX_CONTENT_BYTES",
            ),
            (
                json!({"message": "unauthorized: the signature is wrong"}),
                "--token-secret",
            ),
            (
                json!({"code": "rate_limited", "error": "too many connections of this address"}),
                "RATE_IP_HANDSHAKES_PER_SEC",
            ),
        ] {
            let mut limits = MetLimits::default();
            assert!(limits.record(&json), "{json}");
            assert!(limits.to_string().contains(setting), "{json}");
        }
    }

    #[test]
    fn other_refusals_come_from_no_limit() {
        let mut limits = MetLimits::default();
        for (code, error) in [
            ("internal", "a fault"),
            ("draining", "this node is about to stop"),
            ("unavailable", "the backplane can't be reached"),
        ] {
            assert!(!limits.record(&json!({"code": code, "error": error})));
        }
        assert!(!limits.record(&json!("text")) && limits.is_empty());
    }
}
