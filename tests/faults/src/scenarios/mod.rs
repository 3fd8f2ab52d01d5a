//! The scenarios: one function for each fault. A scenario injects faults and measures; the checker
//! decides whether the promises were kept.

mod archive;
mod changes;
mod chaos;
mod clients;
mod clocks;
mod data_loss;
mod deploys;
mod failover;
mod kill_rounds;
mod memberships;
mod neighbours;
mod nodes;
mod outages;
mod partitions;
mod test_cluster;

use std::pin::Pin;

use crate::lab::Lab;

type ScenarioFuture<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

pub struct Scenario {
    pub name: &'static str,
    /// One line for the list of scenarios.
    pub description: &'static str,
    pub run: for<'a> fn(&'a mut Lab) -> ScenarioFuture<'a>,
    /// It measures times, so no other scenario may run on the machine meanwhile.
    pub exclusive: bool,
    /// It runs only when it is named.
    pub manual: bool,
    /// In the short form it runs only when it is named: a shorter scenario tests nearly the same.
    pub full_only: bool,
}

macro_rules! scenario {
    ($name:literal, $run:path, $description:literal $(, $option:ident)*) => {
        Scenario {
            $($option: true,)*
            ..Scenario {
                name: $name,
                description: $description,
                run: |lab| Box::pin($run(lab)),
                exclusive: false,
                manual: false,
                full_only: false,
            }
        }
    };
}

pub const SCENARIOS: &[Scenario] = &[
    scenario!(
        "node-killed",
        nodes::killed,
        "kill -9 of one of three nodes under load"
    ),
    scenario!(
        "redis-killed",
        outages::redis_killed,
        "Redis is killed under load (appendfsync always), and back after 5 s"
    ),
    scenario!(
        "redis-frozen",
        outages::redis_frozen,
        "Redis is suspended (SIGSTOP) for 15 s under load"
    ),
    scenario!(
        "rolled-back",
        data_loss::rolled_back,
        "Redis comes back with an older snapshot"
    ),
    scenario!("flushed", data_loss::flushed, "FLUSHALL under load"),
    scenario!(
        "stale-replica",
        data_loss::stale_replica,
        "a replica without the newest data is promoted"
    ),
    scenario!(
        "sentinel",
        failover::sentinel,
        "the primary is killed, and the Sentinels fail over"
    ),
    scenario!(
        "cluster",
        failover::cluster,
        "Redis Cluster: one of three primaries is killed, and its replica takes over"
    ),
    scenario!(
        "migration",
        failover::migration,
        "Redis Cluster: slots move between servers under load"
    ),
    scenario!(
        "partition",
        partitions::both_directions,
        "one node is cut off from Redis for 2, 8 and 60 s, by lost packets and by resets"
    ),
    scenario!(
        "partition-to-redis",
        partitions::to_redis,
        "one node receives from Redis and can't send to it, for longer than its lease"
    ),
    scenario!(
        "partition-from-redis",
        partitions::from_redis,
        "one node sends to Redis and can't receive from it, for longer than its lease"
    ),
    scenario!(
        "slow-redis",
        partitions::slow_link,
        "the round trip from one node to Redis takes half a second"
    ),
    scenario!(
        "pubsub-killed",
        outages::subscriptions_killed,
        "only the subscriptions in Redis are killed, again and again"
    ),
    scenario!(
        "flaky-clients",
        clients::flaky,
        "every client loses its connection for up to 2 s at random moments"
    ),
    scenario!(
        "short-log",
        clients::short_log,
        "clients and a node are away for longer than the log reaches back"
    ),
    scenario!(
        "slow-readers",
        clients::slow_readers,
        "50 of 1,000 clients stop reading",
        exclusive
    ),
    scenario!(
        "reconnect-storm",
        clients::reconnect_storm,
        "5,000 clients lose their connections at once",
        exclusive
    ),
    scenario!(
        "rolling-restart",
        deploys::rolling_restart,
        "all nodes are restarted one by one under load, with REST through nginx"
    ),
    scenario!(
        "clock-skew",
        clocks::skewed,
        "the nodes' clocks are an hour apart"
    ),
    scenario!(
        "node-frozen",
        nodes::frozen,
        "a node is suspended (SIGSTOP) for less and for more than its lease"
    ),
    scenario!(
        "neighbours",
        neighbours::on_one_redis,
        "three deployments on one Redis, by database, by prefix and with copied data, for 10 minutes"
    ),
    scenario!(
        "archive-node-kill-postgres",
        archive::nodes::killed_postgres,
        "kill -9 of one node after another; acknowledgements don't wait for the archive"
    ),
    scenario!(
        "archive-node-kill-mariadb",
        archive::nodes::killed_mariadb,
        "kill -9 of one node after another; acknowledgements wait for the archive",
        full_only
    ),
    scenario!(
        "archive-short-log",
        archive::nodes::away_for_longer_than_the_log,
        "clients and a node are away for longer than the log reaches back, and resume from the archive",
        full_only
    ),
    scenario!(
        "archive-db-kill-postgres",
        archive::databases::postgres_killed,
        "kill -9 of the database; acknowledgements don't wait for it",
        full_only
    ),
    scenario!(
        "archive-db-stop-postgres",
        archive::databases::postgres_stopped,
        "the database is suspended (SIGSTOP); acknowledgements wait for it"
    ),
    scenario!(
        "archive-db-kill-mariadb",
        archive::databases::mariadb_killed,
        "kill -9 of the database; acknowledgements wait for it"
    ),
    scenario!(
        "archive-db-stop-mariadb",
        archive::databases::mariadb_stopped,
        "the database is suspended (SIGSTOP); acknowledgements don't wait for it",
        full_only
    ),
    scenario!(
        "archive-db-lock-sqlite",
        archive::databases::sqlite_locked,
        "another process locks the database of a lone node; acknowledgements wait for it",
        full_only
    ),
    scenario!(
        "archive-db-lock-sqlite-log",
        archive::databases::sqlite_locked_log,
        "another process locks the database of a lone node; acknowledgements don't wait for it"
    ),
    scenario!(
        "archive-redis-flush",
        archive::redis::flushed,
        "FLUSHALL under load: no acknowledged message is lost"
    ),
    scenario!(
        "archive-redis-flush-log",
        archive::redis::flushed_log,
        "FLUSHALL under load; acknowledgements don't wait for the archive",
        full_only
    ),
    scenario!(
        "archive-redis-rollback",
        archive::redis::rolled_back,
        "Redis comes back with an older snapshot: no acknowledged message is lost"
    ),
    scenario!(
        "archive-stale-replica",
        archive::redis::stale_replica,
        "a replica without the newest data is promoted: no acknowledged message is lost",
        full_only
    ),
    scenario!(
        "archive-two-primaries",
        archive::redis::two_primaries,
        "two Redis primaries number the same rooms: the archive takes each number once"
    ),
    scenario!(
        "archive-lone-kill",
        archive::lone::killed,
        "kill -9 of a node without Redis, 20 times: no acknowledged message is lost"
    ),
    scenario!(
        "archive-lone-restart",
        archive::lone::restarted,
        "restarts of a node without Redis: it goes on in the same epochs",
        full_only
    ),
    scenario!(
        "memberships-killed-postgres",
        memberships::killed_postgres,
        "kill -9 of nodes while members of chats are changed; acknowledgements don't wait for the archive"
    ),
    scenario!(
        "memberships-killed-mariadb",
        memberships::killed_mariadb,
        "kill -9 of nodes while members of chats are changed; acknowledgements wait for the archive"
    ),
    scenario!(
        "changes-killed-postgres",
        changes::killed_postgres,
        "kill -9 of nodes while messages are edited and deleted; acknowledgements don't wait for the archive"
    ),
    scenario!(
        "changes-killed-mariadb",
        changes::killed_mariadb,
        "kill -9 of nodes while messages are edited and deleted; acknowledgements wait for the archive"
    ),
    scenario!(
        "chaos",
        chaos::random,
        "all faults at random, for an hour",
        manual
    ),
    scenario!(
        "archive-chaos",
        chaos::random_with_archive,
        "all faults at random with an archive, and those of its database, for an hour",
        manual
    ),
];
