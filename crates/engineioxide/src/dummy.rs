//! Sockets without a client, for the tests of the layer above (feature `__test_harness`).

use std::sync::Arc;

use bytes::Bytes;
use engineioxide_core::{Packet, ProtocolVersion, Sid, Str, TransportType};
use tokio::sync::mpsc;

use crate::config::EngineIoConfig;
use crate::control::Control;
use crate::frame::Body;
use crate::session::{PollReply, Session, SessionHandler};
use crate::socket::{DisconnectReason, Socket};

type OnClose = Box<dyn Fn(Sid, DisconnectReason) + Send + Sync>;

struct CloseCallback(Sid, OnClose);

impl SessionHandler for CloseCallback {
    fn on_message(&self, _: Str) {}

    fn on_binary(&self, _: Bytes) {}

    fn on_disconnect(&self, reason: DisconnectReason) {
        (self.1)(self.0, reason);
    }
}

impl<D: Default + Send + Sync + 'static> Socket<D> {
    /// A socket whose outgoing messages are not read.
    #[doc(hidden)]
    pub fn new_dummy(sid: Sid, on_close: OnClose) -> Arc<Self> {
        Self::dummy(sid, on_close).1
    }

    /// A socket whose outgoing messages are sent to the returned channel of `capacity` packets.
    #[doc(hidden)]
    pub fn new_dummy_piped(
        sid: Sid,
        on_close: OnClose,
        capacity: usize,
    ) -> (Arc<Self>, mpsc::Receiver<Packet>) {
        let (session, socket) = Self::dummy(sid, on_close);
        let (sender, receiver) = mpsc::channel(capacity);
        tokio::spawn(async move {
            while let Some(mut guard) = session.begin_poll() {
                let reply = std::future::poll_fn(|cx| guard.poll(cx)).await;
                let PollReply::Frames(frames) = reply else {
                    return;
                };
                session.record_written(frames.iter().map(crate::Frame::len).sum());
                for packet in frames.iter().filter_map(|frame| packet(frame.body())) {
                    if sender.send(packet).await.is_err() {
                        return;
                    }
                }
            }
        });
        (socket, receiver)
    }

    fn dummy(id: Sid, on_close: OnClose) -> (Arc<Session>, Arc<Self>) {
        let session = Session::open(
            id,
            ProtocolVersion::V4,
            TransportType::Polling,
            Control::default(),
            Arc::new(EngineIoConfig::default()),
            false,
        );
        let socket = Self::new(session.clone(), None);
        session.attach_handler(Arc::new(CloseCallback(id, on_close)));
        (session, socket)
    }
}

fn packet(body: Body<'_>) -> Option<Packet> {
    match body {
        Body::Text([b'4', text @ ..]) => Some(Packet::Message(Str::from(
            String::from_utf8_lossy(text).into_owned(),
        ))),
        Body::Binary(data) => Some(Packet::Binary(Bytes::copy_from_slice(data))),
        _ => None,
    }
}
