//! What a WebSocket runs on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Role, run};
use crate::control::Tally;

/// A stream that WebSockets run on as it is. See [`Control::runs_on`](crate::Control::runs_on).
pub trait Link: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Hands the system what it takes of `bytes` now, and has nobody woken when it takes more: for that they are written as
    /// to any stream. `None`: this stream can't do that. It follows on what `poll_write` has taken, and the other way round:
    /// neither may keep anything back.
    ///
    /// # Errors
    /// As `write(2)`; `WouldBlock` when the system takes nothing now. Nothing of `bytes` is taken then: they are written
    /// again, by `poll_write`, which is to say itself what is wrong.
    fn write_now(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        let _ = bytes;
        None
    }
}

/// Any stream.
pub(crate) struct Foreign<S>(pub S);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Link for Foreign<S> {}

impl<S: AsyncRead + Unpin> AsyncRead for Foreign<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Foreign<S> {
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

/// A stream that has come.
pub(crate) trait Come: Send + 'static {
    /// Runs a WebSocket on it, on a task of its own.
    fn run(self, role: Role);

    /// As any stream.
    fn plain(self) -> impl AsyncRead + AsyncWrite + Unpin + Send;
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Come for Foreign<S> {
    fn run(self, role: Role) {
        tokio::spawn(run(self, Vec::new(), role));
    }

    fn plain(self) -> impl AsyncRead + AsyncWrite + Unpin + Send {
        self.0
    }
}

/// What hyper hands over is the server's own stream in a box: it is taken out, where it is a [`Link`] that was told of.
impl Come for Upgraded {
    fn run(self, role: Role) {
        let control = role.session().control.clone();
        let links = control.0.links.lock().clone();
        let left = links
            .iter()
            .try_fold((self, role), |(boxed, role), unbox| unbox(boxed, role));
        if let Some((boxed, role)) = left {
            Tally::add(&control.0.counters.boxed, 1);
            Foreign(TokioIo::new(boxed)).run(role);
        }
    }

    fn plain(self) -> impl AsyncRead + AsyncWrite + Unpin + Send {
        TokioIo::new(self)
    }
}

/// Runs a WebSocket on the link in the box; if it is another, gives back what it was given.
pub(crate) type Unbox = fn(Upgraded, Role) -> Option<(Upgraded, Role)>;

pub(crate) fn unbox<L: Link>(boxed: Upgraded, role: Role) -> Option<(Upgraded, Role)> {
    match taken_out::<L>(boxed) {
        Ok((link, early)) => {
            tokio::spawn(run(link, early, role));
            None
        }
        Err(boxed) => Some((boxed, role)),
    }
}

/// The link, and what has been read of it already.
fn taken_out<L: Link>(boxed: Upgraded) -> Result<(L, Vec<u8>), Upgraded> {
    let parts = boxed.downcast::<TokioIo<L>>()?;
    // A copy: hyper's is a part of a buffer of 8 KiB or more, most often an empty one.
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
    async fn a_link_that_is_taken_out_brings_what_came_early_and_no_more_memory_than_that() {
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
                .serve_connection(TokioIo::new(Foreign(near)), service)
                .with_upgrades();
            let head =
                "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            far.write_all(format!("{head}{early}").as_bytes())
                .await
                .unwrap();
            let (served, upgraded) =
                tokio::join!(served, async { upgrades.recv().await.unwrap().await });
            served.unwrap();
            let boxed = taken_out::<Foreign<tokio::net::TcpStream>>(upgraded.unwrap())
                .err()
                .unwrap();
            let (_, read) = taken_out::<Foreign<tokio::io::DuplexStream>>(boxed)
                .ok()
                .unwrap();
            assert_eq!((&*read, read.capacity()), (early.as_bytes(), early.len()));
        }
    }
}
