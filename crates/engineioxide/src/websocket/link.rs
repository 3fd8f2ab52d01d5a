//! What a WebSocket runs on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Role, run};

/// A stream that WebSockets run on as it is. See [`Control::runs_on`](crate::Control::runs_on).
pub trait Link: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Hands the system what it takes of `bytes` now, and has nobody woken when it takes more: for that they are written as to
    /// any stream. `None`: this stream can't do that.
    ///
    /// # Errors
    /// As `write(2)`; `WouldBlock` when the system takes nothing now.
    fn write_now(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        let _ = bytes;
        None
    }
}

/// Any stream.
pub(crate) struct Any<S>(pub S);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Link for Any<S> {}

impl<S: AsyncRead + Unpin> AsyncRead for Any<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Any<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Come for Any<S> {
    fn run(self, role: Role) {
        tokio::spawn(run(self, Bytes::new(), role));
    }

    fn plain(self) -> impl AsyncRead + AsyncWrite + Unpin + Send {
        self.0
    }
}

/// What hyper hands over is the server's own stream in a box: it is taken out, where it is a [`Link`] that was told of.
impl Come for Upgraded {
    fn run(self, role: Role) {
        let unboxed = role.session().control.0.links.lock().clone();
        let left = unboxed.iter().try_fold((self, role), |(boxed, role), unbox| unbox(boxed, role));
        if let Some((boxed, role)) = left {
            Any(TokioIo::new(boxed)).run(role);
        }
    }

    fn plain(self) -> impl AsyncRead + AsyncWrite + Unpin + Send {
        TokioIo::new(self)
    }
}

/// Runs a WebSocket on the link in the box; if it is another, gives back what it was given.
pub(crate) type Unbox = fn(Upgraded, Role) -> Option<(Upgraded, Role)>;

pub(crate) fn unbox<L: Link>(boxed: Upgraded, role: Role) -> Option<(Upgraded, Role)> {
    match boxed.downcast::<TokioIo<L>>() {
        Ok(parts) => {
            tokio::spawn(run(parts.io.into_inner(), parts.read_buf, role));
            None
        }
        Err(boxed) => Some((boxed, role)),
    }
}
