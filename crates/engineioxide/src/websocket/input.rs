//! The reading half of a connection: decodes messages and passes each on for processing.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::codec::{Message, Violation};
use super::connection::{Connection, End};
use super::link::Link;
use crate::control::AtomicCounters;

/// The most bytes of one read.
const READ_BYTES: usize = 16 * 1024;
/// Reads of one slice, after which other tasks run.
const READS_PER_SLICE: usize = 8;
/// Messages of one slice, after which other tasks run. Reads alone do not bound a slice: one may
/// bring thousands of messages, each of which is answered before the next is processed.
const MESSAGES_PER_SLICE: usize = 128;

thread_local! {
    /// One read buffer for all connections of a thread. Between reads a connection keeps only the
    /// part of a message that has arrived. The buffer is a `Cell` that is taken and put back, so
    /// that a handler that reads another connection on its stack finds the cell empty and allocates
    /// a buffer of its own.
    static READ_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The reason why reading stops.
pub(super) enum ReadStop {
    End(End),
    /// The slice is used up; there may be more input.
    Yield,
}

impl<S: Link> Connection<S> {
    /// Reads, and calls `process` for each message until it returns an error. Input that was read
    /// behind the last processed message is kept in `unprocessed`.
    pub(super) fn poll_input(
        &mut self,
        cx: &mut Context<'_>,
        mut process: impl FnMut(&mut Self, Message) -> Result<(), End>,
    ) -> Poll<io::Result<ReadStop>> {
        let mut messages_left = MESSAGES_PER_SLICE;
        if !self.unprocessed.is_empty() {
            let input = std::mem::take(&mut self.unprocessed);
            if let Err(stop) = self.process_input(&input, &mut messages_left, &mut process) {
                return Poll::Ready(Ok(stop));
            }
        }
        for _ in 0..READS_PER_SLICE {
            let mut bytes = READ_BUFFER.take();
            bytes.resize(READ_BYTES, 0);
            let mut buffer = ReadBuf::new(&mut bytes);
            let polled = Pin::new(&mut self.io).poll_read(cx, &mut buffer);
            let filled = buffer.filled().len();
            let processed = match &polled {
                Poll::Ready(Ok(())) => {
                    self.process_input(&bytes[..filled], &mut messages_left, &mut process)
                }
                _ => Ok(()),
            };
            READ_BUFFER.set(bytes);
            ready!(polled)?;
            AtomicCounters::add(&self.session.control.0.counters.bytes_in, filled);
            match processed {
                Err(stop) => return Poll::Ready(Ok(stop)),
                Ok(()) if filled == 0 => return Poll::Ready(Ok(ReadStop::End(End::Lost))),
                Ok(()) => {}
            }
        }
        Poll::Ready(Ok(ReadStop::Yield))
    }

    /// Processes at most `messages_left` messages, and counts them down. Input behind them is kept
    /// in `unprocessed`.
    fn process_input(
        &mut self,
        mut input: &[u8],
        messages_left: &mut usize,
        process: &mut impl FnMut(&mut Self, Message) -> Result<(), End>,
    ) -> Result<(), ReadStop> {
        let limit = self.session.config.payload_limit();
        loop {
            if *messages_left == 0 {
                self.unprocessed = input.to_vec();
                return Err(ReadStop::Yield);
            }
            match self.decoder.next(&mut input, limit) {
                Ok(None) => return Ok(()),
                Ok(Some(message)) => {
                    *messages_left -= 1;
                    if let Err(end) = process(self, message) {
                        self.unprocessed = input.to_vec();
                        return Err(ReadStop::End(end));
                    }
                }
                Err(Violation(code)) => return Err(ReadStop::End(End::SendClose(code))),
            }
        }
    }
}
