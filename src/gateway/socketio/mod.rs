//! The Socket.IO door: handlers registered before CONNECT is answered, one connection for each, one way out.

pub(crate) mod metrics;
mod outlet;
mod packet;
mod transport;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use engineioxide::{Intercept, Retained, SessionHandle, Str};
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::SocketRef;
use socketioxide::handler::{ConnectHandler, FromConnectParts, MessageHandler};
use socketioxide::service::SocketIoService;
use socketioxide::socket::Socket;
use socketioxide::{ParserConfig, SocketIo};
use socketioxide_core::Value;

use super::connections::{Arrived, Connection, Connections};
use crate::auth::Credentials;
use crate::domain::{Code, Refusal};
use crate::server::ClientAddress;
use crate::server::admission::ConnectionSlot;
use transport::SocketLine;

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
}

/// What is kept of a connection's first request, and what became of the transport.
#[derive(Default)]
pub struct Handshake {
    /// The token in the query or the `Authorization` header.
    pub token: Option<String>,
    /// Whose it is.
    pub client: Option<ClientAddress>,
    /// Freed with the connection: its place in the counts.
    pub place: Option<ConnectionSlot>,
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

/// The door itself.
pub struct Gateway {
    connections: Arc<Connections>,
    settings: Settings,
}

impl Gateway {
    /// A door for those connections.
    #[must_use]
    pub fn new(connections: Arc<Connections>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            connections,
            settings,
        })
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
            .connect_timeout(self.connections.chat().limits().auth_timeout + CONNECT_PATIENCE)
            .with_parser(parser)
            .build_svc();
        let gateway = self.clone();
        let greet = move |socket: SocketRef, token: AuthToken| async move {
            gateway.greet(&socket, token).await
        };
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
        let Some(handshake) = extensions
            .get::<Retained>()
            .and_then(|kept| kept.0.clone().downcast::<Handshake>().ok())
        else {
            handle.close();
            return Err(Refusal::new(Code::Internal, "the session was not admitted"));
        };
        if handshake.connects.fetch_add(1, Ordering::Relaxed) >= CONNECTS {
            handle.close();
            return Err(Refusal::new(
                Code::RateLimited,
                "too many CONNECTs on one transport",
            ));
        }
        let line = Arc::new(SocketLine::new(
            &self.connections,
            handle.clone(),
            handshake.clone(),
        ));
        let connection = self.connections.open(line.clone(), handshake.client);
        let token = match token {
            AuthToken::Malformed => Some(String::new()),
            AuthToken::Given(token) => Some(token),
            AuthToken::Missing => handshake.token.clone(),
        };
        let auth = self.connections.auth();
        if let Some(token) = token.filter(|_| auth.needs_token()) {
            let credentials = Credentials {
                token: Some(token),
                ..Credentials::default()
            };
            let identity = match auth.identify(credentials, None).await {
                Ok(identity) => identity,
                // What may pass must not look like a fault of identity: closed, the client tries again.
                Err(refusal) if refusal.retry_after.is_some() => {
                    handle.close();
                    return Err(refusal);
                }
                Err(refusal) => {
                    line.end_refused();
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
        let receiver = Arc::new(Receiver {
            connection: connection.clone(),
            aside: AtomicBool::new(false),
            left: AtomicBool::new(false),
        });
        socket.on_fallback(Whole(receiver.clone()));
        handle.intercept(receiver);
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
        connection.introduce();
        connection.start();
    }
}

/// Takes in every event of a socket, in the order of its packets: the calls are made by the session's own task.
///
/// Most are taken as they come from the transport. Socketioxide would read the name of each, to look for a handler of that
/// name, and there is none.
struct Receiver {
    connection: Arc<Connection>,
    /// socketioxide waits for attachments, between which and their event nothing may come: it gets everything, until an event
    /// comes out of it.
    aside: AtomicBool,
    /// The client has said DISCONNECT. Behind it socketioxide gets everything; the next CONNECT has a receiver of its own.
    left: AtomicBool,
}

impl Intercept for Receiver {
    fn text(&self, text: Str) -> Result<(), Str> {
        if text.starts_with(['5', '6']) {
            self.aside.store(true, Ordering::Relaxed);
        } else if packet::is_disconnect(&text) {
            self.left.store(true, Ordering::Relaxed);
        }
        match packet::event(&text) {
            Some((start, ack))
                if !self.aside.load(Ordering::Relaxed) && !self.left.load(Ordering::Relaxed) =>
            {
                self.connection
                    .receive(Arrived::new(text, start).with_ack(ack));
                Ok(())
            }
            _ => Err(text),
        }
    }
}

/// The same, of what came by way of socketioxide.
struct Whole(Arc<Receiver>);

/// Sets this handler apart from those that socketioxide makes of closures, which it would spawn.
struct InOrder;

impl MessageHandler<LocalAdapter, InOrder> for Whole {
    fn call(&self, _: Arc<Socket<LocalAdapter>>, value: Value, ack: Option<i64>) {
        // Text is all that the JSON parser gives.
        if let Value::Str(json, attachments) = value {
            self.0.aside.store(false, Ordering::Relaxed);
            let binary = attachments.is_some_and(|attachments| !attachments.is_empty());
            self.0
                .connection
                .receive(Arrived::new(json, 0).with_ack(ack).with_attachments(binary));
        }
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

    fn from_connect_parts(
        _: &Arc<Socket<LocalAdapter>>,
        auth: &Option<Value>,
    ) -> Result<Self, Infallible> {
        let Some(json) = auth.as_ref().and_then(Value::as_str) else {
            return Ok(Self::Missing);
        };
        // An `auth` that isn't an object says nothing of a token; one whose token isn't text is a bad token.
        let Ok(fields) = super::wire::Fields::parse(json, usize::MAX, "auth payload") else {
            return Ok(Self::Missing);
        };
        Ok(match fields.text("token") {
            Ok(None) => Self::Missing,
            Ok(Some(token)) => Self::Given(token),
            Err(_) => Self::Malformed,
        })
    }
}
