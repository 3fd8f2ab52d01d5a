//! Puts a node together: one function for each part.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use engineioxide::Control;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::App;
use super::accounts;
use super::archive::{Database, NodeArchive};
use super::lifecycle::ClientConnections;
use super::metrics::Metrics;
use crate::auth::{Authenticator, Webhook};
use crate::backplane::{Backplane, memory, redis};
use crate::config::Config;
use crate::delivery::{Delivery, DeliverySettings, Pause};
use crate::domain::policy::Action;
use crate::domain::{Refusal, RoomId, UserId};
use crate::features::accounts::{Accounts, Recovery};
use crate::features::chats::{Chats, Memberships};
use crate::features::idempotency::Idempotency;
use crate::features::messages::{MessageParts, MessageStores, Messages};
use crate::features::messaging::{AuthorizationHook, Messaging};
use crate::gateway::access::Access;
use crate::gateway::connections::Connections;
use crate::gateway::http::{self, CallerRateLimiter, HttpState, RequestLog};
use crate::gateway::socketio::Gateway;
use crate::gateway::websocket::{MIN_MEAN_FRAME_BYTES, PlainWebSocket};
use crate::outbox::{self, OverdueWatch};
use crate::server::admission::Admission;
use crate::server::tls::Tls;
use crate::server::{Listener, Timeouts, register_stream_types};
use crate::store::UrgentRows;
use crate::telemetry::line_budget::LineBudget;

/// How often the certificate's files are checked for a change.
const CERTIFICATE_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// TCP connections that may be open at once on the additional listener for `/metrics`.
const METRICS_CONNECTIONS: usize = 64;

impl App {
    /// Starts a node. When the call returns, the node accepts connections. A Redis that cannot be
    /// reached leaves the node not ready, and retrying. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the address can't be bound, the certificate can't be used, or Redis refuses the password
    /// or is configured such that the node's promises would not hold.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let tls = config.server.tls.clone().map(Tls::load).transpose()?;
        let parts = Parts::start(config).await?;
        let messaging = parts.messaging.clone();
        let share_user_rates = async move { messaging.user_rates().run().await };
        let mut tasks = vec![tokio::spawn(share_user_rates)];
        if config.runs_workers {
            tasks.extend(parts.start_removals());
        }
        let (stop, stopped) = watch::channel(false);
        let mut workers = Vec::new();
        if let Some(outbox) = parts.outbox.clone()
            && config.runs_workers
        {
            workers.push(tokio::spawn(outbox.run_until(stopped.clone())));
        }
        if let Some(runner) = parts.jobs.clone()
            && config.runs_workers
        {
            workers.push(tokio::spawn(runner.run(stopped.clone())));
        }
        tasks.extend(parts.watch_overdue());
        let listening = listen(config, &parts, tls, &stopped, &mut tasks).await?;
        Ok(Self {
            address: listening.address,
            metrics_address: listening.metrics_address,
            connections: parts.client_connections(),
            admission: parts.admission,
            delivery: parts.delivery,
            backplane: parts.backplane,
            archive: parts.archive,
            stop,
            workers,
            tasks,
        })
    }
}

/// The parts of a node, connected to each other, before anything listens.
pub(super) struct Parts {
    /// `None` where there are no accounts.
    accounts: Option<Arc<Accounts>>,
    /// `None` where no mails can be sent.
    recovery: Option<Arc<Recovery>>,
    idempotency: Option<Arc<Idempotency>>,
    /// `None` where there are no accounts.
    chats: Option<Arc<Chats>>,
    /// `None` without a database.
    messages: Option<Arc<Messages>>,
    authenticator: Arc<Authenticator>,
    backplane: Backplane,
    archive: Option<Arc<NodeArchive>>,
    /// The worker of the outbox, which has yet to run; `None` without a database.
    pub(super) outbox: Option<Arc<outbox::Worker>>,
    /// The jobs of the outbox, which have yet to run; `None` without a database.
    pub(super) jobs: Option<Arc<outbox::JobRunner>>,
    /// `None` where there are no accounts.
    urgent_rows: Option<Arc<dyn UrgentRows>>,
    /// The Engine.IO layer's control of all its sessions.
    control: Control,
    delivery: Arc<Delivery>,
    messaging: Arc<Messaging>,
    admission: Arc<Admission>,
    connections: Arc<Connections>,
    socketio: Arc<Gateway>,
    plain: Arc<PlainWebSocket>,
}

impl Parts {
    /// Starts the tasks that remove expired rows.
    pub fn start_removals(&self) -> Vec<JoinHandle<()>> {
        let answers = self.idempotency.clone();
        let answers = answers.map(|answers| tokio::spawn(answers.remove_old_answers()));
        let accounts = self.accounts.clone();
        let accounts = accounts.map(|accounts| tokio::spawn(accounts.remove_expired()));
        answers.into_iter().chain(accounts).collect()
    }

    /// Starts to check the rights of connections where the announcement of a removal is late.
    fn watch_overdue(&self) -> Option<JoinHandle<()>> {
        let connections = self.connections.clone();
        let recheck = move |room: &RoomId, user: &UserId| connections.recheck_user(room, user);
        let watch = OverdueWatch::new(self.urgent_rows.clone()?, Box::new(recheck));
        Some(tokio::spawn(watch.run()))
    }

    /// Connects to the database and to Redis, if there are such, and starts the workers.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let database = Database::open(config).await?;
        let mut backplane = connect_backplane(config, database.as_ref()).await?;
        let accounts = match &database {
            Some(database) => {
                let presence = backplane.presence.clone();
                let (store, answers) = (database.accounts(), database.answers());
                accounts::start(config, store, answers, presence, database.outbox())?
            }
            None => None,
        };
        let mut jobs = Vec::new();
        let mut recovery = None;
        if let (Some(parts), Some(database)) = (&accounts, &database) {
            jobs.push(accounts::forget_deleted_users(database.accounts()));
            let mails = accounts::mails(config, &parts.accounts, &database.recovery())?;
            if let Some(mails) = mails {
                recovery = Some(mails.recovery);
                jobs.extend(mails.jobs);
            }
        }
        let mut authenticator = config.identity.authenticator.clone();
        let (accounts, idempotency) = match accounts {
            Some(parts) => {
                authenticator = Arc::new(authenticator.with_accounts(parts.tokens));
                (Some(parts.accounts), Some(parts.idempotency))
            }
            None => (None, None),
        };
        let chat_store = match (&database, &accounts) {
            (Some(database), Some(_)) => Some(database.chats()),
            _ => None,
        };
        let urgent_rows = match (&database, &accounts) {
            (Some(database), Some(_)) => Some(database.urgent_rows()),
            _ => None,
        };
        let stores = database.as_ref().map(|database| MessageStores {
            messages: database.messages(),
            positions: database.positions(),
            chats: chat_store.clone(),
        });
        let directory = match (&database, &accounts) {
            (Some(database), Some(_)) => Some(database.accounts()),
            _ => None,
        };
        let (archive, outbox, jobs) = match database {
            Some(database) => {
                let settings = outbox::JobSettings::default();
                let jobs = outbox::JobRunner::new(database.jobs(), jobs, settings);
                let (outbox, messages) = (database.outbox(), database.messages());
                let deployment = database.deployment().await?;
                let archive = database.start_archive(config, &mut backplane).await?;
                let worker = outbox::Worker::new(
                    outbox,
                    messages,
                    backplane.log.clone(),
                    backplane.lifecycle.clone(),
                    deployment,
                    config.backplane.dedupe_ttl,
                );
                (Some(Arc::new(archive)), Some(worker), Some(jobs))
            }
            None => (None, None, None),
        };
        let control = engine_io(config);
        let delivery = start_delivery(config, &backplane, &control);
        let memberships = chat_store.clone().map(Memberships::new).map(Arc::new);
        let parts = stores
            .as_ref()
            .map(|stores| stores.parts(directory, backplane.presence.clone()));
        let messaging = messaging(
            config,
            &backplane,
            &delivery,
            memberships.clone(),
            parts.clone(),
        );
        let positions = stores.as_ref().map(|stores| stores.positions.clone());
        let messages = match (stores, parts, &outbox) {
            (Some(stores), Some(parts), Some(outbox)) => {
                let publications = outbox.publications();
                let messages = Messages::new(messaging.clone(), parts, stores, publications);
                Some(Arc::new(messages))
            }
            _ => None,
        };
        let chats = match (chat_store, memberships) {
            (Some(store), Some(memberships)) => {
                let rates = messaging.user_rates().clone();
                let mut chats = Chats::new(store, backplane.log.clone(), memberships, rates);
                if let Some(positions) = positions {
                    chats = chats.with_positions(positions);
                }
                Some(Arc::new(chats))
            }
            _ => None,
        };
        authenticator.warm_up().await;
        let admission = Arc::new(Admission::new(config.caps.clone()));
        let connections = Connections::new(
            messaging.clone(),
            messages.clone(),
            authenticator.clone(),
            admission.clone(),
            config.connections.outbox_bytes,
            LineBudget::new("connections", config.log.lines_per_sec),
        );
        let socketio = Gateway::new(connections.clone(), config.connections.socketio.clone());
        let plain = PlainWebSocket::new(
            connections.clone(),
            config.connections.websocket.clone(),
            control.write_scheduler(),
            control.pause_monitor(),
        );
        Ok(Self {
            accounts,
            recovery,
            idempotency,
            chats,
            messages,
            authenticator,
            backplane,
            archive,
            outbox,
            jobs,
            urgent_rows,
            control,
            delivery,
            messaging,
            admission,
            connections,
            socketio,
            plain,
        })
    }

    /// Stops parts that never listened.
    pub async fn stop(&self) {
        if let Some(archive) = &self.archive {
            archive.stop().await;
        }
        self.backplane.lifecycle.stop().await;
        self.delivery.stop();
    }

    fn client_connections(&self) -> ClientConnections {
        ClientConnections {
            control: self.control.clone(),
            plain: self.plain.clone(),
        }
    }

    pub fn metrics(&self) -> Metrics {
        Metrics {
            connections: self.client_connections(),
            admission: self.admission.clone(),
            events: self.connections.clone(),
            messaging: self.messaging.clone(),
            messages: self.messages.clone(),
            delivery: self.delivery.clone(),
            backplane: self.backplane.clone(),
            archive: self.archive.clone(),
            outbox: self.outbox.clone(),
            jobs: self.jobs.clone(),
        }
    }

    /// The state that all HTTP requests share.
    fn http_state(&self, config: &Config) -> Arc<HttpState> {
        let metrics = self.metrics();
        Arc::new(HttpState {
            messaging: self.messaging.clone(),
            accounts: self.accounts.clone(),
            recovery: self.recovery.clone(),
            idempotency: self.idempotency.clone(),
            chats: self.chats.clone(),
            messages: self.messages.clone(),
            access: Access {
                authenticator: self.authenticator.clone(),
                api_keys: config.identity.api_keys.clone(),
                broadcast_roles: config.identity.broadcast_roles.clone(),
            },
            post_limiter: CallerRateLimiter::new(config.rates.posts),
            broadcast_limiter: CallerRateLimiter::new(config.rates.broadcasts),
            origins: config.origins.origins.clone(),
            trusted_proxies: config.origins.proxies.clone().unwrap_or_default(),
            admission: self.admission.clone(),
            control: self.control.clone(),
            plain_websockets: self.plain.clone(),
            request_log: RequestLog::new(config.log.lines_per_sec),
            metrics: Arc::new(move |format| metrics.render(format)),
        })
    }
}

async fn connect_backplane(
    config: &Config,
    database: Option<&Database>,
) -> Result<Backplane, redis::StartError> {
    let limits = config.backplane.clone();
    let restore = database.map(Database::restore_source);
    match (&config.redis, restore) {
        (None, None) => Ok(memory::embedded(limits)),
        (None, Some(restore)) => Ok(memory::embedded_with_archive(limits, restore)),
        (Some(redis), restore) => redis::connect(redis.clone(), limits, restore).await,
    }
}

/// The Engine.IO layer's control of all its sessions.
fn engine_io(config: &Config) -> Control {
    let control = Control::new(engineioxide::Limits {
        outbox_bytes: config.connections.outbox_bytes,
        outbox_frames: config.connections.outbox_bytes / MIN_MEAN_FRAME_BYTES,
        write_timeout: config.connections.write_timeout,
        ..engineioxide::Limits::default()
    });
    register_stream_types(&control);
    control
}

fn start_delivery(config: &Config, backplane: &Backplane, control: &Control) -> Arc<Delivery> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let scheduler = control.write_scheduler();
    let settings = DeliverySettings {
        workers,
        room_events: config.limits.room_events,
        page_bytes: config.connections.outbox_bytes / 8,
        backlog_bytes: config.connections.outbox_bytes / 4 / workers.min(4),
        pause: Pause::new(move || scheduler.wait_for_slice()),
        ..DeliverySettings::default()
    };
    Arc::new(Delivery::start(backplane, &settings))
}

fn messaging(
    config: &Config,
    backplane: &Backplane,
    delivery: &Arc<Delivery>,
    memberships: Option<Arc<Memberships>>,
    messages: Option<Arc<MessageParts>>,
) -> Arc<Messaging> {
    let limits = config.limits.clone();
    let mut messaging = Messaging::new(backplane.clone(), delivery.clone(), limits);
    if let Some(memberships) = memberships {
        messaging = messaging.with_memberships(memberships);
    }
    if let Some(messages) = messages {
        messaging = messaging.with_messages(messages);
    }
    if let Some(webhook) = &config.webhook {
        messaging = messaging.with_authorization_hook(Box::new(webhook.clone()));
    }
    Arc::new(messaging)
}

#[async_trait]
impl AuthorizationHook for Arc<Webhook> {
    async fn authorize(&self, action: Action, user: &UserId, room: &RoomId) -> Result<(), Refusal> {
        Webhook::authorize(self, action, user, room).await
    }
}

/// The addresses that the node listens on.
struct Listening {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
}

/// Starts the listeners; adds their tasks to `tasks`.
async fn listen(
    config: &Config,
    parts: &Parts,
    tls: Option<Tls>,
    stopped: &watch::Receiver<bool>,
    tasks: &mut Vec<JoinHandle<()>>,
) -> anyhow::Result<Listening> {
    let http = parts.http_state(config);
    let timeouts = Timeouts {
        keep_alive: config.server.keep_alive,
        write: config.connections.write_timeout * 2,
        ..Timeouts::default()
    };
    let address = config.server.address;
    let mut listener = Listener::bind(address, tcp_connections(config), timeouts)
        .await
        .with_context(|| cannot_listen(address, "SERVER_HOST and SERVER_PORT"))?;
    let address = listener.address()?;
    if let Some(tls) = tls {
        listener = listener.with_tls(&tls);
        tasks.push(tokio::spawn(
            tls.reload_on_change(CERTIFICATE_CHECK_INTERVAL),
        ));
    }
    let router = http::router(http.clone(), &parts.socketio);
    tasks.push(tokio::spawn(listener.serve(router, stopped.clone())));
    let mut metrics_address = None;
    if let Some(address) = config.server.metrics_address {
        let timeouts = Timeouts {
            keep_alive: config.server.keep_alive,
            ..Timeouts::default()
        };
        let listener = Listener::bind(address, METRICS_CONNECTIONS, timeouts)
            .await
            .with_context(|| cannot_listen(address, "METRICS_ADDR"))?;
        metrics_address = Some(listener.address()?);
        let router = http::metrics_router(http);
        tasks.push(tokio::spawn(listener.serve(router, stopped.clone())));
    }
    Ok(Listening {
        address,
        metrics_address,
    })
}

/// The first part of an error's text; the fault follows.
fn cannot_listen(address: SocketAddr, keys: &str) -> String {
    format!("the node cannot listen on {address} ({keys})")
}

/// TCP connections that may be open at once: a polling client holds up to two, and a client that is
/// refused needs one for the refusal.
fn tcp_connections(config: &Config) -> usize {
    match config.caps.connections {
        0 => usize::MAX,
        connections => connections.saturating_mul(2).saturating_add(1024),
    }
}
