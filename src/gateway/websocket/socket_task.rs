//! The WebSocket of one plain client. One task reads, writes and keeps time, and none of the three
//! waits for another.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use engineioxide::{PauseMonitor, Str, yield_slice};
use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, Sleep};

use super::Counters;
use super::close_status::CloseStatus;
use super::outbox::{NextStep, Outbox};
use crate::gateway::connections::{Connection, EventText};
use crate::gateway::wire::{is_ping, json_text, pong};

/// Messages of one client that are read before other tasks run.
const MESSAGES_PER_SLICE: usize = 128;
/// The bytes written at once; a single frame may be larger.
pub(super) const WRITE_BATCH_BYTES: usize = 16 * 1024;
/// The client has the whole write timeout for each of so many bytes.
const WRITE_TIMEOUT_BYTES: usize = 64 * 1024;
/// How long a client may take to read the close frame, and then to answer it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// Silence before the client is pinged.
    pub ping: Duration,
    /// Silence before the connection is closed.
    pub idle: Duration,
    /// The time that the client has to read each write.
    pub write: Duration,
}

/// A write that is under way.
#[derive(Clone, Copy)]
struct Write {
    /// Its share of the outbox.
    bytes: usize,
    /// The connection is closed if the write takes longer.
    until: Instant,
}

/// The action of a timer.
enum Due {
    Ping,
    Close(CloseStatus),
}

pub(super) struct SocketTask {
    socket: WebSocket,
    connection: Arc<Connection>,
    outbox: Arc<Outbox>,
    counters: Arc<Counters>,
    timeouts: Timeouts,
    pauses: PauseMonitor,
    /// When the last message came. After a pause of this process: a later time, see
    /// [`Self::extend_deadlines`].
    last_received: Instant,
    /// When the client is pinged, unless a message comes before.
    ping_at: Instant,
    is_ping_due: bool,
    /// Whether the idle time was extended since the last message, see [`Self::extend_deadlines`].
    is_idle_extended: bool,
    /// Whether the deadline of `write` was extended.
    is_write_extended: bool,
    write: Option<Write>,
    timer: Pin<Box<Sleep>>,
}

impl SocketTask {
    pub fn new(
        socket: WebSocket,
        connection: Arc<Connection>,
        outbox: Arc<Outbox>,
        counters: Arc<Counters>,
        timeouts: Timeouts,
        pauses: PauseMonitor,
    ) -> Self {
        let now = Instant::now();
        let ping_at = now + timeouts.ping;
        Self {
            socket,
            connection,
            outbox,
            counters,
            timeouts,
            pauses,
            last_received: now,
            ping_at,
            is_ping_due: false,
            is_idle_extended: false,
            is_write_extended: false,
            write: None,
            timer: Box::pin(tokio::time::sleep_until(ping_at)),
        }
    }

    /// Carries messages in both directions until the connection ends. Returns `None` if the client
    /// has closed it or the transport broke.
    pub async fn run(&mut self) -> Option<CloseStatus> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<CloseStatus>> {
        self.outbox.register(cx.waker());
        if let Poll::Ready(status) = self.poll_read(cx) {
            return Poll::Ready(status);
        }
        loop {
            if let Poll::Ready(status) = self.poll_write(cx) {
                return Poll::Ready(status);
            }
            self.outbox.notify_waiters();
            match self.poll_timers(cx) {
                Poll::Ready(Due::Close(status)) => return Poll::Ready(Some(status)),
                Poll::Ready(Due::Ping) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<CloseStatus>> {
        for _ in 0..MESSAGES_PER_SLICE {
            let message = match self.socket.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(CloseStatus::of_error(error));
                }
                Poll::Ready(Some(Ok(message))) => message,
            };
            self.last_received = Instant::now();
            self.is_idle_extended = false;
            self.counters.messages_in.add(1);
            match message {
                Message::Text(text) => self.receive_text(&text),
                Message::Binary(data) => match json_text(&data) {
                    Some(text) => self.receive_text(text),
                    None => return Poll::Ready(Some(CloseStatus::Binary)),
                },
                // Pings and pongs count in the client's rates, too.
                Message::Ping(data) => {
                    self.connection.charge_control_frame("ping", data.len());
                    // The library writes the pong. The client has to read it in time, too.
                    let until = self.last_received + self.timeouts.write;
                    self.write.get_or_insert(Write { bytes: 0, until });
                }
                Message::Pong(data) => {
                    self.connection.charge_control_frame("pong", data.len());
                }
                Message::Close(_) => return Poll::Ready(None),
            }
        }
        yield_slice(cx);
        Poll::Pending
    }

    fn receive_text(&self, text: &str) {
        self.counters.bytes_in.add(text.len() as u64);
        if is_ping(text) {
            // Answered before the events in the inbox: it asks whether the server still responds.
            if self.connection.charge_control_frame("ping", text.len()) {
                self.outbox.send(Utf8Bytes::from_static(pong()));
            }
        } else {
            // A copy, so that an event in the inbox does not keep the read buffer alive.
            self.connection
                .receive(EventText::new(Str::copy_from_slice(text), 0));
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Option<CloseStatus>> {
        loop {
            if let Some(write) = self.write {
                match self.socket.poll_flush_unpin(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(None),
                    Poll::Ready(Ok(())) => {
                        self.outbox.written(write.bytes);
                        self.write = None;
                        self.is_write_extended = false;
                    }
                }
            }
            // A ping does not wait until the outbox is empty: a client that reads slowly must be
            // pinged, too.
            let (frames, bytes) = if std::mem::take(&mut self.is_ping_due) {
                (vec![Message::Ping(Default::default())], 0)
            } else if self.outbox.is_scheduled() && self.outbox.closing().is_none() {
                return Poll::Pending;
            } else {
                match self.outbox.next(WRITE_BATCH_BYTES) {
                    NextStep::Write(frames, bytes) => {
                        (frames.into_iter().map(Message::Text).collect(), bytes)
                    }
                    NextStep::Close(status) => return Poll::Ready(Some(status)),
                    NextStep::Wait => return Poll::Pending,
                }
            };
            self.counters.messages_out.add(frames.len() as u64);
            self.counters.bytes_out.add(bytes as u64);
            for frame in frames {
                if let Err(error) = self.socket.start_send_unpin(frame) {
                    return Poll::Ready(CloseStatus::of_error(error));
                }
            }
            self.write = Some(Write {
                bytes,
                until: self.write_deadline(bytes),
            });
        }
    }

    /// When a write of that size has to be done: the write timeout for each started 64 KiB.
    fn write_deadline(&self, bytes: usize) -> Instant {
        let timeouts = u32::try_from(bytes / WRITE_TIMEOUT_BYTES)
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        Instant::now()
            .checked_add(self.timeouts.write.saturating_mul(timeouts))
            .unwrap_or_else(|| self.last_received + self.timeouts.write)
    }

    /// Ready when something is due.
    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        loop {
            let now = Instant::now();
            let closing = self.outbox.closing();
            self.extend_deadlines(now);
            if let Some(status) = self.overdue(now, closing) {
                return Poll::Ready(Due::Close(status));
            }
            if now >= self.ping_at {
                let must_ping = self.reschedule_ping(now);
                if must_ping {
                    self.is_ping_due = true;
                }
                // A write that is under way comes first, and has its own deadline.
                if must_ping && self.write.is_none() {
                    return Poll::Ready(Due::Ping);
                }
            }
            let next_due = self.next_due(closing);
            // The timer may fire early and is then set again. So a received message, which moves
            // deadlines back, need not set it.
            if self.timer.deadline() > next_due {
                self.timer.as_mut().reset(next_due);
            }
            match self.timer.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => self.timer.as_mut().reset(next_due),
            }
        }
    }

    /// Extends a deadline that passed while this process was paused. The time of a write is extended
    /// once for each write. The idle time is extended once until the next message: by the time
    /// between a ping and its end, and with a ping. More extensions would let repeated short pauses
    /// keep a dead client open.
    fn extend_deadlines(&mut self, now: Instant) {
        let is_idle = now >= self.last_received + self.timeouts.idle && !self.is_idle_extended;
        let is_blocked =
            self.write.is_some_and(|write| now >= write.until) && !self.is_write_extended;
        if !is_idle && !is_blocked {
            return;
        }
        let Some(resumed_at) = self.pauses.resumed_at(now) else {
            return;
        };
        let write_until = resumed_at + self.timeouts.write;
        if let Some(write) = &mut self.write
            && write_until > write.until
            && is_blocked
        {
            write.until = write_until;
            self.is_write_extended = true;
        }
        let silent_since = resumed_at.checked_sub(self.timeouts.ping);
        if let Some(silent_since) = silent_since
            && silent_since > self.last_received
            && is_idle
        {
            self.last_received = silent_since;
            self.is_idle_extended = true;
            self.ping_at = now;
        }
    }

    /// The status to close with, if a deadline has passed.
    fn overdue(
        &self,
        now: Instant,
        closing: Option<(CloseStatus, Instant)>,
    ) -> Option<CloseStatus> {
        if self.write.is_some_and(|write| now >= write.until) {
            return Some(CloseStatus::Slow);
        }
        if let Some((status, until)) = closing
            && now >= until
        {
            return Some(status);
        }
        if now >= self.last_received + self.timeouts.idle {
            return Some(CloseStatus::Idle);
        }
        None
    }

    /// Sets the time of the next ping. Returns true if the client must be pinged now, because
    /// nothing was received for so long.
    fn reschedule_ping(&mut self, now: Instant) -> bool {
        let is_silent = now >= self.last_received + self.timeouts.ping;
        let since = if is_silent { now } else { self.last_received };
        self.ping_at = since + self.timeouts.ping;
        is_silent
    }

    fn next_due(&self, closing: Option<(CloseStatus, Instant)>) -> Instant {
        let mut due = self.ping_at.min(self.last_received + self.timeouts.idle);
        if let Some(write) = self.write {
            due = due.min(write.until);
        }
        if let Some((_, until)) = closing {
            due = due.min(until);
        }
        due
    }

    /// Sends the close frame and waits up to a second for the client's answer.
    pub async fn finish(mut self, status: Option<CloseStatus>) {
        let Some(status) = status else {
            // Answers the client's close frame.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, SinkExt::close(&mut self.socket)).await;
            return;
        };
        let close = Message::Close(Some(status.frame()));
        let sent = tokio::time::timeout(CLOSE_TIMEOUT, self.socket.send(close)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
        let answered = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let until = Instant::now() + CLOSE_TIMEOUT;
        let _ = tokio::time::timeout_at(until, answered).await;
        let is_unreadable = matches!(
            status,
            CloseStatus::Protocol | CloseStatus::NotText | CloseStatus::TooLarge
        );
        if is_unreadable {
            // The rest of the client's data cannot be read. Closing the TCP connection while it is
            // unread would reset the connection, and the client might lose the close frame.
            tokio::time::sleep_until(until).await;
        }
    }
}
