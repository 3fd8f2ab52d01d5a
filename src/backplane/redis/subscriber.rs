//! One subscriber connection, owned by one task that subscribes, and read by another.
//!
//! What fred leaves to us: `subscribe` returns before Redis has it, so a PING behind it, on the same connection, confirms
//! it; its own re-subscribing puts many channels into one call and mixes replies up, so we do it channel by channel; and
//! a shard's `SSUBSCRIBE` is confirmed by its own reply, one at a time. No other command ever runs on the connection.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fred::clients::{SubscriberClient, WithOptions};
use fred::interfaces::{ClientLike, ClusterInterface, EventInterface, PubsubInterface};
use fred::prelude::{Config, Options};
use fred::types::cluster::ClusterRouting;
use fred::types::{Message, RespVersion};
use parking_lot::RwLock;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::RedisSettings;
use super::keys::{Partition, channel};
use super::link::{Fault, Tally, client_settings, drive};
use super::{frame, link};
use crate::backplane::{BusSink, BusTopic};

/// Events that may wait to be read; more are dropped, and we catch up.
const EVENTS: usize = 65_536;
/// Requests that may wait for the task.
const REQUESTS: usize = 4096;
/// Topics that one PING confirms.
const AT_ONCE: usize = 256;
/// How often an idle connection is tried, and a failed renewal repeated.
const TICK: Duration = Duration::from_secs(1);

type Topics = Arc<RwLock<HashMap<String, BusTopic>>>;
type Sink = Arc<OnceLock<Arc<dyn BusSink>>>;
type Reply = oneshot::Sender<Result<(), Fault>>;

enum Request {
    Subscribe(BusTopic, Reply),
    Unsubscribe(BusTopic),
    Renew(Vec<Partition>),
}

/// The way to the connection's task.
pub(super) struct Subscriber {
    requests: mpsc::Sender<Request>,
    client: SubscriberClient,
    tasks: Vec<JoinHandle<()>>,
    timeout: Duration,
}

impl Subscriber {
    pub(super) fn new(
        config: &Config,
        settings: &RedisSettings,
        sharded: bool,
        sink: Sink,
        tally: Arc<Tally>,
    ) -> Self {
        let (performance, connection, reconnect) = client_settings(settings, 32);
        let mut config = config.clone();
        config.fail_fast = false;
        // Pushes can be told from replies.
        config.version = RespVersion::RESP3;
        let client =
            SubscriberClient::new(config, Some(performance), Some(connection), Some(reconnect));
        // fred's setting would give all of its ten queues this size, which costs 50 MB a client; only this one needs it.
        client
            .inner()
            .notifications
            .pubsub
            .store(Arc::new(broadcast::channel(EVENTS).0));
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let topics = Topics::default();
        let options = Options {
            fail_fast: true,
            ..Options::default()
        };
        let task = Task {
            client: client.with_options(&options),
            timeout: settings.command_timeout,
            sharded,
            topics: topics.clone(),
            sink: sink.clone(),
            tally: tally.clone(),
            reconnects: client.reconnect_rx(),
            stale: None,
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
    pub(super) async fn connected(&self) {
        let _ = self.client.wait_for_connect().await;
    }

    pub(super) async fn subscribe(&self, topic: &BusTopic) -> Result<(), Fault> {
        if !self.client.is_connected() {
            return Err(Fault::unavailable("not connected"));
        }
        let (reply, answer) = oneshot::channel();
        let asked = self
            .requests
            .try_send(Request::Subscribe(topic.clone(), reply));
        asked.map_err(|_| Fault::unavailable("too many subscriptions wait"))?;
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(Fault::unavailable("the node stops"))),
            Err(_) => Err(Fault::unavailable("no answer in time")),
        }
    }

    pub(super) async fn unsubscribe(&self, topic: &BusTopic) {
        let _ = self
            .requests
            .send(Request::Unsubscribe(topic.clone()))
            .await;
    }

    /// Which server has each slot, asked for anew; `None` when that can't be learned now.
    pub(super) async fn routing(&self) -> Option<ClusterRouting> {
        tokio::time::timeout(self.timeout, self.client.sync_cluster())
            .await
            .ok()?
            .ok()?;
        self.client.cached_cluster_state()
    }

    pub(super) fn renew(&self, partitions: Vec<Partition>) {
        // When the queue is full, the next look at the slots would not see a move again: a connection anew says it all.
        if self.requests.try_send(Request::Renew(partitions)).is_err() {
            let client = self.client.clone();
            tokio::spawn(async move { client.force_reconnection().await });
        }
    }

    pub(super) async fn close(&self) {
        let _ = tokio::time::timeout(Duration::from_millis(500), self.client.quit()).await;
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Hands on what arrives.
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
                // An ended subscription may still bring something.
                let (Some(topic), Some(sink)) = (topic, sink.get()) else {
                    continue;
                };
                let event = message
                    .value
                    .into_bytes()
                    .and_then(|payload| frame::decode(&topic, &payload));
                match event {
                    Some(event) => sink.event(event),
                    None => {
                        tracing::warn!(channel = %message.channel, "redis: something that isn't ours was published")
                    }
                }
            }
            Err(broadcast::error::RecvError::Lagged(dropped)) => {
                tracing::warn!(dropped, "redis: events came faster than they were taken");
                let all = topics.read().values().cloned().collect();
                interrupt(&sink, &tally, all);
            }
            // The client's channels are made anew when it connects for good.
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

struct Task {
    client: WithOptions<SubscriberClient>,
    timeout: Duration,
    sharded: bool,
    topics: Topics,
    sink: Sink,
    tally: Arc<Tally>,
    reconnects: broadcast::Receiver<fred::types::config::Server>,
    /// What has to be subscribed anew: partitions, or everything (`Some(None)`).
    stale: Option<Option<Vec<Partition>>>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) = self.reconnects.recv() => self.stale = Some(None),
                request = inbox.recv() => {
                    let Some(request) = request else { return };
                    self.answer(request, &mut inbox).await;
                }
                _ = tick.tick() => {
                    // A dead connection shows only when something is asked of it.
                    let _ = self.confirm().await;
                }
            }
            self.note_reconnects();
            if self.stale.is_some() {
                // When it fails, the next tick tries again.
                let _ = self.renew().await;
            }
        }
    }

    /// Takes up a request, and with the first subscription all those that wait behind it.
    async fn answer(&mut self, first: Request, inbox: &mut mpsc::Receiver<Request>) {
        let mut wanted: Vec<(BusTopic, Reply)> = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next.take() {
            match request {
                Request::Subscribe(topic, reply) => wanted.push((topic, reply)),
                Request::Unsubscribe(topic) => {
                    self.subscribe_all(&mut wanted).await;
                    self.unsubscribe(&topic).await;
                }
                Request::Renew(partitions) => match &mut self.stale {
                    Some(Some(stale)) => stale.extend(partitions),
                    Some(None) => {}
                    None => self.stale = Some(Some(partitions)),
                },
            }
            if wanted.len() < AT_ONCE {
                next = inbox.try_recv().ok();
            }
        }
        self.subscribe_all(&mut wanted).await;
    }

    async fn subscribe_all(&mut self, wanted: &mut Vec<(BusTopic, Reply)>) {
        let wanted = std::mem::take(wanted);
        if wanted.is_empty() {
            return;
        }
        let known: Vec<bool> = wanted
            .iter()
            .map(|(topic, _)| {
                self.topics
                    .write()
                    .insert(channel(topic), topic.clone())
                    .is_some()
            })
            .collect();
        let fresh: Vec<BusTopic> = wanted
            .iter()
            .zip(&known)
            .filter(|(_, known)| !**known)
            .map(|((topic, _), _)| topic.clone())
            .collect();
        let mut done = self.establish(&fresh).await;
        // It may be the connection before that has them.
        self.note_reconnects();
        if done.is_ok() && self.stale.is_some() {
            done = self.renew().await;
        }
        if done.is_err() {
            for topic in &fresh {
                self.unsubscribe(topic).await;
            }
        }
        let mut unheard: HashSet<BusTopic> = if done.is_ok() {
            fresh.into_iter().collect()
        } else {
            HashSet::new()
        };
        for (topic, reply) in wanted {
            if reply.send(done.clone()).is_ok() {
                unheard.remove(&topic);
            }
        }
        // Whoever asked was told that it took too long.
        for topic in &unheard {
            self.unsubscribe(topic).await;
        }
    }

    /// Subscribes, and waits until Redis has it.
    async fn establish(&self, topics: &[BusTopic]) -> Result<(), Fault> {
        if topics.is_empty() {
            return Ok(());
        }
        for topic in topics {
            self.tally
                .round_trips
                .fetch_add(u64::from(self.sharded), Ordering::Relaxed);
            let asked = if self.sharded {
                self.client.ssubscribe(channel(topic)).await
            } else {
                self.client.subscribe(channel(topic)).await
            };
            asked.map_err(|error| self.failed(&error.to_string()))?;
        }
        if self.sharded {
            Ok(())
        } else {
            self.confirm().await
        }
    }

    async fn confirm(&self) -> Result<(), Fault> {
        self.tally.round_trips.fetch_add(1, Ordering::Relaxed);
        let ping = tokio::time::timeout(self.timeout, self.client.ping::<()>(None)).await;
        match ping {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.failed(&error.to_string())),
            Err(_) => Err(self.failed("no answer in time")),
        }
    }

    fn failed(&self, why: &str) -> Fault {
        self.tally.errors.fetch_add(1, Ordering::Relaxed);
        link::Fault::unavailable(why)
    }

    async fn unsubscribe(&self, topic: &BusTopic) {
        let channel = channel(topic);
        self.topics.write().remove(&channel);
        let _ = if self.sharded {
            self.client.sunsubscribe(channel).await
        } else {
            self.client.unsubscribe(channel).await
        };
    }

    fn note_reconnects(&mut self) {
        while let Ok(_) | Err(broadcast::error::TryRecvError::Lagged(_)) =
            self.reconnects.try_recv()
        {
            self.stale = Some(None);
        }
    }

    /// Subscribes anew to what the connection may have lost, and says that events may be missing.
    async fn renew(&mut self) -> Result<(), Fault> {
        if self.sharded {
            // On a connection of its own. With an old map each subscription would be sent round. fred tries for as long
            // as a server that it knows is away, and all that is asked of this task waits.
            let _ = tokio::time::timeout(self.timeout, self.client.sync_cluster()).await;
        }
        while let Some(stale) = self.stale.take() {
            let concerned = |topic: &BusTopic| match &stale {
                None => true,
                Some(partitions) => partitions.contains(&Partition::of_topic(topic)),
            };
            let topics: Vec<BusTopic> = self
                .topics
                .read()
                .values()
                .filter(|topic| concerned(topic))
                .cloned()
                .collect();
            if let Err(fault) = self.establish(&topics).await {
                tracing::debug!(
                    ?fault,
                    topics = topics.len(),
                    "redis: not subscribed anew yet"
                );
                // The next tick, or the next connection, tries again.
                self.stale = Some(stale);
                return Err(fault);
            }
            self.note_reconnects();
            if self.stale.is_none() {
                interrupt(&self.sink, &self.tally, topics);
            }
        }
        Ok(())
    }
}
