//! The writing half of a connection: batches of shared frames, many in one system call. Small ones are copied next to each
//! other for it: that costs less than what a system call for many buffers takes longer than one for a single buffer.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::control::Tally;
use crate::frame::Frame;
use crate::session::{Session, Written};

/// Frames are gathered for one write up to this many bytes; a larger one is written by itself, from where it lies.
const GATHERED: usize = 16 * 1024;
/// Bytes that one connection writes before others have their turn.
const TURN: usize = 256 * 1024;
/// Frames for which an idle connection keeps room.
const KEEP: usize = 8;

thread_local! {
    /// Where frames are gathered, one for all connections of a thread. A `Cell`, taken and put back.
    static GATHERING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What the writer came to.
pub(super) enum Step {
    /// All that is queued is written, or it isn't its turn: the session wakes the task when it is, or there is more.
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
            written = ready!(self.poll_write(io, cx))?;
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

    /// Writes as much of the batch's beginning as goes into one system call.
    fn poll_write<S: AsyncWrite + Unpin>(&self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let first = self.batch.front().map_or(&[][..], |frame| &frame.as_bytes()[self.offset..]);
        let second = self.batch.get(1).map_or(usize::MAX, Frame::len);
        if first.len().saturating_add(second) > GATHERED {
            return Pin::new(io).poll_write(cx, first);
        }
        let mut gathered = GATHERING.take();
        gathered.clear();
        gathered.extend_from_slice(first);
        for frame in self.batch.iter().skip(1).map(Frame::as_bytes) {
            if gathered.len() + frame.len() > GATHERED {
                break;
            }
            gathered.extend_from_slice(frame);
        }
        let polled = Pin::new(io).poll_write(cx, &gathered);
        GATHERING.set(gathered);
        polled
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
