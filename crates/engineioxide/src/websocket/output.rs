//! The writing half of a connection: batches of shared frames, many of them in one system call.
//! Small frames are copied next to each other for that. The copy costs less than the difference
//! between a system call for many buffers and one for a single buffer.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::link::Link;
use crate::control::AtomicCounters;
use crate::frame::Frame;
use crate::session::{NextBatch, Queue, Session};

/// Frames are copied together for one write up to this many bytes. A larger frame is written alone
/// and without a copy.
const COALESCED_BYTES: usize = 16 * 1024;
/// Bytes of one slice, after which other connections write.
const BYTES_PER_SLICE: usize = 256 * 1024;
/// Writes of one slice, of any size, after which other connections write.
const WRITES_PER_SLICE: usize = 128;

thread_local! {
    /// The buffer in which frames are copied together: one for all connections of a thread. A
    /// `Cell` that is taken and put back.
    static COALESCE_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The state of the output after it was polled.
pub(super) enum WriteStep {
    /// All queued frames are written, or the session waits for its slice. The session wakes the
    /// task for its slice or for more output.
    Idle,
    /// The slice is used up; the task must ask for another one.
    Yield,
    /// The session is closed.
    Closed,
}

#[derive(Default)]
pub(super) struct Output {
    /// Frames taken from the session that the stream has not fully accepted.
    pending: VecDeque<Frame>,
    /// Bytes of the first pending frame that are written.
    offset: usize,
    /// Bytes written since the last report to the session.
    unreported: usize,
    /// Bytes were written that the stream may have buffered.
    unflushed: bool,
}

impl Output {
    /// Writes the frames that the session has queued. `Pending`: the peer does not accept more data
    /// at the moment; a close of the session wakes the task.
    pub(super) fn poll<L: Link>(
        &mut self,
        session: &Arc<Session>,
        io: &mut L,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<WriteStep>> {
        let mut used = 0;
        loop {
            match self.poll_pending(session, io, cx) {
                Poll::Ready(cost) => used += cost?,
                Poll::Pending => return self.report_blocked(session, cx),
            }
            if used >= BYTES_PER_SLICE {
                session.record_progress(std::mem::take(&mut self.unreported));
                return Poll::Ready(Ok(WriteStep::Yield));
            }
            if !self.pending.is_empty() {
                continue;
            }
            let mut batch = Queue::new();
            let written = std::mem::take(&mut self.unreported);
            match session.next_batch(written, &mut batch, cx) {
                NextBatch::Frames => {
                    AtomicCounters::add(&session.control.0.counters.packets_out, batch.len());
                    match self.poll_batch(batch, session, io, cx) {
                        Poll::Ready(cost) => used += cost?,
                        Poll::Pending => return self.report_blocked(session, cx),
                    }
                }
                NextBatch::Idle => return Poll::Ready(Ok(WriteStep::Idle)),
                NextBatch::Closed => return Poll::Ready(Ok(WriteStep::Closed)),
            }
        }
    }

    /// The peer does not accept more data at the moment.
    fn report_blocked(
        &mut self,
        session: &Arc<Session>,
        cx: &Context<'_>,
    ) -> Poll<io::Result<WriteStep>> {
        let unreported = std::mem::take(&mut self.unreported);
        if session.record_blocked(unreported, cx) {
            Poll::Pending
        } else {
            Poll::Ready(Ok(WriteStep::Closed))
        }
    }

    /// Offers the stream a batch that was just taken from the session, unless it is too large to
    /// be coalesced, and keeps the frames that are not accepted. In most cases all are. Returns the
    /// part of the slice that this used.
    fn poll_batch<L: Link>(
        &mut self,
        batch: Queue,
        session: &Session,
        io: &mut L,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let total = batch.iter().map(Frame::len).sum();
        let polled = if total > COALESCED_BYTES {
            Poll::Ready(Ok(0))
        } else {
            let write = |bytes: &[u8]| match io.try_write(bytes) {
                Some(Ok(written)) => Poll::Ready(Ok(written)),
                // `poll_write` registers the task to be woken, and reports any real error.
                Some(Err(_)) | None => Pin::new(io).poll_write(cx, bytes),
            };
            write_coalesced(batch.iter().map(Frame::as_bytes), write)
                .map(|written| self.record_written(session, written?))
        };
        let written = match &polled {
            Poll::Ready(Ok(written)) => *written,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        if written < total {
            self.pending = batch.into_vec().into();
            self.advance(written);
        }
        polled.map_ok(slice_cost)
    }

    /// Writes pending frames once, and flushes when none are left. Returns the part of the slice
    /// that this used.
    fn poll_pending<L: Link>(
        &mut self,
        session: &Session,
        io: &mut L,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut written = 0;
        if !self.pending.is_empty() {
            let polled = ready!(self.poll_write(io, cx))?;
            written = self.record_written(session, polled)?;
            self.advance(written);
        }
        if self.pending.is_empty() && self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(slice_cost(written)))
    }

    /// Counts written bytes.
    fn record_written(&mut self, session: &Session, bytes: usize) -> io::Result<usize> {
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.unreported += bytes;
        self.unflushed = true;
        AtomicCounters::add(&session.control.0.counters.bytes_out, bytes);
        Ok(bytes)
    }

    /// Writes as many pending frames as fit into one system call.
    fn poll_write<L: Link>(&self, io: &mut L, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let first = self
            .pending
            .front()
            .map_or(&[][..], |frame| &frame.as_bytes()[self.offset..]);
        let second = self.pending.get(1).map_or(usize::MAX, Frame::len);
        if first.len().saturating_add(second) > COALESCED_BYTES {
            return Pin::new(io).poll_write(cx, first);
        }
        let frames = std::iter::once(first).chain(self.pending.iter().skip(1).map(Frame::as_bytes));
        write_coalesced(frames, |bytes| Pin::new(io).poll_write(cx, bytes))
    }

    /// Removes `written` bytes from the front of the pending frames. When none are left, their
    /// memory is released, so that an idle connection keeps none.
    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.pending.front() {
            let left = first.len() - self.offset;
            if written < left {
                self.offset += written;
                return;
            }
            written -= left;
            self.offset = 0;
            self.pending.pop_front();
        }
        self.pending = VecDeque::new();
    }

    /// Whether a frame is partly written. No other frame may be sent then.
    pub(super) fn is_mid_frame(&self) -> bool {
        self.offset > 0
    }
}

/// The part of a slice that a write uses. It has a minimum, so that many small writes end a slice,
/// too.
fn slice_cost(written: usize) -> usize {
    if written == 0 {
        0
    } else {
        written.max(BYTES_PER_SLICE / WRITES_PER_SLICE)
    }
}

/// Copies frames together, up to [`COALESCED_BYTES`], and passes them to `write`.
fn write_coalesced<'a, T>(
    frames: impl Iterator<Item = &'a [u8]>,
    write: impl FnOnce(&[u8]) -> T,
) -> T {
    let mut bytes = COALESCE_BUFFER.take();
    bytes.clear();
    for frame in frames {
        if bytes.len() + frame.len() > COALESCED_BYTES {
            break;
        }
        bytes.extend_from_slice(frame);
    }
    let written = write(&bytes);
    COALESCE_BUFFER.set(bytes);
    written
}
