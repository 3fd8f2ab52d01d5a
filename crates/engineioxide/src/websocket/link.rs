//! The byte streams that WebSockets run on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Role, run};
use crate::control::AtomicCounters;

/// A stream type of the server that WebSockets run on without hyper's box. See
/// [`Control::register_link`](crate::Control::register_link).
pub trait Link: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Passes as many of `bytes` to the operating system as it accepts now. It registers no task to
    /// be woken when the system accepts more; for that, the caller uses `poll_write`. Returns
    /// `None` if this stream does not support it.
    ///
    /// Calls may be mixed with `poll_write`, and their bytes are sent in the order of the calls.
    /// Neither of the two may buffer bytes.
    ///
    /// # Errors
    /// As `write(2)`; `WouldBlock` if the system accepts nothing now. After any error none of
    /// `bytes` is accepted: the caller writes them again with `poll_write`, which must report an
    /// error that persists.
    fn try_write(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        let _ = bytes;
        None
    }
}

/// A [`Link`] on any other stream.
pub(crate) struct AnyStream<S>(pub S);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Link for AnyStream<S> {}

impl<S: AsyncRead + Unpin> AsyncRead for AnyStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A stream on which the HTTP upgrade to a WebSocket is complete.
pub(crate) trait UpgradedStream: Send + 'static {
    /// Spawns a task that runs a WebSocket on the stream.
    fn run(self, role: Role);

    /// The stream itself.
    fn into_stream(self) -> impl AsyncRead + AsyncWrite + Unpin + Send;
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> UpgradedStream for AnyStream<S> {
    fn run(self, role: Role) {
        tokio::spawn(run(self, Vec::new(), role));
    }

    fn into_stream(self) -> impl AsyncRead + AsyncWrite + Unpin + Send {
        self.0
    }
}

/// Hyper passes on the server's own stream in a box. If its type is a registered [`Link`], the
/// stream is taken out of the box.
impl UpgradedStream for Upgraded {
    fn run(self, role: Role) {
        let control = role.session().control.clone();
        let links = control.0.links.lock().clone();
        let mut boxed = self;
        let mut role = role;
        for unbox in links.iter() {
            match unbox(boxed, role) {
                Some(returned) => (boxed, role) = returned,
                None => return,
            }
        }
        AtomicCounters::add(&control.0.counters.boxed, 1);
        AnyStream(TokioIo::new(boxed)).run(role);
    }

    fn into_stream(self) -> impl AsyncRead + AsyncWrite + Unpin + Send {
        TokioIo::new(self)
    }
}

/// Runs a WebSocket on the link in the box. If the box holds another type, returns the arguments.
pub(crate) type Unbox = fn(Upgraded, Role) -> Option<(Upgraded, Role)>;

pub(crate) fn unbox<L: Link>(boxed: Upgraded, role: Role) -> Option<(Upgraded, Role)> {
    match downcast_link::<L>(boxed) {
        Ok((link, early)) => {
            tokio::spawn(run(link, early, role));
            None
        }
        Err(boxed) => Some((boxed, role)),
    }
}

/// Takes a link out of the box. Returns it with the bytes that have been read from it already.
fn downcast_link<L: Link>(boxed: Upgraded) -> Result<(L, Vec<u8>), Upgraded> {
    let parts = boxed.downcast::<TokioIo<L>>()?;
    // Copied, because hyper's bytes (usually none) are a slice of a buffer of 8 KiB or more, which
    // they would keep allocated.
    Ok((parts.io.into_inner(), parts.read_buf.to_vec()))
}

#[cfg(test)]
mod tests {
    use http::{Request, Response, StatusCode};
    use http_body_util::Empty;
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use tokio::io::AsyncWriteExt;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn an_unboxed_link_returns_early_bytes_in_a_buffer_of_their_size() {
        for early in ["", "early"] {
            let (near, mut far) = tokio::io::duplex(4096);
            let (sender, mut upgrades) = mpsc::unbounded_channel();
            let service = service_fn(move |request: Request<Incoming>| {
                sender.send(hyper::upgrade::on(request)).ok();
                let mut response = Response::new(Empty::<bytes::Bytes>::new());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                std::future::ready(Ok::<_, std::convert::Infallible>(response))
            });
            let http = hyper::server::conn::http1::Builder::new();
            let served = http
                .serve_connection(TokioIo::new(AnyStream(near)), service)
                .with_upgrades();
            let head =
                "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            far.write_all(format!("{head}{early}").as_bytes())
                .await
                .unwrap();
            let (served, upgraded) =
                tokio::join!(served, async { upgrades.recv().await.unwrap().await });
            served.unwrap();
            let boxed = downcast_link::<AnyStream<tokio::net::TcpStream>>(upgraded.unwrap())
                .err()
                .unwrap();
            let (_, read) = downcast_link::<AnyStream<tokio::io::DuplexStream>>(boxed)
                .ok()
                .unwrap();
            assert_eq!((&*read, read.capacity()), (early.as_bytes(), early.len()));
        }
    }
}
