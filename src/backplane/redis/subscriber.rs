//! One subscriber connection. One task subscribes and unsubscribes on it, another reads its events.
//!
//! fred leaves some things to this module. Its `subscribe` returns before Redis has processed the
//! command, so a PING behind it on the same connection confirms the subscription. Its own
//! re-subscribing puts many channels into one command and mixes up the replies, so channels are
//! subscribed one by one here. In a cluster each `SSUBSCRIBE` is confirmed by its own reply, one at a
//! time. No other command ever runs on the connection.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fred::clients::{SubscriberClient, WithOptions};
use fred::interfaces::{ClientLike, ClusterInterface, EventInterface, PubsubInterface};
use fred::prelude::{Config, Options};
use fred::types::cluster::ClusterRouting;
use fred::types::{ClusterHash, CustomCommand, Message, RespVersion, Value};
use parking_lot::RwLock;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::RedisSettings;
use super::fault::Fault;
use super::frame;
use super::keys::{Keys, Partition};
use super::link::{Link, Tally, client_settings, drive};
use super::rights::{Rights, is_denial};
use crate::backplane::{BusSink, BusTopic};

/// Events that may wait to be read. Further events are dropped, and the sink is told so.
const EVENT_QUEUE: usize = 65_536;
/// Requests that may wait for the task. Further subscriptions are refused.
const REQUEST_QUEUE: usize = 4096;
/// Topics that one PING confirms.
const TOPICS_PER_PING: usize = 256;
/// How often an idle connection is probed, and a failed renewal is repeated.
const TICK: Duration = Duration::from_secs(1);
/// How long the goodbye to a server may take.
const QUIT_TIMEOUT: Duration = Duration::from_millis(500);

/// The subscribed topics, by their channels.
type Topics = Arc<RwLock<HashMap<String, BusTopic>>>;
type Sink = Arc<OnceLock<Arc<dyn BusSink>>>;
type Reply = oneshot::Sender<Result<(), Fault>>;

enum Request {
    Subscribe(BusTopic, Reply),
    Unsubscribe(BusTopic),
    /// Subscribe again to the topics of these partitions.
    Renew(Vec<Partition>),
    /// Try the right to subscribe in these partitions.
    CheckRights(Vec<Partition>, Reply),
}

/// A handle to the connection and its tasks.
pub(super) struct Subscriber {
    requests: mpsc::Sender<Request>,
    client: SubscriberClient,
    tasks: Vec<JoinHandle<()>>,
    timeout: Duration,
}

impl Subscriber {
    pub(super) fn new(config: &Config, settings: &RedisSettings, link: &Link, sink: Sink) -> Self {
        let tally = link.tally.clone();
        let (performance, connection, reconnect) = client_settings(settings, 32);
        let mut config = config.clone();
        config.fail_fast = false;
        // RESP3 distinguishes pushed events from replies.
        config.version = RespVersion::RESP3;
        let client =
            SubscriberClient::new(config, Some(performance), Some(connection), Some(reconnect));
        // fred's setting would give this size to all of its ten queues, which costs 50 MB per
        // client. Only this one needs it.
        client
            .inner()
            .notifications
            .pubsub
            .store(Arc::new(broadcast::channel(EVENT_QUEUE).0));
        let (requests, inbox) = mpsc::channel(REQUEST_QUEUE);
        let topics = Topics::default();
        let options = Options {
            fail_fast: true,
            ..Options::default()
        };
        let task = Task {
            client: client.with_options(&options),
            timeout: settings.command_timeout,
            is_cluster: link.is_cluster,
            keys: link.keys.clone(),
            rights: link.rights.clone(),
            topics: topics.clone(),
            sink: sink.clone(),
            tally: tally.clone(),
            reconnects: client.reconnect_rx(),
            stale: Stale::Nothing,
        };
        let reader = read(client.message_rx(), topics, sink, tally.clone());
        let tasks = vec![
            tokio::spawn(reader),
            tokio::spawn(task.run(inbox)),
            drive(client.clone(), tally),
        ];
        Self {
            requests,
            client,
            tasks,
            timeout: settings.command_timeout,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.is_connected()
    }

    /// Waits until the connection is up.
    pub(super) async fn wait_for_connect(&self) {
        let _ = self.client.wait_for_connect().await;
    }

    /// Subscribes to the topic, and returns when Redis has confirmed it.
    pub(super) async fn subscribe(&self, topic: &BusTopic) -> Result<(), Fault> {
        self.request(|reply| Request::Subscribe(topic.clone(), reply))
            .await
    }

    /// Tries the right to subscribe in these partitions.
    pub(super) async fn check_rights(&self, partitions: Vec<Partition>) -> Result<(), Fault> {
        self.request(|reply| Request::CheckRights(partitions, reply))
            .await
    }

    /// Makes a request, and waits for its reply.
    async fn request(&self, request: impl FnOnce(Reply) -> Request) -> Result<(), Fault> {
        if !self.client.is_connected() {
            return Err(Fault::unavailable("not connected"));
        }
        let (reply, result) = oneshot::channel();
        let request = request(reply);
        if self.requests.try_send(request).is_err() {
            return Err(Fault::unavailable("too many subscriptions wait"));
        }
        match tokio::time::timeout(self.timeout, result).await {
            Ok(result) => {
                result.unwrap_or_else(|_| Err(Fault::unavailable("the node is stopping")))
            }
            Err(_) => Err(Fault::unavailable("no reply in time")),
        }
    }

    pub(super) async fn unsubscribe(&self, topic: &BusTopic) {
        let _ = self
            .requests
            .send(Request::Unsubscribe(topic.clone()))
            .await;
    }

    /// The server of each slot, read from the cluster now; `None` if that fails.
    pub(super) async fn routing(&self) -> Option<ClusterRouting> {
        tokio::time::timeout(self.timeout, self.client.sync_cluster())
            .await
            .ok()?
            .ok()?;
        self.client.cached_cluster_state()
    }

    /// Subscribes again to the topics of these partitions.
    pub(super) fn renew(&self, partitions: Vec<Partition>) {
        // If the queue is full, the request is lost, and the next check of the slots wouldn't see
        // the move again. A new connection renews everything.
        if self.requests.try_send(Request::Renew(partitions)).is_err() {
            let client = self.client.clone();
            tokio::spawn(async move { client.force_reconnection().await });
        }
    }

    pub(super) async fn close(&self) {
        let _ = tokio::time::timeout(QUIT_TIMEOUT, self.client.quit()).await;
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Passes events to the sink.
async fn read(
    mut messages: broadcast::Receiver<Message>,
    topics: Topics,
    sink: Sink,
    tally: Arc<Tally>,
) {
    loop {
        match messages.recv().await {
            Ok(message) => {
                let topic = topics.read().get(&*message.channel).cloned();
                // Events may arrive for a moment after a subscription has ended.
                let (Some(topic), Some(sink)) = (topic, sink.get()) else {
                    continue;
                };
                let event = message
                    .value
                    .into_bytes()
                    .and_then(|payload| frame::decode(&topic, &payload));
                match event {
                    Some(event) => sink.event(event),
                    None => tracing::warn!(
                        channel = %message.channel,
                        "redis: an event in an unknown format is ignored"
                    ),
                }
            }
            Err(broadcast::error::RecvError::Lagged(dropped)) => {
                tracing::warn!(dropped, "redis: the queue of events was full");
                let all = topics.read().values().cloned().collect();
                interrupt(&sink, &tally, all);
            }
            // The client's queues are replaced when it is initialised again.
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn interrupt(sink: &Sink, tally: &Tally, topics: Vec<BusTopic>) {
    if let Some(sink) = sink.get() {
        for topic in topics {
            tally.interruptions.fetch_add(1, Ordering::Relaxed);
            sink.interrupted(Some(topic));
        }
    }
}

/// The topics that must be subscribed again.
enum Stale {
    Nothing,
    Partitions(Vec<Partition>),
    Everything,
}

impl Stale {
    fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    fn add(&mut self, partitions: Vec<Partition>) {
        match self {
            Self::Nothing => *self = Self::Partitions(partitions),
            Self::Partitions(stale) => stale.extend(partitions),
            Self::Everything => {}
        }
    }

    fn contains(&self, topic: &BusTopic) -> bool {
        match self {
            Self::Nothing => false,
            Self::Partitions(partitions) => partitions.contains(&Partition::of_topic(topic)),
            Self::Everything => true,
        }
    }
}

/// The task that owns the connection's subscriptions.
struct Task {
    client: WithOptions<SubscriberClient>,
    timeout: Duration,
    is_cluster: bool,
    keys: Arc<Keys>,
    rights: Arc<Rights>,
    topics: Topics,
    sink: Sink,
    tally: Arc<Tally>,
    reconnects: broadcast::Receiver<fred::types::config::Server>,
    stale: Stale,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) = self.reconnects.recv() => {
                    self.stale = Stale::Everything;
                }
                request = inbox.recv() => {
                    let Some(request) = request else { return };
                    self.process(request, &mut inbox).await;
                }
                _ = tick.tick() => {
                    // A dead connection is only noticed when a command runs on it.
                    let _ = self.ping(Partition::LEASES).await;
                }
            }
            self.note_reconnects();
            if !self.stale.is_nothing() {
                // After a failure the next tick tries again.
                let _ = self.renew().await;
            }
        }
    }

    /// Processes a request, and together with a subscription all those that wait behind it.
    async fn process(&mut self, first: Request, inbox: &mut mpsc::Receiver<Request>) {
        let mut wanted: Vec<(BusTopic, Reply)> = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next.take() {
            match request {
                Request::Subscribe(topic, reply) => wanted.push((topic, reply)),
                Request::Unsubscribe(topic) => {
                    self.subscribe_all(std::mem::take(&mut wanted)).await;
                    self.unsubscribe(&topic).await;
                }
                Request::Renew(partitions) => self.stale.add(partitions),
                Request::CheckRights(partitions, reply) => {
                    self.subscribe_all(std::mem::take(&mut wanted)).await;
                    // All other requests wait for this one.
                    let check = self.check_rights(&partitions);
                    let result = tokio::time::timeout(self.timeout, check).await;
                    let late = || Err(Fault::unavailable("no reply in time"));
                    let _ = reply.send(result.unwrap_or_else(|_| late()));
                }
            }
            if wanted.len() < TOPICS_PER_PING {
                next = inbox.try_recv().ok();
            }
        }
        self.subscribe_all(wanted).await;
    }

    /// Subscribes to topics, and replies when all of them are confirmed.
    async fn subscribe_all(&mut self, wanted: Vec<(BusTopic, Reply)>) {
        if wanted.is_empty() {
            return;
        }
        let mut added = Vec::new();
        for (topic, _) in &wanted {
            let earlier = self
                .topics
                .write()
                .insert(self.keys.channel(topic), topic.clone());
            if earlier.is_none() {
                added.push(topic.clone());
            }
        }
        let mut result = self.establish(&added).await;
        // The subscriptions may lie on a connection that has been replaced since.
        self.note_reconnects();
        if result.is_ok() && !self.stale.is_nothing() {
            result = self.renew().await;
        }
        if result.is_err() {
            for topic in added.drain(..) {
                self.unsubscribe(&topic).await;
            }
        }
        let mut unwanted: HashSet<BusTopic> = added.into_iter().collect();
        for (topic, reply) in wanted {
            if reply.send(result.clone()).is_ok() {
                unwanted.remove(&topic);
            }
        }
        // Their callers have given up, and take the subscription for failed.
        for topic in &unwanted {
            self.unsubscribe(topic).await;
        }
    }

    /// Subscribes, and waits until Redis has confirmed all topics.
    async fn establish(&self, topics: &[BusTopic]) -> Result<(), Fault> {
        if topics.is_empty() {
            return Ok(());
        }
        for topic in topics {
            self.tally
                .round_trips
                .fetch_add(u64::from(self.is_cluster), Ordering::Relaxed);
            self.subscribe_channel(Partition::of_topic(topic), self.keys.channel(topic))
                .await?;
        }
        if self.is_cluster {
            Ok(())
        } else {
            self.ping(Partition::LEASES).await
        }
    }

    /// Waits for the reply to a PING on the server of a partition. It comes behind those to all
    /// earlier commands on this server.
    async fn ping(&self, partition: Partition) -> Result<(), Fault> {
        self.tally.round_trips.fetch_add(1, Ordering::Relaxed);
        let hash = ClusterHash::Custom(partition.slot());
        let command = CustomCommand::new_static("PING", hash, false);
        let ping = self.client.custom::<Value, Value>(command, Vec::new());
        match tokio::time::timeout(self.timeout, ping).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.failure(partition, error.details())),
            Err(_) => Err(self.failure(partition, "no reply in time")),
        }
    }

    fn failure(&self, partition: Partition, reason: &str) -> Fault {
        self.tally.errors.fetch_add(1, Ordering::Relaxed);
        if is_denial(reason) {
            self.rights.record_denial(partition, reason);
        }
        Fault::unavailable(reason)
    }

    async fn unsubscribe(&self, topic: &BusTopic) {
        let channel = self.keys.channel(topic);
        self.topics.write().remove(&channel);
        let _ = self
            .unsubscribe_channel(Partition::of_topic(topic), channel)
            .await;
    }

    async fn subscribe_channel(&self, partition: Partition, channel: String) -> Result<(), Fault> {
        let result = if self.is_cluster {
            self.client.ssubscribe(channel).await
        } else {
            self.client.subscribe(channel).await
        };
        result.map_err(|error| self.failure(partition, error.details()))
    }

    async fn unsubscribe_channel(
        &self,
        partition: Partition,
        channel: String,
    ) -> Result<(), Fault> {
        let result = if self.is_cluster {
            self.client.sunsubscribe(channel).await
        } else {
            self.client.unsubscribe(channel).await
        };
        result.map_err(|error| self.failure(partition, error.details()))
    }

    /// Tries the right to subscribe in all these partitions. Returns the last failure.
    async fn check_rights(&self, partitions: &[Partition]) -> Result<(), Fault> {
        let mut result = Ok(());
        for &partition in partitions {
            result = self.check_rights_in(partition).await.and(result);
        }
        result
    }

    /// Subscribes to a channel that has no events, and ends the subscription.
    async fn check_rights_in(&self, partition: Partition) -> Result<(), Fault> {
        let channel = || self.keys.rights_channel(partition);
        let subscribe = self.subscribe_channel(partition, channel());
        if self.is_cluster {
            subscribe.await?;
        } else {
            // fred doesn't wait for the reply of SUBSCRIBE, UNSUBSCRIBE and SUNSUBSCRIBE: a denial
            // arrives as that of the next command, or is dropped if there is none yet. So both
            // commands are sent at once.
            let (subscribed, confirmed) = tokio::join!(subscribe, self.ping(partition));
            subscribed.and(confirmed)?;
        }
        let unsubscribe = self.unsubscribe_channel(partition, channel());
        let (ended, confirmed) = tokio::join!(unsubscribe, self.ping(partition));
        ended.and(confirmed)
    }

    /// Everything is stale if the connection was replaced.
    fn note_reconnects(&mut self) {
        while let Ok(_) | Err(broadcast::error::TryRecvError::Lagged(_)) =
            self.reconnects.try_recv()
        {
            self.stale = Stale::Everything;
        }
    }

    /// Subscribes again to the stale topics, and reports that their events may have been lost.
    async fn renew(&mut self) -> Result<(), Fault> {
        if self.is_cluster {
            // With an outdated map of slots each subscription would be redirected. This uses a
            // connection of its own. The timeout is needed because fred keeps trying while a server
            // that it knows is down, and all requests to this task would wait.
            let _ = tokio::time::timeout(self.timeout, self.client.sync_cluster()).await;
        }
        while !self.stale.is_nothing() {
            let stale = std::mem::replace(&mut self.stale, Stale::Nothing);
            let topics: Vec<BusTopic> = self
                .topics
                .read()
                .values()
                .filter(|topic| stale.contains(topic))
                .cloned()
                .collect();
            if let Err(fault) = self.establish(&topics).await {
                tracing::debug!(
                    ?fault,
                    topics = topics.len(),
                    "redis: some topics are not subscribed again yet"
                );
                // The next tick, or the next connection, tries again.
                self.stale = stale;
                return Err(fault);
            }
            self.note_reconnects();
            if self.stale.is_nothing() {
                interrupt(&self.sink, &self.tally, topics);
            }
        }
        Ok(())
    }
}
