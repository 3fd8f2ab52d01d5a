//! The bus: topics shared out among a few subscriber connections, and the periodic look whether slots have moved.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use fred::prelude::Config;
use parking_lot::Mutex;

use super::keys::{Partition, channel};
use super::link::{Fault, Link};
use super::subscriber::Subscriber;
use super::{Node, RedisSettings, frame};
use crate::backplane::{Bus, BusSink, BusTopic, Result, Typing};
use crate::domain::UserId;

/// The subscriber connections.
pub(super) struct Subscriptions {
    subscribers: Vec<Subscriber>,
    sink: Arc<OnceLock<Arc<dyn BusSink>>>,
    /// Which server had each partition's slot when we last looked, and how often to subscribe anew; empty but in a cluster.
    owners: Mutex<HashMap<Partition, (String, u8)>>,
}

/// A server may take a subscription for a slot that it is about to lose, and end it silently when it learns of that: so
/// what has moved is subscribed anew at a few looks, until all servers must agree.
const RENEWALS: u8 = 3;

impl Subscriptions {
    pub(super) fn new(config: &Config, settings: &RedisSettings, link: &Link) -> Self {
        let sink = Arc::new(OnceLock::new());
        let subscribers = (0..settings.subscribers.max(1))
            .map(|_| {
                Subscriber::new(
                    config,
                    settings,
                    link.sharded,
                    sink.clone(),
                    link.tally.clone(),
                )
            })
            .collect();
        Self {
            subscribers,
            sink,
            owners: Mutex::default(),
        }
    }

    /// Waits a moment for the connections to come up.
    pub(super) async fn settle(&self, patience: Duration) {
        let all = self.subscribers.iter().map(Subscriber::connected);
        let _ = tokio::time::timeout(patience, futures_util::future::join_all(all)).await;
    }

    /// Whether every connection is up.
    pub(super) fn is_whole(&self) -> bool {
        self.subscribers.iter().all(Subscriber::is_connected)
    }

    fn of(&self, topic: &BusTopic) -> &Subscriber {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(topic);
        &self.subscribers[usize::try_from(hash % self.subscribers.len() as u64).unwrap_or(0)]
    }

    /// A server that gives a slot away ends its subscriptions without our hearing of it: so we look, and subscribe anew.
    pub(super) async fn follow_slots(&self, link: &Link) {
        if !link.sharded {
            return;
        }
        // Not on a connection that runs commands: while a server is away, all that is asked of it would wait behind this.
        let Some(routing) = self.subscribers[0].routing().await else {
            return;
        };
        let mut moved = Vec::new();
        let mut owners = self.owners.lock();
        for partition in Partition::all() {
            let Some(owner) = routing
                .get_server(partition.slot())
                .map(ToString::to_string)
            else {
                continue;
            };
            let (before, renewals) = owners
                .entry(partition)
                .or_insert_with(|| (owner.clone(), 0));
            if *before != owner {
                (*before, *renewals) = (owner, RENEWALS);
            }
            if *renewals > 0 {
                *renewals -= 1;
                moved.push(partition);
            }
        }
        drop(owners);
        if !moved.is_empty() {
            tracing::info!(
                partitions = moved.len(),
                "redis: slots have moved, subscribing anew"
            );
            for subscriber in &self.subscribers {
                subscriber.renew(moved.clone());
            }
        }
    }

    pub(super) async fn close(&self) {
        for subscriber in &self.subscribers {
            subscriber.close().await;
        }
    }
}

#[async_trait]
impl Bus for Node {
    fn deliver_to(&self, sink: Arc<dyn BusSink>) {
        if self.bus.sink.set(sink).is_err() {
            tracing::error!("the bus has a sink already");
        }
    }

    async fn subscribe(&self, topic: &BusTopic) -> Result<()> {
        self.bus
            .of(topic)
            .subscribe(topic)
            .await
            .map_err(|fault: Fault| fault.into())
    }

    async fn unsubscribe(&self, topic: &BusTopic) {
        self.bus.of(topic).unsubscribe(topic).await;
    }

    async fn publish_typing(&self, typing: &Typing) -> Result<()> {
        let topic = frame::room_topic(&typing.room);
        let payload = frame::encode_typing(typing);
        Ok(self
            .link
            .publish(Partition::of_topic(&topic), channel(&topic), payload)
            .await?)
    }

    async fn publish_disconnect(&self, user: &UserId) -> Result<()> {
        let (topic, payload) = (BusTopic::Nodes, frame::encode_disconnect(user));
        Ok(self
            .link
            .publish(Partition::of_topic(&topic), channel(&topic), payload)
            .await?)
    }
}
