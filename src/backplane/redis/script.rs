//! The Lua scripts, each with what it shares with others put in front, and a reader of their answers.

use std::sync::LazyLock;

use bytes::Bytes;
use fred::types::Value;
use fred::util::sha1_hash;

use super::link::{Fault, Lane};

/// A script and its name in Redis's cache.
pub(super) struct Script {
    pub(super) sha: String,
    pub(super) body: &'static str,
    pub(super) lane: Lane,
}

macro_rules! scripts {
    ($($lane:ident $name:ident = $($file:literal)+;)*) => {
        $(pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            const BODY: &str = concat!(include_str!("lua/common.lua"), $("\n", include_str!(concat!("lua/", $file, ".lua"))),+);
            Script { sha: sha1_hash(BODY), body: BODY, lane: Lane::$lane }
        });)*

        /// Every script, for tests.
        #[cfg(test)]
        pub(super) fn all() -> Vec<(&'static str, &'static Script)> {
            vec![$((stringify!($name), &*$name)),*]
        }
    };
}

scripts! {
    Log APPEND = "log" "append";
    Log READ = "log" "read";
    Presence JOIN = "log" "room" "join";
    Presence REJOIN = "log" "room" "rejoin";
    Presence LEAVE = "log" "room" "leave";
    Presence LOSE = "log" "room" "lose";
    Presence MEMBERS = "log" "room" "members";
    Presence SWEEP_ROOMS = "log" "room" "sweep_rooms";
    Presence REAP_ROOMS = "log" "room" "reap_rooms";
    Presence CHANGES = "changes";
    Presence CONNECT = "user" "connect";
    Presence DISCONNECT = "user" "disconnect";
    Presence STATUS = "status";
    Presence RECALL = "user" "recall";
    Presence SWEEP_USERS = "user" "sweep_users";
    Presence REAP_USERS = "user" "reap_users";
    Presence SPEND = "spend";
    Presence CHECK = "check";
    Presence HELD = "held";
    Log BEAT = "beat";
    Log CONDEMN = "condemn";
}

/// A script's answer, read from its beginning.
pub(super) struct ScriptReply(std::vec::IntoIter<Value>);

impl ScriptReply {
    pub(super) fn new(value: Value) -> Self {
        Self(value.into_array().into_iter())
    }

    /// True when all is read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// The next value, whatever it is.
    pub(super) fn value(&mut self) -> Result<Value, Fault> {
        self.0
            .next()
            .ok_or_else(|| Fault::nonsense("an answer is too short"))
    }

    /// The next value as text.
    pub(super) fn text(&mut self) -> Result<String, Fault> {
        self.value()?
            .into_string()
            .ok_or_else(|| Fault::nonsense("not a text"))
    }

    /// The next value as a number.
    pub(super) fn number(&mut self) -> Result<u64, Fault> {
        self.value()?
            .as_u64()
            .ok_or_else(|| Fault::nonsense("not a number"))
    }

    /// The next value as a number that may be negative.
    pub(super) fn signed(&mut self) -> Result<i64, Fault> {
        self.value()?
            .as_i64()
            .ok_or_else(|| Fault::nonsense("not a number"))
    }

    /// The next value as it came.
    pub(super) fn bytes(&mut self) -> Result<Bytes, Fault> {
        self.value()?
            .into_bytes()
            .ok_or_else(|| Fault::nonsense("not bytes"))
    }

    /// All that is left, as texts.
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
    #[test]
    fn every_file_says_what_it_takes_and_gives() {
        for (name, script) in super::all() {
            let own = script.body.rsplit("\n\n-- ").next().unwrap_or_default();
            assert!(
                ["Returns", "tomic"]
                    .iter()
                    .all(|word| script.body.contains(word)),
                "{name}: {own}"
            );
        }
    }
}
