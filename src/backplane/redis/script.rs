//! The Lua scripts, each with the shared files that it needs in front of it, and a reader for their
//! replies.

use std::sync::LazyLock;

use bytes::Bytes;
use fred::types::Value;
use fred::util::sha1_hash;

use super::fault::Fault;
use super::link::ConnectionPool;

/// A script.
pub(super) struct Script {
    /// The digest by which Redis's script cache knows it.
    pub(super) sha: String,
    pub(super) body: &'static str,
    pub(super) pool: ConnectionPool,
    /// The script's own file, without the shared ones.
    #[cfg(test)]
    own: &'static str,
}

/// Declares scripts: the connections to use, the name, and the files to concatenate behind
/// `common.lua`. The last file is the script's own.
macro_rules! scripts {
    ($($pool:ident $name:ident = $($shared:literal)* => $own:literal;)*) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            const BODY: &str = concat!(
                include_str!("lua/common.lua"),
                $("\n", include_str!(concat!("lua/", $shared, ".lua")),)*
                "\n", include_str!(concat!("lua/", $own, ".lua")),
            );
            Script {
                sha: sha1_hash(BODY),
                body: BODY,
                pool: ConnectionPool::$pool,
                #[cfg(test)]
                own: include_str!(concat!("lua/", $own, ".lua")),
            }
        });)*

        #[cfg(test)]
        fn all() -> Vec<(&'static str, &'static Script)> {
            vec![$((stringify!($name), &*$name)),*]
        }
    };
}

scripts! {
    Log APPEND = "log" "append_plain" => "append";
    Log APPEND_ARCHIVED = "log" "archive" "append_archived" => "append";
    Log READ = "log" "archive" "span" "entries" => "read";
    Log ARCHIVED = "log" "archive" => "archived";
    Log UNARCHIVED = "log" => "unarchived";
    Log READ_UNARCHIVED = "log" "entries" => "read_unarchived";
    Log DIVERGED = "log" => "diverged";
    Log TRIM = "log" => "trim";
    Log SCRUB = "log" => "scrub";
    Log EXPECT_CHANGES = "log" => "expect_changes";
    Presence CLAIM_RESTORE = "log" "archive" "restore" => "claim_restore";
    Presence READ_CLAIMED = "log" "entries" "restore" => "read_claimed";
    Presence RESTORE_ROOM = "log" "archive" "restore" => "restore_room";
    Presence RELEASE_RESTORE = "restore" => "release_restore";
    Presence JOIN = "log" "archive" "span" "presence" "room" => "join";
    Presence REJOIN = "log" "archive" "presence" "room" => "rejoin";
    Presence LEAVE = "log" "presence" "room" => "leave";
    Presence LOSE = "log" "presence" "room" => "lose";
    Presence ROSTER = "log" "presence" "room" => "roster";
    Presence MEMBERS = "log" "presence" "room" => "members";
    Presence SWEEP_ROOMS = "log" "presence" "room" => "sweep_rooms";
    Presence REAP_ROOMS = "log" "presence" "room" => "reap_rooms";
    Presence HELD_ROOMS = "log" "presence" "room" => "held_rooms";
    Presence CONNECT = "presence" "user" => "connect";
    Presence DISCONNECT = "presence" "user" => "disconnect";
    Presence STATUS = "presence" "user" => "status";
    Presence RESTORE_STATUS = "presence" "user" => "restore_status";
    Presence SWEEP_USERS = "presence" "user" => "sweep_users";
    Presence REAP_USERS = "presence" "user" => "reap_users";
    Presence HELD_USERS = "presence" "user" => "held_users";
    Presence CHANGES = => "changes";
    Presence CHECK = "presence" => "check";
    Presence CHARGE = => "charge";
    Log RIGHTS = => "rights";
    Log HEARTBEAT = "leases" => "heartbeat";
    Log CONDEMN = "leases" => "condemn";
    Log FORGET_LEASE = "leases" => "forget_lease";
    Log EXPIRED_LEASES = "leases" => "expired_leases";
    Log DEPLOYMENT = "leases" => "deployment";
}

/// A script's reply, read value by value.
pub(super) struct ScriptReply(std::vec::IntoIter<Value>);

impl ScriptReply {
    pub(super) fn new(value: Value) -> Self {
        Self(value.into_array().into_iter())
    }

    /// Whether all values have been read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// The next value, of any type.
    pub(super) fn value(&mut self) -> Result<Value, Fault> {
        self.0
            .next()
            .ok_or_else(|| Fault::broken("a reply is too short"))
    }

    /// The next value as text.
    pub(super) fn text(&mut self) -> Result<String, Fault> {
        self.value()?
            .into_string()
            .ok_or_else(|| Fault::broken("a value isn't text"))
    }

    /// The next value as a number that isn't negative.
    pub(super) fn number(&mut self) -> Result<u64, Fault> {
        self.value()?
            .as_u64()
            .ok_or_else(|| Fault::broken("a value isn't a number"))
    }

    /// The next value as a number that may be negative.
    pub(super) fn signed(&mut self) -> Result<i64, Fault> {
        self.value()?
            .as_i64()
            .ok_or_else(|| Fault::broken("a value isn't a number"))
    }

    /// The next value as bytes.
    pub(super) fn bytes(&mut self) -> Result<Bytes, Fault> {
        self.value()?
            .into_bytes()
            .ok_or_else(|| Fault::broken("a value isn't bytes"))
    }

    /// The remaining values as texts.
    pub(super) fn texts(mut self) -> Result<Vec<String>, Fault> {
        let mut texts = Vec::with_capacity(self.0.len());
        while !self.is_empty() {
            texts.push(self.text()?);
        }
        Ok(texts)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_script_documents_its_reply_and_its_atomicity() {
        for (name, script) in super::all() {
            let header: Vec<_> = script
                .own
                .lines()
                .take_while(|line| line.starts_with("--"))
                .collect();
            let header = header.join("\n");
            for word in ["Returns", "tomic"] {
                assert!(header.contains(word), "{name} lacks {word}: {header}");
            }
        }
    }

    /// The commands that a script's text names behind one of these words.
    fn commands(text: &str, words: &[&str]) -> BTreeSet<String> {
        let behind = words.iter().flat_map(|word| text.split(word).skip(1));
        behind
            .filter_map(|rest| rest.strip_prefix('\''))
            .filter_map(|rest| Some(rest.split_once('\'')?.0.to_owned()))
            .collect()
    }

    #[test]
    fn the_start_tries_every_command_of_the_scripts() {
        let tried = commands(super::RIGHTS.own, &["try("]);
        for (name, script) in super::all() {
            let used = commands(script.body, &["call("]);
            let missing: Vec<_> = used.difference(&tried).collect();
            assert!(missing.is_empty(), "{name}: rights.lua lacks {missing:?}");
        }
    }

    #[test]
    fn every_script_binds_its_arguments_to_names_before_it_does_anything() {
        for (name, script) in super::all() {
            let first_call = script.own.find("call(").unwrap_or(script.own.len());
            let behind = &script.own[first_call..];
            let fixed = (5..=11).map(|n| format!("ARGV[{n}]"));
            let late: Vec<_> = fixed.filter(|word| behind.contains(word)).collect();
            assert!(late.is_empty(), "{name} uses {late:?} without a name");
            assert!(
                !script.own.contains("KEYS["),
                "{name}: the context has the tag"
            );
        }
    }
}
