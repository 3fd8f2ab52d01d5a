//! The accept loop: HTTP/1.1, plain or in TLS, with a cap on connections and time limits on slow and idle peers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use engineioxide::Link;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::patience::{TimelyBody, Written};
use super::tls::Tls;

/// How long the accept loop rests when the system refuses it a connection (too many open files, say).
const REST: Duration = Duration::from_millis(100);
/// The largest request head, in bytes.
const HEAD_BYTES: usize = 32 * 1024;
/// What the kernel may hold of a connection without having sent it. Else it takes megabytes for a peer that reads
/// nothing: they would be missing in the outbox that bounds them, and the write that would show the fault succeeds.
const UNSENT_BYTES: u32 = 64 * 1024;

/// Who sent a request, as a request extension.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// How long a peer may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the handshake of TLS.
    pub handshake: Duration,
    /// For a request's head, and between two requests.
    pub head: Duration,
    /// For a request's body, all of it.
    pub body: Duration,
    /// Without taking anything of what is written. Longer than a session's own time for it, which says why it ends.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let patience = Duration::from_secs(30);
        Self {
            handshake: Duration::from_secs(10),
            head: patience,
            body: patience,
            write: patience,
        }
    }
}

/// A bound socket that serves a router.
pub struct Listener {
    socket: TcpListener,
    timeouts: Timeouts,
    /// TCP connections that may be open at once.
    places: Arc<Semaphore>,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Binds `address`; port 0 takes a free one. `connections` bounds the TCP connections that are open at once.
    ///
    /// # Errors
    /// When the address can't be bound.
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
        // Connections inherit it.
        #[cfg(target_os = "linux")]
        socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
        socket.bind(&address.into())?;
        // Deep enough for a storm of clients that come back at once.
        socket.listen(4096)?;
        let socket = TcpListener::from_std(socket.into())?;
        let places = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Ok(Self {
            socket,
            timeouts,
            places,
            tls: None,
        })
    }

    /// From now on everything is said in TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: &Tls) -> Self {
        self.tls = Some(tls.acceptor());
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system can't say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop` turns true; then connections finish the request they are at.
    pub async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Over the cap a connection is ended at once: so the peer learns it, rather than wait.
                    if let Ok(place) = self.places.clone().try_acquire_owned() {
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
                            drop(place);
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(REST).await;
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
    // Frames are combined before they are written; nothing is won by letting the kernel wait for more.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(tls) = tls else {
        return serve_http(stream, peer, router, timeouts, stop).await;
    };
    // Boxed: it is larger than what a connection needs after it.
    let handshake = Box::pin(tokio::time::timeout(timeouts.handshake, tls.accept(stream)));
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    match accepted {
        Ok(Ok(stream)) => serve_http(stream, peer, router, timeouts, stop).await,
        // Anyone may send anything to an open port.
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
    Written<S>: Link,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        // A router is always ready.
        router
            .clone()
            .call(request.map(|body| Body::new(TimelyBody::new(body, timeouts.body))))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.head)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Written::new(stream, timeouts.write)), service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        // A peer that breaks off is no news.
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
