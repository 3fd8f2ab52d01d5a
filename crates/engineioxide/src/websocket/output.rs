//! The writing half of a connection: batches of shared frames, many in one system call. Small ones are copied next to each
//! other for it: that costs less than what a system call for many buffers takes longer than one for a single buffer.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::link::Link;
use crate::control::Tally;
use crate::frame::Frame;
use crate::session::{Queue, Session, Written};

/// Frames are gathered for one write up to this many bytes; a larger one is written by itself, from where it lies.
const GATHERED: usize = 16 * 1024;
/// Bytes that one connection writes before others have their turn.
const TURN: usize = 256 * 1024;
/// Writes that it makes before, however small they are.
const WRITES: usize = 128;

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
    /// Taken from the session, and not, or not yet, by the stream.
    rest: VecDeque<Frame>,
    /// Bytes of its first frame that are written.
    offset: usize,
    /// Bytes written since the session was last told.
    unreported: usize,
    /// Written, but perhaps not yet handed on by the stream.
    unflushed: bool,
}

impl Output {
    /// Writes what the session has queued. Pending: the peer makes us wait, and a close of the
    /// session wakes the task.
    pub(super) fn poll<L: Link>(
        &mut self,
        session: &Arc<Session>,
        io: &mut L,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Step>> {
        let mut turn = 0;
        loop {
            match self.poll_rest(session, io, cx) {
                Poll::Ready(written) => turn += written?,
                Poll::Pending => return self.wait(session, cx),
            }
            if turn >= TURN {
                session.progressed(std::mem::take(&mut self.unreported));
                return Poll::Ready(Ok(Step::Yield));
            }
            if !self.rest.is_empty() {
                continue;
            }
            let (mut fresh, written) = (Queue::new(), std::mem::take(&mut self.unreported));
            match session.next_batch(written, &mut fresh, cx) {
                Written::More => {
                    Tally::add(&session.control.0.counters.packets_out, fresh.len());
                    match self.poll_fresh(fresh, session, io, cx) {
                        Poll::Ready(written) => turn += written?,
                        Poll::Pending => return self.wait(session, cx),
                    }
                }
                Written::Idle => return Poll::Ready(Ok(Step::Idle)),
                Written::Closed => return Poll::Ready(Ok(Step::Closed)),
            }
        }
    }

    /// The peer takes nothing now.
    fn wait(&mut self, session: &Arc<Session>, cx: &Context<'_>) -> Poll<io::Result<Step>> {
        let unreported = std::mem::take(&mut self.unreported);
        if session.blocked(unreported, cx) {
            Poll::Pending
        } else {
            Poll::Ready(Ok(Step::Closed))
        }
    }

    /// Offers the stream what was just taken from the session, unless it is much; what isn't taken of it is kept. Mostly all
    /// is. How much of the turn that was.
    fn poll_fresh<L: Link>(
        &mut self,
        fresh: Queue,
        session: &Session,
        io: &mut L,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let all = fresh.iter().map(Frame::len).sum();
        let polled = if all > GATHERED {
            Poll::Ready(Ok(0))
        } else {
            let offer = |bytes: &[u8]| match io.write_now(bytes) {
                Some(Ok(written)) => Poll::Ready(Ok(written)),
                // `poll_write` has the task woken when there is room, and says what is wrong.
                Some(Err(_)) | None => Pin::new(io).poll_write(cx, bytes),
            };
            gathered(fresh.iter().map(Frame::as_bytes), offer)
                .map(|written| self.wrote(session, written?))
        };
        let written = if let Poll::Ready(written) = &polled {
            *written.as_ref().unwrap_or(&0)
        } else {
            0
        };
        if written < all {
            self.rest = fresh.into_vec().into();
            self.advance(written);
        }
        polled.map_ok(share)
    }

    /// One write of the rest, and the flush when nothing is left. How much of the turn that was.
    fn poll_rest<L: Link>(
        &mut self,
        session: &Session,
        io: &mut L,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut written = 0;
        if !self.rest.is_empty() {
            let polled = ready!(self.poll_write(io, cx))?;
            written = self.wrote(session, polled)?;
            self.advance(written);
        }
        if self.rest.is_empty() && self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(share(written)))
    }

    /// Counts what was written.
    fn wrote(&mut self, session: &Session, bytes: usize) -> io::Result<usize> {
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.unreported += bytes;
        self.unflushed = true;
        Tally::add(&session.control.0.counters.bytes_out, bytes);
        Ok(bytes)
    }

    /// Writes as much of the rest's beginning as goes into one system call.
    fn poll_write<L: Link>(&self, io: &mut L, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let first = self
            .rest
            .front()
            .map_or(&[][..], |frame| &frame.as_bytes()[self.offset..]);
        let second = self.rest.get(1).map_or(usize::MAX, Frame::len);
        if first.len().saturating_add(second) > GATHERED {
            return Pin::new(io).poll_write(cx, first);
        }
        let frames = std::iter::once(first).chain(self.rest.iter().skip(1).map(Frame::as_bytes));
        gathered(frames, |bytes| Pin::new(io).poll_write(cx, bytes))
    }

    /// So many bytes of the rest are written. What is written is let go: an idle connection keeps no memory for it.
    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.rest.front() {
            let left = first.len() - self.offset;
            if written < left {
                self.offset += written;
                return;
            }
            written -= left;
            self.offset = 0;
            self.rest.pop_front();
        }
        self.rest = VecDeque::new();
    }

    /// Whether a frame has been begun and not ended: nothing else may be sent then.
    pub(super) fn is_mid_frame(&self) -> bool {
        self.offset > 0
    }
}

/// What is written takes so much of a turn: many small writes end it, too.
fn share(written: usize) -> usize {
    if written == 0 {
        0
    } else {
        written.max(TURN / WRITES)
    }
}

/// Has the frames written that are next to each other, up to [`GATHERED`] bytes of them.
fn gathered<'a, T>(frames: impl Iterator<Item = &'a [u8]>, write: impl FnOnce(&[u8]) -> T) -> T {
    let mut bytes = GATHERING.take();
    bytes.clear();
    for frame in frames {
        if bytes.len() + frame.len() > GATHERED {
            break;
        }
        bytes.extend_from_slice(frame);
    }
    let written = write(&bytes);
    GATHERING.set(bytes);
    written
}
