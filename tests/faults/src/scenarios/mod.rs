//! What can go wrong, each as one function. A scenario acts and measures; whether the promises held, the checker says.

mod chaos;
mod clients;
mod clocks;
mod cut_off;
mod data;
mod deploys;
mod failover;
mod nodes;
mod outages;
mod stage;

use std::pin::Pin;

use crate::lab::Lab;

type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// A scenario.
pub struct Scenario {
    pub name: &'static str,
    /// In one line, for the list.
    pub about: &'static str,
    pub run: for<'a> fn(&'a mut Lab) -> Running<'a>,
    /// It measures times, and so needs the machine to itself.
    pub alone: bool,
    /// Not among those that run when none is named.
    pub by_hand: bool,
}

macro_rules! scenario {
    ($name:literal, $run:path, $about:literal $(, $option:ident)*) => {
        Scenario { $($option: true,)* ..Scenario { name: $name, about: $about, run: |lab| Box::pin($run(lab)), alone: false, by_hand: false } }
    };
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    scenario!(
        "node-killed",
        nodes::killed,
        "kill -9 of one of three nodes under load"
    ),
    scenario!(
        "redis-killed",
        outages::killed,
        "Redis killed (AOF always) under load, back after 5 s"
    ),
    scenario!(
        "redis-frozen",
        outages::frozen,
        "Redis stopped (SIGSTOP) for 15 s under load"
    ),
    scenario!(
        "rolled-back",
        data::rolled_back,
        "Redis comes back with an older snapshot"
    ),
    scenario!("flushed", data::flushed, "FLUSHALL under load"),
    scenario!(
        "stale-replica",
        data::stale_replica,
        "a replica is promoted that lacks the newest data"
    ),
    scenario!(
        "sentinel",
        failover::sentinel,
        "the primary killed, the Sentinels fail over"
    ),
    scenario!(
        "cluster",
        failover::cluster,
        "Redis Cluster: a primary of three killed, its replica takes over"
    ),
    scenario!(
        "migration",
        failover::migration,
        "Redis Cluster: slots move from server to server under load"
    ),
    scenario!(
        "cut-off",
        cut_off::by_silence_and_reset,
        "one node cut off from Redis for 2, 8 and 60 s, by silence and by reset"
    ),
    scenario!(
        "mute",
        cut_off::mute,
        "one node hears Redis and can't speak to it, for longer than its lease"
    ),
    scenario!(
        "deaf",
        cut_off::deaf,
        "one node speaks to Redis and can't hear it, for as long"
    ),
    scenario!(
        "slow-redis",
        cut_off::slow,
        "the way from one node to Redis takes half a second"
    ),
    scenario!(
        "pubsub-killed",
        outages::pubsub_killed,
        "the subscriptions alone are killed, again and again"
    ),
    scenario!(
        "flaky-clients",
        clients::flaky,
        "every client drops for up to 2 s at random moments"
    ),
    scenario!(
        "short-log",
        clients::short_log,
        "clients and a node are away for longer than the log reaches"
    ),
    scenario!(
        "slow-readers",
        clients::slow_readers,
        "50 of 1,000 clients stop reading",
        alone
    ),
    scenario!("storm", clients::storm, "5,000 clients drop at once", alone),
    scenario!(
        "rolling-restart",
        deploys::rolling,
        "all nodes restarted one by one under load, REST through nginx"
    ),
    scenario!(
        "clocks",
        clocks::apart,
        "the nodes' clocks are an hour apart"
    ),
    scenario!(
        "node-frozen",
        nodes::frozen,
        "a node stopped (SIGSTOP) for less and for more than its lease"
    ),
    scenario!(
        "chaos",
        chaos::random,
        "everything at random, for an hour",
        by_hand
    ),
];
