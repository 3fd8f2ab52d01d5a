//! The writing half of a connection: batches of shared frames, many in one system call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::control::Tally;
use crate::frame::Frame;
use crate::session::{Session, Written};

/// Frames in one write.
const SLICES: usize = 64;
/// Bytes that one connection writes before others have their turn.
const TURN: usize = 256 * 1024;
/// Frames for which an idle connection keeps room.
const KEEP: usize = 8;

/// What the writer came to.
pub(super) enum Step {
    /// All that is queued is written; the session wakes the task when there is more.
    Idle,
    /// Its turn is over; it wants another.
    Yield,
    /// The session is closed.
    Closed,
}

#[derive(Default)]
pub(super) struct Output {
    batch: VecDeque<Frame>,
    /// Bytes of the batch's first frame that are written.
    offset: usize,
    /// Bytes written since the session was last told.
    unreported: usize,
    /// Written, but perhaps not yet handed on by the stream.
    unflushed: bool,
}

impl Output {
    /// Writes what the session has queued. Pending: the peer makes us wait, and a close of the
    /// session wakes the task.
    pub(super) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        session: &Arc<Session>,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Step>> {
        let mut turn = 0;
        loop {
            match self.poll_batch(session, io, cx) {
                Poll::Ready(Ok(written)) => turn += written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let unreported = std::mem::take(&mut self.unreported);
                    if session.blocked(unreported, cx) {
                        return Poll::Pending;
                    }
                    return Poll::Ready(Ok(Step::Closed));
                }
            }
            if turn >= TURN {
                session.progressed(std::mem::take(&mut self.unreported));
                return Poll::Ready(Ok(Step::Yield));
            }
            if !self.batch.is_empty() {
                continue;
            }
            if self.batch.capacity() > KEEP {
                self.batch = VecDeque::new();
            }
            let written = std::mem::take(&mut self.unreported);
            match session.next_batch(written, &mut self.batch, cx) {
                Written::More => {
                    Tally::add(&session.control.0.counters.packets_out, self.batch.len());
                }
                Written::Idle => return Poll::Ready(Ok(Step::Idle)),
                Written::Closed => return Poll::Ready(Ok(Step::Closed)),
            }
        }
    }

    /// One write of the batch, and the flush when it was the last.
    fn poll_batch<S: AsyncWrite + Unpin>(
        &mut self,
        session: &Arc<Session>,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut written = 0;
        if !self.batch.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(&self.batch) {
                let skip = if count == 0 { self.offset } else { 0 };
                *slice = IoSlice::new(&frame.as_bytes()[skip..]);
                count += 1;
            }
            written = match &slices[..count] {
                [one] => ready!(Pin::new(&mut *io).poll_write(cx, one))?,
                many => ready!(Pin::new(&mut *io).poll_write_vectored(cx, many))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
            self.unreported += written;
            self.unflushed = true;
            Tally::add(&session.control.0.counters.bytes_out, written);
        }
        if self.batch.is_empty() && self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.batch.front() {
            let left = first.len() - self.offset;
            if written < left {
                self.offset += written;
                return;
            }
            written -= left;
            self.offset = 0;
            self.batch.pop_front();
        }
    }

    /// Whether a frame has been begun and not ended: nothing else may be sent then.
    pub(super) fn is_mid_frame(&self) -> bool {
        self.offset > 0
    }
}
