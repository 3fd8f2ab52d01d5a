//! The polling carrier: GETs that wait for the outbox, POSTs that bring packets.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task;
use std::time::Duration;

use bytes::{Buf, Bytes};
use engineioxide_core::TransportType;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};
use http_body::Body;
use http_body_util::BodyExt;

use crate::control::Tally;
use crate::frame::Frame;
use crate::packet::Malformed;
use crate::payload::{self, Encoded, Packets};
use crate::refusal::Refusal;
use crate::service::ResponseBody;
use crate::session::{Farewell, Poll, PollTicket, PostTicket, Session};
use crate::socket::DisconnectReason;

/// How long a poll waits for the end of an upgrade before a noop releases it.
const GRACE: Duration = Duration::from_millis(20);
/// Packets of a POST before others have their turn.
const TURN: usize = 128;

/// The answer to a handshake: the open packet.
pub(crate) fn open<B>(session: &Arc<Session>) -> Response<ResponseBody<B>> {
    let open = Frame::packet(&session.open_packet(TransportType::Polling));
    respond(
        payload::encode(&[open], session.protocol, session.b64),
        ResponseBody::full,
    )
}

/// Waits for something to send. Dropped before it has (the client went away), the session ends.
pub(crate) async fn poll<B>(
    session: Arc<Session>,
    mut ticket: PollTicket,
    b64: bool,
) -> Response<ResponseBody<B>> {
    let protocol = session.protocol;
    let b64 = b64 || session.b64;
    let single = |packet: &str| {
        respond(
            payload::encode(&[Frame::packet(packet)], protocol, b64),
            ResponseBody::full,
        )
    };
    let mut answer = poll_fn(|cx| ticket.poll(cx)).await;
    if matches!(answer, Poll::Probed) {
        tokio::time::sleep(GRACE).await;
        ticket.hurry();
        answer = poll_fn(|cx| ticket.poll(cx)).await;
    }
    match answer {
        // Not when in a hurry.
        Poll::Probed | Poll::Noop => single("6"),
        Poll::ClosePacket => single("1"),
        Poll::Refuse => Refusal::UnknownSession.response(),
        Poll::Frames(frames) => {
            let taken = frames.iter().map(Frame::len).sum();
            let receipt = Receipt::new(session.clone(), taken);
            let encoded = payload::encode(&frames, protocol, b64);
            let counters = &session.control.0.counters;
            Tally::add(&counters.packets_out, frames.len());
            Tally::add(&counters.bytes_out, encoded.bytes.len());
            respond(encoded, |bytes| ResponseBody::with_receipt(bytes, receipt))
        }
    }
}

/// Proof that a session's frames are in a body. When HTTP has taken the last they count as written; if
/// it never does, they are lost, so the session ends rather than go on with a hole.
pub(crate) struct Receipt {
    session: Arc<Session>,
    bytes: usize,
    taken: bool,
}

impl Receipt {
    fn new(session: Arc<Session>, bytes: usize) -> Self {
        Self {
            session,
            bytes,
            taken: false,
        }
    }

    /// HTTP has taken the body's end.
    pub(crate) fn taken(mut self) {
        self.taken = true;
        self.session.wrote(self.bytes);
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.taken {
            self.session
                .close(DisconnectReason::TransportError, Farewell::Refuse);
        }
    }
}

/// Takes a POST's packets, in order.
pub(crate) async fn post<R, B>(
    session: Arc<Session>,
    ticket: PostTicket,
    headers: HeaderMap,
    body: R,
) -> Response<ResponseBody<B>>
where
    R: Body + Unpin,
{
    let body = {
        let mut body = pin!(collect(body, &headers, session.config.payload_limit()));
        let mut closed = pin!(session.closed());
        // A body that never ends must not outlive its session.
        let both = poll_fn(|cx| match body.as_mut().poll(cx) {
            task::Poll::Ready(body) => task::Poll::Ready(Some(body)),
            task::Poll::Pending => closed.as_mut().poll(cx).map(|()| None),
        });
        let Some(body) = both.await else {
            return Refusal::UnknownSession.response();
        };
        body
    };
    let body = match body {
        Ok(body) => body,
        Err(refusal) => {
            session.close(DisconnectReason::PacketParsingError, Farewell::Refuse);
            return refusal.response();
        }
    };
    Tally::add(&session.control.0.counters.bytes_in, body.len());
    let result = take(&session, body, is_binary(&headers)).await;
    drop(ticket);
    match result {
        Ok(()) => respond(
            Encoded {
                bytes: b"ok".to_vec(),
                binary: false,
            },
            ResponseBody::full,
        ),
        Err(Malformed) => {
            session.close(DisconnectReason::PacketParsingError, Farewell::Refuse);
            Refusal::BadRequest.response()
        }
    }
}

/// Has the packets taken in turns with other sessions' work: a body may hold half a million.
async fn take(session: &Arc<Session>, body: Vec<u8>, binary: bool) -> Result<(), Malformed> {
    for (index, packet) in Packets::new(body, session.protocol, binary)?.enumerate() {
        if index % TURN == TURN - 1 {
            tokio::task::yield_now().await;
        }
        // A packet may have closed the session; what follows it is void.
        let Some(owner) = session.owner() else {
            return Ok(());
        };
        session.take(packet?, &*owner)?;
    }
    Ok(())
}

fn is_binary(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/octet-stream"))
}

/// Reads a body of at most `limit` bytes, and not a byte further.
async fn collect<R: Body + Unpin>(
    mut body: R,
    headers: &HeaderMap,
    limit: usize,
) -> Result<Vec<u8>, Refusal> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(Refusal::TooLarge);
    }
    let mut bytes = Vec::new();
    while let Some(part) = body.frame().await {
        let Ok(mut part) = part.map_err(|_| Refusal::BadRequest)?.into_data() else {
            continue;
        };
        if part.remaining() > limit - bytes.len() {
            return Err(Refusal::TooLarge);
        }
        while part.has_remaining() {
            let chunk = part.chunk();
            let length = chunk.len();
            bytes.extend_from_slice(chunk);
            part.advance(length);
        }
    }
    Ok(bytes)
}

fn respond<B>(
    encoded: Encoded,
    body: impl FnOnce(Bytes) -> ResponseBody<B>,
) -> Response<ResponseBody<B>> {
    let content_type = if encoded.binary {
        HeaderValue::from_static("application/octet-stream")
    } else {
        HeaderValue::from_static("text/plain; charset=UTF-8")
    };
    let mut response = Response::new(body(encoded.bytes.into()));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    // A poll's answer is for one request only.
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
