//! The one task of a WebSocket: it reads, writes, and sees the session to its end.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use engineioxide_core::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::carrier::Stream;
use super::codec::{Decoder, Message, Violation};
use super::link::Link;
use super::output::Step;
use crate::control::{Limits, Tally};
use crate::frame::Frame;
use crate::packet::{Incoming, Malformed};
use crate::rota::another_turn;
use crate::session::{Farewell, Owner, Session, Taken, UpgradeTicket};
use crate::socket::DisconnectReason;

/// What one read may bring.
const READ: usize = 16 * 1024;
/// Reads before others have their turn.
const READS: usize = 8;
/// Messages before others have their turn: a read may bring thousands, and each is answered before the next.
const MESSAGES: usize = 128;

thread_local! {
    /// One read buffer for all connections of a thread: what a connection keeps between reads is
    /// the part of a message that has come. A `Cell`, taken and put back, so that a handler which
    /// comes by here again finds none and makes its own.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What a WebSocket is to its session.
pub(crate) enum Role {
    /// It carries it.
    Carrier(Last),
    /// It wants to take over from polling.
    Candidate(UpgradeTicket),
}

/// However the carrier's task ends, be it by a handler's panic or before it began, the session ends with it.
pub(crate) struct Last(pub Arc<Session>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0
            .close(DisconnectReason::TransportError, Farewell::Abort);
    }
}

impl Role {
    pub(super) fn session(&self) -> &Arc<Session> {
        match self {
            Self::Carrier(last) => &last.0,
            Self::Candidate(ticket) => ticket.session(),
        }
    }
}

/// Why the connection ends.
enum End {
    /// The peer's doing, or the stream's: nothing more to say.
    Gone,
    /// The session is closed: leave as it says.
    Closed,
    /// The peer is told why.
    Say(u16),
}

struct Connection<S> {
    io: Stream<S>,
    session: Arc<Session>,
    decoder: Decoder,
    /// Read, but not to be looked at before a POST is through, or before others had their turn.
    held: Vec<u8>,
}

/// Runs a WebSocket to its end; the session ends with it, unless it never carried it.
/// `early` is what has been read of it already.
pub(crate) async fn run<S: Link>(io: S, early: Vec<u8>, role: Role) {
    let session = role.session().clone();
    Tally::add(&session.control.0.counters.bytes_in, early.len());
    let mut connection = Connection {
        io: Stream::new(io),
        session,
        decoder: Decoder::default(),
        held: early,
    };
    let end = connection.serve(role).await;
    let Connection { io, session, .. } = &mut connection;
    let is_whole = io.leave();
    let code = match (end, session.farewell()) {
        (End::Gone, _) | (End::Closed, Some(Farewell::Abort)) => None,
        (End::Say(code), _) | (End::Closed, Some(Farewell::Code(code))) => Some(code),
        (End::Closed, _) => Some(1000),
    };
    if let Some(code) = code.filter(|_| is_whole) {
        // Boxed, because it would double the task of every idle connection.
        let limit = session.control.limits().close_timeout;
        drop(Box::pin(tokio::time::timeout(limit, leave(io, code))).await);
    }
}

/// Closes a WebSocket that no session wants.
pub(crate) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut io: S) {
    let limit = Limits::default().close_timeout;
    drop(tokio::time::timeout(limit, leave(&mut io, 1000)).await);
}

/// Says goodbye and waits for the peer to do the same: closing at once with unread input would
/// reset the connection, and what was flushed could be lost.
async fn leave<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S, code: u16) -> io::Result<()> {
    io.write_all(Frame::websocket_close(code).as_bytes())
        .await?;
    io.shutdown().await?;
    let mut rest = [0; 512];
    while io.read(&mut rest).await? > 0 {}
    Ok(())
}

impl<S: Link> Connection<S> {
    async fn serve(&mut self, role: Role) -> End {
        let _last = match role {
            Role::Carrier(last) => last,
            Role::Candidate(ticket) => {
                // Boxed: most of a session's time comes after it.
                if let Err(end) = Box::pin(self.take_over(ticket)).await {
                    return end;
                }
                Last(self.session.clone())
            }
        };
        let Some(owner) = self.session.owner() else {
            return End::Closed;
        };
        let end = std::future::poll_fn(|cx| self.poll_carry(cx, &*owner)).await;
        let (reason, farewell) = match &end {
            Ok(End::Say(code)) => (DisconnectReason::PacketParsingError, Farewell::Code(*code)),
            Ok(_) => (DisconnectReason::TransportClose, Farewell::Abort),
            Err(_) => (DisconnectReason::TransportError, Farewell::Abort),
        };
        self.session.close(reason, farewell);
        end.unwrap_or(End::Gone)
    }

    fn poll_carry(&mut self, cx: &mut Context<'_>, owner: &dyn Owner) -> Poll<io::Result<End>> {
        let mut again = false;
        match self.io.poll_output(&self.session, cx) {
            Poll::Ready(Ok(Step::Closed)) => return Poll::Ready(Ok(End::Closed)),
            Poll::Ready(Ok(Step::Yield)) => again = true,
            Poll::Ready(Ok(Step::Idle)) | Poll::Pending => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
        }
        if let Poll::Ready(end) = self.poll_input(cx, |this, message| this.take(message, owner)) {
            match end? {
                Input::End(end) => return Poll::Ready(Ok(end)),
                Input::Yield => again = true,
            }
        }
        if again {
            another_turn(cx);
        }
        Poll::Pending
    }

    /// A message on a WebSocket that carries its session.
    fn take(&mut self, message: Message, owner: &dyn Owner) -> Result<(), End> {
        let packet = match self.packet(message)? {
            Some(packet) => packet,
            None => return Ok(()),
        };
        match self.session.take(packet, owner) {
            Ok(Taken::Done) if self.session.is_closed() => Err(End::Closed),
            // A second `5` changes nothing.
            Ok(_) => Ok(()),
            Err(Malformed) => Err(End::Say(1002)),
        }
    }

    /// What is WebSocket's own is done here.
    fn packet(&mut self, message: Message) -> Result<Option<Incoming>, End> {
        let v3 = self.session.protocol == ProtocolVersion::V3;
        match message {
            Message::Text(text) => Incoming::parse(&text).map(Some).map_err(|_| End::Say(1002)),
            Message::Binary(data) if v3 => Incoming::parse_typed_binary(&data)
                .map(Some)
                .map_err(|_| End::Say(1002)),
            Message::Binary(data) => Ok(Some(Incoming::Binary(Bytes::from(data)))),
            Message::Ping(data) => {
                self.session.send_internal(Frame::websocket_pong(&data));
                Ok(None)
            }
            Message::Pong => Ok(None),
            Message::Close => {
                self.session
                    .close(DisconnectReason::TransportClose, Farewell::Refuse);
                Err(End::Say(1000))
            }
        }
    }

    /// The upgrade: probe, answer, `5`. What it writes is its own, not the session's.
    async fn take_over(&mut self, ticket: UpgradeTicket) -> Result<(), End> {
        match self.candidate_packet(&ticket).await? {
            Incoming::Probe => {}
            _ => return Err(End::Say(1002)),
        }
        ticket.probed();
        let answer = Frame::packet("3probe");
        let written = {
            let io = &mut self.io;
            let mut write = std::pin::pin!(async move {
                io.write_all(answer.as_bytes()).await?;
                io.flush().await
            });
            std::future::poll_fn(|cx| match write.as_mut().poll(cx) {
                Poll::Ready(written) => Poll::Ready(written.map_err(|_| End::Gone)),
                Poll::Pending if ticket.wait(cx) => Poll::Pending,
                Poll::Pending => Poll::Ready(Err(End::Gone)),
            })
            .await
        };
        written?;
        match self.candidate_packet(&ticket).await? {
            Incoming::Upgrade if ticket.finish() => {}
            _ => return Err(End::Say(1002)),
        }
        // A POST from before may still be arriving; what it brings was sent first.
        let session = self.session.clone();
        std::future::poll_fn(|cx| {
            if session.awaits_post(cx) && !session.is_closed() {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        Ok(())
    }

    /// The next packet on a WebSocket that doesn't carry its session yet.
    async fn candidate_packet(&mut self, ticket: &UpgradeTicket) -> Result<Incoming, End> {
        let mut packet = None;
        std::future::poll_fn(|cx| {
            if !ticket.wait(cx) {
                return Poll::Ready(Err(End::Closed));
            }
            let input = ready!(self.poll_input(cx, |_, message| {
                packet = Some(match message {
                    Message::Text(text) => Incoming::parse(&text).map_err(|_| End::Say(1002))?,
                    Message::Ping(_) | Message::Pong => return Ok(()),
                    Message::Close => return Err(End::Say(1000)),
                    Message::Binary(_) => return Err(End::Say(1002)),
                });
                // One at a time: what follows belongs to the next step.
                Err(End::Closed)
            }));
            match (packet.take(), input) {
                (Some(packet), _) => Poll::Ready(Ok(packet)),
                (None, Ok(Input::End(end))) => Poll::Ready(Err(end)),
                (None, Err(_)) => Poll::Ready(Err(End::Gone)),
                (None, Ok(Input::Yield)) => {
                    another_turn(cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Reads, and has each message taken until `take` says to end; what was read behind that is
    /// held.
    fn poll_input(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut Self, Message) -> Result<(), End>,
    ) -> Poll<io::Result<Input>> {
        let mut left = MESSAGES;
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            if let Err(stop) = self.feed(&held, &mut left, &mut take) {
                return Poll::Ready(Ok(stop));
            }
        }
        for _ in 0..READS {
            let mut scratch = SCRATCH.take();
            scratch.resize(READ, 0);
            let mut buffer = ReadBuf::new(&mut scratch);
            let polled = Pin::new(&mut self.io).poll_read(cx, &mut buffer);
            let filled = buffer.filled().len();
            let fed = match &polled {
                Poll::Ready(Ok(())) => self.feed(&scratch[..filled], &mut left, &mut take),
                _ => Ok(()),
            };
            SCRATCH.set(scratch);
            ready!(polled)?;
            Tally::add(&self.session.control.0.counters.bytes_in, filled);
            match fed {
                Err(stop) => return Poll::Ready(Ok(stop)),
                Ok(()) if filled == 0 => return Poll::Ready(Ok(Input::End(End::Gone))),
                Ok(()) => {}
            }
        }
        Poll::Ready(Ok(Input::Yield))
    }

    /// Has `left` messages taken at most, and counts them. What isn't looked at is held.
    fn feed(
        &mut self,
        mut input: &[u8],
        left: &mut usize,
        take: &mut impl FnMut(&mut Self, Message) -> Result<(), End>,
    ) -> Result<(), Input> {
        let limit = self.session.config.payload_limit();
        loop {
            if *left == 0 {
                self.held = input.to_vec();
                return Err(Input::Yield);
            }
            match self.decoder.next(&mut input, limit) {
                Ok(None) => return Ok(()),
                Ok(Some(message)) => {
                    *left -= 1;
                    if let Err(end) = take(self, message) {
                        self.held = input.to_vec();
                        return Err(Input::End(end));
                    }
                }
                Err(Violation(code)) => return Err(Input::End(End::Say(code))),
            }
        }
    }
}

/// Why reading stops.
enum Input {
    End(End),
    /// Its turn is over; there may be more.
    Yield,
}
