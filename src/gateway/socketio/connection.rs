//! One socket: takes up its events one after another, and is the way its answers go out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engineioxide::{Frame, SessionHandle};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::deadlines::Deadline;
use super::inbox::{Arrived, Inbox, Put};
use super::outlet::SocketOutlet;
use super::{Gateway, packet};
use crate::auth::Identity;
use crate::chat::Session;
use crate::domain::{Code, ConnId, Refusal};
use crate::gateway::wire::{
    Authenticated, Decoded, EventName, Exception, HistoryAck, JoinAck, LeaveAck, MessageAck, StatusJson, TargetAck,
    decode, encode_named, refusal_ack,
};

/// How long a client that was sent away has to end the connection by itself.
const FAREWELL: Duration = Duration::from_secs(2);

pub(super) struct Connection {
    gateway: Arc<Gateway>,
    conn: ConnId,
    handle: SessionHandle,
    inbox: Mutex<Inbox>,
    /// Taken by whoever handles an event or the loss; never by two at once, as the inbox has one task.
    session: tokio::sync::Mutex<Session>,
    identity: Mutex<Option<Identity>>,
    lost: AtomicBool,
}

/// Where the answer to an event goes.
struct Answer {
    handle: SessionHandle,
    ack: Option<i64>,
    event: String,
    gateway: Arc<Gateway>,
}

impl Answer {
    fn done<T: Serialize>(&self, payload: &T) {
        if let Some(id) = self.ack {
            self.handle.send(&packet::ack(id, payload));
        }
    }

    fn refused(&self, refusal: &Refusal) {
        self.gateway.counters.refused.add(1);
        tracing::debug!(event = self.event, code = refusal.code.as_str(), "refused");
        match self.ack {
            Some(id) => self.handle.send(&packet::ack(id, &refusal_ack(refusal))),
            None => {
                let exception = Exception::of(refusal, Some(&self.event));
                self.handle.send(&Frame::text(&encode_named(EventName::Exception, &exception)))
            }
        };
    }
}

impl Connection {
    pub fn new(gateway: Arc<Gateway>, conn: ConnId, handle: SessionHandle) -> Arc<Self> {
        let half = gateway.settings.outbox_bytes / 2;
        let (outlet_conn, outlet_handle) = (conn.clone(), handle.clone());
        let make_outlet = Box::new(move |user: &crate::domain::UserId| {
            let (conn, user, handle) = (outlet_conn.clone(), user.clone(), outlet_handle.clone());
            Arc::new(SocketOutlet { conn, user, handle, half }) as Arc<dyn crate::delivery::Outlet>
        });
        Arc::new(Self {
            inbox: Mutex::new(Inbox::new(gateway.chat.limits())),
            session: tokio::sync::Mutex::new(Session::new(conn.clone(), make_outlet)),
            identity: Mutex::new(None),
            lost: AtomicBool::new(false),
            gateway,
            conn,
            handle,
        })
    }

    /// Takes in an event, or answers at once why not.
    pub fn receive(self: &Arc<Self>, arrived: Arrived) {
        self.gateway.counters.events.add(1);
        let (ack, json) = (arrived.ack, arrived.json.clone());
        let put = self.inbox.lock().put(arrived, self.gateway.chat.limits());
        match put {
            Put::Queued | Put::Ignored => {}
            Put::Start => self.take_up(),
            Put::Refused(refusal) => {
                let counters = &self.gateway.counters;
                let counter =
                    if refusal.code == Code::RateLimited { &counters.rate_limited } else { &counters.overloaded };
                counter.add(1);
                let (event, _) = decode(&json, self.gateway.chat.limits());
                self.answer(ack, event).refused(&refusal);
            }
        }
    }

    /// CONNECT is answered: says who one is, and begins with what waits.
    pub async fn start(self: &Arc<Self>) {
        let identity = self.identity.lock().clone();
        if let Some(identity) = identity {
            self.say_authenticated(&identity);
        }
        if self.inbox.lock().open() {
            self.take_up();
        }
        if self.handle.is_closed() {
            self.lost();
        }
    }

    fn take_up(self: &Arc<Self>) {
        let this = self.clone();
        let span = tracing::debug_span!("socket", conn = %self.conn);
        tokio::spawn(
            async move {
                loop {
                    let Some(arrived) = this.inbox.lock().next() else { return };
                    this.wait_for_room().await;
                    this.handle_event(arrived).await;
                }
            }
            .instrument(span),
        );
    }

    /// Every answer is paced: nothing new is taken up while half of the outbox is unwritten.
    async fn wait_for_room(&self) {
        let half = self.gateway.settings.outbox_bytes / 2;
        if self.handle.unwritten() < half {
            return;
        }
        let (wake, woken) = oneshot::channel::<()>();
        self.handle.when_below(half, Box::new(move || drop(wake)));
        let _ = woken.await;
    }

    fn answer(&self, ack: Option<i64>, event: String) -> Answer {
        Answer { handle: self.handle.clone(), ack, event, gateway: self.gateway.clone() }
    }

    async fn handle_event(self: &Arc<Self>, arrived: Arrived) {
        let chat = &self.gateway.chat;
        let (event, decoded) = decode(&arrived.json, chat.limits());
        let answer = self.answer(arrived.ack, event);
        let mut session = self.session.lock().await;
        if answer.event != "authenticate"
            && let Err(refusal) = session.member()
        {
            return answer.refused(&refusal);
        }
        let decoded = match decoded {
            Ok(_) if arrived.binary => Err(Refusal::bad_request("the payload must not hold attachments")),
            decoded => decoded,
        };
        let session = &mut *session;
        match decoded {
            Err(refusal) => answer.refused(&refusal),
            Ok(Decoded::Authenticate(claimed)) => {
                let current = self.identity.lock().clone();
                let identity = self.gateway.auth.identify(claimed, current.as_ref());
                match identity {
                    Ok(identity) => match self.bind(session, identity).await {
                        Ok(identity) => {
                            let (user_id, username) = (identity.user.as_str(), identity.username.as_str());
                            answer.done(&Authenticated { ok: Some(true), user_id, username });
                            self.say_authenticated(&identity);
                        }
                        Err(refusal) => answer.refused(&refusal),
                    },
                    Err(refusal) => answer.refused(&refusal),
                }
            }
            Ok(Decoded::Join(room, start)) => {
                let span = tracing::debug_span!("join", %room);
                let named = room.clone();
                let reply = Box::new(move |outcome: Result<_, Refusal>| match outcome {
                    Ok(outcome) => answer.done(&JoinAck::of(&named, &outcome)),
                    Err(refusal) => answer.refused(&refusal),
                });
                chat.join(session, room, start, reply).instrument(span).await;
            }
            Ok(Decoded::Leave(room)) => match chat.leave(session, &room).await {
                Ok(()) => answer.done(&LeaveAck::of(&room)),
                Err(refusal) => answer.refused(&refusal),
            },
            Ok(Decoded::Message(room, fields)) => {
                let span = tracing::debug_span!("message", %room);
                match chat.send(session, room.clone(), fields).instrument(span).await {
                    Ok(appended) => answer.done(&MessageAck::of(&room, &appended)),
                    Err(refusal) => answer.refused(&refusal),
                }
            }
            Ok(Decoded::SubscribeStatus(target)) => {
                let reply = Box::new(move |status: Result<&_, Refusal>| match status {
                    Ok(status) => answer.done(&StatusJson::ack(status)),
                    Err(refusal) => answer.refused(&refusal),
                });
                chat.watch(session, target, reply).await;
            }
            Ok(Decoded::UnsubscribeStatus(target)) => match chat.unwatch(session, &target).await {
                Ok(()) => answer.done(&TargetAck::of(&target)),
                Err(refusal) => answer.refused(&refusal),
            },
            Ok(Decoded::History(request)) => {
                match chat.history(session, &request.room, request.window, request.limit).await {
                    Ok(page) => answer.done(&HistoryAck::of(&request.room, &page, Some(true))),
                    Err(refusal) => answer.refused(&refusal),
                }
            }
            Ok(Decoded::Typing(room, typing)) => match chat.typing(session, room.clone(), typing).await {
                Ok(()) => answer.done(&LeaveAck::of(&room)),
                Err(refusal) => answer.refused(&refusal),
            },
        }
    }

    /// Binds the connection to who was found in its handshake.
    pub async fn authenticate(self: &Arc<Self>, identity: Identity) -> Result<(), Refusal> {
        let mut session = self.session.lock().await;
        self.bind(&mut session, identity).await.map(drop)
    }

    async fn bind(self: &Arc<Self>, session: &mut Session, identity: Identity) -> Result<Identity, Refusal> {
        let chat = &self.gateway.chat;
        chat.authenticate(session, identity.user.clone(), identity.username.clone()).await?;
        *self.identity.lock() = Some(identity.clone());
        if let Some(expires_at) = identity.expires_at {
            let left = Duration::from_secs(expires_at).saturating_sub(now());
            self.gateway.deadlines.add(left, Deadline::Expire(Arc::downgrade(self)));
        }
        Ok(identity)
    }

    fn say_authenticated(&self, identity: &Identity) {
        let (user_id, username) = (identity.user.as_str(), identity.username.as_str());
        let payload = Authenticated { ok: None, user_id, username };
        self.handle.send(&Frame::text(&encode_named(EventName::Authenticated, &payload)));
    }

    pub fn end_unless_authenticated(self: &Arc<Self>) {
        if self.identity.lock().is_none() {
            self.send_away(&Refusal::new(Code::Unauthorized, "nobody said in time who this is"));
        }
    }

    pub fn end_if_expired(self: &Arc<Self>) {
        let expired = self.identity.lock().as_ref().and_then(|identity| identity.expires_at);
        if expired.is_some_and(|at| Duration::from_secs(at) <= now()) {
            self.send_away(&Refusal::new(Code::TokenExpired, "the token has expired"));
        }
    }

    /// Ends the connection so that the client doesn't come back by itself: only for faults of identity.
    fn send_away(self: &Arc<Self>, refusal: &Refusal) {
        if self.inbox.lock().end() {
            let exception = Exception::of(refusal, None);
            self.handle.send(&Frame::text(&encode_named(EventName::Exception, &exception)));
            self.handle.send(&packet::disconnect());
            self.gateway.deadlines.add(FAREWELL, Deadline::Close(self.handle.clone()));
        }
        self.lost();
    }

    /// The connection is gone, or counts as gone. Only the first call does something; events under way are finished first.
    pub fn lost(self: &Arc<Self>) {
        self.inbox.lock().end();
        if !self.lost.swap(true, Ordering::AcqRel) {
            let this = self.clone();
            let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
            runtime.spawn(async move {
                let mut session = this.session.lock().await;
                this.gateway.chat.lost(&mut session).await;
            });
        }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
