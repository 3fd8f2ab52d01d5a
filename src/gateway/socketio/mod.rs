//! The Socket.IO door: handlers registered before CONNECT is answered, one inbox for each socket, one way out.

mod connection;
mod deadlines;
mod inbox;
mod outlet;
mod packet;
mod users;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use engineioxide::{Retained, SessionHandle};
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::SocketRef;
use socketioxide::handler::{ConnectHandler, FromConnectParts};
use socketioxide::service::SocketIoService;
use socketioxide::socket::Socket;
use socketioxide::{ParserConfig, SocketIo};
use socketioxide_core::Value;

use crate::auth::{Authenticator, Claimed};
use crate::chat::Chat;
use crate::domain::{Code, ConnId, Refusal, UserId};
use crate::server::Client;
use crate::server::admission::{Admission, Place};
use crate::telemetry::meter::Counter;
use connection::Connection;
use deadlines::{Deadline, Deadlines};
use users::Users;

/// An event that announces more binary attachments breaks the protocol.
const ATTACHMENTS: usize = 1000;

/// How much longer than for an identity a transport may wait for its CONNECT.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// CONNECTs on one transport. A client that comes and goes in the namespace needs a few.
const CONNECTS: u32 = 100;

/// How this door behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Between two heartbeats.
    pub ping_interval: Duration,
    /// How late the answer to one may be.
    pub ping_timeout: Duration,
    /// The largest packet.
    pub packet_bytes: usize,
    /// What may be unwritten of one connection.
    pub outbox_bytes: usize,
}

/// What this door counts.
#[derive(Debug, Default)]
pub struct SocketCounters {
    /// Events that arrived.
    pub events: Counter,
    /// Events that were refused.
    pub refused: Counter,
    /// Events refused because the sender was too fast.
    pub rate_limited: Counter,
    /// Sockets closed because they went on when they were refused for a rate.
    pub incorrigible: Counter,
    /// Events refused because the socket's inbox was full.
    pub overloaded: Counter,
}

/// What is kept of a connection's first request, and what became of the transport.
#[derive(Default)]
pub struct Handshake {
    /// The token in the query or the `Authorization` header.
    pub token: Option<String>,
    /// Whose it is.
    pub client: Option<Client>,
    /// Freed with the connection: its place in the counts.
    pub place: Option<Place>,
    /// Connections on it: CONNECTs that were let in, whose DISCONNECT hasn't come.
    pub living: AtomicU32,
    /// How many CONNECTs there were.
    pub connects: AtomicU32,
}

/// Counts a connection on its transport, until it ends.
struct Living(Arc<Handshake>);

impl Living {
    fn on(handshake: &Arc<Handshake>) -> Self {
        handshake.living.fetch_add(1, Ordering::AcqRel);
        Self(handshake.clone())
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.0.living.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All that the sockets of this door share.
pub struct Gateway {
    chat: Arc<Chat>,
    auth: Arc<Authenticator>,
    admission: Arc<Admission>,
    settings: Settings,
    deadlines: Deadlines,
    users: Users,
    counters: SocketCounters,
    /// What all inboxes hold.
    inbox_bytes: Arc<AtomicUsize>,
    next_connection: AtomicU64,
    /// Sets this process's connections apart from every other's, before and after it.
    incarnation: String,
}

impl Gateway {
    /// A door to that chat. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(chat: Arc<Chat>, auth: Arc<Authenticator>, admission: Arc<Admission>, settings: Settings) -> Arc<Self> {
        let gateway = Arc::new(Self {
            chat,
            auth,
            admission,
            settings,
            deadlines: Deadlines::start(),
            users: Users::default(),
            counters: SocketCounters::default(),
            inbox_bytes: Arc::default(),
            next_connection: AtomicU64::new(0),
            incarnation: uuid::Uuid::new_v4().simple().to_string()[..12].to_owned(),
        });
        let weak = Arc::downgrade(&gateway);
        let end = move |user: &UserId| {
            for connection in weak.upgrade().iter().flat_map(|gateway| gateway.users.of(user)) {
                connection.end_by_service();
            }
        };
        gateway.chat.on_disconnect(Box::new(end));
        gateway
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> &SocketCounters {
        &self.counters
    }

    /// The service that answers `/socket.io`.
    #[must_use]
    pub fn service(self: &Arc<Self>) -> SocketIoService<engineioxide::service::NotFoundService> {
        // Attachments are taken in only to be refused by an answer. Each costs a look at those before it, hence the bound.
        let parser = ParserConfig::common()
            .max_incoming_binaries(ATTACHMENTS)
            .max_incoming_binary_buf_size(self.settings.packet_bytes);
        let (service, io) = SocketIo::builder()
            .req_path("/socket.io")
            .ping_interval(self.settings.ping_interval)
            .ping_timeout(self.settings.ping_timeout)
            .max_payload(self.settings.packet_bytes as u64)
            .ws_max_message_size(self.settings.packet_bytes)
            .ws_max_frame_size(self.settings.packet_bytes)
            // A refused CONNECT has a deadline of our own, which says DISCONNECT first; this is for who never says CONNECT.
            .connect_timeout(self.chat.limits().auth_timeout + CONNECT_PATIENCE)
            .with_parser(parser)
            .build_svc();
        let gateway = self.clone();
        let greet = move |socket: SocketRef, token: AuthToken| async move { gateway.greet(&socket, token).await };
        io.ns("/", on_connected.with(greet));
        service
    }

    /// Runs before CONNECT is answered: so no event can come before its handlers.
    async fn greet(self: Arc<Self>, socket: &SocketRef, token: AuthToken) -> Result<(), Refusal> {
        let extensions = &socket.req_parts().extensions;
        let Some(handle) = extensions.get::<SessionHandle>().cloned() else {
            return Err(Refusal::new(Code::Internal, "the session has no handle"));
        };
        // Whoever was admitted has one.
        let Some(handshake) = extensions.get::<Retained>().and_then(|kept| kept.0.clone().downcast::<Handshake>().ok())
        else {
            handle.close();
            return Err(Refusal::new(Code::Internal, "the session was not admitted"));
        };
        if handshake.connects.fetch_add(1, Ordering::Relaxed) >= CONNECTS {
            handle.close();
            return Err(Refusal::new(Code::RateLimited, "too many CONNECTs on one transport"));
        }
        let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let conn = ConnId::trusted(&format!("{}.{number:x}", self.incarnation));
        let connection = Connection::new(self.clone(), conn, number, handle.clone(), handshake.clone());
        let token = match token {
            AuthToken::Malformed => Some(String::new()),
            AuthToken::Given(token) => Some(token),
            AuthToken::Missing => handshake.token.clone(),
        };
        if let Some(token) = token.filter(|_| self.auth.needs_token()) {
            let claimed = Claimed { token: Some(token), ..Claimed::default() };
            let identity = match self.auth.identify(claimed, None).await {
                Ok(identity) => identity,
                // What may pass must not look like a fault of identity: closed, the client tries again.
                Err(refusal) if refusal.retry_after.is_some() => {
                    handle.close();
                    return Err(refusal);
                }
                Err(refusal) => {
                    // The client won't come back by itself; it may end the connection in its own time, but not for ever.
                    self.deadlines
                        .add(self.chat.limits().auth_timeout, Deadline::Refused(handle, Arc::downgrade(&handshake)));
                    return Err(refusal);
                }
            };
            if let Err(refusal) = connection.authenticate(identity).await {
                handle.close();
                return Err(refusal);
            }
        } else {
            connection.expect_authentication();
        }
        socket.extensions.insert(connection.clone());
        socket.on_fallback(inbox::Receiver(connection.clone()));
        let disconnected = connection.clone();
        socket.on_disconnect(async move || disconnected.lost());
        // The transport may die before socketioxide counts the socket as connected, and it would never tell. Nothing is ever
        // below zero: so this is called at the close, and only then.
        let connection = Arc::downgrade(&connection);
        let closed = move || {
            if let Some(connection) = connection.upgrade() {
                connection.lost();
            }
        };
        handle.when_below(0, Box::new(closed));
        Ok(())
    }
}

async fn on_connected(socket: SocketRef) {
    if let Some(connection) = socket.extensions.get::<Arc<Connection>>() {
        connection.start().await;
    }
}

/// The token in the `auth` payload of CONNECT.
enum AuthToken {
    Missing,
    Given(String),
    Malformed,
}

impl FromConnectParts<LocalAdapter> for AuthToken {
    type Error = Infallible;

    fn from_connect_parts(_: &Arc<Socket<LocalAdapter>>, auth: &Option<Value>) -> Result<Self, Infallible> {
        let Some(json) = auth.as_ref().and_then(Value::as_str) else { return Ok(Self::Missing) };
        // An `auth` that isn't an object says nothing of a token; one whose token isn't text is a bad token.
        let Ok(fields) = super::wire::Fields::parse(json, usize::MAX, "auth payload") else { return Ok(Self::Missing) };
        Ok(match fields.text("token") {
            Ok(None) => Self::Missing,
            Ok(Some(token)) => Self::Given(token),
            Err(_) => Self::Malformed,
        })
    }
}
