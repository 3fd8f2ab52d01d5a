//! One session: its outbox, its life and its death, whatever carries it.
//!
//! The lock of [`State`] never leaves this module, and nothing foreign runs under it: wakers are
//! called after it is let go, handlers on tasks of their own, and who waits for room where something was written.

mod beat;
mod carrier;
mod end;
mod state;
mod ticket;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engineioxide_core::{ProtocolVersion, Sid, Str, TransportType};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::EngineIoConfig;
use crate::control::{Control, Tally};
use crate::frame::Frame;
use crate::handle::{Intercept, SendOutcome};
use crate::packet::{Incoming, Malformed};
use crate::socket::DisconnectReason;

pub(crate) use carrier::{Carrier, Written};
pub(crate) use end::Farewell;
pub(crate) use state::Queue;
use state::{Beat, Life, Reader, State};
pub(crate) use ticket::{Poll, PollTicket, PostTicket, UpgradeTicket};

/// The layer above, as a session sees it.
pub(crate) trait Owner: Send + Sync {
    fn message(&self, text: Str);
    fn binary(&self, data: Bytes);
    fn disconnected(&self, reason: DisconnectReason);
}

/// In the order in which it is needed: with thousands of sessions a processor has none of them at hand, and what a message is
/// queued by should take few of its looks at memory.
#[repr(C)]
pub(crate) struct Session {
    pub(crate) control: Control,
    state: Mutex<State>,
    pub(crate) config: Arc<EngineIoConfig>,
    pub(crate) id: Sid,
    pub(crate) protocol: ProtocolVersion,
    /// Engine.IO 3: the handshake said that the client takes text only.
    pub(crate) b64: bool,
    over: Notify,
}

/// What a packet means to whatever carried it.
#[derive(Debug, PartialEq)]
pub(crate) enum Taken {
    Done,
    /// The packet was `5`.
    Upgrade,
}

impl Session {
    /// A session that begins on `transport`; it is listed and its heartbeat runs.
    pub(crate) fn open(
        id: Sid,
        protocol: ProtocolVersion,
        transport: TransportType,
        control: Control,
        config: Arc<EngineIoConfig>,
        b64: bool,
    ) -> Arc<Self> {
        let beat = Beat::first(protocol, &config);
        let session = Arc::new(Self {
            id,
            protocol,
            control,
            config,
            b64,
            state: Mutex::new(State::new(transport, beat)),
            over: Notify::new(),
        });
        session.control.insert(&session);
        session.arm(&mut session.state.lock());
        session
    }

    pub(crate) fn transport(&self) -> TransportType {
        self.state.lock().transport
    }

    pub(crate) fn unwritten(&self) -> usize {
        self.state.lock().unwritten
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().life == Life::Closed
    }

    /// Whether frames are still taken.
    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().life == Life::Open
    }

    /// Whether less than half of the outbox is in use.
    pub(crate) fn has_room(&self) -> bool {
        self.unwritten() < self.control.limits().outbox_bytes / 2
    }

    /// The open packet.
    pub(crate) fn open_packet(&self, transport: TransportType) -> String {
        let upgradable = transport == TransportType::Polling
            && self.config.allowed_transport(TransportType::Websocket);
        format!(
            r#"0{{"sid":"{}","upgrades":[{}],"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
            self.id,
            if upgradable { r#""websocket""# } else { "" },
            self.config.ping_interval.as_millis(),
            self.config.ping_timeout.as_millis(),
            self.config.max_payload,
        )
    }

    pub(crate) fn send(self: &Arc<Self>, frame: Frame) -> SendOutcome {
        self.or_close(self.send_if(|_| true, |state| self.queue(state, frame)))
    }

    /// Queues frames next to each other, all or none.
    pub(crate) fn send_all(
        self: &Arc<Self>,
        frames: impl IntoIterator<Item = Frame> + AsRef<[Frame]>,
    ) -> SendOutcome {
        self.or_close(self.send_if(|_| true, |state| self.queue_all(state, frames)))
    }

    fn or_close(self: &Arc<Self>, outcome: SendOutcome) -> SendOutcome {
        if outcome == SendOutcome::Overflow {
            self.close_slow();
        }
        outcome
    }

    /// As [`Self::send`], if fewer bytes than that are unwritten, and it fits: nothing else happens to the session.
    pub(crate) fn send_below(self: &Arc<Self>, unwritten: usize, frame: &Frame) -> SendOutcome {
        match self.send_if(
            |state| state.unwritten < unwritten,
            |state| self.queue(state, frame.clone()),
        ) {
            SendOutcome::Overflow => SendOutcome::Busy,
            outcome => outcome,
        }
    }

    fn send_if(
        self: &Arc<Self>,
        may: impl FnOnce(&State) -> bool,
        queue: impl FnOnce(&mut State) -> Option<Reader>,
    ) -> SendOutcome {
        let reader = {
            let mut state = self.state.lock();
            if state.life != Life::Open {
                return SendOutcome::Closed;
            }
            if !may(&state) {
                return SendOutcome::Busy;
            }
            match queue(&mut state) {
                Some(reader) => reader,
                None => return SendOutcome::Overflow,
            }
        };
        self.tell(reader);
        SendOutcome::Queued
    }

    /// Queues a frame of the protocol's own, also in the last flush.
    pub(crate) fn send_internal(self: &Arc<Self>, frame: Frame) {
        let reader = {
            let mut state = self.state.lock();
            if state.life == Life::Closed {
                return;
            }
            self.queue(&mut state, frame)
        };
        match reader {
            Some(reader) => self.tell(reader),
            None => self.close_slow(),
        }
    }

    /// `None`: it doesn't fit.
    fn queue(&self, state: &mut State, frame: Frame) -> Option<Reader> {
        let bytes = frame.len();
        self.fits(state, bytes, 1).then(|| {
            state.queue.push(frame);
            self.queued(state, bytes)
        })
    }

    /// As `queue`, for all of them.
    fn queue_all(
        &self,
        state: &mut State,
        frames: impl IntoIterator<Item = Frame> + AsRef<[Frame]>,
    ) -> Option<Reader> {
        let bytes = frames.as_ref().iter().map(Frame::len).sum::<usize>();
        self.fits(state, bytes, frames.as_ref().len()).then(|| {
            state.queue.extend(frames);
            self.queued(state, bytes)
        })
    }

    fn fits(&self, state: &State, bytes: usize, frames: usize) -> bool {
        let limits = self.control.limits();
        bytes <= limits.outbox_bytes.saturating_sub(state.unwritten)
            && frames <= limits.outbox_frames.saturating_sub(state.queue.len())
    }

    /// Whom to tell of what has been queued.
    fn queued(&self, state: &mut State, bytes: usize) -> Reader {
        state.unwritten += bytes;
        if state.transport == TransportType::Polling && state.stall_at.is_none() {
            state.stall_at = Some(Instant::now() + self.control.limits().write_timeout);
            self.arm(state);
        }
        state.reader()
    }

    /// Tells whoever takes what is queued. Without the lock.
    fn tell(self: &Arc<Self>, reader: Reader) {
        match reader {
            Reader::Knows => {}
            Reader::Poll(waker) => waker.wake(),
            Reader::Socket => self.control.0.rota.wait(self.clone()),
        }
    }

    pub(crate) fn when_below(self: &Arc<Self>, bytes: usize, then: Box<dyn FnOnce() + Send>) {
        {
            let mut state = self.state.lock();
            if state.life != Life::Closed && state.unwritten >= bytes {
                if state.below.is_empty() {
                    // Most sessions have one, for as long as they live.
                    state.below.reserve_exact(1);
                }
                state.below.push((bytes, then));
                state.highest = state.highest.max(bytes);
                return;
            }
        }
        self.control.spawn(async move { then() });
    }

    pub(crate) fn close_after_flush(self: &Arc<Self>, limit: Duration) {
        {
            let mut state = self.state.lock();
            match state.life {
                Life::Closed => return,
                _ if state.unwritten == 0 => {}
                _ => {
                    let at = Instant::now() + limit;
                    state.drain_at = Some(state.drain_at.map_or(at, |before| before.min(at)));
                    state.life = Life::Draining;
                    self.arm(&mut state);
                    return;
                }
            }
        }
        self.close(DisconnectReason::TransportClose, Farewell::Refuse);
    }

    pub(crate) fn intercept(&self, intercept: Arc<dyn Intercept>) {
        let mut state = self.state.lock();
        // What was there before is let go without the lock: what it holds may come back here.
        let unneeded = match state.life {
            Life::Closed => Some(intercept),
            Life::Open | Life::Draining => state.intercept.replace(intercept),
        };
        drop(state);
        drop(unneeded);
    }

    /// The layer above, while the session lives.
    pub(crate) fn owner(&self) -> Option<Arc<dyn Owner>> {
        self.state.lock().owner.clone()
    }

    /// Lets the layer above have a packet, or does what the protocol says.
    pub(crate) fn take(
        self: &Arc<Self>,
        packet: Incoming,
        owner: &dyn Owner,
    ) -> Result<Taken, Malformed> {
        Tally::add(&self.control.0.counters.packets_in, 1);
        if self.protocol == ProtocolVersion::V3 {
            self.heard();
        }
        match packet {
            Incoming::Message(text) => {
                let intercept = self.state.lock().intercept.clone();
                let left = match intercept {
                    Some(intercept) => intercept.text(text),
                    None => Err(text),
                };
                if let Err(text) = left {
                    owner.message(text);
                }
            }
            Incoming::Binary(data) => owner.binary(data),
            Incoming::Ping if self.protocol == ProtocolVersion::V3 => {
                self.send_internal(Frame::packet("3"));
            }
            Incoming::Pong if self.protocol == ProtocolVersion::V4 => self.heard(),
            Incoming::Close => self.close(DisconnectReason::TransportClose, Farewell::Noop),
            Incoming::Upgrade => return Ok(Taken::Upgrade),
            Incoming::Noop => {}
            // A heartbeat in the wrong direction, a probe on a transport in use.
            Incoming::Ping | Incoming::Pong | Incoming::Probe => return Err(Malformed),
        }
        Ok(Taken::Done)
    }
}

#[cfg(test)]
mod tests;
