//! The one task of a WebSocket: it reads, writes, and closes the session at its end.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use engineioxide_core::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::codec::{Decoder, Message};
use super::input::ReadStop;
use super::link::Link;
use super::output::WriteStep;
use super::stream::Stream;
use crate::control::{AtomicCounters, Limits};
use crate::frame::Frame;
use crate::packet::{Incoming, Malformed};
use crate::scheduler::yield_slice;
use crate::session::{CloseMode, PacketOutcome, Session, SessionHandler, UpgradeGuard};
use crate::socket::DisconnectReason;

/// The code of a close frame: normal closure.
pub(super) const NORMAL: u16 = 1000;
/// The code of a close frame: the peer violated the protocol.
pub(super) const PROTOCOL_ERROR: u16 = 1002;

/// The role of a WebSocket for its session.
pub(crate) enum Role {
    /// It carries the session.
    Transport(CloseOnDrop),
    /// The client wants to upgrade to it from polling.
    UpgradeCandidate(UpgradeGuard),
}

/// Closes the session when the task of its transport ends in any way, also by a handler's panic or
/// before it first ran.
pub(crate) struct CloseOnDrop(pub Arc<Session>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0
            .close(DisconnectReason::TransportError, CloseMode::Abort);
    }
}

impl Role {
    pub(super) fn session(&self) -> &Arc<Session> {
        match self {
            Self::Transport(guard) => &guard.0,
            Self::UpgradeCandidate(guard) => guard.session(),
        }
    }
}

/// The reason why the connection ends.
pub(super) enum End {
    /// The peer or the stream ended it; nothing can be sent any more.
    Lost,
    /// The session is closed: its close mode applies.
    SessionClosed,
    /// The peer gets a close frame with this code.
    SendClose(u16),
}

pub(super) struct Connection<S> {
    pub(super) io: Stream<S>,
    pub(super) session: Arc<Session>,
    pub(super) decoder: Decoder,
    /// Bytes read but not processed, because a POST has to be processed first or other tasks had
    /// to run.
    pub(super) unprocessed: Vec<u8>,
}

/// Runs a WebSocket to its end. Then the session ends, too, unless this WebSocket never carried it.
/// `early` holds bytes that have been read from the stream already.
pub(crate) async fn run<S: Link>(io: S, early: Vec<u8>, role: Role) {
    let session = role.session().clone();
    AtomicCounters::add(&session.control.0.counters.bytes_in, early.len());
    let mut connection = Connection {
        io: Stream::new(io),
        session,
        decoder: Decoder::default(),
        unprocessed: early,
    };
    let end = connection.serve(role).await;
    let Connection { io, session, .. } = &mut connection;
    let at_frame_boundary = io.release();
    let code = match (end, session.close_mode()) {
        (End::Lost, _) | (End::SessionClosed, Some(CloseMode::Abort)) => return,
        (End::SendClose(code), _) | (End::SessionClosed, Some(CloseMode::Code(code))) => Some(code),
        (End::SessionClosed, Some(CloseMode::Refuse)) => None,
        (End::SessionClosed, _) => Some(NORMAL),
    };
    if at_frame_boundary {
        // Boxed, because inline it would double the size of every idle connection's task.
        let limit = session.control.limits().close_timeout;
        drop(Box::pin(tokio::time::timeout(limit, close_handshake(io, code))).await);
    }
}

/// Closes a WebSocket that a session does not accept.
pub(crate) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut io: S) {
    let limit = Limits::default().close_timeout;
    drop(tokio::time::timeout(limit, close_handshake(&mut io, Some(NORMAL))).await);
}

/// Sends a close frame, if there is a code for it, ends the output, and waits until the peer closes
/// the connection. Closing the TCP connection at once, with unread input, would reset it, and
/// flushed data could be lost.
async fn close_handshake<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    code: Option<u16>,
) -> io::Result<()> {
    if let Some(code) = code {
        io.write_all(Frame::websocket_close(code).as_bytes())
            .await?;
    }
    io.shutdown().await?;
    let mut rest = [0; 512];
    while io.read(&mut rest).await? > 0 {}
    Ok(())
}

impl<S: Link> Connection<S> {
    async fn serve(&mut self, role: Role) -> End {
        let _close_on_drop = match role {
            Role::Transport(guard) => guard,
            Role::UpgradeCandidate(guard) => {
                // Boxed: a session spends most of its time after the upgrade.
                if let Err(end) = Box::pin(self.run_upgrade(guard)).await {
                    return end;
                }
                CloseOnDrop(self.session.clone())
            }
        };
        let Some(handler) = self.session.handler() else {
            return End::SessionClosed;
        };
        let end = std::future::poll_fn(|cx| self.poll_session(cx, &*handler)).await;
        let (reason, close_mode) = match &end {
            Ok(End::SendClose(code)) => {
                (DisconnectReason::PacketParsingError, CloseMode::Code(*code))
            }
            Ok(_) => (DisconnectReason::TransportClose, CloseMode::Abort),
            Err(_) => (DisconnectReason::TransportError, CloseMode::Abort),
        };
        self.session.close(reason, close_mode);
        end.unwrap_or(End::Lost)
    }

    /// Writes output and processes input of the session that this WebSocket carries.
    fn poll_session(
        &mut self,
        cx: &mut Context<'_>,
        handler: &dyn SessionHandler,
    ) -> Poll<io::Result<End>> {
        let mut yields = false;
        match self.io.poll_output(&self.session, cx) {
            Poll::Ready(Ok(WriteStep::Closed)) => return Poll::Ready(Ok(End::SessionClosed)),
            Poll::Ready(Ok(WriteStep::Yield)) => yields = true,
            Poll::Ready(Ok(WriteStep::Idle)) | Poll::Pending => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
        }
        let process = |this: &mut Self, message| this.process_message(message, handler);
        if let Poll::Ready(stop) = self.poll_input(cx, process) {
            match stop? {
                ReadStop::End(end) => return Poll::Ready(Ok(end)),
                ReadStop::Yield => yields = true,
            }
        }
        if yields {
            yield_slice(cx);
        }
        Poll::Pending
    }

    /// Processes a message on a WebSocket that carries its session.
    fn process_message(
        &mut self,
        message: Message,
        handler: &dyn SessionHandler,
    ) -> Result<(), End> {
        let Some(packet) = self.decode_packet(message)? else {
            return Ok(());
        };
        match self.session.process_packet(packet, handler) {
            Ok(PacketOutcome::Handled) if self.session.is_closed() => Err(End::SessionClosed),
            // A second `5` has no effect.
            Ok(_) => Ok(()),
            Err(Malformed) => Err(End::SendClose(PROTOCOL_ERROR)),
        }
    }

    /// Decodes the Engine.IO packet of a message. Control frames of the WebSocket protocol are
    /// handled here and return `None`.
    fn decode_packet(&mut self, message: Message) -> Result<Option<Incoming>, End> {
        let malformed = |_: Malformed| End::SendClose(PROTOCOL_ERROR);
        let protocol = self.session.protocol;
        match message {
            Message::Text(text) => Incoming::parse(&text, protocol)
                .map(Some)
                .map_err(malformed),
            Message::Binary(data) if protocol == ProtocolVersion::V3 => {
                Incoming::parse_typed_binary(&data)
                    .map(Some)
                    .map_err(malformed)
            }
            Message::Binary(data) => Ok(Some(Incoming::Binary(Bytes::from(data)))),
            Message::Ping(data) => {
                self.session.send_internal(Frame::websocket_pong(&data));
                Ok(None)
            }
            Message::Pong => Ok(None),
            Message::Close => {
                self.session
                    .close(DisconnectReason::TransportClose, CloseMode::Refuse);
                Err(End::SendClose(NORMAL))
            }
        }
    }
}
