//! The rights of the node's user in Redis: which are missing, and whether Redis has denied anything
//! lately.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::fault::Fault;
use super::keys::Partition;
use super::script::ScriptReply;
use super::settings::KeyPrefix;

/// The parts of error texts by which a denied command is recognised, for Redis 6 to 8 and Valkey:
/// outside of scripts, and in scripts of newer and of older servers.
const DENIALS: [&str; 3] = [
    "NOPERM",
    "ACL failure in script",
    "The user executing the script can't",
];

/// The most partitions of denied calls that a check visits, in addition to one of each server: so a
/// check ends soon even if all calls were denied.
const MAX_DENIED_PARTITIONS: usize = 16;

/// Whether an error text means that the user lacks a right.
pub(super) fn is_denial(text: &str) -> bool {
    DENIALS.iter().any(|denial| text.contains(denial))
}

/// Whether Redis has denied a call of this node since the rights were last found complete.
#[derive(Default)]
pub(super) struct Rights {
    is_denied: AtomicBool,
    /// Partitions of denied calls: in a cluster each server has users of its own.
    partitions: Mutex<BTreeSet<Partition>>,
    /// The missing rights that were logged last.
    logged: Mutex<String>,
}

impl Rights {
    /// Records a denied call in this partition. The first one is logged.
    pub(super) fn record_denial(&self, partition: Partition, text: &str) {
        let mut partitions = self.partitions.lock();
        if partitions.len() < MAX_DENIED_PARTITIONS {
            partitions.insert(partition);
        }
        drop(partitions);
        if !self.is_denied.swap(true, Ordering::Relaxed) {
            tracing::error!(
                error = text,
                "redis: the user has too few rights; the node is not ready until it has them"
            );
        }
    }

    /// Records that rights are missing, as this text describes. It is logged when it changes.
    pub(super) fn record_missing(&self, missing: &str) {
        self.is_denied.store(true, Ordering::Relaxed);
        let mut logged = self.logged.lock();
        if *logged != missing {
            missing.clone_into(&mut logged);
            tracing::error!("redis: {missing}; the node is not ready");
        }
    }

    pub(super) fn is_denied(&self) -> bool {
        self.is_denied.load(Ordering::Relaxed)
    }

    /// Partitions in which calls were denied, and that of leases.
    pub(super) fn partitions_to_check(&self) -> BTreeSet<Partition> {
        let mut partitions = self.partitions.lock().clone();
        partitions.insert(Partition::LEASES);
        partitions
    }

    /// Records that the rights are complete. Returns whether they weren't before.
    pub(super) fn set_complete(&self) -> bool {
        self.partitions.lock().clear();
        self.logged.lock().clear();
        let was_denied = self.is_denied.swap(false, Ordering::Relaxed);
        if was_denied {
            tracing::info!("redis: the user has all rights again");
        }
        was_denied
    }
}

/// Rights that the user lacks, and commands that the server lacks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MissingRights {
    commands: BTreeSet<String>,
    keys: bool,
    channels: bool,
    unknown_commands: BTreeSet<String>,
}

impl MissingRights {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds the missing rights that the error of a command names. Errors with another cause add
    /// nothing.
    pub(super) fn add(&mut self, command: &str, error: &str) {
        // Most servers name the command. The error of a subscription may be that of the PING behind it.
        let named = error
            .split_once("run the '")
            .and_then(|(_, rest)| rest.split_once('\''));
        let command = named.map_or(command, |(name, _)| name).to_lowercase();
        if error.contains("nknown") && error.contains("ommand") {
            self.unknown_commands.insert(command);
        } else if error.contains("syntax error") {
            // Redis 6.0 doesn't know XTRIM MINID.
            self.unknown_commands
                .insert(format!("{command} of Redis 6.2"));
        } else if !is_denial(error) {
            // The server is loading, out of memory or a replica, for example.
        } else if error.contains("channel") {
            self.channels = true;
        } else if error.contains("of the keys") || error.contains("a key") {
            self.keys = true;
        } else {
            self.commands.insert(command);
        }
    }

    /// Adds the commands that `rights.lua` reports.
    pub(super) fn add_reply(&mut self, mut reply: ScriptReply) -> Result<(), Fault> {
        while !reply.is_empty() {
            let command = reply.text()?;
            self.add(&command, &reply.text()?);
        }
        Ok(())
    }

    /// The missing rights as a sentence for the operator, with the arguments of `ACL SETUSER` that
    /// grant them.
    pub(super) fn describe(&self, prefix: &KeyPrefix) -> String {
        let prefix = prefix.as_str();
        let mut words: Vec<String> = Vec::new();
        if self.keys {
            words.push(format!("~{prefix}{{*"));
        }
        if self.channels {
            words.push(format!("&{prefix}{{*"));
        }
        words.extend(self.commands.iter().map(|command| format!("+{command}")));
        let mut sentences = Vec::new();
        if !words.is_empty() {
            sentences.push(format!(
                "the Redis user lacks {words}: run ACL SETUSER <user> {words}",
                words = words.join(" ")
            ));
        }
        if !self.unknown_commands.is_empty() {
            let commands: Vec<_> = self.unknown_commands.iter().map(String::as_str).collect();
            sentences.push(format!("the server has no command {}", commands.join(", ")));
        }
        format!(
            "{} (docs/security.md lists the least rights)",
            sentences.join("; ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The errors of Redis 6.2, 7.0 and 8.2; those of Valkey 9.1 are those of Redis 8.2.
    #[test]
    fn denied_commands_keys_and_channels_are_told_apart_on_every_server() {
        let missing = |command: &str, error: &str| {
            let mut missing = MissingRights::default();
            missing.add(command, error);
            missing
        };
        for error in [
            "NOPERM this user has no permissions to run the 'info' command or its subcommand",
            "NOPERM User u1 has no permissions to run the 'info' command",
            "@user_script: 1: The user executing the script can't run this command or subcommand",
            "ERR The user executing the script can't run this command or subcommand",
            "ERR ACL failure in script: User u1 has no permissions to run the 'info' command",
        ] {
            assert!(missing("INFO", error).commands.contains("info"), "{error}");
        }
        for error in [
            "NOPERM this user has no permissions to access one of the keys used as arguments",
            "NOPERM No permissions to access a key",
            "ERR The user executing the script can't access at least one of the keys mentioned in \
             the command arguments",
            "ERR ACL failure in script: No permissions to access a key",
        ] {
            assert!(missing("GET", error).keys, "{error}");
        }
        for error in [
            "NOPERM this user has no permissions to access one of the channels used as arguments",
            "NOPERM No permissions to access a channel",
            "ERR The user executing the script can't publish to the channel mentioned in the command",
            "ERR ACL failure in script: No permissions to access a channel",
        ] {
            assert!(missing("PUBLISH", error).channels, "{error}");
        }
        for error in [
            "ERR Unknown Redis command called from script",
            "ERR Unknown command called from script",
            "ERR unknown command 'SPUBLISH', with args beginning with: ",
        ] {
            let missing = missing("SPUBLISH", error);
            assert!(missing.unknown_commands.contains("spublish"), "{error}");
        }
        let missing_form = missing("XTRIM", "ERR syntax error");
        assert!(missing_form.unknown_commands.contains("xtrim of Redis 6.2"));
        for error in [
            "LOADING Redis is loading the dataset in memory",
            "ERR -READONLY You can't write against a read only replica.",
            "OOM command not allowed when used memory > 'maxmemory'.",
        ] {
            assert!(missing("SET", error).is_empty(), "{error}");
        }
    }

    #[test]
    fn missing_rights_are_described_as_the_words_that_add_them() {
        let mut missing = MissingRights::default();
        missing.add(
            "INFO",
            "NOPERM User u1 has no permissions to run the 'info' command",
        );
        missing.add("PUBLISH", "NOPERM No permissions to access a channel");
        let text = missing.describe(&KeyPrefix::parse("chat:").unwrap());
        assert!(
            text.contains("lacks &chat:{* +info: run ACL SETUSER <user> &chat:{* +info"),
            "{text}"
        );
    }

    #[test]
    fn a_denial_lasts_until_the_rights_are_complete() {
        let rights = Rights::default();
        let partition = Partition::all().next().unwrap();
        assert!(!rights.is_denied());
        rights.record_denial(partition, "NOPERM");
        assert!(rights.is_denied() && rights.partitions_to_check().contains(&partition));
        for partition in Partition::all() {
            rights.record_denial(partition, "NOPERM");
        }
        assert!(rights.partitions_to_check().len() <= MAX_DENIED_PARTITIONS + 1);
        assert!(rights.set_complete() && !rights.is_denied());
        assert_eq!(rights.partitions_to_check().len(), 1);
    }
}
