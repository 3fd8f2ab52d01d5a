//! A connection's stream and its output, shared by the connection's task and the write scheduler.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::Link;
use super::output::{Output, WriteStep};
use crate::session::{CloseMode, DirectWriter, Session};
use crate::socket::DisconnectReason;

/// The stream as the connection's task uses it. Cheap to clone: all clones are one stream.
pub(super) struct Stream<S>(Arc<Mutex<Shared<S>>>);

struct Shared<S> {
    io: S,
    output: Output,
    /// Set from the task's first poll of the output until its end. Without it the write scheduler
    /// does not write.
    task: Option<Waker>,
    /// The error of a write by the scheduler, on which the task ends.
    failed: Option<io::Error>,
}

impl<S: Link> Stream<S> {
    pub(super) fn new(io: S) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            io,
            output: Output::default(),
            task: None,
            failed: None,
        })))
    }

    /// For the connection's task: as [`Output::poll`]. From the first call on the write scheduler
    /// writes the stream, too, in the session's slices.
    pub(super) fn poll_output(
        &self,
        session: &Arc<Session>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<WriteStep>> {
        let mut shared = self.0.lock();
        let Shared {
            io,
            output,
            task,
            failed,
        } = &mut *shared;
        if let Some(error) = failed.take() {
            return Poll::Ready(Err(error));
        }
        match task {
            Some(known) => known.clone_from(cx.waker()),
            none => {
                *none = Some(cx.waker().clone());
                session.set_direct_writer(self.0.clone());
            }
        }
        output.poll(session, io, cx)
    }

    /// For the connection's task at its end: the write scheduler writes no more. Returns whether
    /// the output ends between two frames.
    pub(super) fn release(&self) -> bool {
        let mut shared = self.0.lock();
        shared.task = None;
        !shared.output.is_mid_frame()
    }
}

impl<S: Link> DirectWriter for Mutex<Shared<S>> {
    fn write(&self, session: &Arc<Session>) -> bool {
        // If the stream is locked, the holder of the lock is writing the output or reading.
        let Some(mut shared) = self.try_lock() else {
            return false;
        };
        let Shared {
            io,
            output,
            task: Some(task),
            failed,
        } = &mut *shared
        else {
            return true;
        };
        let poll = || output.poll(session, io, &mut Context::from_waker(task));
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending | Poll::Ready(Ok(WriteStep::Idle))) => true,
            Ok(Poll::Ready(Ok(WriteStep::Yield | WriteStep::Closed))) => false,
            Ok(Poll::Ready(Err(error))) => {
                *failed = Some(error);
                false
            }
            // A callback of `when_below` panicked. Its session is closed, and the scheduler
            // continues with the next slice.
            Err(_) => {
                #[cfg(feature = "tracing")]
                tracing::error!(
                    sid = %session.id,
                    "a callback that waited for outbox capacity panicked; the session is closed"
                );
                session.close(DisconnectReason::TransportError, CloseMode::Abort);
                true
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.lock().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
