//! The accept loop: HTTP/1.1, plain or over TLS, with a cap on TCP connections and time limits for
//! slow and idle peers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use engineioxide::Link;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::head_timer::{BytesArrived, HeadTimer};
use super::slow_peers::{BodyWithDeadline, WriteTimeout};
use super::tls::Tls;

/// The pause of the accept loop after a connection could not be accepted, for example because the
/// process has too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// The largest request head, in bytes.
const HEAD_BYTES: usize = 32 * 1024;
/// The most bytes that the kernel may buffer for a connection before it sends them. Without this
/// limit it buffers megabytes for a peer that reads nothing: they would not count in the outbox,
/// which bounds unwritten data, and the writes that should reveal the slow peer would succeed.
const MAX_UNSENT_BYTES: u32 = 64 * 1024;

/// The socket address of the peer that sent a request, as a request extension.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// How long a peer may take for each part of a request.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the head of a request. For the first one it includes the time until its first byte.
    pub head: Duration,
    /// Between two requests, until the first byte of the second one. Longer than the idle timeout
    /// of load balancers (60 s), which would otherwise send a request on a connection that the node
    /// is closing, and answer 502.
    pub keep_alive: Duration,
    /// For the whole body of a request.
    pub body: Duration,
    /// To accept some of the data that is being written. Longer than a session's own write timeout,
    /// so that the session ends first and reports the reason.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let timeout = Duration::from_secs(30);
        Self {
            handshake: Duration::from_secs(10),
            head: timeout,
            keep_alive: Duration::from_secs(75),
            body: timeout,
            write: timeout,
        }
    }
}

/// A bound socket that serves a router.
pub struct Listener {
    socket: TcpListener,
    timeouts: Timeouts,
    /// One permit for each TCP connection that may be open at the same time.
    slots: Arc<Semaphore>,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Binds `address`; port 0 selects a free port. At most `connections` TCP connections are open
    /// at the same time.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind(
        address: SocketAddr,
        connections: usize,
        timeouts: Timeouts,
    ) -> std::io::Result<Self> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Accepted connections inherit this option.
        #[cfg(target_os = "linux")]
        socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
        socket.bind(&address.into())?;
        // Large enough for thousands of clients that reconnect at the same time.
        socket.listen(4096)?;
        let socket = TcpListener::from_std(socket.into())?;
        let slots = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Ok(Self {
            socket,
            timeouts,
            slots,
            tls: None,
        })
    }

    /// Accepts TLS only.
    #[must_use]
    pub fn with_tls(mut self, tls: &Tls) -> Self {
        self.tls = Some(tls.acceptor());
        self
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// If the operating system does not return it.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop` is true. Then every connection finishes the request that it is
    /// processing, and ends.
    pub async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Beyond the cap a connection is closed at once, so that the peer need not wait
                    // to learn of it.
                    if let Ok(slot) = self.slots.clone().try_acquire_owned() {
                        let served = serve(
                            stream,
                            self.tls.clone(),
                            peer,
                            router.clone(),
                            self.timeouts,
                            stop.clone(),
                        );
                        tokio::spawn(async move {
                            served.await;
                            drop(slot);
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    peer: SocketAddr,
    router: Router,
    timeouts: Timeouts,
    mut stop: watch::Receiver<bool>,
) {
    // Frames are combined before they are written, so there is nothing to gain if the kernel waits
    // for more data.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(tls) = tls else {
        return serve_http(stream, peer, router, timeouts, stop).await;
    };
    // Boxed, because the handshake needs more memory than the connection does after it.
    let handshake = Box::pin(tokio::time::timeout(timeouts.handshake, tls.accept(stream)));
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    match accepted {
        Ok(Ok(stream)) => serve_http(stream, peer, router, timeouts, stop).await,
        // Logged at `debug`: anyone may send anything to an open port.
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
    }
}

async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    timeouts: Timeouts,
    mut stop: watch::Receiver<bool>,
) where
    WriteTimeout<S>: Link,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        // No `poll_ready`: a router is always ready.
        router
            .clone()
            .call(request.map(|body| Body::new(BodyWithDeadline::new(body, timeouts.body))))
    });
    let arrived = BytesArrived::default();
    let timer = HeadTimer::new(timeouts.keep_alive, timeouts.head, arrived.clone());
    let stream = WriteTimeout::new(stream, timeouts.write, arrived);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(timer)
        // Switches the timer on. The timer itself has the durations.
        .header_read_timeout(timeouts.head)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        // Its error is not logged: peers may break off a connection at any time.
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
