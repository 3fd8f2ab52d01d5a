//! The bus: topics distributed over a few subscriber connections, and a periodic check whether the
//! cluster's slots have moved.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::prelude::Config;
use fred::types::cluster::ClusterRouting;
use parking_lot::Mutex;

use super::fault::Fault;
use super::keys::Partition;
use super::link::Link;
use super::subscriber::Subscriber;
use super::{Node, RedisSettings, frame};
use crate::backplane::{Bus, BusSink, BusTopic, ReadReceipt, Result, Typing};
use crate::domain::UserId;

/// The number of checks in a row at which the topics of a moved slot are subscribed again, beginning
/// with the check that finds the move. A server may accept a subscription for a slot that it is
/// about to lose, and end it silently when it learns of that: so the subscription is repeated until
/// all servers must agree.
const RENEWALS_PER_MOVE: u8 = 3;

/// The server of a partition's slot at the last check.
struct SlotOwner {
    server: String,
    /// How many more times to subscribe again.
    renewals: u8,
}

/// The subscriber connections.
pub(super) struct Subscriptions {
    subscribers: Vec<Subscriber>,
    sink: Arc<OnceLock<Arc<dyn BusSink>>>,
    /// Empty unless Redis is a cluster.
    owners: Mutex<HashMap<Partition, SlotOwner>>,
}

impl Subscriptions {
    pub(super) fn new(config: &Config, settings: &RedisSettings, link: &Link) -> Self {
        let sink = Arc::new(OnceLock::new());
        let subscribers = (0..settings.subscribers.max(1))
            .map(|_| Subscriber::new(config, settings, link, sink.clone()))
            .collect();
        Self {
            subscribers,
            sink,
            owners: Mutex::default(),
        }
    }

    /// Waits for the connections to come up, at most for this time.
    pub(super) async fn wait_until_connected(&self, timeout: Duration) {
        let all = self.subscribers.iter().map(Subscriber::wait_for_connect);
        let _ = tokio::time::timeout(timeout, futures_util::future::join_all(all)).await;
    }

    /// Whether every connection is up.
    pub(super) fn is_connected(&self) -> bool {
        self.subscribers.iter().all(Subscriber::is_connected)
    }

    /// Tries the right to subscribe in these partitions.
    pub(super) async fn check_rights(
        &self,
        partitions: Vec<Partition>,
    ) -> std::result::Result<(), Fault> {
        self.subscribers[0].check_rights(partitions).await
    }

    /// One partition of each server of a cluster, as the servers' slots were last read. Empty unless
    /// Redis is a cluster.
    pub(super) fn one_partition_of_each_server(&self) -> Vec<Partition> {
        let owners = self.owners.lock();
        let mut servers = HashSet::new();
        Partition::all()
            .filter(|partition| {
                let owner = owners.get(partition);
                owner.is_some_and(|owner| servers.insert(owner.server.as_str()))
            })
            .collect()
    }

    /// Subscribes again to all topics.
    pub(super) fn renew_all(&self) {
        for subscriber in &self.subscribers {
            subscriber.renew(Partition::all().collect());
        }
    }

    /// The subscriber connection of the topic.
    fn subscriber(&self, topic: &BusTopic) -> &Subscriber {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(topic);
        &self.subscribers[usize::try_from(hash % self.subscribers.len() as u64).unwrap_or(0)]
    }

    /// Subscribes again to the topics of slots that have moved. A server that gives a slot away ends
    /// its subscriptions without a notice.
    pub(super) async fn follow_slots(&self, link: &Link) {
        if !link.is_cluster {
            return;
        }
        // This doesn't use a connection that runs commands: while a server is down, all commands on
        // the connection would wait for it.
        let Some(routing) = self.subscribers[0].routing().await else {
            return;
        };
        let moved = self.moved_partitions(&routing);
        if !moved.is_empty() {
            tracing::info!(
                partitions = moved.len(),
                "redis: slots have moved; subscribing again"
            );
            for subscriber in &self.subscribers {
                subscriber.renew(moved.clone());
            }
        }
    }

    /// The partitions whose slots have moved lately.
    fn moved_partitions(&self, routing: &ClusterRouting) -> Vec<Partition> {
        let mut moved = Vec::new();
        let mut owners = self.owners.lock();
        for partition in Partition::all() {
            let Some(server) = routing.get_server(partition.slot()) else {
                continue;
            };
            let server = server.to_string();
            let owner = owners.entry(partition).or_insert_with(|| SlotOwner {
                server: server.clone(),
                renewals: 0,
            });
            if owner.server != server {
                *owner = SlotOwner {
                    server,
                    renewals: RENEWALS_PER_MOVE,
                };
            }
            if owner.renewals > 0 {
                owner.renewals -= 1;
                moved.push(partition);
            }
        }
        moved
    }

    pub(super) async fn close(&self) {
        for subscriber in &self.subscribers {
            subscriber.close().await;
        }
    }
}

impl Node {
    async fn publish(&self, topic: &BusTopic, payload: Bytes) -> Result<()> {
        let partition = Partition::of_topic(topic);
        self.link
            .publish(partition, self.link.keys.channel(topic), payload)
            .await?;
        Ok(())
    }
}

#[async_trait]
impl Bus for Node {
    fn deliver_to(&self, sink: Arc<dyn BusSink>) {
        if self.bus.sink.set(sink).is_err() {
            tracing::error!("redis: the bus has a sink already; the second one is ignored");
        }
    }

    async fn subscribe(&self, topic: &BusTopic) -> Result<()> {
        self.bus.subscriber(topic).subscribe(topic).await?;
        Ok(())
    }

    async fn unsubscribe(&self, topic: &BusTopic) {
        self.bus.subscriber(topic).unsubscribe(topic).await;
    }

    async fn publish_typing(&self, typing: &Typing) -> Result<()> {
        let topic = BusTopic::Room(typing.room.clone());
        self.publish(&topic, frame::encode_typing(typing)).await
    }

    async fn publish_receipt(&self, receipt: &ReadReceipt) -> Result<()> {
        let topic = BusTopic::Room(receipt.room.clone());
        self.publish(&topic, frame::encode_receipt(receipt)).await
    }

    async fn publish_disconnect(&self, user: &UserId) -> Result<()> {
        self.publish(&BusTopic::Nodes, frame::encode_disconnect(user))
            .await
    }
}
