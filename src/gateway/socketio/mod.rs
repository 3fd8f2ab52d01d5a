//! Socket.IO clients: accepts the CONNECT of each and connects its session to a [`Connection`].
//!
//! `handshake` is the data of a session from its handshake on, `early` keeps events until the
//! connection is accepted, `receiver` takes in a client's events, `transport` is the session as its
//! connection sees it, and `outlet` as delivery sees it.

mod auth_token;
mod early;
#[cfg(test)]
mod fuzz;
mod handshake;
pub(crate) mod metrics;
mod msgpack;
mod outlet;
mod packet;
mod receiver;
mod transport;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use engineioxide::{ProtocolVersion, Retained, SessionHandle, TransportType};
use socketioxide::extract::SocketRef;
use socketioxide::handler::ConnectHandler;
use socketioxide::service::SocketIoService;
use socketioxide::{ParserConfig, SocketIo};

use super::connections::{Connection, Connections, TransportLabels};
use crate::auth::Credentials;
use crate::domain::{Code, Refusal};
use auth_token::AuthToken;
use handshake::OpenConnection;
use transport::SocketIoTransport;

pub use handshake::Handshake;

/// An event that announces more binary attachments breaks the protocol.
const MAX_ATTACHMENTS: usize = 1000;
/// The longest time that a transport may wait for its first CONNECT, as in Socket.IO's own server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);
/// How much longer than for authentication a transport may wait for its first CONNECT.
const CONNECT_TIMEOUT_MARGIN: Duration = Duration::from_secs(3);
/// CONNECTs on one transport. A client that leaves the namespace and comes back needs a few.
const MAX_CONNECTS: u32 = 100;

/// Settings of Socket.IO connections.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The time between two heartbeats.
    pub ping_interval: Duration,
    /// The time that a client has to answer a heartbeat.
    pub ping_timeout: Duration,
    /// The largest packet, in bytes.
    pub packet_bytes: usize,
}

/// The Socket.IO server of this node.
pub struct Gateway {
    connections: Arc<Connections>,
    settings: Settings,
}

impl Gateway {
    /// Opens a connection in `connections` for each CONNECT.
    #[must_use]
    pub fn new(connections: Arc<Connections>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            connections,
            settings,
        })
    }

    /// The HTTP service of `/socket.io`.
    #[must_use]
    pub fn service(self: &Arc<Self>) -> SocketIoService<engineioxide::service::NotFoundService> {
        // Attachments are received only so that the event can be refused by an acknowledgement. The
        // number is bounded because each attachment is compared with all earlier ones.
        let parser = ParserConfig::common()
            .max_incoming_binaries(MAX_ATTACHMENTS)
            .max_incoming_binary_buf_size(self.settings.packet_bytes);
        // For transports without any CONNECT. A refused CONNECT has its own, shorter deadline,
        // which sends DISCONNECT first.
        let auth_timeout = self.connections.messaging().limits().auth_timeout;
        let connect_timeout = CONNECT_TIMEOUT.min(auth_timeout + CONNECT_TIMEOUT_MARGIN);
        let (service, io) = SocketIo::builder()
            .req_path("/socket.io")
            .ping_interval(self.settings.ping_interval)
            .ping_timeout(self.settings.ping_timeout)
            .max_payload(self.settings.packet_bytes as u64)
            .ws_max_message_size(self.settings.packet_bytes)
            .ws_max_frame_size(self.settings.packet_bytes)
            .connect_timeout(connect_timeout)
            .with_parser(parser)
            .build_svc();
        let gateway = self.clone();
        let accept = move |socket: SocketRef, token: AuthToken| async move {
            gateway.accept(&socket, token).await
        };
        io.ns("/", on_connected.with(accept));
        service
    }

    /// Accepts or refuses a CONNECT. It runs before CONNECT is answered, so the handlers of events
    /// are registered before any event can come.
    ///
    /// The refusal is sent here: socketioxide's own has neither code nor reason, and the
    /// [`Handshake`] suppresses it.
    async fn accept(self: Arc<Self>, socket: &SocketRef, token: AuthToken) -> Result<(), Refusal> {
        let (handle, handshake) = session(socket)?;
        self.open(socket, &handle, &handshake, token)
            .await
            .inspect_err(|refusal| {
                handshake.drop_early_events();
                handshake.log_refused(&handle, refusal);
                handle.send(&packet::connect_error(handle.protocol(), refusal));
            })
    }

    /// Opens a connection for a CONNECT.
    async fn open(
        &self,
        socket: &SocketRef,
        handle: &SessionHandle,
        handshake: &Arc<Handshake>,
        token: AuthToken,
    ) -> Result<(), Refusal> {
        if handshake.count_connect() > MAX_CONNECTS {
            handle.close();
            let text = "too many CONNECTs on one transport";
            return Err(Refusal::new(Code::RateLimited, text));
        }
        let transport = Arc::new(SocketIoTransport::new(
            &self.connections,
            handle.clone(),
            handshake.clone(),
        ));
        let connection = self
            .connections
            .open(transport.clone(), handshake.origin().client);
        let token = match token {
            AuthToken::Malformed => Some(String::new()),
            AuthToken::Given(token) => Some(token),
            AuthToken::Missing => handshake.token().map(ToOwned::to_owned),
        };
        match token {
            Some(token) if self.connections.auth().uses_token(&token) => {
                self.authenticate(&connection, &transport, token).await?;
            }
            _ => connection.set_authentication_deadline(),
        }
        connection.log_opened(handshake.origin(), labels(handle));
        connection.log_authenticated("handshake");
        socket.extensions.insert(connection.clone());
        receiver::attach(socket, handle, handshake, &connection);
        report_loss_on_close(handle, &connection);
        Ok(())
    }

    /// Authenticates the connection by the token of its CONNECT or handshake.
    async fn authenticate(
        &self,
        connection: &Arc<Connection>,
        transport: &SocketIoTransport,
        token: String,
    ) -> Result<(), Refusal> {
        let credentials = Credentials {
            token: Some(token),
            ..Credentials::default()
        };
        let identity = match self.connections.auth().identify(credentials, None).await {
            Ok(identity) => identity,
            Err(refusal) => {
                if refusal.retry_after.is_some() {
                    // A temporary failure must not look like a fault of identity: when the
                    // transport closes, the client tries again.
                    transport.close_now();
                } else {
                    transport.close_after_refused_connect();
                }
                return Err(refusal);
            }
        };
        let authenticated = connection.authenticate(identity).await;
        if authenticated.is_err() {
            transport.close_now();
        }
        authenticated
    }
}

/// The session that a CONNECT came on, and the handshake that was kept when it was admitted.
fn session(socket: &SocketRef) -> Result<(SessionHandle, Arc<Handshake>), Refusal> {
    let extensions = &socket.req_parts().extensions;
    let Some(handle) = extensions.get::<SessionHandle>().cloned() else {
        return Err(Refusal::new(Code::Internal, "the session has no handle"));
    };
    let handshake = extensions.get::<Retained>().and_then(|retained| {
        let data: Arc<dyn Any + Send + Sync> = retained.0.clone();
        data.downcast::<Handshake>().ok()
    });
    match handshake {
        Some(handshake) => Ok((handle, handshake)),
        None => {
            handle.close();
            Err(Refusal::new(Code::Internal, "the session was not admitted"))
        }
    }
}

/// The session's transport and protocol, for the log.
fn labels(handle: &SessionHandle) -> TransportLabels {
    TransportLabels {
        transport: match handle.transport() {
            TransportType::Polling => "polling",
            TransportType::Websocket => "websocket",
        },
        protocol: match handle.protocol() {
            ProtocolVersion::V3 => "3",
            ProtocolVersion::V4 => "4",
        },
    }
}

/// Reports the loss of the connection when its transport closes.
///
/// socketioxide does so only for sockets that it counts as connected, and the transport may close
/// before that.
fn report_loss_on_close(handle: &SessionHandle, connection: &Arc<Connection>) {
    let connection = Arc::downgrade(connection);
    let closed = move || {
        if let Some(connection) = connection.upgrade() {
            connection.lost();
        }
    };
    // Fewer than 0 bytes are never unwritten, so this is called when the session closes and only
    // then.
    handle.when_below(0, Box::new(closed));
}

/// Runs when CONNECT was answered.
async fn on_connected(socket: SocketRef) {
    if let Some(connection) = socket.extensions.get::<Arc<Connection>>() {
        connection.announce_identity();
        connection.start();
    }
}
