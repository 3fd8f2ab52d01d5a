//! Sockets without a client, for the tests of the layer above (feature `__test_harness`).

use std::sync::Arc;

use bytes::Bytes;
use engineioxide_core::{Packet, ProtocolVersion, Sid, Str, TransportType};
use tokio::sync::mpsc;

use crate::config::EngineIoConfig;
use crate::control::Control;
use crate::frame::Body;
use crate::session::{Owner, Poll, Session};
use crate::socket::{DisconnectReason, Socket};

type OnClose = Box<dyn Fn(Sid, DisconnectReason) + Send + Sync>;

struct Closer(Sid, OnClose);

impl Owner for Closer {
    fn message(&self, _: Str) {}

    fn binary(&self, _: Bytes) {}

    fn disconnected(&self, reason: DisconnectReason) {
        (self.1)(self.0, reason);
    }
}

impl<D: Default + Send + Sync + 'static> Socket<D> {
    /// A socket whose messages go nowhere.
    #[doc(hidden)]
    pub fn new_dummy(sid: Sid, on_close: OnClose) -> Arc<Self> {
        Self::dummy(sid, on_close).1
    }

    /// A socket whose messages come out of the channel.
    #[doc(hidden)]
    pub fn new_dummy_piped(
        sid: Sid,
        on_close: OnClose,
        room: usize,
    ) -> (Arc<Self>, mpsc::Receiver<Packet>) {
        let (session, socket) = Self::dummy(sid, on_close);
        let (sender, receiver) = mpsc::channel(room);
        tokio::spawn(async move {
            while let Some(mut ticket) = session.begin_poll() {
                let Poll::Frames(frames) = std::future::poll_fn(|cx| ticket.poll(cx)).await else {
                    return;
                };
                session.wrote(frames.iter().map(crate::Frame::len).sum());
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
        session.attach(Arc::new(Closer(id, on_close)));
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
