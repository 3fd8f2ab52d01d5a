//! A node, put together: the only file that knows every concrete type. Build, start, health, drain, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engineioxide::{Control, Frame, ProtocolVersion, SessionHandle, TransportType};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::auth::Webhook;
use crate::backplane::redis::RedisSettings;
use crate::backplane::{Backplane, memory, redis};
use crate::config::Config;
use crate::delivery::{Delivery, DeliverySettings, Pause};
use crate::domain::policy::Action;
use crate::domain::{Refusal, RoomId, UserId};
use crate::features::messaging::{AuthorizationHook, Messaging};
use crate::gateway::access::Access;
use crate::gateway::connections::Connections;
use crate::gateway::http::{self, CallerRateLimiter, HttpState};
use crate::gateway::socketio::{Gateway, Settings};
use crate::gateway::websocket::{self, Outbox, PlainWebSocket};
use crate::gateway::wire::{Envelope, going_away};
use crate::server::admission::Admission;
use crate::server::tls::Tls;
use crate::server::{Drained, Listener, Timeouts, carry_sessions, drain};
use crate::telemetry::exposition::{self, Sample};

/// How long connections that are no sockets may take to finish their request when the node stops.
const LAST_REQUESTS: Duration = Duration::from_millis(500);

/// What the frames of a full outbox have on average, at least: so the memory for them stays within twice their bytes.
const MEAN_FRAME_BYTES: usize = 64;
/// How often it is looked whether the certificate was renewed.
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(5);

/// A node that runs.
pub struct App {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    admission: Arc<Admission>,
    everyone: Everyone,
    delivery: Arc<Delivery>,
    backplane: Backplane,
    stop: watch::Sender<bool>,
    /// The listeners, and what goes on beside them.
    tasks: Vec<JoinHandle<()>>,
}

impl App {
    /// Starts a node; when it returns, the node accepts connections. A Redis that isn't there leaves it not ready, and
    /// trying. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the address can't be bound, the certificate can't be used, or Redis refuses the password or is set up so that promises would not hold.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let tls = config.tls.clone().map(Tls::load).transpose()?;
        let backplane = match &config.redis {
            None => memory::embedded(config.backplane_limits()),
            Some(url) => {
                let ca = config.settings.redis_ca.as_ref().map(Into::into);
                let settings = RedisSettings {
                    url: url.clone(),
                    ca,
                    ..RedisSettings::default()
                };
                redis::connect(settings, config.backplane_limits()).await?
            }
        };
        let write_timeout = Duration::from_secs(config.settings.write_timeout_secs);
        let control = Control::new(engineioxide::Limits {
            outbox_bytes: config.settings.max_outbox_bytes,
            outbox_frames: config.settings.max_outbox_bytes / MEAN_FRAME_BYTES,
            write_timeout,
            ..engineioxide::Limits::default()
        });
        carry_sessions(&control);
        let rota = control.rota();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let delivery_settings = DeliverySettings {
            workers,
            room_events: config.settings.room_events_limit,
            page_bytes: config.settings.max_outbox_bytes / 8,
            backlog_bytes: config.settings.max_outbox_bytes / 4 / workers.min(4),
            pause: Pause::new(move || rota.turn()),
            ..DeliverySettings::default()
        };
        let delivery = Arc::new(Delivery::start(&backplane, &delivery_settings));
        let mut chat = Messaging::new(backplane.clone(), delivery.clone(), config.limits());
        if let Some(webhook) = &config.webhook {
            chat = chat.with_authorization_hook(Box::new(Webhook::new(webhook.clone())?));
        }
        let chat = Arc::new(chat);
        let auth = Arc::new(config.authenticator()?);
        auth.warm_up().await;
        let settings = Settings {
            ping_interval: Duration::from_millis(config.settings.ping_interval_ms),
            ping_timeout: Duration::from_millis(config.settings.ping_timeout_ms),
            packet_bytes: config.settings.max_packet_bytes,
        };
        let plain_settings = websocket::Settings {
            message_bytes: config.settings.ws_max_message,
            chat_bytes: config.settings.max_packet_bytes,
            ping_interval: settings.ping_interval,
            idle: Duration::from_secs(config.settings.ws_idle_secs),
            write_timeout,
        };
        let admission = Arc::new(Admission::new(config.caps()));
        let outbox_bytes = config.settings.max_outbox_bytes;
        let connections =
            Connections::new(chat.clone(), auth.clone(), admission.clone(), outbox_bytes);
        let gateway = Gateway::new(connections.clone(), settings);
        let plain = PlainWebSocket::new(connections.clone(), plain_settings, control.rota());
        let everyone = Everyone {
            control: control.clone(),
            plain: plain.clone(),
        };
        let metrics = Metrics {
            everyone: everyone.clone(),
            delivery: delivery.clone(),
            chat: chat.clone(),
            connections,
            admission: admission.clone(),
            backplane: backplane.clone(),
        };
        let telling = chat.clone();
        let telling = tokio::spawn(async move { telling.user_rates().run().await });
        let doors = Arc::new(HttpState {
            chat,
            access: Access {
                auth,
                keys: config.api_keys()?,
                broadcasters: config.broadcasters(),
            },
            callers: CallerRateLimiter::new(config.posts()),
            broadcasters: CallerRateLimiter::new(config.broadcasts()),
            origins: config.origins.clone(),
            proxies: config.proxies.clone().unwrap_or_default(),
            admission: admission.clone(),
            control,
            plain,
            metrics: Arc::new(move || exposition::render(metrics.read())),
        });
        let (stop, stopped) = watch::channel(false);
        // A polling client holds up to two, and whoever is refused needs one to be told so.
        let connections = match config.settings.max_connections {
            0 => usize::MAX,
            most => most.saturating_mul(2).saturating_add(1024),
        };
        let timeouts = Timeouts {
            write: write_timeout * 2,
            ..Timeouts::default()
        };
        let mut listener = Listener::bind(config.address, connections, timeouts).await?;
        let address = listener.address()?;
        let router = http::router(doors.clone(), &gateway);
        let mut tasks = vec![telling];
        if let Some(tls) = tls {
            listener = listener.with_tls(&tls);
            tasks.push(tokio::spawn(tls.follow(LOOK_AT_CERTIFICATE)));
        }
        tasks.push(tokio::spawn(listener.serve(router, stopped.clone())));
        let mut metrics_address = None;
        if let Some(address) = config.metrics_address {
            let listener = Listener::bind(address, 64, Timeouts::default()).await?;
            metrics_address = Some(listener.address()?);
            tasks.push(tokio::spawn(
                listener.serve(http::metrics_router(doors), stopped),
            ));
        }
        Ok(Self {
            address,
            metrics_address,
            admission,
            everyone,
            delivery,
            backplane,
            stop,
            tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where `/metrics` stands alone, if it does.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// What the backplane is, for the log.
    #[must_use]
    pub fn describe_backplane(&self) -> String {
        self.backplane.lifecycle.describe()
    }

    /// Not ready from now on; clients are told, and closed evenly over `over`; presence is left to its graces.
    pub async fn drain(self, over: Duration) {
        self.admission.begin_drain();
        tracing::info!(
            connections = self.everyone.len(),
            over_secs = over.as_secs_f64(),
            "draining"
        );
        drain(|| self.everyone.list(), over).await;
        let _ = self.stop.send(true);
        tokio::time::sleep(LAST_REQUESTS).await;
        self.end().await;
    }

    /// Ends at once, as a crash would for its clients, but with its graces begun.
    pub async fn stop(self) {
        self.admission.begin_drain();
        for connection in self.everyone.list() {
            connection.close();
        }
        let _ = self.stop.send(true);
        self.end().await;
    }

    async fn end(self) {
        // Connections that were just closed have yet to tell the backplane.
        for connection in self.everyone.list() {
            connection.closed().await;
        }
        tokio::task::yield_now().await;
        self.backplane.lifecycle.stop().await;
        self.delivery.stop();
        for task in self.tasks {
            task.abort();
        }
    }
}

#[async_trait]
impl AuthorizationHook for Webhook {
    async fn authorize(&self, action: Action, user: &UserId, room: &RoomId) -> Result<(), Refusal> {
        self.ask(action, user, room).await
    }
}

/// All connections of the node, through both doors.
#[derive(Clone)]
struct Everyone {
    control: Control,
    plain: Arc<PlainWebSocket>,
}

impl Everyone {
    fn len(&self) -> usize {
        self.control.len() + self.plain.len()
    }

    fn list(&self) -> Vec<Box<dyn Drained>> {
        let sessions = self
            .control
            .sessions()
            .into_iter()
            .map(|session| Box::new(session) as Box<dyn Drained>);
        let plain = self
            .plain
            .outboxes()
            .into_iter()
            .map(|outbox| Box::new(outbox) as Box<dyn Drained>);
        sessions.chain(plain).collect()
    }
}

#[async_trait]
impl Drained for SessionHandle {
    fn announce(&self, left: Duration) {
        self.send(&Frame::text(&going_away(Envelope::SocketIo, left)));
    }

    fn close_after_flush(&self, limit: Duration) {
        SessionHandle::close_after_flush(self, limit);
    }

    fn close(&self) {
        SessionHandle::close(self);
    }

    async fn closed(&self) {
        SessionHandle::closed(self).await;
    }
}

#[async_trait]
impl Drained for Arc<Outbox> {
    fn announce(&self, left: Duration) {
        self.announce_end(left);
    }

    fn close_after_flush(&self, limit: Duration) {
        Outbox::close_after_flush(self, limit);
    }

    fn close(&self) {
        Outbox::close(self);
    }

    async fn closed(&self) {
        Outbox::closed(self).await;
    }
}

/// Reads every counter of the node.
struct Metrics {
    everyone: Everyone,
    delivery: Arc<Delivery>,
    chat: Arc<Messaging>,
    connections: Arc<Connections>,
    admission: Arc<Admission>,
    backplane: Backplane,
}

impl Metrics {
    fn read(&self) -> Vec<Sample> {
        let Everyone {
            control,
            plain: door,
        } = &self.everyone;
        let (sessions, plain) = (control.counters(), door.counters());
        let (delivery, chat, sockets) = (
            self.delivery.counters(),
            self.chat.counters(),
            self.connections.counters(),
        );
        let backplane = self.backplane.lifecycle.counters();
        let mut connections = Vec::new();
        for (transport, transport_name) in [
            (TransportType::Polling, "polling"),
            (TransportType::Websocket, "websocket"),
        ] {
            for (protocol, protocol_name) in
                [(ProtocolVersion::V3, "3"), (ProtocolVersion::V4, "4")]
            {
                let labels = vec![("transport", transport_name), ("protocol", protocol_name)];
                connections.push((labels, control.count(transport, protocol) as u64));
            }
        }
        connections.push((
            vec![("transport", "websocket"), ("protocol", "plain")],
            door.len() as u64,
        ));
        vec![
            Sample::Gauges(
                "connections",
                "Engine.IO sessions and plain WebSockets, by transport and protocol",
                connections,
            ),
            Sample::Gauge(
                "rooms",
                "Rooms with a feed on this node: with members, or left by the last a moment ago",
                self.delivery.rooms() as u64,
            ),
            Sample::Gauge(
                "ready",
                "1 when the node takes new work",
                u64::from(self.backplane.lifecycle.is_up()),
            ),
            Sample::Counter(
                "sessions_opened",
                "Engine.IO sessions and plain WebSockets opened",
                sessions.opened + plain.opened.get(),
            ),
            Sample::Counter(
                "sessions_refused",
                "Handshakes refused by a cap or a drain",
                self.admission.refused(),
            ),
            Sample::Counter(
                "upgrades",
                "Sessions that went from polling to a WebSocket",
                sessions.upgrades,
            ),
            Sample::Counter(
                "websockets_boxed",
                "WebSockets that don't run on the listener's own stream: 0, or it is built wrong",
                sessions.boxed,
            ),
            Sample::Counter(
                "slow_consumers",
                "Connections closed because they did not read",
                sessions.slow_consumers + plain.slow_consumers.get(),
            ),
            Sample::Counter(
                "heartbeat_timeouts",
                "Connections closed for want of a heartbeat",
                sessions.heartbeat_timeouts + plain.idle.get(),
            ),
            Sample::Counter(
                "packets_received",
                "Engine.IO packets and plain messages received",
                sessions.packets_in + plain.messages_in.get(),
            ),
            Sample::Counter(
                "packets_sent",
                "Engine.IO packets and plain messages sent",
                sessions.packets_out + plain.messages_out.get(),
            ),
            Sample::Counter(
                "received_bytes",
                "Bytes received",
                sessions.bytes_in + plain.bytes_in.get(),
            ),
            Sample::Counter(
                "sent_bytes",
                "Bytes sent",
                sessions.bytes_out + plain.bytes_out.get(),
            ),
            Sample::Counter(
                "events_received",
                "Events received, through either door",
                sockets.events.get(),
            ),
            Sample::Counter(
                "events_refused",
                "Events refused, for whatever reason",
                sockets.refused.get(),
            ),
            Sample::Counter(
                "events_rate_limited",
                "Events refused for their rate",
                sockets.rate_limited.get(),
            ),
            Sample::Counter(
                "sockets_closed_rate_limited",
                "Sockets closed because they went on when they were refused for a rate",
                sockets.closed_rate_limited.get(),
            ),
            Sample::Counter(
                "events_dropped",
                "Events refused by a full inbox",
                sockets.overloaded.get(),
            ),
            Sample::Counter(
                "messages_in",
                "Messages that were given their place through this node",
                chat.sent.get(),
            ),
            Sample::Counter(
                "messages_duplicate",
                "Sends that were repeats",
                chat.duplicates.get(),
            ),
            Sample::Counter(
                "messages_out",
                "Messages handed to members on this node",
                delivery.delivered.get(),
            ),
            Sample::Counter("joins", "Joins answered", chat.joins.get()),
            Sample::Counter(
                "catch_ups",
                "Reads of a log because something may have been missed",
                delivery.catch_ups.get(),
            ),
            Sample::Counter(
                "replays",
                "Joins that were promised messages",
                delivery.replays.get(),
            ),
            Sample::Counter(
                "replay_reads",
                "Reads of a log for replays, each for all members of a room who wait for it",
                delivery.replay_reads.get(),
            ),
            Sample::Gauge(
                "kept_bytes",
                "Memory taken by messages kept for replays, about",
                self.delivery.kept_bytes() as u64,
            ),
            Sample::Counter(
                "replays_outrun",
                "Members closed because they took less than was said, until the log no longer reached back to them",
                delivery.outrun.get(),
            ),
            Sample::Counter(
                "room_resets",
                "Breaks of continuity that members were told of",
                delivery.resets.get(),
            ),
            Sample::Counter(
                "bus_overruns",
                "Bus events left to be caught up",
                delivery.overruns.get(),
            ),
            Sample::Counter(
                "bus_interruptions",
                "Interrupted subscriptions",
                backplane.interruptions,
            ),
            Sample::Counter("redis_round_trips", "Calls to Redis", backplane.round_trips),
            Sample::Counter(
                "redis_errors",
                "Calls to Redis that failed",
                backplane.errors,
            ),
            Sample::Counter(
                "presence_changes",
                "Comings and goings that this node caused",
                backplane.presence_changes,
            ),
            Sample::histogram(
                "append_seconds",
                "Until a message had its place",
                &chat.append,
            ),
            Sample::histogram(
                "delivery_seconds",
                "From a message's arrival at this node to its last member",
                &delivery.latency,
            ),
        ]
    }
}
