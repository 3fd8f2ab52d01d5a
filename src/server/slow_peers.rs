//! Time limits for slow peers: for sending the body of a request, and for reading the response.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use engineioxide::{Control, Link};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::head_timer::BytesArrived;

/// The body of a request, which must arrive completely within a time, even if it arrives in small
/// pieces. The time begins when the reader first has to wait for data.
pub(super) struct BodyWithDeadline {
    body: Incoming,
    timeout: Duration,
    /// `None` until the reader has to wait.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl BodyWithDeadline {
    pub fn new(body: Incoming, timeout: Duration) -> Self {
        Self {
            body,
            timeout,
            deadline: None,
        }
    }
}

impl Body for BodyWithDeadline {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let timeout = self.timeout;
        ready!(
            self.deadline
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)))
                .as_mut()
                .poll(cx)
        );
        Poll::Ready(Some(Err("the body arrived too slowly".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose writes fail when the peer has accepted no data for the timeout. Without it, a
/// peer that sends requests and never reads the responses would keep the connection, and the memory
/// that it holds. It also notes the arrival of bytes.
pub(super) struct WriteTimeout<S> {
    io: S,
    arrived: BytesArrived,
    timeout: Duration,
    /// `None` while the peer accepts data.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeout<S> {
    pub fn new(io: S, timeout: Duration, arrived: BytesArrived) -> Self {
        Self {
            io,
            arrived,
            timeout,
            deadline: None,
        }
    }

    /// Clears the deadline after a completed write. Fails a pending one after the deadline.
    fn check_deadline<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.deadline = None;
            return polled;
        }
        let timeout = self.timeout;
        ready!(
            self.deadline
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)))
                .as_mut()
                .poll(cx)
        );
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Link for WriteTimeout<TcpStream> {
    fn try_write(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        // A closed connection is an error here, no signal: the standard library ignores SIGPIPE.
        let written = SockRef::from(&self.io).send(bytes);
        if written.is_ok() {
            self.deadline = None;
        }
        Some(written)
    }
}

impl Link for WriteTimeout<TlsStream<TcpStream>> {}

/// Registers the listener's stream types, so that Engine.IO sessions run on these streams
/// themselves and not on the boxes in which hyper returns them.
pub fn register_stream_types(control: &Control) {
    control.register_link::<WriteTimeout<TcpStream>>();
    control.register_link::<WriteTimeout<TlsStream<TcpStream>>>();
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.arrived.set();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.check_deadline(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.check_deadline(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_write_that_succeeds_at_once_restarts_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        let mut stream = WriteTimeout::new(
            near.unwrap(),
            Duration::from_secs(60),
            BytesArrived::default(),
        );
        let mut far = far.unwrap().0;
        let bytes = [0; 64 * 1024];
        let would_block =
            |stream: &mut WriteTimeout<TcpStream>| match stream.try_write(&bytes).unwrap() {
                Ok(_) => false,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock || panic!("{error}"),
            };
        // Either kind of write may still find space; the loop ends when both find the buffer full.
        std::future::poll_fn(|cx| {
            loop {
                if would_block(&mut stream)
                    && Pin::new(&mut stream)
                        .poll_write(cx, &bytes)
                        .map(Result::unwrap)
                        .is_pending()
                {
                    return Poll::Ready(());
                }
            }
        })
        .await;
        assert!(stream.deadline.is_some(), "the timeout has begun");
        let mut received = vec![0; 64 * 1024];
        while would_block(&mut stream) {
            assert!(
                tokio::time::timeout(DEADLINE, far.read(&mut received))
                    .await
                    .unwrap()
                    .unwrap()
                    > 0
            );
        }
        assert!(stream.deadline.is_none());
    }
}
