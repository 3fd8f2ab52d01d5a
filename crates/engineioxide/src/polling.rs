//! The polling transport: GETs wait for the outbox, POSTs bring packets.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use engineioxide_core::TransportType;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};
use http_body::Body;
use http_body_util::BodyExt;

use crate::control::AtomicCounters;
use crate::frame::Frame;
use crate::packet::Malformed;
use crate::payload::{self, Encoded, Packets};
use crate::refusal::Refusal;
use crate::service::ResponseBody;
use crate::session::{CloseMode, PollGuard, PollReply, PostGuard, Session};
use crate::socket::DisconnectReason;

/// How long a poll waits for the end of an upgrade before it is answered with a noop.
const UPGRADE_NOOP_DELAY: Duration = Duration::from_millis(20);
/// Packets of one POST that are processed before other tasks run.
const PACKETS_PER_SLICE: usize = 128;

/// The response to a handshake: the open packet.
pub(crate) fn open<B>(session: &Arc<Session>) -> Response<ResponseBody<B>> {
    let open = Frame::packet(&session.open_packet(TransportType::Polling));
    respond(
        payload::encode(&[open], session.protocol, session.b64),
        ResponseBody::full,
    )
}

/// Waits until the session has something to send. If the future is dropped before (the client went
/// away), the session ends.
pub(crate) async fn poll<B>(
    session: Arc<Session>,
    mut guard: PollGuard,
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
    let mut reply = poll_fn(|cx| guard.poll(cx)).await;
    if matches!(reply, PollReply::Probed) {
        tokio::time::sleep(UPGRADE_NOOP_DELAY).await;
        guard.answer_probed_with_noop();
        reply = poll_fn(|cx| guard.poll(cx)).await;
    }
    match reply {
        // `Probed` is not returned after `answer_probed_with_noop`.
        PollReply::Probed | PollReply::Noop => single("6"),
        PollReply::ClosePacket => single("1"),
        PollReply::Refuse => Refusal::UnknownSession.response(),
        PollReply::Frames(frames) => {
            let taken = frames.iter().map(Frame::len).sum();
            let receipt = Receipt::new(session.clone(), taken);
            let encoded = payload::encode(&frames, protocol, b64);
            let counters = &session.control.0.counters;
            AtomicCounters::add(&counters.packets_out, frames.len());
            AtomicCounters::add(&counters.bytes_out, encoded.bytes.len());
            respond(encoded, |bytes| ResponseBody::with_receipt(bytes, receipt))
        }
    }
}

/// Tracks frames of a session that are in a response body. They count as written when HTTP has
/// taken the end of the body. If it never does, they are lost, and the session ends, because it
/// must not continue with missing frames.
pub(crate) struct Receipt {
    session: Arc<Session>,
    bytes: usize,
    complete: bool,
}

impl Receipt {
    fn new(session: Arc<Session>, bytes: usize) -> Self {
        Self {
            session,
            bytes,
            complete: false,
        }
    }

    /// HTTP has taken the end of the body.
    pub(crate) fn complete(mut self) {
        self.complete = true;
        self.session.record_written(self.bytes);
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.complete {
            self.session
                .close(DisconnectReason::TransportError, CloseMode::Refuse);
        }
    }
}

/// Processes the packets of a POST, in order.
pub(crate) async fn post<R, B>(
    session: Arc<Session>,
    guard: PostGuard,
    headers: HeaderMap,
    body: R,
) -> Response<ResponseBody<B>>
where
    R: Body + Unpin,
{
    let body = {
        let mut body = pin!(read_body(body, &headers, session.config.payload_limit()));
        let mut closed = pin!(session.closed());
        // A body that never ends must not outlive its session.
        let either = poll_fn(|cx| match body.as_mut().poll(cx) {
            Poll::Ready(body) => Poll::Ready(Some(body)),
            Poll::Pending => closed.as_mut().poll(cx).map(|()| None),
        });
        let Some(body) = either.await else {
            return Refusal::UnknownSession.response();
        };
        body
    };
    let body = match body {
        Ok(body) => body,
        Err(refusal) => {
            session.close(DisconnectReason::PacketParsingError, CloseMode::Refuse);
            return refusal.response();
        }
    };
    AtomicCounters::add(&session.control.0.counters.bytes_in, body.len());
    let result = process_packets(&session, body, is_binary(&headers)).await;
    drop(guard);
    match result {
        Ok(()) => respond(
            Encoded {
                bytes: b"ok".to_vec(),
                binary: false,
            },
            ResponseBody::full,
        ),
        Err(Malformed) => {
            session.close(DisconnectReason::PacketParsingError, CloseMode::Refuse);
            Refusal::BadRequest.response()
        }
    }
}

/// Processes the packets of a body, and yields to other tasks after each slice: a body may hold
/// half a million packets.
async fn process_packets(
    session: &Arc<Session>,
    body: Vec<u8>,
    binary: bool,
) -> Result<(), Malformed> {
    for (index, packet) in Packets::new(body, session.protocol, binary)?.enumerate() {
        if index % PACKETS_PER_SLICE == PACKETS_PER_SLICE - 1 {
            // In a task of its own: hyper may poll this future several times in a row, and
            // `yield_now` would then return without other tasks having run.
            tokio::spawn(tokio::task::yield_now()).await.ok();
        }
        // A packet may have closed the session; the packets after it are ignored.
        let Some(handler) = session.handler() else {
            return Ok(());
        };
        session.process_packet(packet?, &*handler)?;
    }
    Ok(())
}

fn is_binary(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/octet-stream"))
}

/// Reads a body of at most `limit` bytes, and stops before it stores a byte beyond the limit.
async fn read_body<R: Body + Unpin>(
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
    // The response to a poll is valid for one request only.
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
