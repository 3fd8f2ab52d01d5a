//! The key that a misspelt key was probably meant to be.

use super::keys;

/// The prefix of the names of a program's keys that many other programs use; hubbub's have none.
const PROGRAM_PREFIX: &str = "HUBBUB_";
/// The shortest name that is compared with a key. Shorter ones resemble each other by chance.
const MIN_NAME_BYTES: usize = 6;
/// The longest name that is compared.
const MAX_NAME_BYTES: usize = 64;
/// One edit for so many letters is taken for a spelling error.
const LETTERS_PER_EDIT: usize = 5;

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
    let distances = keys().map(|key| (edits(name.as_bytes(), key.name.as_bytes()), key.name));
    let (distance, key) = distances.min()?;
    (distance <= key.len() / LETTERS_PER_EDIT).then_some(key)
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

/// The number of bytes to insert, delete, replace or swap with their neighbour between two names.
fn edits(from: &[u8], to: &[u8]) -> usize {
    // Rows of the usual table: the edits from the first bytes of `from` to the first bytes of `to`.
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for row in 1..=from.len() {
        let mut current = vec![row];
        for column in 1..=to.len() {
            let is_same = from[row - 1] == to[column - 1];
            let mut fewest = (last[column - 1] + usize::from(!is_same))
                .min(last[column] + 1)
                .min(current[column - 1] + 1);
            let is_swapped = row > 1
                && column > 1
                && from[row - 1] == to[column - 2]
                && from[row - 2] == to[column - 1];
            if is_swapped {
                fewest = fewest.min(before_last[column - 2] + 1);
            }
            current.push(fewest);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[to.len()]
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
            "DATABASE_URL",
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
        ] {
            assert_eq!(nearest_key(foreign), None, "{foreign}");
        }
    }
}
