//! One connection: takes up its events one after another, and answers them.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engineioxide::Waiting;
use futures_util::FutureExt;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::deadlines::{Deadline, Key};
use super::inbox::{Arrived, Inbox, Next, Put};
use super::{ClientTransport, CloseReason, Connections, IncomingEvent, ReplyTo};
use crate::auth::Identity;
use crate::delivery::{JoinOutcome, Outlet, ReplayFrom};
use crate::domain::{Code, ConnId, Cost, Limits, OnlineStatus, Refusal, RoomId, UserId};
use crate::features::messaging::ConnectionState;
use crate::gateway::wire::{
    Authenticated, Decoded, EventName, Exception, HistoryAck, JoinAck, LeaveAck, MessageAck,
    StatusJson, TargetAck, refusal_ack,
};
use crate::server::Client;

/// Events of a connection that are taken up before others have their turn.
const AT_ONCE: usize = 128;

/// A client's connection to this node.
pub struct Connection {
    connections: Arc<Connections>,
    conn: ConnId,
    /// Sets it apart from the others of this node.
    number: u64,
    line: Arc<dyn ClientTransport>,
    /// Whose address it counts for.
    client: Option<Client>,
    inbox: Mutex<Inbox>,
    /// Taken by whoever handles an event or the loss; never by two at once, as the inbox has one task.
    session: tokio::sync::Mutex<ConnectionState>,
    identity: Mutex<Option<Identity>>,
    /// Bytes sent to rooms since it was last made sure that what comes back of them is in the outbox.
    unsettled: AtomicUsize,
    /// What will happen to it, unless it is taken back.
    deadline: Mutex<Option<Key>>,
}

/// Where the answer to an event goes.
#[derive(Clone)]
struct Reply {
    line: Arc<dyn ClientTransport>,
    reference: ReplyTo,
    event: Cow<'static, str>,
    connections: Arc<Connections>,
}

fn json<T: Serialize>(payload: &T) -> String {
    serde_json::to_string(payload).expect("the wire's shapes always serialise")
}

impl Reply {
    fn done<T: Serialize>(&self, payload: &T) {
        if self.reference != ReplyTo::None {
            self.line.answer(&self.reference, &json(payload));
        }
    }

    fn refused(&self, refusal: &Refusal) {
        self.connections.counters.refused.add(1);
        tracing::debug!(event = %self.event, code = refusal.code.as_str(), "refused");
        match self.reference {
            ReplyTo::None => {
                self.line.tell(
                    EventName::Exception,
                    &json(&Exception::of(refusal, Some(&self.event))),
                );
            }
            ReplyTo::Ack(_) | ReplyTo::Ref(_) => self.done(&refusal_ack(refusal)),
        }
    }
}

impl Connection {
    pub(super) fn new(
        connections: Arc<Connections>,
        conn: ConnId,
        number: u64,
        line: Arc<dyn ClientTransport>,
        client: Option<Client>,
    ) -> Arc<Self> {
        let (outlet_conn, outlet_line) = (conn.clone(), line.clone());
        let make_outlet = Box::new(move |user: &UserId| outlet_line.outlet(&outlet_conn, user));
        Arc::new(Self {
            inbox: Mutex::new(Inbox::new(connections.inbox_bytes.clone())),
            session: tokio::sync::Mutex::new(ConnectionState::new(conn.clone(), make_outlet)),
            identity: Mutex::new(None),
            unsettled: AtomicUsize::new(0),
            deadline: Mutex::new(None),
            connections,
            conn,
            number,
            line,
            client,
        })
    }

    /// Sets it apart from every other in the cluster.
    #[must_use]
    pub fn id(&self) -> &ConnId {
        &self.conn
    }

    /// Takes in an event, or answers at once why not.
    pub fn receive(self: &Arc<Self>, arrived: Arrived) {
        self.connections.counters.events.add(1);
        if self.inbox.lock().is_ending() {
            return;
        }
        let (arrived, refusal) = match self.spend(Cost::event(arrived.json().len())) {
            Err(refusal) => (arrived, refusal),
            Ok(()) => {
                let put = self
                    .inbox
                    .lock()
                    .put(arrived, self.connections.chat.limits());
                match put {
                    Put::Queued | Put::Ignored => return,
                    Put::StartTask if self.connections.work_in_line() => {
                        return self.connections.work.wait(self.clone());
                    }
                    Put::StartTask if self.connections.chat.is_alone() => {
                        return self.take_up_here();
                    }
                    Put::StartTask => return self.take_up(),
                    Put::Refused(arrived, refusal) => {
                        self.connections.counters.overloaded.add(1);
                        (arrived, refusal)
                    }
                }
            }
        };
        let IncomingEvent {
            event, reference, ..
        } = self.line.decode(&arrived, self.connections.chat.limits());
        self.answer(reference, event).refused(&refusal);
    }

    /// Spends of its rates for an event that its door answers by itself. False: not now, which the client has been told (or
    /// nobody listens any more).
    pub fn spend_aside(&self, event: &str, bytes: usize) -> bool {
        self.connections.counters.events.add(1);
        if self.inbox.lock().is_ending() {
            return false;
        }
        let refused = self.spend(Cost::event(bytes)).err();
        if let Some(refusal) = &refused {
            self.answer(ReplyTo::None, event.to_owned())
                .refused(refusal);
        }
        refused.is_none()
    }

    /// Spends of what the socket, its address and its user may. Who is refused again and again and doesn't care is closed.
    fn spend(&self, cost: Cost) -> Result<(), Refusal> {
        let (chat, rates) = (
            &self.connections.chat,
            &self.connections.chat.limits().socket,
        );
        let of_socket = if rates.are_off_for(cost) {
            Ok(())
        } else {
            self.inbox.lock().spend(rates, cost, Instant::now())
        };
        let spent = of_socket
            .map_err(|exceeded| Refusal::rate_limited(exceeded, ""))
            .and_then(|()| {
                self.connections.admission.spend(self.client, cost)?;
                let identity = self.identity.lock();
                let of_user = identity.as_ref().map_or(Ok(()), |identity| {
                    chat.user_rates().spend(&identity.user, cost)
                });
                of_user.map_err(|exceeded| Refusal::rate_limited(exceeded, " of this user"))
            });
        spent.inspect_err(|_| {
            self.connections.counters.rate_limited.add(1);
            if self
                .inbox
                .lock()
                .is_abusing_rate_limit(chat.limits(), Instant::now())
            {
                self.connections.counters.closed_rate_limited.add(1);
                tracing::debug!(conn = %self.conn, "refused again and again: closed");
                self.line.close(CloseReason::RateLimitAbuse);
            }
        })
    }

    /// The client is let in: begins with what waits.
    pub fn start(self: &Arc<Self>) {
        if self.inbox.lock().open() {
            self.take_up();
        }
        if self.line.is_closed() {
            self.lost();
        }
    }

    /// As [`Self::take_up`], but a task is made only where something has to be waited for. That is for a node on its own:
    /// with Redis there always is, and the reader would be kept for nothing.
    fn take_up_here(self: &Arc<Self>) {
        let mut work = Box::pin(self.work());
        // Nobody has to be woken by this first look: the task looks again.
        if work
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
        {
            tokio::spawn(work);
        }
    }

    /// Makes the task that takes up what is in the inbox.
    fn take_up(self: &Arc<Self>) {
        tokio::spawn(Box::pin(self.work()));
    }

    /// Takes up one event after another, until there is none.
    fn work(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let this = self.clone();
        let span = tracing::debug_span!("socket", conn = %self.conn);
        let work = async move {
            let mut taken = 0;
            loop {
                if taken == AT_ONCE {
                    // Nobody else puts it into the line, nor makes a task for it, as long as it isn't idle.
                    if this.connections.work_in_line() {
                        return this.connections.work.wait(this.clone());
                    }
                    tokio::task::yield_now().await;
                    taken = 0;
                }
                taken += 1;
                // The lock is given back before the event is handled.
                let next = this.inbox.lock().next();
                match next {
                    Next::Event(arrived) => {
                        this.wait_for(this.connections.outbox_bytes / 2).await;
                        let handled = AssertUnwindSafe(this.handle_event(arrived))
                            .catch_unwind()
                            .await;
                        if handled.is_err() {
                            tracing::error!("handling an event panicked; the connection is closed");
                            this.line.close(CloseReason::Fault);
                        }
                    }
                    Next::Loss => {
                        let lost = async {
                            this.connections
                                .chat
                                .lost(&mut *this.session.lock().await)
                                .await
                        };
                        if AssertUnwindSafe(lost).catch_unwind().await.is_err() {
                            tracing::error!("handling the loss of a connection panicked");
                        }
                    }
                    Next::Nothing => return,
                }
            }
        };
        work.instrument(span)
    }

    /// Every answer is paced: nothing new is taken up while half of the outbox is unwritten.
    async fn wait_for(&self, unwritten: usize) {
        if self.line.unwritten() < unwritten {
            return;
        }
        let (wake, woken) = oneshot::channel::<()>();
        self.line
            .when_below(unwritten, Box::new(move || drop(wake)));
        let _ = woken.await;
    }

    fn answer(&self, reference: ReplyTo, event: impl Into<Cow<'static, str>>) -> Reply {
        Reply {
            line: self.line.clone(),
            reference,
            event: event.into(),
            connections: self.connections.clone(),
        }
    }

    /// Most often it is a message. What is rarer is boxed, so that the future isn't as large as the largest.
    async fn handle_event(self: &Arc<Self>, arrived: Arrived) {
        let chat = &self.connections.chat;
        let IncomingEvent {
            event,
            reference,
            decoded,
        } = self.line.decode(&arrived, chat.limits());
        let answer = self.answer(reference, event);
        let mut session = self.session.lock().await;
        if answer.event != "authenticate"
            && let Err(refusal) = session.authenticated()
        {
            return answer.refused(&refusal);
        }
        let session = &mut *session;
        match decoded {
            Err(refusal) => answer.refused(&refusal),
            Ok(Decoded::Authenticate(claimed)) => {
                let current = self.identity.lock().clone();
                let bound = async {
                    let identity = self
                        .connections
                        .auth
                        .identify(claimed, current.as_ref())
                        .await?;
                    self.bind(session, identity).await
                };
                match Box::pin(bound).await {
                    Ok((identity, left)) => {
                        let (user_id, username) =
                            (identity.user.as_str(), identity.username.as_str());
                        answer.done(&Authenticated {
                            ok: Some(true),
                            user_id,
                            username,
                        });
                        self.say_authenticated(&identity);
                        left.iter().for_each(|room| self.say_left(room));
                    }
                    Err(refusal) => answer.refused(&refusal),
                }
            }
            Ok(Decoded::Join(room, start)) => {
                if let Err(refusal) = self.spend(Cost::JOIN) {
                    return answer.refused(&refusal);
                }
                let span = tracing::debug_span!("join", %room);
                let (acknowledgement, named) = (answer.clone(), room.clone());
                let on_joined = Box::new(move |outcome: &JoinOutcome| {
                    acknowledgement.done(&JoinAck::of(&named, outcome));
                });
                let joined = async {
                    let permit = session.may_join(&room)?;
                    chat.join(session, permit, start, on_joined).await
                };
                if let Err(refusal) = Box::pin(joined.instrument(span)).await {
                    answer.refused(&refusal);
                }
            }
            Ok(Decoded::Leave(room)) => match Box::pin(chat.leave(session, &room)).await {
                Ok(()) => answer.done(&LeaveAck::of(&room)),
                Err(refusal) => answer.refused(&refusal),
            },
            Ok(Decoded::Message(room, fields)) => {
                let span = tracing::debug_span!("message", %room);
                let sent = async { chat.send(session, session.may_send(&room)?, fields).await };
                match sent.instrument(span).await {
                    Ok(appended) => {
                        answer.done(&MessageAck::of(&room, &appended));
                        self.settle(&room, arrived.json().len()).await;
                    }
                    Err(refusal) => answer.refused(&refusal),
                }
            }
            Ok(Decoded::SubscribeStatus(target)) => {
                let acknowledgement = answer.clone();
                let on_watched = Box::new(move |status: &OnlineStatus| {
                    acknowledgement.done(&StatusJson::ack(status));
                });
                if let Err(refusal) = Box::pin(chat.watch(session, target, on_watched)).await {
                    answer.refused(&refusal);
                }
            }
            Ok(Decoded::UnsubscribeStatus(target)) => {
                match Box::pin(chat.unwatch(session, &target)).await {
                    Ok(()) => answer.done(&TargetAck::of(&target)),
                    Err(refusal) => answer.refused(&refusal),
                }
            }
            Ok(Decoded::History(request)) => {
                // The largest of all answers: it may take half of the outbox, and so must find half of it free after this.
                let half = self.connections.outbox_bytes / 2;
                self.wait_for(half / 2).await;
                let bytes = Limits::HISTORY_BYTES.min(half);
                let read = async {
                    chat.read(
                        &session.may_read(&request.room)?,
                        request.window,
                        request.limit,
                        bytes,
                    )
                    .await
                };
                match Box::pin(read).await {
                    Ok(page) => answer.done(&HistoryAck::of(&request.room, &page, Some(true))),
                    Err(refusal) => answer.refused(&refusal),
                }
            }
            Ok(Decoded::Typing(room, typing)) => {
                let told = async { chat.typing(session, session.may_send(&room)?, typing).await };
                match told.await {
                    Ok(()) => answer.done(&LeaveAck::of(&room)),
                    Err(refusal) => answer.refused(&refusal),
                }
            }
        }
    }

    /// Lets the outlet hear broadcasts. Returns once what follows is certain to reach it, and where it begins; the replay goes
    /// on meanwhile.
    ///
    /// # Errors
    /// `forbidden`, `unavailable`, `overloaded`.
    pub async fn listen(
        self: &Arc<Self>,
        outlet: Arc<dyn Outlet>,
        start: ReplayFrom,
        tell: impl FnOnce(&JoinOutcome) + Send + 'static,
    ) -> Result<(), Refusal> {
        let (attached, is_attached) = oneshot::channel();
        let this = self.clone();
        let listening = tokio::spawn(async move {
            let mut session = this.session.lock().await;
            let permit = session.may_listen()?;
            let on_joined = Box::new(move |outcome: &JoinOutcome| {
                tell(outcome);
                // The handshake that waits for it may have been given up.
                let _ = attached.send(());
            });
            this.connections
                .chat
                .listen(&mut session, permit, outlet, start, on_joined)
                .await
        });
        if is_attached.await.is_ok() {
            return Ok(());
        }
        // The callback was dropped without a call: the task has failed, and returns the reason.
        listening.await.unwrap_or_else(|_| {
            Err(Refusal::new(
                Code::Unavailable,
                "this node is about to stop",
            ))
        })
    }

    /// Every now and then waits for what was sent to come back, so that pacing knows of it.
    async fn settle(&self, room: &RoomId, bytes: usize) {
        let unsettled = self.unsettled.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unsettled > self.connections.outbox_bytes / 8 {
            self.unsettled.store(0, Ordering::Relaxed);
            self.connections.chat.flush(room).await;
        }
    }

    /// Binds the connection to who was found in its handshake. In a task of its own, for whoever waits may go before it is done:
    /// then the loss comes after it, and undoes it.
    ///
    /// # Errors
    /// `rate_limited`, `too_many_connections`, `unavailable`.
    pub async fn authenticate(self: &Arc<Self>, identity: Identity) -> Result<(), Refusal> {
        let this = self.clone();
        let bound = tokio::spawn(async move {
            let mut session = this.session.lock().await;
            if this.inbox.lock().is_ending() {
                // The loss may have come before, and wouldn't come again.
                return Err(Refusal::new(Code::Unavailable, "the connection is gone"));
            }
            this.bind(&mut session, identity).await.map(drop)
        });
        bound.await.unwrap_or_else(|_| {
            Err(Refusal::new(
                Code::Unavailable,
                "this node is about to stop",
            ))
        })
    }

    /// Also returns the rooms that it had to leave, as the identity doesn't reach them.
    async fn bind(
        self: &Arc<Self>,
        session: &mut ConnectionState,
        identity: Identity,
    ) -> Result<(Identity, Vec<RoomId>), Refusal> {
        let Connections { chat, users, .. } = &*self.connections;
        let new = session.authenticated().is_err();
        if new {
            let spent = chat.user_rates().spend(&identity.user, Cost::CONNECT);
            spent.map_err(|exceeded| Refusal::rate_limited(exceeded, " of this user"))?;
        }
        // First: so that no call to end the user's connections, once this one counts, passes it over.
        users.insert(&identity.user, self.number, self);
        let Identity {
            user,
            username,
            reach,
            ..
        } = identity.clone();
        let bound = chat.authenticate(session, user, username, reach).await;
        if bound.is_err() && new {
            users.remove(&identity.user, self.number);
        }
        let left = bound?;
        *self.identity.lock() = Some(identity.clone());
        self.line.introduce();
        self.expect_expiry();
        Ok((identity, left))
    }

    /// From now on until the end, or the next call, this is what will happen to the connection.
    fn set_deadline(&self, deadline: Option<(Duration, Deadline)>) {
        let mut current = self.deadline.lock();
        if let Some(key) = current.take() {
            self.connections.deadlines.remove(key);
        }
        *current =
            deadline.and_then(|(after, deadline)| self.connections.deadlines.add(after, deadline));
    }

    /// Whoever hasn't said in time who it is will be sent away.
    pub fn expect_authentication(self: &Arc<Self>) {
        let after = self.connections.chat.limits().auth_timeout;
        self.set_deadline(Some((
            after,
            self.unless_gone(Self::end_unless_authenticated),
        )));
    }

    fn expect_expiry(self: &Arc<Self>) {
        let expires_at = self
            .identity
            .lock()
            .as_ref()
            .and_then(|identity| identity.expires_at);
        let left = expires_at.map(|at| Duration::from_secs(at).saturating_sub(now()));
        self.set_deadline(left.map(|left| (left, self.unless_gone(Self::end_if_expired))));
    }

    /// What is to be done by a deadline, which doesn't hold on to the connection.
    fn unless_gone(self: &Arc<Self>, act: fn(&Arc<Self>)) -> Deadline {
        let weak = Arc::downgrade(self);
        Box::new(move || {
            if let Some(connection) = weak.upgrade() {
                act(&connection);
            }
        })
    }

    /// Says who one is, if that is known.
    pub fn introduce(&self) {
        let identity = self.identity.lock().clone();
        if let Some(identity) = identity {
            self.say_authenticated(&identity);
        }
    }

    fn say_authenticated(&self, identity: &Identity) {
        let (user_id, username) = (identity.user.as_str(), identity.username.as_str());
        self.line.tell(
            EventName::Authenticated,
            &json(&Authenticated {
                ok: None,
                user_id,
                username,
            }),
        );
    }

    /// A later token reaches less than the one by which the room was joined.
    fn say_left(&self, room: &RoomId) {
        let refusal = Refusal::new(
            Code::Forbidden,
            "the new token doesn't reach this room: you have left it",
        );
        self.line.tell(
            EventName::Exception,
            &json(&Exception::of(&refusal, None).about(room)),
        );
    }

    fn end_unless_authenticated(self: &Arc<Self>) {
        if self.identity.lock().is_some() {
            return;
        }
        if self.connections.chat.is_ready() {
            self.send_away(&Refusal::new(
                Code::Unauthorized,
                "nobody said in time who this is",
            ));
        } else {
            // Nobody could have: so this is no fault of identity, and the client may come back by itself.
            self.line.close(CloseReason::Unavailable);
        }
    }

    fn end_if_expired(self: &Arc<Self>) {
        let expires_at = self
            .identity
            .lock()
            .as_ref()
            .and_then(|identity| identity.expires_at);
        match expires_at {
            Some(at) if Duration::from_secs(at) <= now() => {
                self.send_away(&Refusal::new(Code::TokenExpired, "the token has expired"));
            }
            // Prolonged, or the clock was set back.
            _ => self.expect_expiry(),
        }
    }

    /// A service wants this user's connections to end.
    pub fn end_by_service(self: &Arc<Self>) {
        self.send_away(&Refusal::new(
            Code::Forbidden,
            "a service has ended the connections of this user",
        ));
    }

    /// Ends the connection so that the client doesn't come back by itself: only for faults of identity.
    fn send_away(self: &Arc<Self>, refusal: &Refusal) {
        if !self.inbox.lock().is_ending() {
            self.line.send_away(refusal);
        }
        // What waits was sent by someone who may no longer.
        self.end(true);
    }

    /// The connection is gone, or counts as gone: what was sent before is still taken up, and then the loss is told, once.
    pub fn lost(self: &Arc<Self>) {
        self.end(false);
    }

    fn end(self: &Arc<Self>, dropped: bool) {
        let start = self.inbox.lock().end(dropped);
        self.set_deadline(None);
        self.line.ended();
        if start {
            self.take_up();
        }
    }
}

impl Waiting for Connection {
    fn begin_turn(self: Arc<Self>) {
        if catch_unwind(AssertUnwindSafe(|| self.take_up_here())).is_err() {
            tracing::error!(conn = %self.conn, "taking up events panicked; the connection is closed");
            self.line.close(CloseReason::Fault);
        }
    }
}

impl Drop for Connection {
    /// A connection that was let in, but died before anyone could tell of its loss.
    fn drop(&mut self) {
        self.set_deadline(None);
        if let Some(identity) = self.identity.get_mut() {
            self.connections.users.remove(&identity.user, self.number);
        }
        let session = self.session.get_mut();
        if session.authenticated().is_err() {
            return;
        }
        let mut session = std::mem::replace(session, ConnectionState::placeholder());
        let chat = self.connections.chat.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { chat.lost(&mut session).await });
        }
    }
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
