//! Checks of a Redis that is there: its eviction policy, the version of its data's layout, and the
//! rights of the node's user.

use std::task::Poll;

use fred::interfaces::{ClientLike, ClusterInterface};
use fred::prelude::Client;
use fred::types::config::Server;
use fred::types::{ClusterHash, CustomCommand, Value};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::StartError;
use super::archive::Archive;
use super::keys::{Keys, LAYOUT_VERSION, Partition};
use super::link::publish_command;
use super::rights::{MissingRights, is_denial};
use super::script::{RIGHTS, ScriptReply};
use super::settings::KeyPrefix;

/// The text by which the last reply is recognised.
const END: &str = "end of the rights";

/// Runs a command on the server of a partition.
async fn run(
    client: &impl ClientLike,
    name: &'static str,
    partition: Partition,
    args: Vec<Value>,
) -> Result<Value, fred::error::Error> {
    let hash = ClusterHash::Custom(partition.slot());
    client
        .custom(CustomCommand::new_static(name, hash, false), args)
        .await
}

/// Checks everything at the start, on each server.
pub(super) async fn check_all(
    client: &Client,
    keys: &Keys,
    prefix: &KeyPrefix,
    archive: &Archive,
) -> Result<(), StartError> {
    let is_cluster = client.is_clustered();
    let partitions = one_partition_of_each_server(client);
    for &partition in &partitions {
        check_policy_of(client, partition).await?;
    }
    check_layout(client, keys).await?;
    check_archive(client, keys, archive).await?;
    let mut missing = MissingRights::default();
    for &partition in &partitions {
        try_scripts(client, keys, partition, is_cluster, archive, &mut missing).await;
    }
    // Last, because a connection takes hardly any other command while it subscribes.
    for partition in partitions {
        try_channels(client, keys, partition, is_cluster, &mut missing).await;
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(StartError::Rights(missing.describe(prefix)))
    }
}

/// For each server of a cluster a partition of which it has the slot; otherwise any one.
fn one_partition_of_each_server(client: &Client) -> Vec<Partition> {
    let Some(routing) = client.cached_cluster_state() else {
        return vec![Partition::LEASES];
    };
    let mut servers: Vec<&Server> = Vec::new();
    let mut partitions = Vec::new();
    for partition in Partition::all() {
        if let Some(server) = routing.get_server(partition.slot())
            && !servers.contains(&server)
        {
            servers.push(server);
            partitions.push(partition);
        }
    }
    partitions
}

/// Tries to run scripts, and every command that scripts run.
async fn try_scripts(
    client: &Client,
    keys: &Keys,
    partition: Partition,
    is_cluster: bool,
    archive: &Archive,
    missing: &mut MissingRights,
) {
    let args = |script: &str| -> Vec<Value> {
        vec![
            script.into(),
            2.into(),
            Value::String(keys.tag(partition).clone()),
            Value::String(keys.channels(partition).clone()),
            publish_command(is_cluster).into(),
            // Arguments of all scripts that this one doesn't use.
            "".into(),
            "".into(),
            "".into(),
            archive.name(),
        ]
    };
    if let Err(error) = run(client, "EVALSHA", partition, args(&RIGHTS.sha)).await {
        missing.add("EVALSHA", error.details());
    }
    match run(client, "EVAL", partition, args(RIGHTS.body)).await {
        // A reply in another format says nothing about rights.
        Ok(reply) => drop(missing.add_reply(ScriptReply::new(reply))),
        Err(error) => missing.add("EVAL", error.details()),
    }
}

/// Tries to publish and to subscribe.
async fn try_channels(
    client: &Client,
    keys: &Keys,
    partition: Partition,
    is_cluster: bool,
    missing: &mut MissingRights,
) {
    let channel = Value::from(keys.rights_channel(partition));
    let (subscribe, unsubscribe) = if is_cluster {
        ("SSUBSCRIBE", "SUNSUBSCRIBE")
    } else {
        ("SUBSCRIBE", "UNSUBSCRIBE")
    };
    let publish = publish_command(is_cluster);
    let publish_args = vec![channel.clone(), "".into()];
    for (command, args) in [("PING", vec![]), (publish, publish_args)] {
        if let Err(error) = run(client, command, partition, args).await {
            missing.add(command, error.details());
        }
    }
    // fred ignores the server's confirmation of a subscription, so the reply to a later command
    // counts as that of the subscription. All commands are therefore sent at once, and the replies
    // are read until that of the last command has come, whichever command it counts for.
    let commands = [
        (subscribe, channel.clone()),
        (unsubscribe, channel),
        ("PING", END.into()),
    ];
    let mut replies = FuturesUnordered::new();
    for (command, argument) in commands {
        let mut reply = Box::pin(run(client, command, partition, vec![argument]));
        // The first poll sends the command.
        match futures_util::poll!(&mut reply) {
            Poll::Ready(reply) => replies.push(futures_util::future::Either::Left(
                std::future::ready(reply),
            )),
            Poll::Pending => replies.push(futures_util::future::Either::Right(reply)),
        }
    }
    while let Some(reply) = replies.next().await {
        match reply {
            Err(error) => missing.add(subscribe, error.details()),
            Ok(reply) => {
                // The text, or an array that ends with it while the connection subscribes.
                let words = reply.into_array().into_iter();
                if words.last().and_then(Value::into_string).as_deref() == Some(END) {
                    return;
                }
            }
        }
    }
}

/// Checks the eviction policy of the server of a partition. Passes with a warning if the user may
/// not read it.
pub(super) async fn check_policy_of(
    client: &impl ClientLike,
    partition: Partition,
) -> Result<(), StartError> {
    match run(client, "INFO", partition, vec!["memory".into()]).await {
        Ok(memory) => check_policy(&memory.into_string().unwrap_or_default()),
        Err(error) => {
            if is_denial(error.details()) {
                tracing::warn!(
                    "redis: the user may not run INFO memory, so it is not known whether \
                     maxmemory-policy is noeviction, as it must be"
                );
            }
            Ok(())
        }
    }
}

/// Checks the eviction policy in the text of `INFO memory`. A text without the policy passes.
pub(super) fn check_policy(memory: &str) -> Result<(), StartError> {
    let policy = memory
        .lines()
        .find_map(|line| line.strip_prefix("maxmemory_policy:"))
        .map_or("noeviction", str::trim);
    if policy == "noeviction" {
        Ok(())
    } else {
        Err(StartError::Policy(policy.to_owned()))
    }
}

/// Checks that the logs have no other archive behind them than this node's. `heartbeat.lua` checks the
/// same.
async fn check_archive(client: &Client, keys: &Keys, archive: &Archive) -> Result<(), StartError> {
    let found = run(
        client,
        "GET",
        Partition::LEASES,
        vec![keys.archive().into()],
    );
    match found.await.ok().and_then(Value::into_string) {
        Some(found) if found != archive.id() => Err(archive.conflict(&found, keys)),
        _ => Ok(()),
    }
}

/// Checks that the data has this release's layout, or that there is none. Data of layout 1 has no
/// version: it counts only until the deployment has data of its own. `heartbeat.lua` checks the same.
async fn check_layout(client: &Client, keys: &Keys) -> Result<(), StartError> {
    let version = run(client, "GET", Partition::LEASES, vec![keys.layout().into()]);
    match version.await.ok().and_then(Value::into_string) {
        Some(version) if version == LAYOUT_VERSION => return Ok(()),
        Some(version) => return Err(StartError::Layout(version)),
        None => {}
    }
    let Some(last_beat) = keys.last_beat_of_layout_1() else {
        return Ok(());
    };
    match run(client, "EXISTS", Partition::LEASES, vec![last_beat.into()]).await {
        Ok(found) if found.as_u64() == Some(1) => Err(StartError::Layout("1".to_owned())),
        Err(error) if is_denial(error.details()) => {
            tracing::warn!(
                "redis: the user may not read the key {last_beat}, so it is not known whether the \
                 database has data of a release without REDIS_PREFIX (docs/security.md)"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_policy_noeviction_is_accepted() {
        let policy = |memory| match check_policy(memory) {
            Ok(()) => None,
            Err(StartError::Policy(policy)) => Some(policy),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(
            policy("maxmemory:0\r\nmaxmemory_policy:noeviction\r\n"),
            None
        );
        assert_eq!(
            policy("maxmemory_policy:allkeys-lru\r\n").as_deref(),
            Some("allkeys-lru")
        );
        assert_eq!(policy(""), None);
    }
}
