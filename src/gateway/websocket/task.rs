//! The WebSocket of one plain client: one task that reads, writes and keeps time, and never waits for one of them while
//! another could go on.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use engineioxide::{Str, yield_slice};
use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, Sleep};

use super::Counters;
use super::end::End;
use super::outbox::{Outbox, Task};
use crate::gateway::connections::{Arrived, Connection};
use crate::gateway::wire::{is_ping, pong};

/// Messages of one client before others have their turn.
const TURN: usize = 128;
/// How much is written at once, in bytes, or one frame if that is more.
pub(super) const BATCH: usize = 16 * 1024;
/// For each so many bytes the client has the whole time that a write may take.
const STRIDE: usize = 64 * 1024;
/// How long a client may take to take the close frame, and then to answer it.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Of silence before it is pinged.
    pub ping: Duration,
    /// Of silence before it is closed.
    pub idle: Duration,
    /// Without taking what is written.
    pub write: Duration,
}

pub(super) struct Transport {
    socket: WebSocket,
    connection: Arc<Connection>,
    outbox: Arc<Outbox>,
    counters: Arc<Counters>,
    patience: Patience,
    /// When something last came.
    heard: Instant,
    /// When the client is pinged next, unless something comes.
    ping_at: Instant,
    ping_due: bool,
    /// What is being written: so many bytes of the outbox, until then.
    writing: Option<(usize, Instant)>,
    timer: Pin<Box<Sleep>>,
}

impl Transport {
    pub fn new(
        socket: WebSocket,
        connection: Arc<Connection>,
        outbox: Arc<Outbox>,
        counters: Arc<Counters>,
        patience: Patience,
    ) -> Self {
        let now = Instant::now();
        let ping_at = now + patience.ping;
        let timer = Box::pin(tokio::time::sleep_until(ping_at));
        Self {
            socket,
            connection,
            outbox,
            counters,
            patience,
            heard: now,
            ping_at,
            ping_due: false,
            writing: None,
            timer,
        }
    }

    /// Carries messages both ways until the connection ends. `None`: the client has ended it, or its transport broke.
    pub async fn carry(&mut self) -> Option<End> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        self.outbox.register(cx.waker());
        if let Poll::Ready(end) = self.poll_read(cx) {
            return Poll::Ready(end);
        }
        loop {
            if let Poll::Ready(end) = self.poll_write(cx) {
                return Poll::Ready(end);
            }
            self.outbox.wake_waiting();
            match self.poll_time(cx) {
                Poll::Ready(Some(end)) => return Poll::Ready(Some(end)),
                // It is time to ping.
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        for _ in 0..TURN {
            let message = match self.socket.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(End::of(error)),
                Poll::Ready(Some(Ok(message))) => message,
            };
            self.heard = Instant::now();
            self.counters.messages_in.add(1);
            match message {
                Message::Text(text) => self.take(&text),
                Message::Binary(_) => return Poll::Ready(Some(End::Binary)),
                // Whoever sends nothing else, and much of it, is rated too.
                Message::Ping(data) => {
                    self.connection.spend_aside("ping", data.len());
                    // The answer is the library's; it has to be taken in time like anything else.
                    self.writing
                        .get_or_insert((0, self.heard + self.patience.write));
                }
                Message::Pong(data) => {
                    self.connection.spend_aside("pong", data.len());
                }
                Message::Close(_) => return Poll::Ready(None),
            }
        }
        yield_slice(cx);
        Poll::Pending
    }

    fn take(&self, text: &Utf8Bytes) {
        self.counters.bytes_in.add(text.len() as u64);
        if is_ping(text) {
            // Before whatever waits in the inbox: it asks whether anyone is there.
            if self.connection.spend_aside("ping", text.len()) {
                self.outbox.send(Utf8Bytes::from_static(pong()));
            }
        } else {
            // A copy, so that what waits doesn't hold the buffer that it was read into.
            self.connection
                .receive(Arrived::new(Str::copy_from_slice(text), 0));
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        loop {
            if let Some((bytes, _)) = self.writing {
                match self.socket.poll_flush_unpin(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(None),
                    Poll::Ready(Ok(())) => {
                        self.outbox.written(bytes);
                        self.writing = None;
                    }
                }
            }
            // A ping doesn't wait until there is nothing else to write: who reads slowly must be asked, too.
            let (frames, bytes) = if std::mem::take(&mut self.ping_due) {
                (vec![Message::Ping(Default::default())], 0)
            } else if self.outbox.is_in_line() && self.outbox.ending().is_none() {
                return Poll::Pending;
            } else {
                match self.outbox.next(BATCH) {
                    Task::Write(frames, bytes) => {
                        (frames.into_iter().map(Message::Text).collect(), bytes)
                    }
                    Task::End(end) => return Poll::Ready(Some(end)),
                    Task::Nothing => return Poll::Pending,
                }
            };
            self.counters.messages_out.add(frames.len() as u64);
            self.counters.bytes_out.add(bytes as u64);
            for frame in frames {
                if let Err(error) = self.socket.start_send_unpin(frame) {
                    return Poll::Ready(End::of(error));
                }
            }
            let strides = u32::try_from(bytes / STRIDE)
                .unwrap_or(u32::MAX)
                .saturating_add(1);
            let until = Instant::now().checked_add(self.patience.write.saturating_mul(strides));
            self.writing = Some((
                bytes,
                until.unwrap_or_else(|| self.heard + self.patience.write),
            ));
        }
    }

    /// Ready when something is overdue: an end, or (`None`) a ping.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        loop {
            let now = Instant::now();
            if let Some((_, until)) = self.writing
                && now >= until
            {
                return Poll::Ready(Some(End::Slow));
            }
            let ending = self.outbox.ending();
            if let Some((end, until)) = ending
                && now >= until
            {
                return Poll::Ready(Some(end));
            }
            if now >= self.heard + self.patience.idle {
                return Poll::Ready(Some(End::Idle));
            }
            if now >= self.ping_at {
                // Whoever said something meanwhile needs no ping yet.
                let quiet = now >= self.heard + self.patience.ping;
                self.ping_at = if quiet { now } else { self.heard } + self.patience.ping;
                if quiet {
                    self.ping_due = true;
                    // What is being written comes first, and has its own time.
                    if self.writing.is_none() {
                        return Poll::Ready(None);
                    }
                }
            }
            let mut due = self.ping_at.min(self.heard + self.patience.idle);
            due = self.writing.map_or(due, |(_, until)| due.min(until));
            due = ending.map_or(due, |(_, until)| due.min(until));
            // It may fire early, and then be set anew: so what comes needn't move it.
            if self.timer.deadline() > due {
                self.timer.as_mut().reset(due);
            }
            match self.timer.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => self.timer.as_mut().reset(due),
            }
        }
    }

    /// Tells the client why, and waits a moment for its answer.
    pub async fn finish(mut self, end: Option<End>) {
        let Some(end) = end else {
            // What answers the client's own close frame.
            let _ = tokio::time::timeout(FAREWELL, SinkExt::close(&mut self.socket)).await;
            return;
        };
        let close = Message::Close(Some(end.frame()));
        if !matches!(
            tokio::time::timeout(FAREWELL, self.socket.send(close)).await,
            Ok(Ok(()))
        ) {
            return;
        }
        let answered = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let waited = Instant::now() + FAREWELL;
        let _ = tokio::time::timeout_at(waited, answered).await;
        if matches!(end, End::Protocol | End::NotText | End::TooLarge) {
            // Nothing more can be read. With the rest unread, an end now would take the close frame from the client.
            tokio::time::sleep_until(waited).await;
        }
    }
}
