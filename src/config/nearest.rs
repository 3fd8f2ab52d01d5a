//! The key that a misspelt key was probably meant to be.

use strsim::osa_distance;

use super::keys;

/// The prefix of the names of a program's keys that many other programs use; hubbub's have none.
const PROGRAM_PREFIX: &str = "HUBBUB_";
/// The shortest name that is compared with a key. Shorter ones resemble each other by chance.
const MIN_NAME_BYTES: usize = 6;
/// The longest name that is compared.
const MAX_NAME_BYTES: usize = 64;
/// More than one edit is a spelling error only in keys of at least so many letters.
const LONG_KEY_LETTERS: usize = 12;
/// In those, one edit for so many bytes.
const BYTES_PER_EDIT: usize = 5;
/// The beginnings of addresses in Kubernetes' service links.
const LINK_SCHEMES: [&str; 3] = ["tcp://", "udp://", "sctp://"];

/// The key whose name is most like this one, which is no key of hubbub; `None` if none is like it.
pub(super) fn nearest_key(name: &str) -> Option<&'static str> {
    let name = name.to_uppercase();
    if let Some(rest) = name.strip_prefix(PROGRAM_PREFIX)
        && let Some(key) = keys().find(|key| key.name == rest)
    {
        return Some(key.name);
    }
    if let Some(key) = keys().find(|key| is_extension(&name, key.name)) {
        return Some(key.name);
    }
    if name.len() < MIN_NAME_BYTES || name.len() > MAX_NAME_BYTES {
        return None;
    }
    let distances = keys().map(|key| (osa_distance(&name, key.name), key.name));
    let (distance, key) = distances.min()?;
    (distance <= max_edits(key)).then_some(key)
}

fn max_edits(key: &str) -> usize {
    let letters = key.bytes().filter(u8::is_ascii_alphabetic).count();
    if letters < LONG_KEY_LETTERS {
        1
    } else {
        key.len() / BYTES_PER_EDIT
    }
}

/// Whether Kubernetes sets this variable for a Service: it links a Service named `hubbub` by
/// `HUBBUB_PORT=tcp://10.0.0.1:8080`, `HUBBUB_SERVICE_HOST`, `HUBBUB_PORT_8080_TCP_ADDR` and others.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    is_link_address(value)
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || ["_TCP", "_UDP", "_SCTP"]
            .iter()
            .any(|protocol| has_numbered_port(name, protocol))
}

/// Whether the value is the address of a Service, as its link `<SERVICE>_PORT` has it.
pub(super) fn is_link_address(value: &str) -> bool {
    LINK_SCHEMES.iter().any(|scheme| value.starts_with(scheme))
}

/// Whether the name holds `_PORT_`, a number and the protocol.
fn has_numbered_port(name: &str, protocol: &str) -> bool {
    let number = name
        .split_once("_PORT_")
        .and_then(|(_, rest)| rest.split_once(protocol));
    number.is_some_and(|(number, _)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Whether the name is the key's with one more word, such as `JWT_SECRET_FILE`. Keys of one word and
/// those of the log library are left out: they begin the names of other programs, too.
fn is_extension(name: &str, key: &str) -> bool {
    let word = name
        .strip_prefix(key)
        .and_then(|rest| rest.strip_prefix('_'));
    let has_one_word = word.is_some_and(|word| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic())
    });
    has_one_word && key.contains('_') && !key.starts_with("RUST_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_has_the_meant_key_as_its_nearest() {
        for (misspelt, key) in [
            ("JWT_SECRTE", "JWT_SECRET"),
            ("jwt_secert", "JWT_SECRET"),
            ("JWTSECRET", "JWT_SECRET"),
            ("API_KEY", "API_KEYS"),
            ("ALLOWED_ORIGIN", "ALLOWED_ORIGINS"),
            ("REDIS_UR", "REDIS_URL"),
            ("SERVER_PROT", "SERVER_PORT"),
            ("RATE_EVENTS_PER_SECOND", "RATE_EVENTS_PER_SEC"),
            ("MAX_CONNECTION_PER_IP", "MAX_CONNECTIONS_PER_IP"),
            ("HUBBUB_REDIS_URL", "REDIS_URL"),
            ("JWT_SECRET_KEY", "JWT_SECRET"),
            ("API_KEYS_FILE", "API_KEYS"),
        ] {
            assert_eq!(nearest_key(misspelt), Some(key), "{misspelt}");
        }
    }

    #[test]
    fn keys_of_other_programs_are_like_none() {
        for foreign in [
            "PATH",
            "HOME",
            "HOST",
            "HOSTNAME",
            "NODE_ENV",
            "LOG_LEVEL",
            "DATABASE_NAME",
            "REDIS_USER",
            "REDIS_PORT_6379_TCP",
            "REDIS_SERVICE_HOST",
            "RUST_BACKTRACE",
            "RUST_LOG_STYLE",
            "PORT_NAME",
            "REDIS_PORT_6379_TCP_PROTO",
            "SERVER_NAME",
            "SSL_CERT_FILE",
            "KUBERNETES_SERVICE_PORT",
            "HISTFILESIZE",
            "REDIS_CERT",
            "HISTORY_FILE",
        ] {
            assert_eq!(nearest_key(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn service_links_are_known_by_their_names_or_values() {
        for (name, value) in [
            ("HUBBUB_PORT", "tcp://10.0.0.1:8080"),
            ("HUBBUB_SERVER_PORT", "udp://10.0.0.1:8080"),
            ("HUBBUB_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("HUBBUB_SERVICE_HOST", "10.0.0.1"),
            ("HUBBUB_SERVICE_PORT", "8080"),
            ("HUBBUB_SERVICE_PORT_HTTP", "8080"),
        ] {
            assert!(is_service_link(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("HUBBUB_PORT", "8080"),
            ("REDIS_PROT", "6379"),
            ("SERVER_PORT_8080", "8080"),
        ] {
            assert!(!is_service_link(name, value), "{name}={value}");
        }
    }
}
