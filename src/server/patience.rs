//! How long a peer may take: to send a request's body, and to take what is written to it.

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

/// A request's body that must be whole in time, however it trickles. The time begins when it has to be waited for.
pub(super) struct TimelyBody {
    body: Incoming,
    patience: Duration,
    /// None as long as nobody had to wait.
    end: Option<Pin<Box<Sleep>>>,
}

impl TimelyBody {
    pub fn new(body: Incoming, patience: Duration) -> Self {
        Self {
            body,
            patience,
            end: None,
        }
    }
}

impl Body for TimelyBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let patience = self.patience;
        ready!(
            self.end
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)))
                .as_mut()
                .poll(cx)
        );
        Poll::Ready(Some(Err("the body came too slowly".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that fails when its peer takes nothing for too long of what is to be written. Else whoever asks and never
/// reads the answers keeps the connection, and what it holds.
pub(super) struct Written<S> {
    io: S,
    patience: Duration,
    /// None as long as the peer takes what is written.
    end: Option<Pin<Box<Sleep>>>,
}

impl<S> Written<S> {
    pub fn new(io: S, patience: Duration) -> Self {
        Self {
            io,
            patience,
            end: None,
        }
    }

    fn judge<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.end = None;
            return polled;
        }
        let patience = self.patience;
        ready!(
            self.end
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)))
                .as_mut()
                .poll(cx)
        );
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Link for Written<TcpStream> {
    fn try_write(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        // Who is gone is an error, not a signal: the standard library has SIGPIPE ignored.
        let written = SockRef::from(&self.io).send(bytes);
        if written.is_ok() {
            self.end = None;
        }
        Some(written)
    }
}

impl Link for Written<TlsStream<TcpStream>> {}

/// Sessions are to run on the listener's connections as they are, not on what hyper makes of them.
pub fn carry_sessions(control: &Control) {
    control.register_link::<Written<TcpStream>>();
    control.register_link::<Written<TlsStream<TcpStream>>>();
}

impl<S: AsyncRead + Unpin> AsyncRead for Written<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Written<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.judge(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.judge(polled, cx)
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

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn who_takes_what_is_written_at_once_is_given_time_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        let (mut written, mut far) = (
            Written::new(near.unwrap(), Duration::from_secs(60)),
            far.unwrap().0,
        );
        let bytes = [0; 64 * 1024];
        let would_block =
            |written: &mut Written<TcpStream>| match written.try_write(&bytes).unwrap() {
                Ok(_) => false,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock || panic!("{error}"),
            };
        // Whatever either of them still gets in: in the end it is full.
        let full = std::future::poll_fn(|cx| {
            loop {
                if would_block(&mut written)
                    && Pin::new(&mut written)
                        .poll_write(cx, &bytes)
                        .map(Result::unwrap)
                        .is_pending()
                {
                    return Poll::Ready(());
                }
            }
        });
        full.await;
        assert!(written.end.is_some(), "its time runs");
        let mut taken = vec![0; 64 * 1024];
        while would_block(&mut written) {
            assert!(
                tokio::time::timeout(SOON, far.read(&mut taken))
                    .await
                    .unwrap()
                    .unwrap()
                    > 0
            );
        }
        assert!(written.end.is_none());
    }
}
