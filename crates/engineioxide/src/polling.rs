//! The polling transport: GETs wait for the outbox, POSTs bring packets.

use std::future::poll_fn;
use std::pin::{Pin, pin};
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
use crate::packet::{Incoming, Malformed};
use crate::payload::{self, Encoded, Packets};
use crate::refusal::Refusal;
use crate::service::ResponseBody;
use crate::session::{CloseMode, PollGuard, PollReply, PostGuard, Session};
use crate::socket::DisconnectReason;

/// How long a poll waits for the end of an upgrade before it is answered with a noop.
const UPGRADE_NOOP_DELAY: Duration = Duration::from_millis(20);
/// Packets of one POST that are processed before other tasks run.
const PACKETS_PER_SLICE: usize = 128;
/// Bytes of a body that are copied at a time. A session keeps at most one packet and one piece.
const PIECE_BYTES: usize = 16 * 1024;

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
    let result = process_body(&session, &headers, body).await;
    drop(guard);
    match result {
        Ok(()) => respond(
            Encoded {
                bytes: b"ok".to_vec(),
                binary: false,
            },
            ResponseBody::full,
        ),
        Err(refusal) => {
            session.close(DisconnectReason::PacketParsingError, CloseMode::Refuse);
            refusal.response()
        }
    }
}

/// Reads a body, and processes each packet as soon as it has arrived: the body is larger than the
/// memory that one session may take.
async fn process_body<R: Body + Unpin>(
    session: &Arc<Session>,
    headers: &HeaderMap,
    mut body: R,
) -> Result<(), Refusal> {
    let mut bytes_left = session.config.body_limit();
    if announced_length(headers).is_some_and(|length| length > bytes_left as u64) {
        return Err(Refusal::TooLarge);
    }
    let packet_limit = session.config.payload_limit();
    let mut packets = Packets::new(session.protocol, is_binary(headers), packet_limit);
    let mut processor = Processor::new(session);
    let mut closed = pin!(session.closed());
    while let Some(mut part) = next_part(&mut body, closed.as_mut()).await? {
        bytes_left = bytes_left
            .checked_sub(part.remaining())
            .ok_or(Refusal::TooLarge)?;
        AtomicCounters::add(&session.control.0.counters.bytes_in, part.remaining());
        while part.has_remaining() {
            let chunk = part.chunk();
            let length = chunk.len().min(PIECE_BYTES);
            packets.push(&chunk[..length]);
            part.advance(length);
            while let Some(packet) = packets.next()? {
                if !processor.process(packet).await? {
                    return Ok(());
                }
            }
        }
    }
    if let Some(packet) = packets.finish()? {
        processor.process(packet).await?;
    }
    Ok(())
}

/// The next data of a body; `None` at its end. Fails when the session is closed, because a body that
/// never ends must not outlive its session.
async fn next_part<R: Body + Unpin>(
    body: &mut R,
    mut closed: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<R::Data>, Refusal> {
    loop {
        let mut frame = body.frame();
        let frame_or_close = poll_fn(|cx| match Pin::new(&mut frame).poll(cx) {
            Poll::Ready(Some(frame)) => {
                Poll::Ready(frame.map(Some).map_err(|_| Refusal::BadRequest))
            }
            Poll::Ready(None) => Poll::Ready(Ok(None)),
            Poll::Pending => closed
                .as_mut()
                .poll(cx)
                .map(|()| Err(Refusal::UnknownSession)),
        });
        let Some(frame) = frame_or_close.await? else {
            return Ok(None);
        };
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

/// Processes the packets of one body, and yields to other tasks after each slice: a body may hold
/// two million packets.
struct Processor<'a> {
    session: &'a Arc<Session>,
    processed: usize,
}

impl<'a> Processor<'a> {
    fn new(session: &'a Arc<Session>) -> Self {
        Self {
            session,
            processed: 0,
        }
    }

    /// Returns false if an earlier packet has closed the session: the packets after it are ignored.
    async fn process(&mut self, packet: Incoming) -> Result<bool, Malformed> {
        self.processed += 1;
        if self.processed.is_multiple_of(PACKETS_PER_SLICE) {
            // In a task of its own: hyper may poll this future several times in a row, and
            // `yield_now` would then return without other tasks having run.
            tokio::spawn(tokio::task::yield_now()).await.ok();
        }
        let Some(handler) = self.session.handler() else {
            return Ok(false);
        };
        self.session.process_packet(packet, &*handler)?;
        Ok(true)
    }
}

fn is_binary(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/octet-stream"))
}

fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
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
