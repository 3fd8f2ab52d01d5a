//! One client's connection to this node: its state, and the events that it receives.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::deadlines::DeadlineKey;
use super::events::RequestName;
use super::inbox::{EventText, Inbox, Put};
use super::log::{EndReason, Tally};
use super::pending_acks::PendingAcks;
use super::processing::Scheduling;
use super::reply::ReplyTo;
use super::{ClientTransport, CloseReason, Connections, IncomingEvent};
use crate::auth::Identity;
use crate::delivery::{JoinOutcome, Outlet, ReplayFrom};
use crate::domain::{Code, ConnId, Cost, Refusal, UserId};
use crate::features::messaging::ConnectionState;
use crate::server::ClientAddress;

/// A client's connection to this node, whichever transport carries it.
pub struct Connection {
    pub(super) connections: Arc<Connections>,
    pub(super) conn: ConnId,
    /// Unique among the connections of this node.
    pub(super) number: u64,
    pub(super) transport: Arc<dyn ClientTransport>,
    /// The address that the connection's rates count for.
    client: Option<ClientAddress>,
    pub(super) inbox: Mutex<Inbox>,
    /// Locked while an event or the loss is handled. The inbox lets at most one task process the
    /// connection, so these never contend for it; [`Connection::authenticate`] and
    /// [`Connection::listen`] may.
    pub(super) state: tokio::sync::Mutex<ConnectionState>,
    pub(super) identity: Mutex<Option<Identity>>,
    /// The bytes of events sent to rooms since the connection last waited for their delivery.
    pub(super) unflushed_bytes: AtomicUsize,
    /// The replies that are not sent yet.
    pub(super) pending_acks: PendingAcks,
    /// The pending deadline: to authenticate, or the end of the token's validity.
    pub(super) deadline: Mutex<Option<DeadlineKey>>,
    pub(super) tally: Tally,
}

impl Connection {
    pub(super) fn new(
        connections: Arc<Connections>,
        conn: ConnId,
        number: u64,
        transport: Arc<dyn ClientTransport>,
        client: Option<ClientAddress>,
    ) -> Arc<Self> {
        let outlet_conn = conn.clone();
        let outlet_transport = transport.clone();
        let make_outlet =
            Box::new(move |user: &UserId| outlet_transport.outlet(&outlet_conn, user));
        Arc::new(Self {
            inbox: Mutex::new(Inbox::new(connections.waiting_bytes.clone())),
            state: tokio::sync::Mutex::new(ConnectionState::new(conn.clone(), make_outlet)),
            identity: Mutex::new(None),
            unflushed_bytes: AtomicUsize::new(0),
            pending_acks: PendingAcks::default(),
            deadline: Mutex::new(None),
            tally: Tally::new(),
            connections,
            conn,
            number,
            transport,
            client,
        })
    }

    /// The connection's id, unique in the cluster.
    #[must_use]
    pub fn id(&self) -> &ConnId {
        &self.conn
    }

    /// The connection's user and the rights of its token, once it has authenticated.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity.lock().clone()
    }

    /// Admits the client: begins to process the events that have been received so far.
    pub fn start(self: &Arc<Self>) {
        if self.inbox.lock().open() {
            self.schedule(Scheduling::Task);
        }
        if self.transport.is_closed() {
            self.lost();
        }
    }

    /// Puts an event into the inbox, or refuses it at once.
    pub fn receive(self: &Arc<Self>, text: EventText) {
        self.connections.counters.events.add(1);
        self.tally.count_event();
        if self.inbox.lock().is_closed() {
            return;
        }
        if let Err(refusal) = self.charge(Cost::event(text.json().len())) {
            return self.refuse_unprocessed(&text, &refusal);
        }
        let limits = self.connections.messaging.limits();
        let put = self.inbox.lock().put(text, limits);
        match put {
            Put::Queued | Put::Ignored => {}
            Put::StartProcessing => self.schedule(self.connections.scheduling()),
            Put::Refused(text, refusal) => {
                self.connections.counters.overloaded.add(1);
                self.refuse_unprocessed(&text, &refusal);
            }
        }
    }

    /// Refuses an event that was not put into the inbox.
    fn refuse_unprocessed(&self, text: &EventText, refusal: &Refusal) {
        let limits = self.connections.messaging.limits();
        let IncomingEvent { name, reply_to, .. } = self.transport.decode(text, limits);
        self.refuse_at_once(&reply_to, &name, refusal);
    }

    /// Charges the rates for a frame that the transport answers by itself, such as a ping.
    ///
    /// Returns false if it must not be answered: a rate is exceeded, which the client is sent as a
    /// refusal, or the connection is ending.
    pub fn charge_control_frame(&self, name: &'static str, bytes: usize) -> bool {
        self.connections.counters.events.add(1);
        if self.inbox.lock().is_closed() {
            return false;
        }
        match self.charge(Cost::event(bytes)) {
            Ok(()) => true,
            Err(refusal) => {
                let name = RequestName::Other(name.into());
                self.refuse_at_once(&ReplyTo::None, &name, &refusal);
                false
            }
        }
    }

    /// Charges the rates of the connection, its address and its user. Closes a connection that
    /// keeps exceeding them.
    pub(super) fn charge(&self, cost: Cost) -> Result<(), Refusal> {
        let charged = self.charge_rates(cost);
        if charged.is_err() {
            self.count_rate_refusal();
        }
        charged
    }

    fn charge_rates(&self, cost: Cost) -> Result<(), Refusal> {
        let Connections {
            messaging,
            admission,
            ..
        } = &*self.connections;
        let rates = &messaging.limits().socket;
        if !rates.are_off_for(cost) {
            let charged = self.inbox.lock().charge(rates, cost, Instant::now());
            charged.map_err(|exceeded| Refusal::rate_limited(exceeded, ""))?;
        }
        admission.spend(self.client, cost)?;
        if let Some(identity) = &*self.identity.lock() {
            let charged = messaging.user_rates().spend(&identity.user, cost);
            charged.map_err(|exceeded| Refusal::rate_limited(exceeded, " of this user"))?;
        }
        Ok(())
    }

    fn count_rate_refusal(&self) {
        let Connections {
            messaging,
            counters,
            ..
        } = &*self.connections;
        counters.rate_limited.add(1);
        let is_abuse = self
            .inbox
            .lock()
            .record_rate_refusal(messaging.limits(), Instant::now());
        if is_abuse {
            counters.closed_rate_limited.add(1);
            self.close_transport(CloseReason::RateLimitAbuse);
        }
    }

    /// Closes the transport in such a way that the client reconnects by itself.
    pub(super) fn close_transport(&self, reason: CloseReason) {
        self.set_end_reason(match reason {
            CloseReason::RateLimitAbuse => EndReason::RateLimited,
            CloseReason::Fault => EndReason::Fault,
            CloseReason::NotAuthenticated => EndReason::AuthenticationTimeout,
        });
        self.transport.close(reason);
    }

    /// Subscribes the outlet to broadcasts. Returns when everything that is published from then on
    /// is certain to reach the outlet, after `on_subscribed` was called with the position; a replay
    /// may still be under way.
    ///
    /// It runs in a task of its own, because the caller may be dropped before it is done.
    ///
    /// # Errors
    /// `forbidden`, `unavailable`, `overloaded`.
    pub async fn listen(
        self: &Arc<Self>,
        outlet: Arc<dyn Outlet>,
        from: ReplayFrom,
        on_subscribed: impl FnOnce(&JoinOutcome) + Send + 'static,
    ) -> Result<(), Refusal> {
        let (subscribed_sender, subscribed) = oneshot::channel();
        let this = self.clone();
        let listening = tokio::spawn(async move {
            let mut state = this.state.lock().await;
            let permit = state.may_listen()?;
            let on_joined = Box::new(move |outcome: &JoinOutcome| {
                on_subscribed(outcome);
                // An error means that the caller was dropped.
                let _ = subscribed_sender.send(());
            });
            let messaging = &this.connections.messaging;
            messaging
                .listen(&mut state, permit, outlet, from, on_joined)
                .await
        });
        if subscribed.await.is_ok() {
            return Ok(());
        }
        // The callback was dropped without a call: the task has failed, and returns the reason.
        listening.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// The refusal of a call if its task was dropped with the runtime.
pub(super) fn stopping() -> Refusal {
    Refusal::new(Code::Unavailable, "this node is about to stop")
}

impl Drop for Connection {
    /// Reports the loss of a connection that was dropped before its loss was processed.
    fn drop(&mut self) {
        self.log_closed();
        self.set_deadline(None);
        if let Some(identity) = self.identity.get_mut() {
            self.connections.users.remove(&identity.user, self.number);
        }
        let state = self.state.get_mut();
        if state.authenticated().is_err() {
            return;
        }
        let mut state = std::mem::replace(state, ConnectionState::placeholder());
        let messaging = self.connections.messaging.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { messaging.lost(&mut state).await });
        }
    }
}
