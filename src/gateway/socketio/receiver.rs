//! Takes in every event of a socket, in the order of its packets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engineioxide::{Intercept, SessionHandle, Str};
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::SocketRef;
use socketioxide::handler::MessageHandler;
use socketioxide::socket::Socket;
use socketioxide_core::Value;

use super::handshake::Handshake;
use super::packet;
use crate::gateway::connections::{Connection, EventText};

/// Passes all events of the socket to the connection. The session's own task makes the calls, so
/// the order of packets is kept.
pub(super) fn attach(
    socket: &SocketRef,
    handle: &SessionHandle,
    handshake: &Handshake,
    connection: &Arc<Connection>,
) {
    let receiver = Arc::new(Receiver {
        connection: connection.clone(),
        awaits_attachments: AtomicBool::new(false),
        has_disconnected: AtomicBool::new(false),
    });
    socket.on_fallback(FallbackHandler(receiver.clone()));
    let receiver: Arc<dyn Intercept> = receiver;
    handshake.pass_early_events(&receiver);
    handle.intercept(receiver);
    let disconnected = connection.clone();
    socket.on_disconnect(async move || disconnected.lost());
}

/// Takes events directly from the transport. socketioxide would parse the name of each to look for
/// its handler, and there are no handlers by name.
struct Receiver {
    connection: Arc<Connection>,
    /// An event with attachments has begun. Nothing may come between it and its attachments, so
    /// socketioxide gets every packet until it emits an event.
    awaits_attachments: AtomicBool,
    /// The client has sent DISCONNECT. socketioxide gets every packet after it. The next CONNECT
    /// has a receiver of its own.
    has_disconnected: AtomicBool,
}

impl Intercept for Receiver {
    fn text(&self, text: Str) -> Result<(), Str> {
        if text.starts_with(['5', '6']) {
            self.awaits_attachments.store(true, Ordering::Relaxed);
        } else if packet::is_disconnect(&text) {
            self.has_disconnected.store(true, Ordering::Relaxed);
        }
        match packet::event(&text) {
            Some((start, ack))
                if !self.awaits_attachments.load(Ordering::Relaxed)
                    && !self.has_disconnected.load(Ordering::Relaxed) =>
            {
                self.connection
                    .receive(EventText::new(text, start).with_ack(ack));
                Ok(())
            }
            _ => Err(text),
        }
    }
}

/// Takes the events that go through socketioxide.
struct FallbackHandler(Arc<Receiver>);

/// Distinguishes this implementation of [`MessageHandler`] from the one that socketioxide has for
/// closures, which runs each call in a task and so does not keep the order.
struct InOrder;

impl MessageHandler<LocalAdapter, InOrder> for FallbackHandler {
    fn call(&self, _: Arc<Socket<LocalAdapter>>, value: Value, ack: Option<i64>) {
        // The JSON parser always produces text.
        if let Value::Str(json, attachments) = value {
            self.0.awaits_attachments.store(false, Ordering::Relaxed);
            let has_attachments = attachments.is_some_and(|attachments| !attachments.is_empty());
            let event = EventText::new(json, 0)
                .with_ack(ack)
                .with_attachments(has_attachments);
            self.0.connection.receive(event);
        }
    }
}
